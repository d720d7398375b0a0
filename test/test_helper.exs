# Left out by default, and how to run them, is said by `make test` and in CONTRIBUTING.
ExUnit.start(exclude: [:slow, :broker])
