# `make queue-kills ROUNDS=2000 SEED=1`: see Emmap.Test.QueueKills. What is wrong is printed, with the seed that repeats the
# choices.
alias Emmap.Test.QueueKills

rounds = String.to_integer(System.get_env("ROUNDS", "2000"))
seed = String.to_integer(System.get_env("SEED", "#{:rand.uniform(1_000_000)}"))
directory = Path.join(System.tmp_dir!(), "emmap_queue_kills_#{System.pid()}")
File.mkdir_p!(directory)
IO.puts("seed #{seed}")

namespaces? = match?({_, 0}, System.cmd("unshare", ~w(--pid --fork true), stderr_to_stdout: true))

unless namespaces?, do: IO.puts("no PID namespaces: unshare is missing or not allowed")
if QueueKills.left_out(), do: IO.puts(QueueKills.left_out())

runs =
  [{"one PID namespace", rounds, []}] ++
    if(namespaces?,
      do: [{"four PID namespaces", div(rounds, 4) + 1, [namespaces: true]}],
      else: []
    )

results =
  for {name, rounds, options} <- runs do
    {time, found} =
      :timer.tc(fn -> QueueKills.run(Path.join(directory, name), rounds, seed, options) end)

    pushes = Enum.sort(found.pushes)
    kills = Enum.map_join(found.kills, ", ", fn {kind, count} -> "#{count} of #{kind}" end)

    IO.puts("""
    #{name}, #{div(time, 1_000_000)} s: #{found.kills |> Map.values() |> Enum.sum()} kills (#{kills}; #{found.at_stores} at a store), \
    #{found.pushed} acknowledged pushes, #{found.delivered} deliveries, \
    #{found.acknowledged} acknowledgements
      a survivor's push after a death: median #{Enum.at(pushes, div(length(pushes), 2))} us, \
    longest #{List.last(pushes)} us
    """)

    Enum.each(found.problems, &IO.puts("  WRONG: #{&1}"))
    found
  end

for {what, name} <- [{"hold", "item"}, {"lock", "item, and the lock of the queue"}] do
  times = QueueKills.takeovers(directory, 100, what)
  [least, median, most, longest] = for n <- [0, 50, 98, 99], do: Enum.at(times, n) / 1000

  IO.puts("""
  a waiting survivor has the dead one's #{name}, ms after the kill, of 100: least #{least}, median #{median}, 99 % #{most}, \
  longest #{longest} (at most 10 on a quiet machine)
  """)
end

IO.puts("""
of 1,000 acknowledged operations after kill -9 there are:
""")

for {name, count} <- QueueKills.kept(directory),
    do: IO.puts("  #{String.pad_trailing(name, 12)} #{count}")

if Enum.any?(results, &(&1.problems != [])) do
  IO.puts("the files are in #{directory}")
  System.halt(1)
end

File.rm_rf!(directory)
