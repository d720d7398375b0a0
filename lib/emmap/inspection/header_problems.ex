defmodule Emmap.Inspection.HeaderProblems do
  @moduledoc false
  # Describes the problems of a header.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{Format, Header}

  @doc "The problems of a header. `other` is the other header, if it is sound, and shows the original values."
  @spec of(Header.t(), Header.t() | nil) :: [Format.problem()]
  def of(%{flipped: {at, bit}} = header, _other) do
    field = Enum.find(header.table.fields, &(at in &1.at..(&1.at + &1.size - 1)))
    message = "#{field.title}: bit #{bit} of this byte was flipped#{values(header, field)}"
    [problem(:damage, header.at + at, 1, of_header(header, message))]
  end

  def of(%{bad: :kind, bytes: bytes} = header, _other) do
    {severity, size, message} =
      cond do
        bytes == "" ->
          {:damage, 0, "the file ends before it"}

        bytes == :binary.copy(<<0>>, byte_size(bytes)) ->
          {:note, byte_size(bytes), "it was cleared, as after a growth that a crash interrupted"}

        true ->
          start = Header.start(header)
          magic = inspect(Header.magic(header.table))
          {:damage, byte_size(start), "magic: is #{magic}, but #{inspect(start)} was found"}
      end

    [problem(severity, header.at, size, of_header(header, message))]
  end

  def of(%{bad: :length, bytes: bytes} = header, _other) do
    message = "the file ends after #{byte_size(bytes)} of its #{header.table.size} bytes"
    [problem(:damage, header.at, byte_size(bytes), of_header(header, message))]
  end

  def of(%{bad: nil} = header, _other), do: wrong(header, [:reserved], :note)
  def of(%{bad: :version} = header, _other), do: wrong(header, [:version], :unknown)
  def of(%{bad: :endianness} = header, _other), do: wrong(header, [:endian_mark], :unknown)

  def of(%{bad: :checksum} = header, other) do
    wrong = wrong(header, [:checksum, :sequence, :number], :damage)
    wrong ++ different(header, other, wrong)
  end

  defp values(_header, %{kind: :bytes}), do: ""

  defp values(header, field) do
    [is, was] = for it <- [header, Header.restored(header)], do: value(it, field)
    "; the field (at #{header.at + field.at}) is #{is} and was #{was}"
  end

  defp wrong(header, kinds, severity) do
    for {field, why} <- Header.wrong(header, kinds), do: of_field(header, field, why, severity)
  end

  defp different(_header, nil, _wrong), do: []

  defp different(header, other, wrong) do
    for %{name: name, kind: kind, at: at} = field <- header.table.fields,
        kind != :checksum and header.fields[name] != other.fields[name],
        not Enum.any?(wrong, &(&1.at == header.at + at)) do
      of_field(header, field, "is #{value(other, field)} in the other header", :damage)
    end
  end

  defp of_field(header, field, why, severity) do
    message = "#{field.title}: #{why}, but #{value(header, field)} was found"
    problem(severity, header.at + field.at, field.size, of_header(header, message))
  end

  defp value(header, field), do: Header.shown(field, header.fields[field.name])

  # Names the header if a file has two.
  defp of_header(%{table: %{at: [_]}}, message), do: message
  defp of_header(header, message), do: "header at #{header.at}, #{message}"
end
