defmodule Emmap.Inspection.DynamicCounterFile do
  @moduledoc false
  # Files of dynamic counters, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4, length_problem: 3]
  import Emmap.Inspection.Text, only: [grouped: 1, plural: 2]

  alias Emmap.Inspection.{CounterValues, DynamicCounterEntries, Header, Headers, InUse, Source}

  @version 1
  @control 8192
  @entries 16_384
  @line 128

  defp table do
    Header.table([0, 4096], [
      {:magic, 0, 8, "magic", :magic, "EMMAPDYN"},
      {:version, 8, 4, "version", :version, @version},
      {:endian_mark, 12, 4, "endian mark", :endian_mark, 0x01020304},
      {:sequence, 16, 8, "sequence number", :sequence, nil},
      {:stripes, 24, 4, "number of stripes", :number,
       {"must be 1 to 1024", &(&1.stripes in 1..1024)}},
      {:reserved, 28, 4, "reserved field", :reserved, 0},
      {:salt, 32, 8, "salt", :hex, nil},
      {:checksum, 40, 4, "checksum", :checksum, nil}
    ])
  end

  @impl true
  def describe(source, limit) do
    with [_ | _] = headers <- Headers.read(source, table()) do
      current = Headers.current(headers)
      length = current && length_problem(source, @entries, "length: the control area ends there")
      readable? = current != nil and not match?(%{severity: :damage}, length)

      {contents, problems} =
        if readable? do
          describe = &contents(source, current.fields, &1, limit)
          InUse.describe(source, fn -> control(source) end, describe)
        else
          {nil, []}
        end

      too_short = if match?(%{severity: :damage}, length), do: [length], else: []

      %{
        title: "dynamic counters, version #{Headers.version(headers, @version)}",
        bad_format: Headers.bad_format(headers) || if(current && not readable?, do: :length),
        headers: Headers.shown(headers),
        contents: contents,
        problems: Headers.problems(headers) ++ too_short ++ problems
      }
    end
  end

  defp control(source) do
    area = Source.read(source, @control, 512)
    word = fn at -> area |> binary_part(at - @control, 8) |> :binary.decode_unsigned(endian()) end

    %{
      lock: word.(8192),
      log: word.(8320),
      last: word.(8448),
      count: word.(8456),
      directory: word.(8464),
      recoveries: word.(8600),
      dropped: word.(8608)
    }
  end

  defp endian, do: if(<<1::native-16>> == <<1::little-16>>, do: :little, else: :big)

  defp contents(source, %{stripes: stripes, salt: salt}, control, limit) do
    {last, problems} = last(source, control.last)
    place = %{from: @entries, to: last, stripes: stripes, salt: salt}
    entries = DynamicCounterEntries.read(source, place)
    counters = entries.counters
    values = for {_at, name, value} <- counters, do: {name, value}

    contents =
      values
      |> CounterValues.of_list(limit)
      |> Map.merge(%{
        write_concurrency: stripes > 1,
        end: control.last,
        lock: control.lock,
        log: control.log,
        recoveries: control.recoveries,
        dropped: control.dropped
      })

    # After a power failure, the next open rebuilds all of this.
    counted =
      if control.count == length(counters),
        do: [],
        else: [
          problem(:damage, 8456, 8, "count: is #{control.count}, there are #{length(counters)}")
        ]

    directory = DynamicCounterEntries.directory(source, control.directory, counters)
    {contents, problems ++ entries.problems ++ counted ++ directory}
  end

  defp last(%{size: size}, last) when last in @entries..size//@line, do: {last, []}

  defp last(_source, 0),
    do: {@entries, [problem(:damage, 8448, 8, "end: is 0, as in a file that was never opened")]}

  defp last(%{size: size}, last) do
    message = "end: is #{last}, and must be a multiple of #{@line} from #{@entries} to #{size}"
    {@entries, [problem(:damage, 8448, 8, message)]}
  end

  @impl true
  def checked,
    do:
      "both headers, their checksums, version, byte order and length; the checksums of all entries, and the directory"

  @impl true
  def fields(%{stripes: 1}), do: "no write concurrency"
  def fields(%{stripes: n}), do: "#{n} stripes for each counter (write concurrency)"

  @impl true
  def lines(contents) do
    [{"state", state(contents)}, {"history", history(contents)}] ++
      CounterValues.lines(contents)
  end

  defp state(%{lock: 0, end: last}), do: "not locked; entries end at #{grouped(last)}"

  defp state(%{lock: lock, end: last}),
    do: "locked by slot #{Bitwise.band(lock, 0xFF) - 1}; entries end at #{grouped(last)}"

  defp history(contents) do
    "entries examined #{plural(contents.recoveries, "time")}, at its creation and after reboots; " <>
      "the last time, #{grouped(contents.dropped)} dropped"
  end
end
