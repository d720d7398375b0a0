defmodule Emmap.Array.Opening do
  @moduledoc false
  # Makes an array of a map, a type and options.

  import Emmap.Handle, only: [handle: 1]

  alias Emmap.Array
  alias Emmap.Array.{Folds, Form, Npy}
  alias Emmap.OptionList

  @options [
    offset: {&Array.natural?/1, "a number of bytes, 0 or more"},
    count: {&Array.natural?/1, "a number of records, 0 or more"},
    shape: {&Array.shape?/1, "a tuple of sizes, such as {1000, 768}"}
  ]
  # No position of a file is larger.
  @most 0x7FFF_FFFF_FFFF_FFFF

  @type checked :: map

  @doc "Raises `ArgumentError` if the type or an option is not valid."
  @spec checked!(term, term) :: checked
  def checked!(:npy, options) do
    options = OptionList.check!(options, Keyword.take(@options, [:offset]))
    %{npy: true, first: first!(options)}
  end

  def checked!(type, options) do
    options = OptionList.check!(options, @options)
    form = Form.of!(type)
    shape = options[:shape]
    count = if shape, do: shape |> Tuple.to_list() |> Enum.product(), else: options[:count]

    if shape && Map.has_key?(options, :count) && options.count != count,
      do:
        raise(
          ArgumentError,
          "count: #{options.count} is not the product of shape: #{inspect(shape)}"
        )

    first = first!(options)

    if first + (count || 0) * Form.size(form) > @most,
      do: raise(ArgumentError, "no file has so many records: #{count} at #{first}")

    %{npy: false, type: type, form: form, first: first, fixed: count, shape: shape}
  end

  defp first!(options) do
    first = Map.get(options, :offset, 0)
    first <= @most || OptionList.wrong!(:offset, first, "a number of bytes, at most 2^63 - 1")
    first
  end

  @doc "The array, if its elements are inside the map."
  @spec build(Emmap.t(), checked) :: {:ok, Array.t()} | {:error, term}
  def build(mem, %{npy: true, first: at}) do
    with {:ok, header} <- Npy.read(mem, at) do
      form = Form.of!(header.type)
      array = new(mem, header.type, form, header.first, header.count)
      {:ok, %{array | nx: header.nx, shape: header.shape, order: header.order}}
    end
  end

  def build(mem, %{form: form, first: first, fixed: count} = checked) do
    with {:ok, size} <- Emmap.size(mem) do
      if first + (count || 0) * Form.size(form) <= size or count == nil do
        array = new(mem, checked.type, form, first, count)
        {:ok, %{array | nx: Form.nx(form), shape: checked.shape}}
      else
        {:error, {:bad_format, :length}}
      end
    end
  end

  defp new(mem, type, form, first, count) do
    array = %Array{
      mem: mem,
      type: type,
      form: form,
      first: first,
      stride: Form.size(form),
      field: 0,
      fixed: count,
      at: nil
    }

    %{array | at: reading(array)}
  end

  # The largest integer that the VM compares in one instruction.
  @open_end 0x07FF_FFFF_FFFF_FFFF

  @doc """
  What `Emmap.Array.at/2` needs, in one tuple. Without a number of records, the end of the map is the limit.
  """
  @spec reading(map) :: tuple
  def reading(%{mem: handle(ref), first: first, stride: stride, field: field} = array) do
    limit = array.fixed || div(@most - first, stride)
    {kind(array), ref, first + field, stride, min(limit, @open_end)}
  end

  # A field of the last record may be inside the map, while the record is not.
  defp kind(%{fixed: nil, form: form, stride: stride} = array) when is_integer(form) do
    if stride == Form.size(form), do: fast(form), else: {:column, Folds.column(array)}
  end

  defp kind(%{form: form}), do: fast(form)

  @native if(<<1::native-16>> == <<1, 0>>, do: 16, else: 32)
  defp fast(code) when code == @native + 9, do: :f64
  defp fast(code) when code == @native + 6, do: :u64
  defp fast(code) when code == @native + 7, do: :i64
  defp fast(code) when is_integer(code), do: code
  defp fast(_form), do: nil

  @doc "Options of `Emmap.open/2`: with `:create`, a new file has room for a given number of records."
  @spec size(checked, list) :: list
  def size(%{form: form, first: first, fixed: count}, others) when count != nil do
    if :create in others and not List.keymember?(others, :size, 0),
      do: [size: first + count * Form.size(form)],
      else: []
  end

  def size(_checked, _others), do: []
end
