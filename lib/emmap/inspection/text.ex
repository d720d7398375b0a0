defmodule Emmap.Inspection.Text do
  @moduledoc false
  # A report for people: ASCII, except for the names in the file, so that every terminal can show it.

  @doc "A report as text; `format` is the module of its format."
  @spec of(Emmap.Inspection.report(), module) :: String.t()
  def of(report, format) do
    checked = format.checked()

    [
      "#{name(report.path)}: #{report.title}#{if checked, do: status(report.status)}",
      size(report),
      pages(report.pages),
      Enum.map(report.headers, &header(&1, format)),
      for({title, text} <- lines(report.contents, format), do: line(title, text)),
      if(checked, do: health(report, checked), else: [])
    ]
    |> List.flatten()
    |> Enum.join("\n")
  end

  @doc "A path or name in printable form."
  @spec name(String.t()) :: String.t()
  def name(name) do
    # `String.printable?/1` accepts some characters that control a terminal.
    plain? = String.printable?(name) and not (name =~ ~r/\p{Cc}/u)
    if plain?, do: name, else: inspect(name, binaries: :as_strings)
  end

  defp status(:intact), do: ", intact"
  defp status(:damaged), do: ", DAMAGED"

  defp status(:unknown),
    do: ", of a version or byte order that this version of Emmap does not read"

  defp line(title, text), do: "  " <> String.pad_trailing(title, 10) <> text

  defp size(%{size: size, allocated: allocated}) do
    blocks =
      cond do
        allocated == nil ->
          ""

        allocated < size ->
          ", #{grouped(allocated)} of them on the disk, the rest not written yet"

        true ->
          ", #{grouped(allocated)} allocated on the disk"
      end

    line("size", bytes(size) <> blocks)
  end

  defp pages(%{count: 0}), do: line("pages", "none")

  defp pages(pages) do
    [
      line(
        "pages",
        "#{grouped(pages.resident)} of #{grouped(pages.count)} in memory, of #{bytes(pages.page_size)} each"
      ),
      line("", "[#{Enum.map(pages.parts, &cell/1)}] . none  - some  = half or more  # all")
    ]
  end

  defp cell(%{resident: 0}), do: "."
  defp cell(%{resident: all, count: all}), do: "#"
  defp cell(%{resident: resident, count: count}) when resident * 2 >= count, do: "="
  defp cell(_some), do: "-"

  defp header(%{state: :none} = header, _format), do: line("header", "at #{header.at}: none")

  defp header(header, format) do
    fields =
      if header.state in [:same, :damaged, :unknown], do: [], else: [format.fields(header.fields)]

    line("header", Enum.join(["at #{header.at}: #{state(header.state)}" | fields], "; "))
  end

  defp state(:current), do: "current"
  defp state(:same), do: "the same"
  defp state(:older), do: "older"
  defp state(:intact), do: "intact"
  defp state(:damaged), do: "damaged"
  defp state(:unknown), do: "not read"

  defp lines(nil, _format), do: []
  defp lines(contents, format), do: format.lines(contents)

  defp health(%{problems: []}, checked), do: line("health", "intact: #{checked}")

  defp health(report, _checked) do
    opens =
      if report.bad_format, do: "cannot be opened (#{report.bad_format})", else: "can be opened"

    [
      line("health", "#{opens}; #{plural(length(report.problems), "remark")}:"),
      for(
        problem <- report.problems,
        do: line("", "#{severity(problem.severity)} byte #{problem.at}: #{problem.message}")
      )
    ]
  end

  defp severity(:note), do: "note,"
  defp severity(:unknown), do: "unknown,"
  defp severity(:damage), do: "DAMAGE,"

  @doc "A number of bytes, in words."
  @spec bytes(non_neg_integer) :: String.t()
  def bytes(n), do: plural(n, "byte")

  @doc "A number of things, in words."
  @spec plural(non_neg_integer, String.t()) :: String.t()
  def plural(1, word), do: "1 #{word}"
  def plural(n, word), do: "#{grouped(n)} #{word}s"

  @doc "1234567 as 1,234,567."
  @spec grouped(integer) :: String.t()
  def grouped(n) when n < 0, do: "-" <> grouped(-n)

  def grouped(n) do
    n
    |> Integer.to_string()
    |> String.replace(~r/(?<=\d)(?=(\d{3})+$)/, ",")
  end
end
