# Searching a gigabyte of text compared with grep, and what a search does to the others. Both read from the
# page cache; each of our rounds maps the file anew, as grep opens it anew. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Search do
  import Bench

  @size 1024 * 1024 * 1024
  @block 16 * 1024 * 1024
  @rounds 3

  def run(folder) do
    path = Path.join(folder, "text")
    write_text(path)
    IO.puts(title())
    for {name, patterns} <- patterns(), do: compare(name, path, patterns)
    find_last(path)
    IO.puts("")
    others(path)
    IO.puts("")
    small()
  end

  defp patterns do
    [
      {"absent", ["xylophonist"]},
      {"rare word", ["quicksilver"]},
      {"common word", ["the"]},
      {"one letter", ["e"]},
      {"newline", ["\n"]},
      {"list of 5, absent", ~w(xylophonist zeppelins quagmires walruses juxtapose)},
      {"list of 5, rare and common", ~w(quicksilver from xylophonist that house)}
    ]
  end

  # Lines of words, a few of which make up most of it, as in any language.
  defp write_text(path) do
    :rand.seed(:exsss, {1, 2, 3})
    common = ~w(the of and to in a is that for it was as with be by on not he his but at are from)
    letters = ~c"eeeetttaaooiinnsshhrrddlluccmmwfgypbvk"

    rare =
      for _ <- 1..20_000,
          do: to_string(for _ <- 1..(3 + :rand.uniform(7)), do: Enum.random(letters))

    common = List.to_tuple(common)
    rare = List.to_tuple(rare)

    word = fn ->
      words = if :rand.uniform() < 0.5, do: common, else: rare
      elem(words, :rand.uniform(tuple_size(words)) - 1)
    end

    lines =
      Stream.repeatedly(fn -> [Enum.map_intersperse(1..12, " ", fn _ -> word.() end), "\n"] end)

    block = lines |> Enum.take(300_000) |> IO.iodata_to_binary() |> binary_part(0, @block - 24)

    {:ok, file} = :file.open(path, [:raw, :write])

    for n <- 1..div(amount(@size), @block) do
      rare =
        if rem(n, 8) == 0, do: "some quicksilver it was\n", else: "some silvers that were\n\n"

      :ok = :file.write(file, [block, rare])
    end

    :ok = :file.close(file)
  end

  defp title do
    pad("\nms for #{megabytes(amount(@size))}, best of #{@rounds}", 31) <>
      "    count     find  grep -c grep -cF   ratio (at most 1.5)    matches"
  end

  defp compare(name, path, patterns) do
    # What an absent pattern costs to find is what all of the file costs.
    rounds =
      for _ <- 1..@rounds do
        {count, {:ok, matches}} = on_map(path, &Emmap.count(&1, patterns))
        {find, _} = on_map(path, &Emmap.find(&1, patterns))
        {[count, find, grep(path, patterns, []), grep(path, patterns, ["-F"])], matches}
      end

    [count, find, grep, fixed] = rounds |> Enum.map(&elem(&1, 0)) |> Enum.zip_with(&Enum.min/1)

    IO.puts([
      pad(name, 30),
      Enum.map([count, find, grep, fixed], &left("#{div(&1, 1000)}", 9)),
      left(decimals(count / min(grep, fixed), 2), 8),
      left("#{elem(hd(rounds), 1)}", 26)
    ])
  end

  defp on_map(path, act) do
    :timer.tc(fn ->
      {:ok, mem} = Emmap.open(path)
      result = act.(mem)
      :ok = Emmap.close(mem)
      result
    end)
  end

  defp grep(path, patterns, options) do
    patterns = Enum.flat_map(patterns, &["-e", &1])
    # To grep a newline is two empty patterns, so every line: the same count.
    environment = [env: [{"LC_ALL", "C"}]]
    arguments = ["-c"] ++ options ++ patterns ++ [path]
    {time, {_, status}} = :timer.tc(fn -> System.cmd("grep", arguments, environment) end)
    true = status in [0, 1]
    time
  end

  defp find_last(path) do
    for {name, patterns} <- [{"one", "xylophonist"}, {"list of 5", ~w(xylo zeppl quagm walr jux)}] do
      times = for _ <- 1..@rounds, do: elem(on_map(path, &Emmap.rfind(&1, patterns)), 0)
      IO.puts("rfind, absent, #{name}: #{div(Enum.min(times), 1000)} ms")
    end
  end

  # A process that sleeps a millisecond, over and over, and by how much it was late at worst.
  defp others(path) do
    {:ok, mem} = Emmap.open(path)
    all = megabytes(amount(@size))
    absent = ~w(xylophonist zeppelins quagmires walruses juxtapose)

    for {name, act} <- [
          {"nothing", fn -> Process.sleep(500) end},
          {"a find of #{all}", fn -> :nomatch = Emmap.find(mem, "xylophonist") end},
          {"a count of #{all}", fn -> {:ok, _} = Emmap.count(mem, "the") end},
          {"a find_all of #{all}", fn -> {:ok, _} = Emmap.find_all(mem, "quicksilver") end},
          {"two counts of lists", fn -> twice(fn -> Emmap.count(mem, absent) end) end}
        ] do
      ticked(name, act)
    end
  end

  defp twice(act), do: Task.await_many([Task.async(act), Task.async(act)], :infinity)

  defp small do
    {:ok, mem} = Emmap.open([:anon, size: 65_536])
    data = :binary.copy("0123456789abcdef", 4096)
    :ok = Emmap.pwrite(mem, 0, data)
    compiled = Emmap.compile_pattern("needle")
    five = Emmap.compile_pattern(~w(needle pin thorn nail hook))
    otp = :binary.compile_pattern("needle")
    otp_five = :binary.compile_pattern(~w(needle pin thorn nail hook))

    for {name, ours, theirs} <- [
          {"64 KB, absent", fn -> Emmap.find(mem, "needle") end,
           fn -> :binary.match(data, "needle") end},
          {"64 KB, absent, compiled", fn -> Emmap.find(mem, compiled) end,
           fn -> :binary.match(data, otp) end},
          {"64 KB, list of 5, compiled", fn -> Emmap.find(mem, five) end,
           fn -> :binary.match(data, otp_five) end},
          {"100 B, absent", fn -> Emmap.find(mem, "needle", length: 100) end,
           fn -> :binary.match(data, "needle", scope: {0, 100}) end},
          {"100 B, absent, compiled", fn -> Emmap.find(mem, compiled, length: 100) end,
           fn -> :binary.match(data, otp, scope: {0, 100}) end}
        ] do
      result = compare([{:ours, 2000, &times(ours, &1)}, {:otp, 2000, &times(theirs, &1)}], 9)

      IO.puts(
        "#{pad(name, 30)} find #{round(result.ours)} ns, :binary.match #{round(result.otp)} ns"
      )
    end
  end

  defp times(_act, 0), do: :ok

  defp times(act, n) do
    act.()
    times(act, n - 1)
  end
end

Bench.main(&Bench.Search.run/1)
