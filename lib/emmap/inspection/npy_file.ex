defmodule Emmap.Inspection.NpyFile do
  @moduledoc false
  # `.npy` files of NumPy: the header, and the first elements.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1]
  alias Emmap.Array
  alias Emmap.Array.Npy
  alias Emmap.Inspection.Source

  # Of elements that are long.
  @shown 200

  @impl true
  def describe(source, limit) do
    if Source.read(source, 0, 6) == Npy.magic() do
      case Array.of(source.mem, :npy) do
        {:ok, array} -> intact(source, array, limit)
        {:error, {:bad_format, why}} -> damaged(source, why)
        # The file was truncated, or its disk failed.
        {:error, reason} -> raise Emmap.Error, op: :read, path: source.path, reason: reason
      end
    end
  end

  defp intact(source, array, limit) do
    {:ok, header} = Npy.read(source.mem, 0)
    {:ok, info} = Array.info(array)
    stop = header.first + info.count * info.stride

    rest =
      if source.size > stop,
        do: [
          problem(
            :note,
            stop,
            source.size - stop,
            "after the elements are #{bytes(source.size - stop)}"
          )
        ],
        else: []

    %{
      title: "an array of NumPy (.npy), version #{version(header)}",
      bad_format: nil,
      headers: [
        %{
          at: 0,
          bytes: header.first,
          state: :intact,
          fields: %{
            descr: header.descr,
            fortran_order: info.order == :fortran,
            shape: Tuple.to_list(info.shape)
          }
        }
      ],
      contents: %{
        count: info.count,
        stride: info.stride,
        first: header.first,
        fields: fields_of(info.type),
        values: values(array, limit)
      },
      problems: rest
    }
  end

  defp version(%{version: {major, minor}}), do: "#{major}.#{minor}"

  defp fields_of([_ | _] = fields) do
    for {name, type} <- fields,
        do: %{
          name: to_string(name),
          type: if(is_integer(type), do: "#{bytes(type)} skipped", else: inspect(type))
        }
  end

  defp fields_of(type), do: [%{name: "", type: inspect(type)}]

  defp values(array, limit) do
    array = if limit == :infinity, do: array, else: Array.slice(array, 0, limit)
    for element <- array, do: inspect(element, limit: 20, printable_limit: @shown)
  end

  defp damaged(source, why) do
    %{
      title: "an array of NumPy (.npy)",
      bad_format: why,
      headers: [],
      contents: nil,
      problems: [problem(severity(why), 0, source.size, message(why, source))]
    }
  end

  defp severity(:version), do: :unknown
  defp severity(_why), do: :damage

  defp message(:version, source) do
    version = source |> Source.read(6, 2) |> :binary.bin_to_list() |> Enum.join(".")
    "version: this is #{version}, and 1.0, 2.0 and 3.0 are known"
  end

  defp message(:length, source),
    do: "length: the header or the elements end after the #{bytes(source.size)} of the file"

  defp message(:header, _source),
    do: "header: it is not a dict with the keys descr, fortran_order and shape, or it is too long"

  defp message(:type, _source),
    do: "header: the type of the elements is unknown, or has no fixed size"

  defp message(:shape, _source), do: "header: the shape is not a tuple of sizes"

  @impl true
  def checked, do: "header, type, shape and length (this format has no checksum)"

  @impl true
  def fields(%{descr: descr, fortran_order: fortran?, shape: shape}) do
    order = if fortran?, do: "column-major (Fortran)", else: "row-major"
    "type #{descr}, shape (#{Enum.join(shape, ", ")}), #{order}"
  end

  @impl true
  def lines(contents) do
    [
      {"elements",
       "#{grouped(contents.count)} of #{bytes(contents.stride)} each, from byte #{contents.first} on"}
      | types(contents.fields)
    ] ++ shown(contents)
  end

  defp types([%{name: "", type: type}]), do: [{"type", type}]

  defp types(fields) do
    for {field, n} <- Enum.with_index(fields),
        do: {if(n == 0, do: "record", else: ""), type(field)}
  end

  defp type(%{name: "", type: type}), do: type
  defp type(%{name: name, type: type}), do: "#{Emmap.Inspection.Text.name(name)}: #{type}"

  defp shown(%{values: []}), do: []

  defp shown(%{values: values, count: count}) do
    more =
      if length(values) < count,
        do: [{"", "and #{grouped(count - length(values))} more"}],
        else: []

    for({value, n} <- Enum.with_index(values), do: {if(n == 0, do: "values", else: ""), value}) ++
      more
  end
end
