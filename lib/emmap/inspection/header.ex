defmodule Emmap.Inspection.Header do
  @moduledoc false
  # Reads a header by the table of its fields (docs/formats.md): its contents, and whether it is intact. Numbers are
  # little-endian, except for the endian mark. `Emmap.Inspection.HeaderProblems` describes the problems.

  alias Emmap.Inspection.{FlippedBit, Source}

  @enforce_keys [:at, :table, :bytes]
  defstruct [:at, :table, :bytes, :bad, :flipped, fields: %{}]

  @typedoc """
  A field: its name, its offset and size in bytes, its title, its kind, and its required value.

    * `:magic`, `:version`, `:endian_mark`, `:reserved` – must have that value
    * `:sequence` – shows which of two headers is the later one; below the highest number, so that another one can follow
    * `:checksum` – the CRC-32 of all bytes before it; the last field
    * `:number` – any value (`nil`), or as `{why, valid?}` requires: a text and a function of all fields
    * `:hex` – any number, shown in hexadecimal
    * `:bytes` – anything; not among the fields of a report
  """
  @type row :: {atom, non_neg_integer, pos_integer, String.t(), atom, term}
  @typedoc "The position of the header in the file, and of its copy, if it has one; its size, and its fields, each as a map."
  @type table :: %{at: [Emmap.position()], size: pos_integer, fields: [map]}
  @type bad :: :kind | :length | :checksum | :version | :endianness
  @typedoc "`flipped` is the bit of the header that was flipped, if exactly one was."
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

  # `fields` is empty if the file ends before the header does.
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

  # In the order in which opening the file checks them: a kind of field, and the error that a wrong value causes.
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

  @doc "The bytes with which a header begins."
  @spec magic(table) :: binary
  def magic(table), do: hd(for %{kind: :magic, must: magic} <- table.fields, do: magic)

  @doc "The fields of these kinds that have a wrong value, as `{field, required_value}`."
  @spec wrong(t, [atom]) :: [{map, String.t()}]
  def wrong(header, kinds) do
    for kind <- kinds,
        %{kind: ^kind} = field <- header.table.fields,
        why = why(field, header.fields[field.name], header),
        do: {field, why}
  end

  defp why(%{kind: :checksum, at: to} = field, value, %{at: at, bytes: bytes}) do
    sum = :erlang.crc32(binary_part(bytes, 0, to))
    value != sum && "of bytes #{at} to #{at + to - 1} must be #{shown(field, sum)}"
  end

  defp why(%{kind: :version, must: version}, value, _header),
    do: value != version && "must be #{version} for this version of Emmap"

  defp why(%{kind: :endian_mark, must: mark} = field, value, _header) do
    # The mark of this machine, as a reader of little-endian numbers reads it.
    mark = :binary.decode_unsigned(<<mark::native-32>>, :little)
    other = "on this machine: the file is from a machine with the other byte order"
    value != mark && "must be #{shown(field, mark)} #{other}"
  end

  defp why(%{kind: :reserved, must: must}, value, header),
    do: value != must && "must be #{must} in version #{header.fields.version}"

  defp why(%{kind: :sequence, size: size}, value, _header),
    do: value == Integer.pow(2, size * 8) - 1 && "must be below 2^#{size * 8} - 1"

  defp why(%{must: {why, valid?}}, _value, header), do: not valid?.(header.fields) && why
  defp why(_field, _value, _header), do: nil

  @doc "The value of a field in words."
  @spec shown(map, binary | non_neg_integer) :: String.t()
  def shown(%{kind: :magic}, bytes), do: inspect(bytes)

  def shown(%{kind: kind, size: size}, n) when kind in [:checksum, :hex, :endian_mark],
    do: "0x" <> String.pad_leading(Integer.to_string(n, 16), 2 * size, "0")

  def shown(_field, n), do: Integer.to_string(n)

  # The bit whose flip makes this header a sound one.
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

  @doc "The header as it was before its bit was flipped; `nil` if unknown."
  @spec restored(t) :: t | nil
  def restored(%{bad: nil} = header), do: header
  def restored(%{flipped: nil}), do: nil

  def restored(%{bytes: bytes} = header),
    do: parse(%{header | bytes: FlippedBit.flip(bytes, header.flipped)})

  @doc "Whether this is a header, or was one before a bit was flipped (in its magic, if the format has no checksum)."
  @spec recognised?(t) :: boolean
  def recognised?(%{bad: :kind, flipped: nil, table: table} = header),
    do: List.last(table.fields).kind != :checksum and FlippedBit.one?(start(header), magic(table))

  def recognised?(_header), do: true

  @doc "The bytes in place of the magic."
  @spec start(t) :: binary
  def start(%{table: table, bytes: bytes}),
    do: binary_part(bytes, 0, min(byte_size(magic(table)), byte_size(bytes)))
end
