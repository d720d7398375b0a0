defmodule Bench.Results do
  @moduledoc false
  # What a group has measured, as files: NAME.md with its tables, NAME.csv with the same figures for programs, and plots.

  alias Bench.{Comparison, Plot}

  @doc "Where the results are written. A quick run does not measure exact figures, so it does not replace any."
  def folder do
    name = if Bench.quick?(), do: "../../_build/bench/quick", else: "../results"
    folder = System.get_env("RESULTS") || Path.expand(name, __DIR__)
    File.mkdir_p!(folder)
    folder
  end

  def write(name, title, items) do
    folder = folder()
    items = with_plot(name, title, items)
    for {:plot, plot, svg} <- items, do: File.write!(Path.join(folder, "#{plot}.svg"), svg)
    File.write!(Path.join(folder, "#{name}.md"), markdown(title, items))
    File.write!(Path.join(folder, "#{name}.csv"), csv(items))
    items
  end

  # A group that draws nothing itself gets bars of all its comparisons, behind their tables.
  defp with_plot(name, title, items) do
    comparisons = for %Comparison{} = comparison <- items, do: comparison

    if comparisons == [] or Enum.any?(items, &match?({:plot, _, _}, &1)),
      do: items,
      else: items ++ [{:plot, name, bars(title, comparisons)}]
  end

  @doc "Bars of comparisons; the first side of each is the library's."
  def bars(title, comparisons) do
    groups =
      for %{sides: [{first, _} | _] = sides} = comparison <- comparisons do
        {comparison.name,
         for {key, label} <- sides do
           {label, Comparison.least(comparison, key), if(key == first, do: :ours, else: :other)}
         end}
      end

    Plot.bars("#{title}: time, least of the rounds", groups)
  end

  defp markdown(title, items) do
    blocks =
      items
      |> Enum.chunk_by(&is_struct(&1, Comparison))
      |> Enum.flat_map(fn
        [%Comparison{} | _] = comparisons -> [comparison_table(comparisons)]
        others -> Enum.map(others, &block(&1, title))
      end)

    Enum.join(["## #{title}" | Enum.reject(blocks, &(&1 == ""))], "\n\n") <> "\n"
  end

  defp block({:note, text}, _), do: String.trim(text)
  defp block({:table, header, rows}, _), do: table(header, rows)
  defp block({:plot, name, _}, title), do: "![#{title}](images/#{name}.svg)"
  defp block({:headline, _, _, _, _}, _), do: ""

  defp comparison_table(comparisons) do
    rows =
      for %{sides: [{first, _} | _] = sides} = comparison <- comparisons, {key, label} <- sides do
        name = if key == first, do: "#{comparison.name}", else: ""
        [name, label, Bench.time(Comparison.least(comparison, key)) | compared(comparison, key)]
      end

    table(["what", "how", ">takes", ">compared with the first", ">median of ratios"], rows)
  end

  defp compared(%{sides: [{first, _} | _]}, first), do: ["", ""]

  defp compared(comparison, key) do
    [low, median, high] = for ratio <- Comparison.ratios(comparison, key), do: Bench.digits(ratio)
    ["#{Bench.digits(Comparison.ratio(comparison, key))} ×", "#{median} (#{low} – #{high})"]
  end

  @doc "A table in Markdown; a column whose header starts with `>` is aligned right."
  def table(header, rows) do
    line = fn cells ->
      "| " <> Enum.map_join(cells, " | ", &String.replace(&1, "|", "\\|")) <> " |"
    end

    rule = for name <- header, do: if(String.starts_with?(name, ">"), do: "---:", else: "---")
    names = for name <- header, do: String.trim_leading(name, ">")
    Enum.join([line.(names), line.(rule) | Enum.map(rows, line)], "\n")
  end

  # kind;name;side;least in ns;ratio of the least;first quartile, median and third quartile of the ratios;rounds
  defp csv(items) do
    lines =
      Enum.flat_map(items, fn
        %Comparison{sides: sides} = comparison ->
          for {key, label} <- sides do
            figures = [
              Comparison.least(comparison, key),
              Comparison.ratio(comparison, key) | Comparison.ratios(comparison, key)
            ]

            figures = Enum.map(figures, &Bench.decimals(&1, 3))
            ["time", comparison.name, label] ++ figures ++ ["#{comparison.rounds}"]
          end

        {:headline, text, ratio, sense, wanted} ->
          [["headline", text, "#{sense}", Bench.decimals(ratio, 3), "#{wanted}"]]

        {:table, _header, rows} ->
          for row <- rows, do: ["row" | row]

        _ ->
          []
      end)

    Enum.map(lines, fn cells ->
      [Enum.map_intersperse(cells, ";", &String.replace(&1, ";", ",")), "\n"]
    end)
  end

  @doc "The headlines of all groups that have results: `{group, text, ratio, sense, wanted}`."
  def headlines(folder) do
    for {group, ["headline", text, sense, ratio, wanted]} <- figures(folder) do
      {group, text, number(ratio), sense, number(wanted)}
    end
  end

  @doc "The least times of all groups that have results: `{group, name, side, nanoseconds}`."
  def times(folder) do
    for {group, ["time", name, side, least | _]} <- figures(folder),
        do: {group, name, side, number(least)}
  end

  defp number(text), do: text |> Float.parse() |> elem(0)

  defp figures(folder) do
    for file <- folder |> Path.join("*.csv") |> Path.wildcard() |> Enum.sort(),
        line <- file |> File.read!() |> String.split("\n", trim: true) do
      {Path.basename(file, ".csv"), String.split(line, ";")}
    end
  end
end
