defmodule Emmap.Inspection.QueueFile do
  @moduledoc false
  # Queue files, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [length_problem: 3]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1, plural: 2, name: 1]
  import Bitwise, only: [band: 2]
  alias Emmap.Inspection.{Header, Headers, InUse, QueueControl, QueueSegments}

  @version 1
  # How many bytes of records are checked, unless all values are requested.
  @budget 8_388_608

  defp table do
    Header.table([0, 4096], [
      {:magic, 0, 8, "magic", :magic, "EMMAPQUE"},
      {:version, 8, 4, "version", :version, @version},
      {:endian_mark, 12, 4, "endian mark", :endian_mark, 0x01020304},
      {:sequence, 16, 8, "sequence number", :sequence, nil},
      {:segment_size, 24, 8, "segment size", :number,
       {"must be a power of two from 65536 to 1073741824", &segment_size?/1}},
      {:file, 32, 8, "number of the file", :hex, nil},
      {:durable_position, 40, 8, "durable position", :number, nil},
      {:durable_dead_position, 48, 8, "durable position of the dead letters", :number, nil},
      {:durable_sequence, 56, 8, "durable sequence number", :number, nil},
      {:durable_dead_sequence, 64, 8, "durable sequence number of the dead letters", :number,
       nil},
      {:cursors, 72, 2904, "cursors", :bytes, nil},
      {:checksum, 2976, 4, "checksum", :checksum, nil}
    ])
  end

  defp segment_size?(%{segment_size: size}),
    do: size in 65_536..1_073_741_824 and band(size, size - 1) == 0

  @impl true
  def describe(source, limit) do
    with [_ | _] = headers <- Headers.read(source, table()) do
      current = Headers.current(headers)
      length = current && length(source, current)
      readable? = current != nil and not match?(%{severity: :damage}, length)
      bad = Headers.bad_format(headers) || if(current && not readable?, do: :length)

      {contents, problems} =
        if readable?, do: contents(source, current.fields, limit), else: {nil, []}

      %{
        title: "a queue, version #{Headers.version(headers, @version)}",
        bad_format: bad,
        headers: Headers.shown(headers),
        contents: contents,
        problems: Headers.problems(headers, :in_turn) ++ List.wrap(length) ++ problems
      }
    end
  end

  # It may be longer, because it grows in larger units.
  defp length(source, %{fields: %{segment_size: size}} = header) do
    stop = QueueControl.segments_at() + size
    says = "length: the first segment ends at #{stop}, by the header at #{header.at}"
    with %{severity: :note} <- length_problem(source, stop, says), do: nil
  end

  defp contents(source, header, limit) do
    read = fn -> QueueControl.read(source, header.segment_size) end
    InUse.describe(source, read, &described(source, header, &1, limit))
  end

  defp described(source, header, control, limit) do
    budget = if limit == :infinity, do: :infinity, else: @budget

    {checked, _budget} =
      Enum.map_reduce(control.streams, budget, fn stream, budget ->
        floors =
          for %{stream: name, floor: floor} <- control.cursors, name == stream.name, do: floor

        floor = Enum.min(floors, fn -> 0 end)
        checked = QueueSegments.check(source, header, control, stream, floor, budget)
        {checked, checked.budget}
      end)

    segments = Enum.flat_map(checked, & &1.segments)
    inside = segments |> Enum.map(& &1.span) |> Enum.sum()

    marked =
      Enum.count(0..(min(control.segments, 1_048_576) - 1)//1, &QueueControl.used?(control, &1))

    beyond = length_of_segments(source, header, control)

    contents = %{
      lock: control.lock,
      log: control.log,
      closed: control.closed,
      dropped: control.dropped,
      recoveries: control.recoveries,
      recovered_items: control.recovered_items,
      dropped_bytes: control.dropped_bytes,
      streams:
        for {stream, checked} <- Enum.zip(control.streams, checked) do
          %{
            name: stream.name,
            tail: stream.tail,
            sequence: stream.sequence,
            items_checked: checked.items,
            all_checked: checked.budget == :infinity or checked.budget > 0
          }
        end,
      cursors: for(cursor <- control.cursors, do: Map.delete(cursor, :length)),
      segment_count: %{
        all: control.segments,
        of_streams: inside,
        other: max(marked - inside, 0),
        free: max(control.segments - marked, 0)
      },
      segments: segments |> take(limit) |> Enum.map(&Map.drop(&1, [:salt, :next, :stop]))
    }

    {contents, Enum.flat_map(checked, & &1.problems) ++ beyond}
  end

  defp length_of_segments(source, header, control) do
    stop = QueueControl.segments_at() + control.segments * header.segment_size
    says = "length: #{control.segments} segments end at #{stop}, by the control area"
    source |> length_problem(stop, says) |> List.wrap() |> Enum.filter(&(&1.severity == :damage))
  end

  defp take(list, :infinity), do: list
  defp take(list, limit), do: Enum.take(list, limit)

  @impl true
  def checked,
    do:
      "both headers, their checksums, version, byte order and length; segments and records in use"

  @impl true
  def fields(fields) do
    "sequence number #{fields.sequence}, segments of #{bytes(fields.segment_size)}, durable to position " <>
      "#{fields.durable_position}"
  end

  @impl true
  def lines(contents) do
    [{"state", state(contents)}, {"segments", segments(contents.segment_count)}] ++
      recovered(contents) ++
      Enum.map(contents.streams, &{"stream", stream(&1)}) ++
      Enum.map(contents.cursors, &{"cursor", cursor(&1)}) ++
      Enum.map(contents.segments, &{"segment", segment(&1)})
  end

  defp state(%{closed: true}), do: "closed"
  defp state(%{lock: 0}), do: "open, or not closed by its last program"
  defp state(%{lock: lock}), do: "open, or not closed; locked by slot #{band(lock, 0xFF) - 1}"

  defp segments(count) do
    "#{grouped(count.all)}: #{grouped(count.of_streams)} with records, #{grouped(count.other)} with claims or being filled, " <>
      "#{grouped(count.free)} free"
  end

  defp recovered(%{recoveries: 0, dropped: 0}), do: []

  defp recovered(contents) do
    [
      {"history",
       "#{plural(contents.dropped, "item")} dropped for space; recovered #{plural(contents.recoveries, "time")}, the last " <>
         "time with #{plural(contents.recovered_items, "item")}, and #{bytes(contents.dropped_bytes)} dropped at the torn end"}
    ]
  end

  defp stream(stream) do
    more = if stream.all_checked, do: "", else: ", and there are more"

    "#{stream.name}: next sequence number #{stream.sequence}, tail at position #{stream.tail}; " <>
      "#{plural(stream.items_checked, "item")} checked#{more}"
  end

  defp cursor(cursor) do
    lag = if cursor.max_lag > 0, do: "; lag at most #{bytes(cursor.max_lag)}", else: ""

    "#{name(cursor.name)}: next item #{cursor.sequence} at position #{cursor.next}, floor #{cursor.floor}; " <>
      "#{grouped(cursor.checked_out)} checked out, #{grouped(cursor.released)} released, #{grouped(cursor.lost)} lost#{lag}"
  end

  defp segment(segment) do
    span = if segment.span > 1, do: ", #{segment.span} segments long", else: ""

    "#{segment.number} at byte #{segment.at}: #{segment.stream} from position #{segment.start}, item " <>
      "#{segment.first_sequence}#{span}"
  end
end
