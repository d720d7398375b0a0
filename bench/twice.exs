# Whether the benchmark says the same twice: mix run bench/twice.exs ONE OTHER, two folders of results of one machine (RESULTS=folder
# make bench). Writes bench/results/twice.md: the headlines by how much they differ.
Code.require_file("build.exs", __DIR__)
Bench.Build.run()

defmodule Bench.Twice do
  alias Bench.Results

  @same 0.15

  def run([one, other]) do
    second =
      for {group, text, ratio, _, _} <- Results.headlines(other),
          into: %{},
          do: {{group, text}, ratio}

    differences =
      for {group, text, ratio, _, _} <- Results.headlines(one), again = second[{group, text}] do
        {abs(again / ratio - 1), text, ratio, again}
      end
      |> Enum.sort(:desc)

    {more, same} = Enum.split_with(differences, &(elem(&1, 0) > @same))

    rows =
      for {difference, text, ratio, again} <- more do
        [text, Bench.digits(ratio), Bench.digits(again), "#{round(difference * 100)} %"]
      end

    text =
      "Two runs were made, one after the other. Of the #{length(differences)} measurements that both have, #{length(same)} differ by 15 % or less"

    rest =
      if rows == [],
        do: ".",
        else:
          ". The others differ by more:\n\n" <>
            Results.table(["ratio", ">first", ">second", ">differs by"], rows)

    File.write!(Path.join(__DIR__, "results/twice.md"), text <> rest <> "\n")
    IO.puts(text <> rest)
  end
end

Bench.Twice.run(System.argv())
