defmodule Emmap.Inspection.TableFile do
  @moduledoc false
  # Files of tables, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Bitwise
  import Emmap.Inspection.Format, only: [length_problem: 3, problem: 4]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1, plural: 2]
  alias Emmap.Inspection.{Crc32c, Header, Headers, Source}

  @version 1
  @records 4096
  @block 65_536
  # Blocks that are compared with their checksums, unless all are: 8 MiB.
  @most_blocks 128
  # The bytes before a key, and the longest key.
  @head 14
  @most_key 65_535

  defp table do
    Header.table([0], [
      {:magic, 0, 8, "magic", :magic, "EMMAPTBL"},
      {:version, 8, 4, "version", :version, @version},
      {:flags, 12, 4, "flags", :number, {"must be below 8", &(&1.flags < 8)}},
      {:count, 16, 8, "number of records", :number, nil},
      {:seed, 24, 8, "seed", :hex, nil},
      {:records_end, 32, 8, "end of the records", :number, nil},
      {:marks, 40, 8, "offset of the marks", :number, nil},
      {:mark_count, 48, 8, "number of marks", :number, nil},
      {:buckets, 56, 8, "offset of the buckets", :number, nil},
      {:homes, 64, 8, "number of home buckets", :number, nil},
      {:bucket_count, 72, 8, "number of buckets", :number, nil},
      {:longest_probe, 80, 8, "longest probe", :number,
       {"must be from 1 to 1024", &(&1.longest_probe in 1..1024)}},
      {:checksums, 88, 8, "offset of the checksums", :number,
       {"the parts must follow each other in the file", &parts?/1}},
      {:checksum_count, 96, 8, "number of checksums", :number,
       {"must be one for each block", &(&1.checksum_count == blocks(&1))}},
      {:longest_value, 104, 8, "longest value", :number,
       {"must fit in the records", &(&1.longest_value <= &1.records_end - @records)}},
      {:reserved, 112, 4, "reserved", :reserved, 0},
      {:checksum, 116, 4, "checksum", :checksum, nil}
    ])
  end

  defp parts?(fields) do
    @records <= fields.records_end and fields.records_end <= fields.marks and
      fields.marks + 8 * fields.mark_count <= fields.buckets and
      fields.buckets + 64 * fields.bucket_count <= fields.checksums and
      stop(fields) <= 1 <<< 48 and fields.homes in 1..fields.bucket_count//1
  end

  defp blocks(fields), do: div(fields.checksums - @records + @block - 1, @block)

  defp stop(fields), do: fields.checksums + 4 * fields.checksum_count

  @impl true
  def describe(source, limit) do
    with [_] = headers <- Headers.read(source, table()) do
      current = Headers.current(headers)
      length = current && length(source, current.fields)
      readable? = current != nil and length == nil

      {contents, problems} =
        if readable?, do: contents(source, current.fields, limit), else: {nil, []}

      %{
        title: "table, version #{Headers.version(headers, @version)}",
        bad_format: Headers.bad_format(headers) || if(length, do: :length),
        headers: Headers.shown(headers),
        contents: contents,
        problems: Headers.problems(headers) ++ List.wrap(length) ++ problems
      }
    end
  end

  defp length(source, fields) do
    says = "length: the checksums end at #{stop(fields)}, by the header"

    # Nothing ever follows: a table does not grow.
    with %{} = problem <- length_problem(source, stop(fields), says),
         do: %{problem | severity: :damage}
  end

  defp contents(source, fields, limit) do
    most =
      if limit == :infinity,
        do: fields.checksum_count,
        else: min(fields.checksum_count, @most_blocks)

    {keys, problems} = keys(source, fields, limit)

    {%{
       count: fields.count,
       format: [part(fields.flags &&& 1), part(fields.flags >>> 1 &&& 1)],
       sorted: (fields.flags &&& 4) != 0,
       records_size: fields.records_end - @records,
       index_size: fields.checksums - fields.marks,
       blocks_checked: most,
       all_checked: most == fields.checksum_count,
       keys: keys
     }, damaged_blocks(source, fields, most) ++ problems}
  end

  defp part(0), do: :binary
  defp part(1), do: :term

  defp damaged_blocks(source, fields, most) do
    for number <- 0..(most - 1)//1,
        at = @records + number * @block,
        count = min(@block, fields.checksums - at),
        <<sum::little-32>> = Source.read(source, fields.checksums + 4 * number, 4),
        Crc32c.append(Source.read(source, at, count)) != sum do
      problem(:damage, at, count, "block #{number} does not match its checksum")
    end
  end

  # The first records: the key and the length of the value of each.
  defp keys(source, fields, limit), do: keys(source, fields, @records, limit, [])

  defp keys(_source, _fields, _at, 0, keys), do: {Enum.reverse(keys), []}
  defp keys(_source, %{records_end: at}, at, _limit, keys), do: {Enum.reverse(keys), []}

  defp keys(source, fields, at, limit, keys) do
    head = Source.read(source, at, min(@head, fields.records_end - at))

    with <<_crc::32, rest::binary>> <- head,
         {key_length, rest} when key_length <= @most_key <- length_of(rest),
         {value_length, rest} <- length_of(rest),
         key_at = at + byte_size(head) - byte_size(rest),
         next when next <= fields.records_end <- key_at + key_length + value_length do
      key = Source.read(source, key_at, key_length)
      limit = if is_integer(limit), do: limit - 1, else: limit
      keys(source, fields, next, limit, [%{at: at, key: shown(key), bytes: value_length} | keys])
    else
      _ -> {Enum.reverse(keys), [problem(:damage, at, 1, "there is no record at #{at}")]}
    end
  end

  defp shown(key), do: if(String.printable?(key), do: key, else: "0x" <> Base.encode16(key))

  defp length_of(bytes, sum \\ 0, shift \\ 0)

  defp length_of(<<1::1, low::7, rest::binary>>, sum, shift) when shift < 42,
    do: length_of(rest, sum ||| low <<< shift, shift + 7)

  defp length_of(<<0::1, low::7, rest::binary>>, sum, shift),
    do: {sum ||| low <<< shift, rest}

  defp length_of(_bytes, _sum, _shift), do: :error

  @impl true
  def checked, do: "the header, its checksum, version and length; blocks, and the first records"

  @impl true
  def fields(fields), do: plural(fields.count, "record")

  @impl true
  def lines(contents) do
    [
      {"records",
       "#{grouped(contents.count)}, #{if contents.sorted, do: "sorted", else: "not sorted"}, " <>
         "keys and values: #{Enum.join(contents.format, ", ")}"},
      {"size",
       "#{bytes(contents.records_size)} of records, #{bytes(contents.index_size)} of index"},
      {"checked", "#{plural(contents.blocks_checked, "block")}#{more(contents)}"}
    ] ++ Enum.map(contents.keys, &{"record", "#{&1.key}: #{bytes(&1.bytes)}"})
  end

  defp more(%{all_checked: true}), do: ""
  defp more(_contents), do: ", and there are more: Emmap.Table.check/1 reads all of them"
end
