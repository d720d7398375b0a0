# Excluded by default; `make test` and CONTRIBUTING explain how to run them.
# A message may take a second on a busy machine. What must not take long is measured.
# The timeout is for tests that hang; a busy machine needs several times as long as an idle one.
ExUnit.start(
  exclude: [:slow, :install, :broker],
  assert_receive_timeout: 10_000,
  timeout: 300_000
)

# Tests lose many pages; `Emmap.MonitorTest` looks at what is logged of it.
quiet = fn event, _ -> if event.meta[:domain] == [:emmap], do: :stop, else: :ignore end
:ok = :logger.add_handler_filter(:default, :emmap, {quiet, []})
