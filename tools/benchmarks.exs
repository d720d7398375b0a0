# Compiles the benchmark, and the floor, without running it: mix run tools/benchmarks.exs. A warning is a failure: most of all, a
# function that does not exist.
Code.require_file("../bench/build.exs", __DIR__)
modules = Bench.Build.run(:strict)
IO.puts("#{length(modules)} modules of benchmarks compile")
