defmodule Emmap.Inspection.CounterFile do
  @moduledoc false
  # Counter files, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4, length_problem: 3]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1, plural: 2]
  alias Emmap.Inspection.{CounterValues, FlippedBit, Header, Headers, Source}

  @version 1
  @names_offset 8192
  @per_line 16
  @line 128
  @longest_names 0x100_0000
  @longest_name 1024

  defp table do
    Header.table([0, 4096], [
      {:magic, 0, 8, "magic", :magic, "EMMAPCNT"},
      {:version, 8, 4, "version", :version, @version},
      {:endian_mark, 12, 4, "endian mark", :endian_mark, 0x01020304},
      {:sequence, 16, 8, "sequence number", :sequence, nil},
      {:count, 24, 8, "number of counters", :number, nil},
      {:stripes, 32, 4, "number of stripes", :number,
       {"must be 1 to 1024", &(&1.stripes in 1..1024)}},
      {:reserved, 36, 4, "reserved field", :reserved, 0},
      {:data_offset, 40, 8, "data offset", :number,
       {"must be #{@names_offset} + the room for names, a multiple of #{@line}", &data_offset?/1}},
      {:names_offset, 48, 8, "names offset", :number,
       {"must be #{@names_offset}", &(&1.names_offset == @names_offset)}},
      {:names_room, 56, 8, "room for names", :number, nil},
      {:names_length, 64, 8, "bytes of names", :number,
       {"must be at most the room for names, #{@longest_names}, and the most that this number of counters can have",
        &names_length?/1}},
      {:names_checksum, 72, 4, "checksum of the names", :hex, nil},
      {:checksum, 76, 4, "checksum", :checksum, nil}
    ])
  end

  defp data_offset?(%{data_offset: at, names_room: room}),
    do: at == @names_offset + room and rem(at, @line) == 0

  defp names_length?(%{names_length: length, names_room: room, count: count}),
    do: length <= Enum.min([room, @longest_names, count * (@longest_name + 2)])

  @impl true
  def describe(source, limit) do
    with [_ | _] = headers <- Headers.read(source, table()) do
      current = Headers.current(headers)
      length = current && length(source, current)
      readable? = current != nil and not match?(%{severity: :damage}, length)
      {names, bad_names} = if current, do: names(source, current.fields), else: {nil, nil}
      bad = Headers.bad_format(headers) || if(current && not readable?, do: :length)

      %{
        title: "counters, version #{Headers.version(headers, @version)}",
        bad_format: bad || if(bad_names, do: :names),
        headers: Headers.shown(headers),
        contents: if(readable?, do: contents(source, current.fields, names, limit)),
        problems: Headers.problems(headers) ++ Enum.filter([length, bad_names], & &1)
      }
    end
  end

  defp length(source, %{fields: %{count: count} = fields} = header) do
    lines = div(count + @per_line - 1, @per_line) * fields.stripes
    stop = fields.data_offset + lines * @line
    says = "length: #{count} counters end at #{stop}, by the header at #{header.at}"
    length_problem(source, stop, says)
  end

  defp contents(source, %{stripes: stripes} = header, names, limit) do
    place = %{at: header.data_offset, count: header.count, stripes: stripes}
    summary = CounterValues.summary(source, place, names, limit)
    Map.put(summary, :write_concurrency, stripes > 1)
  end

  # In the order of the counters; `nil` if they are numbered or the names are damaged.
  defp names(_source, %{names_length: 0, names_checksum: 0}), do: {nil, nil}

  defp names(source, %{names_offset: at, names_length: length, names_checksum: sum} = header) do
    names = Source.read(source, at, length)

    cond do
      # Then the file is too short as well, which is reported separately.
      byte_size(names) < length -> {nil, nil}
      :erlang.crc32(names) != sum -> {nil, changed(names, at, sum)}
      true -> decode(names, at, [], MapSet.new(), {at, length, header.count})
    end
  end

  defp changed(names, at, checksum) do
    size = byte_size(names)

    case FlippedBit.find(names, checksum) do
      {byte, bit} when byte < size ->
        all = [names, FlippedBit.flip(names, {byte, bit})]
        [is, was] = for bytes <- all, do: inspect(binary_part(bytes, byte, 1))
        message = "names, bit #{bit} of this byte was flipped: it is #{is} and was #{was}"
        problem(:damage, at + byte, 1, message)

      _ ->
        [is, was] = for sum <- [:erlang.crc32(names), checksum], do: Base.encode16(<<sum::32>>)
        says = "names, checksum: of bytes #{at} to #{at + size - 1} is 0x#{is}"
        problem(:damage, at, size, "#{says}, and the header says 0x#{was}")
    end
  end

  # The checksum is right, so an error here was written by the program. Stops at the first invalid name, because there
  # may be 16 MiB of names, that is, eight million empty ones.
  defp decode(<<>>, _at, [], _seen, _all), do: {nil, nil}

  defp decode(<<>>, _at, names, seen, {start, length, count}) do
    if MapSet.size(seen) == count,
      do: {Enum.reverse(names), nil},
      else: bad_names(start, length, "there are #{MapSet.size(seen)} for #{count} counters")
  end

  defp decode(<<size::little-16, name::binary-size(size), rest::binary>>, at, names, seen, all) do
    cond do
      not String.valid?(name) ->
        bad_names(at + 2, size, "number #{MapSet.size(seen)} is not UTF-8")

      name in seen ->
        bad_names(at, 2 + size, "#{inspect(name)} occurs twice")

      true ->
        decode(rest, at + 2 + size, [name | names], MapSet.put(seen, name), all)
    end
  end

  defp decode(rest, at, _names, seen, _all) do
    message = "number #{MapSet.size(seen)} is longer than what is left of the names"
    bad_names(at, byte_size(rest), message)
  end

  defp bad_names(at, bytes, message), do: {nil, problem(:damage, at, bytes, "names, " <> message)}

  @impl true
  def checked, do: "both headers and their checksums, version, byte order, length and names"

  @impl true
  def fields(fields) do
    "sequence number #{fields.sequence}, #{plural(fields.count, "counter")}#{stripes(fields.stripes)}, " <>
      "#{grouped(fields.names_length)} of #{bytes(fields.names_room)} used for names, counters start at " <>
      grouped(fields.data_offset)
  end

  defp stripes(1), do: ""
  defp stripes(n), do: " of #{n} stripes each (write concurrency)"

  @impl true
  defdelegate lines(contents), to: CounterValues
end
