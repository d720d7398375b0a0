# The benchmark: mix run bench/run.exs, or `make bench`. ONLY=reads,queue runs these groups only; QUICK=1 makes shorter rounds on
# smaller files. Results go to bench/results/.
Code.require_file("build.exs", __DIR__)
Bench.Build.run()
# No reports of applications that are started and stopped.
:logger.set_primary_config(:level, :error)

defmodule Bench.Run do
  alias Bench.{Machine, Results, Summary}

  # In the order of the page; a large file stays in the page cache for the groups that read it.
  @groups ~w(reads writes integers names typed array snapshot table tensors whole lines search queue blocks device open maps guard growth latency languages)

  def run do
    only = System.get_env("ONLY", "") |> String.split([",", " "], trim: true)
    unknown = only -- @groups

    if unknown != [],
      do: raise("no group #{Enum.join(unknown, ", ")}; there are #{Enum.join(@groups, ", ")}")

    groups = if only == [], do: @groups, else: only
    before = Results.headlines(Results.folder())
    base = System.get_env("TMPDIR") || System.tmp_dir!()
    folder = Path.join(base, "emmap_bench_#{System.pid()}")
    File.mkdir_p!(folder)
    machine = Machine.lines(folder)
    begun = System.monotonic_time(:second)

    try do
      for {name, number} <- Enum.with_index(groups, 1),
          do: group(name, "#{number}/#{length(groups)}", folder)
    after
      File.rm_rf!(folder)
    end

    took = System.monotonic_time(:second) - begun
    machine = machine ++ [{"load at the end", Machine.load()}, {"took", "#{took} s"}]
    whole = if only == [], do: machine
    Results.folder() |> Summary.write(whole) |> headlines(before)
    IO.puts("\n#{took} s; the results are in #{Path.relative_to_cwd(Results.folder())}/")
    if Bench.quick?(), do: IO.puts("QUICK: too short to be figures")
  end

  defp group(name, number, folder) do
    module = Module.concat(Bench.Groups, Macro.camelize(name))
    IO.puts("\n[#{number}] #{name}: #{module.title()}")
    begun = System.monotonic_time(:millisecond)
    own = Path.join(folder, name)
    File.mkdir_p!(own)
    items = module.run(own)
    File.rm_rf!(own)
    Results.write(name, module.title(), List.flatten(items))

    IO.puts(
      "#{name}: #{Bench.decimals((System.monotonic_time(:millisecond) - begun) / 1000, 1)} s"
    )
  end

  # Compared with the results that were there.
  defp headlines(headlines, before) do
    before = for {group, text, ratio, _, _} <- before, into: %{}, do: {{group, text}, ratio}
    IO.puts("\nheadline ratios: measured, wanted, and the change since the last results")

    for {group, text, ratio, sense, wanted} <- headlines do
      change =
        case before[{group, text}] do
          none when none in [nil, 0.0] -> ""
          last -> "#{Bench.decimals((ratio / last - 1) * 100, 1)} %"
        end

      mark = if Summary.met?(ratio, sense, wanted), do: "  ", else: "✗ "
      wanted = "#{String.replace(sense, "_", " ")} #{Bench.digits(wanted)}"

      IO.puts([
        mark,
        String.pad_trailing(text, 78),
        String.pad_leading(Bench.digits(ratio), 8),
        "  ",
        String.pad_trailing(wanted, 16),
        change
      ])
    end
  end
end

Bench.Run.run()
