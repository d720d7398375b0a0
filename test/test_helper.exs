# Excluded by default; `make test` and CONTRIBUTING explain how to run them.
ExUnit.start(exclude: [:slow, :install, :broker])

# Tests lose many pages; `Emmap.MonitorTest` looks at what is logged of it.
quiet = fn event, _ -> if event.meta[:domain] == [:emmap], do: :stop, else: :ignore end
:ok = :logger.add_handler_filter(:default, :emmap, {quiet, []})
