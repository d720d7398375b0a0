defmodule Emmap.Inspection.Header do
  @moduledoc false
  # A header by the table of its fields (docs/formats.md): what it contains, and whether it is as it was written. Numbers are
  # little-endian, except for the endian mark. What is wrong is worded by `Emmap.Inspection.HeaderProblems`.

  alias Emmap.Inspection.{FlippedBit, Source}

  @enforce_keys [:at, :table, :bytes]
  defstruct [:at, :table, :bytes, :bad, :flipped, fields: %{}]

  @typedoc """
  A field: its name, its offset and size in bytes, what it is called, its kind, and what it must be.

    * `:magic`, `:version`, `:endian_mark`, `:reserved` – must be that value
    * `:sequence` – which of two headers is the later one; below the last number, so that another one can follow
    * `:checksum` – the CRC-32 of all bytes before it; the last field
    * `:number` – must be anything (`nil`), or what `{why, valid?}` requires, a text and a function of all fields
    * `:hex` – any number, shown in hexadecimal
    * `:bytes` – anything; a report does not have it among the fields
  """
  @type row :: {atom, non_neg_integer, pos_integer, String.t(), atom, term}
  @typedoc "Where the header is in the file, and its copy, if there is one; its size, and its fields, each as a map."
  @type table :: %{at: [Emmap.position()], size: pos_integer, fields: [map]}
  @type bad :: :kind | :length | :checksum | :version | :endianness
  @typedoc "`flipped` is the one bit of the header that was, if it was one."
  @type t :: %__MODULE__{
          at: Emmap.position(),
          table: table,
          bytes: binary,
          bad: bad | nil,
          flipped: FlippedBit.bit() | nil,
          fields: map
        }

  @spec table([Emmap.position()], [row]) :: table
  def table(places, rows) do
    fields =
      for {name, at, size, title, kind, must} <- rows,
          do: %{name: name, at: at, size: size, title: title, kind: kind, must: must}

    last = List.last(fields)
    %{at: places, size: last.at + last.size, fields: fields}
  end

  @spec read(Source.t(), table, Emmap.position()) :: t
  def read(source, table, at) do
    header = parse(%__MODULE__{at: at, table: table, bytes: Source.read(source, at, table.size)})
    %{header | flipped: flipped(header)}
  end

  # Where the file ends before the header does, `fields` is empty.
  defp parse(%{table: table, bytes: bytes} = header) do
    fields =
      for %{at: at, size: size} = field <- table.fields,
          byte_size(bytes) == table.size,
          into: %{},
          do: {field.name, decode(field.kind, binary_part(bytes, at, size))}

    header = %{header | fields: fields}
    %{header | bad: bad(header)}
  end

  defp decode(kind, bytes) when kind in [:magic, :bytes], do: bytes
  defp decode(_kind, bytes), do: :binary.decode_unsigned(bytes, :little)

  # In the order in which opening the file looks: a wrong field of this kind, and the error that it causes.
  @errors [
    checksum: :checksum,
    version: :version,
    endian_mark: :endianness,
    sequence: :checksum,
    number: :checksum
  ]

  defp bad(%{table: table, bytes: bytes} = header) do
    cond do
      not String.starts_with?(bytes, magic(table)) -> :kind
      byte_size(bytes) < table.size -> :length
      true -> Enum.find_value(@errors, fn {kind, bad} -> wrong(header, [kind]) != [] && bad end)
    end
  end

  @doc "The bytes that a header begins with."
  @spec magic(table) :: binary
  def magic(table), do: hd(for %{kind: :magic, must: magic} <- table.fields, do: magic)

  @doc "The fields of these kinds that are not what they must be, as `{field, what_it_must_be}`."
  @spec wrong(t, [atom]) :: [{map, String.t()}]
  def wrong(header, kinds) do
    for kind <- kinds,
        %{kind: ^kind} = field <- header.table.fields,
        why = why(field, header.fields[field.name], header),
        do: {field, why}
  end

  defp why(%{kind: :checksum, at: to} = field, value, %{at: at, bytes: bytes}) do
    sum = :erlang.crc32(binary_part(bytes, 0, to))
    value != sum && "of bytes #{at} to #{at + to - 1} is #{shown(field, sum)}"
  end

  defp why(%{kind: :version, must: version}, value, _header),
    do: value != version && "that is known here is #{version}"

  defp why(%{kind: :endian_mark, must: mark} = field, value, _header) do
    # The mark of this machine, as a reader of little-endian numbers reads it.
    mark = :binary.decode_unsigned(<<mark::native-32>>, :little)
    other = "on this machine: the file is of one of the other byte order"
    value != mark && "is #{shown(field, mark)} #{other}"
  end

  defp why(%{kind: :reserved, must: must}, value, header),
    do: value != must && "is #{must} in version #{header.fields.version}"

  defp why(%{kind: :sequence, size: size}, value, _header),
    do: value == Integer.pow(2, size * 8) - 1 && "is below 2^#{size * 8} - 1"

  defp why(%{must: {why, valid?}}, _value, header), do: not valid?.(header.fields) && why
  defp why(_field, _value, _header), do: nil

  @doc "The value of a field in words."
  @spec shown(map, binary | non_neg_integer) :: String.t()
  def shown(%{kind: :magic}, bytes), do: inspect(bytes)

  def shown(%{kind: kind, size: size}, n) when kind in [:checksum, :hex, :endian_mark],
    do: "0x" <> String.pad_leading(Integer.to_string(n, 16), 2 * size, "0")

  def shown(_field, n), do: Integer.to_string(n)

  # The bit whose flip makes a sound header of this one.
  defp flipped(%{bad: bad} = header) when bad in [:kind, :checksum] do
    with %{kind: :checksum, name: name, at: from} <- List.last(header.table.fields),
         %{^name => checksum} <- header.fields,
         bit when bit != nil <- FlippedBit.find(binary_part(header.bytes, 0, from), checksum),
         %{bad: nil} <- restored(%{header | flipped: bit}) do
      bit
    else
      _ -> nil
    end
  end

  defp flipped(_header), do: nil

  @doc "The header as it was before its bit was flipped; `nil` where that is not known."
  @spec restored(t) :: t | nil
  def restored(%{bad: nil} = header), do: header
  def restored(%{flipped: nil}), do: nil

  def restored(%{bytes: bytes} = header),
    do: parse(%{header | bytes: FlippedBit.flip(bytes, header.flipped)})

  @doc "Whether this is a header, or was one before a bit was flipped: without a checksum, a bit of its magic."
  @spec recognised?(t) :: boolean
  def recognised?(%{bad: :kind, flipped: nil, table: table} = header),
    do: List.last(table.fields).kind != :checksum and FlippedBit.one?(start(header), magic(table))

  def recognised?(_header), do: true

  @doc "What there is in place of the magic."
  @spec start(t) :: binary
  def start(%{table: table, bytes: bytes}),
    do: binary_part(bytes, 0, min(byte_size(magic(table)), byte_size(bytes)))
end
