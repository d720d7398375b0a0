defmodule Emmap.Inspection.CounterHeader do
  @moduledoc false
  # One of the two headers of a counter file, version 1 (docs/formats.md): what it says, whether it is
  # as it was written, and if not, what became of it.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.FlippedBit

  @magic "EMMAPCNT"
  @size 80
  @version 1
  @endian_mark 0x01020304
  @names_offset 8192
  @line 128
  @longest_names 0x100_0000
  @longest_name 1024

  # Name, offset, bytes, and what it is called.
  @fields [
    {:magic, 0, 8, "magic"},
    {:version, 8, 4, "version"},
    {:endian_mark, 12, 4, "endian mark"},
    {:sequence, 16, 8, "sequence number"},
    {:count, 24, 8, "number of counters"},
    {:stripes, 32, 4, "number of stripes"},
    {:reserved, 36, 4, "reserved field"},
    {:data_offset, 40, 8, "data offset"},
    {:names_offset, 48, 8, "names offset"},
    {:names_room, 56, 8, "room for names"},
    {:names_length, 64, 8, "bytes of names"},
    {:names_checksum, 72, 4, "checksum of the names"},
    {:checksum, 76, 4, "checksum"}
  ]

  @type bad :: :kind | :length | :checksum | :version | :endianness
  @typedoc "`flipped` is the one bit that was, if it was one: its byte in the header, and its value."
  @type t :: %{
          at: Emmap.position(),
          bytes: binary,
          bad: bad | nil,
          fields: map,
          flipped: {non_neg_integer, pos_integer} | nil
        }

  @spec size() :: pos_integer
  def size, do: @size

  @doc "Looks at the bytes at `at`, which are fewer than `size/0` where the file ends."
  @spec parse(binary, Emmap.position()) :: t
  def parse(bytes, at) do
    bad = bad(bytes)
    flipped = if bad in [:kind, :checksum], do: flipped(bytes)
    %{at: at, bytes: bytes, bad: bad, fields: fields(bytes), flipped: flipped}
  end

  @doc "Whether there is a header, or was one before a bit was flipped."
  @spec header?(t) :: boolean
  def header?(%{bad: bad, flipped: flipped}), do: bad != :kind or flipped != nil

  # In the order in which `Emmap.Counters.open/3` looks.
  defp bad(bytes) do
    fields = fields(bytes)

    cond do
      not String.starts_with?(bytes, @magic) -> :kind
      byte_size(bytes) < @size -> :length
      computed(bytes) != fields.checksum -> :checksum
      fields.version != @version -> :version
      fields.endian_mark != native_mark() -> :endianness
      impossible(fields) != [] -> :checksum
      true -> nil
    end
  end

  defp computed(bytes), do: bytes |> binary_part(0, @size - 4) |> :erlang.crc32()

  # What the endian mark of this machine is to one who reads little-endian.
  defp native_mark do
    <<mark::little-32>> = <<@endian_mark::native-32>>
    mark
  end

  defp fields(bytes) when byte_size(bytes) < @size, do: %{}

  defp fields(bytes) do
    for {name, at, size, _} <- @fields, into: %{} do
      field = binary_part(bytes, at, size)
      {name, if(name == :magic, do: field, else: :binary.decode_unsigned(field, :little))}
    end
  end

  defp flipped(bytes) when byte_size(bytes) < @size, do: nil

  defp flipped(bytes) do
    with {:ok, at, bit} <- FlippedBit.find(binary_part(bytes, 0, @size - 4), checksum(bytes)),
         mended = FlippedBit.flip(bytes, at, bit),
         nil <- bad(mended) do
      {at, bit}
    else
      _ -> nil
    end
  end

  defp checksum(bytes), do: fields(bytes).checksum

  # Values that no writer of version 1 writes: `{field, why}`.
  defp impossible(fields) do
    [
      fields.stripes not in 1..1024 && {:stripes, "is 1 to 1024"},
      fields.names_offset != @names_offset && {:names_offset, "is #{@names_offset}"},
      (fields.data_offset != @names_offset + fields.names_room or
         rem(fields.data_offset, @line) != 0) &&
        {:data_offset, "is #{@names_offset} + the room for names, a multiple of #{@line}"},
      (fields.names_length > fields.names_room or fields.names_length > @longest_names or
         fields.names_length > fields.count * (@longest_name + 2)) &&
        {:names_length,
         "is at most the room for names, #{@longest_names}, and what so many counters can have"},
      fields.sequence == 0xFFFF_FFFF_FFFF_FFFF && {:sequence, "is below 2^64 - 1"}
    ]
    |> Enum.filter(& &1)
  end

  @doc "What it was before its bit was flipped; `nil` where that is not known."
  @spec mended(t) :: t | nil
  def mended(%{bad: nil} = header), do: header
  def mended(%{flipped: nil}), do: nil

  def mended(%{flipped: {at, bit}} = header),
    do: header.bytes |> FlippedBit.flip(at, bit) |> parse(header.at)

  @doc """
  What is wrong with a header. `other` is the other one, if that is sound, and shows what this one was.
  """
  @spec problems(t, t | nil) :: [Emmap.Inspection.Format.problem()]
  def problems(%{bad: nil} = header, _other) do
    if header.fields.reserved == 0,
      do: [],
      else: [field_problem(header, :reserved, "is 0 in version #{@version}", :note)]
  end

  def problems(%{flipped: {at, bit}} = header, _other) do
    {name, from, _size, title} =
      Enum.find(@fields, fn {_, from, size, _} -> at in from..(from + size - 1) end)

    was = mended(header).fields[name]
    number = bit |> Integer.digits(2) |> length()

    message =
      "#{title}: bit #{number - 1} of this byte was flipped; the field (at #{header.at + from}) is " <>
        "#{shown(name, header.fields[name])} and was #{shown(name, was)}"

    [problem(:damage, header.at + at, 1, in_header(header, message))]
  end

  def problems(%{bad: :version} = header, _other) do
    [field_problem(header, :version, "that is known here is #{@version}", :unknown)]
  end

  def problems(%{bad: :endianness} = header, _other) do
    why =
      "is #{shown(:endian_mark, native_mark())} on this machine: the file is of one of the other byte order"

    [field_problem(header, :endian_mark, why, :unknown)]
  end

  def problems(%{bad: :length} = header, _other) do
    message = "the file ends after #{byte_size(header.bytes)} of its #{@size} bytes"
    [problem(:damage, header.at, byte_size(header.bytes), in_header(header, message))]
  end

  def problems(%{bad: :kind, bytes: bytes} = header, _other) do
    cond do
      bytes == "" ->
        [problem(:damage, header.at, 0, in_header(header, "the file ends before it"))]

      bytes == :binary.copy(<<0>>, byte_size(bytes)) ->
        message = "it was cleared, as by a growth that a crash cut short"
        [problem(:note, header.at, byte_size(bytes), in_header(header, message))]

      true ->
        start = binary_part(bytes, 0, min(8, byte_size(bytes)))
        message = "magic: is #{inspect(@magic)}, and #{inspect(start)} stands there"
        [problem(:damage, header.at, byte_size(start), in_header(header, message))]
    end
  end

  def problems(%{bad: :checksum} = header, other) do
    computed = computed(header.bytes)

    checksum =
      if computed != header.fields.checksum do
        why = "of bytes #{header.at} to #{header.at + @size - 5} is #{shown(:checksum, computed)}"
        [field_problem(header, :checksum, why, :damage)]
      end

    impossible = impossible(header.fields)

    different =
      for {name, _, _, _} <- @fields,
          other != nil and name != :checksum and not Keyword.has_key?(impossible, name),
          header.fields[name] != other.fields[name],
          do: {name, "is #{shown(name, other.fields[name])} in the other header"}

    List.wrap(checksum) ++
      for {name, why} <- impossible ++ different, do: field_problem(header, name, why, :damage)
  end

  defp field_problem(header, name, why, severity) do
    {_, at, size, title} = List.keyfind(@fields, name, 0)
    message = "#{title}: #{why}, and #{shown(name, header.fields[name])} stands there"
    problem(severity, header.at + at, size, in_header(header, message))
  end

  defp in_header(header, message), do: "header at #{header.at}, #{message}"

  defp shown(:magic, bytes), do: inspect(bytes)

  defp shown(name, n) when name in [:checksum, :names_checksum, :endian_mark],
    do: "0x" <> String.pad_leading(Integer.to_string(n, 16), 8, "0")

  defp shown(_name, n), do: Integer.to_string(n)
end
