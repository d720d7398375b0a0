defmodule Emmap.Inspection.Text do
  @moduledoc false
  # A report for people: ASCII but for the names that the file has, so that every terminal shows it.

  @spec of(Emmap.Inspection.report()) :: String.t()
  def of(report) do
    [
      "#{name(report.path)}: #{report.title}#{status(report)}",
      size(report),
      pages(report.pages),
      Enum.map(report.headers, &header/1),
      contents(report.contents),
      health(report)
    ]
    |> List.flatten()
    |> Enum.join("\n")
  end

  @doc "A path or name as it may be printed."
  @spec name(String.t()) :: String.t()
  def name(name) do
    # What a terminal obeys is printable to `String.printable?/1`.
    plain? = String.printable?(name) and not (name =~ ~r/\p{Cc}/u)
    if plain?, do: name, else: inspect(name, binaries: :as_strings)
  end

  # There is nothing in a plain file that could be checked.
  defp status(%{format: :plain}), do: ""
  defp status(%{status: :sound}), do: ", sound"
  defp status(%{status: :damaged}), do: ", DAMAGED"
  defp status(%{status: :unknown}), do: ", not of a kind that this Emmap reads"

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

  defp header(%{state: :none} = header), do: line("header", "at #{header.at}: none")

  defp header(header) do
    fields = if header.state in [:same, :damaged, :unknown], do: [], else: [fields(header.fields)]
    line("header", Enum.join(["at #{header.at}: #{state(header.state)}" | fields], "; "))
  end

  defp state(:in_force), do: "in force"
  defp state(:same), do: "the same"
  defp state(:older), do: "older"
  defp state(:sound), do: "sound"
  defp state(:damaged), do: "damaged"
  defp state(:unknown), do: "not read"

  defp fields(%{sequence: sequence} = fields) do
    "sequence number #{sequence}, #{plural(fields.count, "counter")}#{stripes(fields.stripes)}, names " <>
      "#{grouped(fields.names_length)} of #{bytes(fields.names_room)}, counters from #{fields.data_offset} on"
  end

  defp fields(%{count: count}), do: plural(count, "counter")

  defp stripes(1), do: ""
  defp stripes(n), do: " of #{n} stripes each (write concurrency)"

  defp contents(nil), do: []
  defp contents(%{first_bytes: ""}), do: []

  defp contents(%{first_bytes: first}),
    do: line("begins", first |> String.graphemes() |> Enum.chunk_every(2) |> Enum.join(" "))

  defp contents(%{count: count} = contents) do
    kind = if contents.named, do: "by name", else: "by number"

    [
      line(
        "contents",
        "#{plural(count, "counter")} #{kind}, #{grouped(contents.not_zero)} of them not 0; sum #{grouped(contents.sum)}"
      ),
      for(
        {title, %{key: key, value: value}} <- [
          {"largest", contents.largest},
          {"smallest", contents.smallest}
        ],
        do: line("", "#{title} #{key(key)}: #{grouped(value)}")
      ),
      values(contents.values, count)
    ]
  end

  defp values([], _count), do: []

  defp values(values, count) do
    shown = for %{key: key, value: value} <- values, do: {key(key), grouped(value)}
    width = shown |> Enum.map(&String.length(elem(&1, 0))) |> Enum.max()

    rows =
      for {key, value} <- shown, do: line("", "  #{String.pad_trailing(key, width)}  #{value}")

    more = count - length(values)
    rows ++ if(more > 0, do: [line("", "  and #{grouped(more)} more")], else: [])
  end

  defp key(index) when is_integer(index), do: Integer.to_string(index)
  defp key(name), do: name(name)

  defp health(%{format: :plain}), do: []

  defp health(%{problems: []} = report) do
    checked =
      case report.format do
        :counters -> "both headers and their checksums, version, byte order, length and names"
        :predecessor_counters -> "length (this format has no checksum)"
      end

    line("health", "sound: #{checked}")
  end

  defp health(report) do
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

  defp bytes(1), do: "1 byte"
  defp bytes(n), do: "#{grouped(n)} bytes"
  defp plural(1, word), do: "1 #{word}"
  defp plural(n, word), do: "#{grouped(n)} #{word}s"

  # 1234567 as 1,234,567.
  defp grouped(n) when n < 0, do: "-" <> grouped(-n)

  defp grouped(n) do
    n
    |> Integer.digits()
    |> Enum.reverse()
    |> Enum.chunk_every(3)
    |> Enum.intersperse([","])
    |> Enum.concat()
    |> Enum.reverse()
    |> Enum.join()
  end
end
