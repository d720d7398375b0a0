defmodule Bench.Groups.Search do
  @moduledoc false
  # Searching a gigabyte of text compared with grep. Both read from the page cache; each round maps the file anew, as grep opens it
  # anew.
  import Bench

  @patterns [
    {"absent", ["xylophonist"]},
    {"a rare word", ["quicksilver"]},
    {"a common word", ["the"]},
    {"one letter", ["e"]},
    {"a list of 5, absent", ~w(xylophonist zeppelins quagmires walruses juxtapose)}
  ]

  def title, do: "Searches"

  def run(folder) do
    path = text(folder)
    on_map(path, &Emmap.count(&1, "\n"))

    large =
      for {name, patterns} <- @patterns do
        compare(
          "count #{name}, #{bytes(File.stat!(path).size)}",
          [
            once(:emmap, "Emmap.count", fn ->
              {:ok, _} = on_map(path, &Emmap.count(&1, patterns))
            end),
            once(:grep, "grep -c", fn -> grep(path, patterns, ["-c"]) end),
            once(:fixed, "grep -cF", fn -> grep(path, patterns, ["-cF"]) end)
          ],
          seconds: 3
        )
      end

    backwards =
      compare(
        "find an absent word, #{bytes(File.stat!(path).size)}",
        [
          once(:emmap, "Emmap.find", fn ->
            :nomatch = on_map(path, &Emmap.find(&1, "xylophonist"))
          end),
          once(:rfind, "Emmap.rfind", fn ->
            :nomatch = on_map(path, &Emmap.rfind(&1, "xylophonist"))
          end),
          once(:list, "Emmap.rfind, a list of 5", fn ->
            :nomatch = on_map(path, &Emmap.rfind(&1, ~w(xylo zeppl quagm walr jux)))
          end)
        ],
        seconds: 3
      )

    [
      {:note,
       "`grep` counts the lines that match. `Emmap.count/2` counts the matches, of which a line can have several. The lower bound is to read the memory once, as a count of newlines does."},
      large,
      for(
        {comparison, {name, _}} <- Enum.zip(large, @patterns),
        do:
          headline(
            best_grep(comparison),
            :best,
            "grep (the faster of -c and -cF), compared with a count: #{name}",
            {:at_least, 0.67}
          )
      ),
      backwards,
      {:note,
       "**Small searches**, in 64 KB. `:binary.match/2` needs a binary. Here it already exists, so creating it is not measured."},
      small(folder)
    ]
  end

  defp best_grep(comparison) do
    times = Enum.zip_with([comparison.times.grep, comparison.times.fixed], &Enum.min/1)

    %{
      comparison
      | sides: comparison.sides ++ [{:best, ""}],
        times: Map.put(comparison.times, :best, times)
    }
  end

  defp on_map(path, act) do
    {:ok, mem} = Emmap.open(path)
    result = act.(mem)
    :ok = Emmap.close(mem)
    result
  end

  defp grep(path, patterns, options) do
    arguments = options ++ Enum.flat_map(patterns, &["-e", &1]) ++ [path]
    {_, status} = System.cmd("grep", arguments, env: [{"LC_ALL", "C"}])
    true = status in [0, 1]
  end

  loop(find(mem, pattern, options, n), do: _ = Emmap.find(mem, pattern, options))
  loop(match(data, pattern, options, n), do: _ = :binary.match(data, pattern, options))

  defp small(folder) do
    path = Path.join(folder, "small")
    data = :binary.copy("0123456789abcdef", 4096)
    File.write!(path, data)
    mem = Emmap.open!(path)
    compiled = Emmap.compile_pattern("needle")
    otp = :binary.compile_pattern("needle")

    for {name, options, scope} <- [
          {"absent, 64 KB", [], []},
          {"absent, 100 bytes of it", [length: 100], [scope: {0, 100}]}
        ] do
      compare("find, #{name}", [
        side(:emmap, "Emmap.find, compiled pattern", &find(mem, compiled, options, &1)),
        side(:plain, "Emmap.find", &find(mem, "needle", options, &1)),
        side(:otp, ":binary.match, compiled pattern", &match(data, otp, scope, &1))
      ])
    end
  end
end
