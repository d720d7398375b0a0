defmodule Emmap.Array.Folds do
  @moduledoc false
  # What is done to a whole column in native code.

  import Emmap.Handle, only: [handle: 1]

  alias Emmap.{Array, Native}
  alias Emmap.Array.{Codec, Form}

  @doc "A column as the NIFs take it."
  @spec column(Array.t()) :: Native.column()
  def column(%{first: first, stride: stride, field: field, fixed: fixed, form: form}),
    do: {first, stride, field, fixed || -1, Form.code(form)}

  @spec sum(Array.t()) :: number | atom
  def sum(array) do
    case fold(array, &Native.array_sum/4) do
      # An integer of more than 64 bits.
      <<sum::signed-native-128>> -> sum
      sum -> sum
    end
  end

  @spec min(Array.t()) :: number | atom
  def min(array), do: fold(array, &Native.array_min/4)

  @spec max(Array.t()) :: number | atom
  def max(array), do: fold(array, &Native.array_max/4)

  defp fold(%{mem: handle(ref)} = array, native) do
    # The elements that there are now, so that the steps end although other processes append.
    array = %{numbers!(array) | fixed: Array.count(array)}
    step(native, ref, column(array), 0, "", array)
  end

  defp step(native, ref, column, from, state, array) do
    case native.(ref, column, from, state) do
      {:error, _} = error -> Array.failed!(array, :sum, error)
      {next, state} -> step(native, ref, column, next, state, array)
      result -> result
    end
  end

  defp numbers!(%{form: form} = array) when is_integer(form), do: array

  defp numbers!(%{form: {:record, _, _}}),
    do: raise(ArgumentError, "records have no sum and no order: name a field")

  defp numbers!(_array), do: raise(ArgumentError, "binaries have no sum, least or greatest")

  @spec search(Array.t(), term) :: {:ok | :none, non_neg_integer}
  def search(array, value) do
    case lower_bound(array, key!(array, value), 0) do
      index when index >= 0 -> {:ok, index}
      index -> {:none, -1 - index}
    end
  end

  @doc "The index of the first element that is not less than `first`, and of the first that is greater than `last`."
  @spec bounds(Array.t(), term, term) :: {non_neg_integer, non_neg_integer}
  def bounds(array, first, last) do
    {first, last} = {key!(array, first), key!(array, last)}
    {index(lower_bound(array, first, 0)), index(lower_bound(array, last, 1))}
  end

  defp index(index) when index >= 0, do: index
  defp index(index), do: -1 - index

  # No element is so small or so large.
  defp lower_bound(_array, :before, _after_equal), do: -1
  defp lower_bound(array, :behind, _after_equal), do: -1 - Array.count(array)

  defp lower_bound(%{mem: handle(ref)} = array, key, after_equal) do
    case Native.array_search(ref, column(array), key, after_equal) do
      index when is_integer(index) -> index
      error -> Array.failed!(array, :search, error)
    end
  end

  defp key!(%{form: form}, value) when is_integer(form) and rem(form, 16) < 8 do
    cond do
      not is_integer(value) -> wrong!("an integer", value)
      value < -0x8000_0000_0000_0000 -> :before
      value > 0xFFFF_FFFF_FFFF_FFFF -> :behind
      true -> value
    end
  end

  defp key!(%{form: form}, value) when is_integer(form) do
    cond do
      is_number(value) -> value * 1.0
      value in [:infinity, :neg_infinity] -> value
      true -> wrong!("a number, :infinity or :neg_infinity", value)
    end
  rescue
    # An integer that is larger than any float.
    ArithmeticError -> wrong!("a number that a 64-bit float can represent", value)
  end

  defp key!(%{form: {:bytes, n} = form}, value) do
    if is_binary(value) and byte_size(value) <= n,
      # A copy, because a live binary could change.
      do: form |> Codec.encode!(value) |> IO.iodata_to_binary() |> :binary.copy(),
      else: wrong!("a binary of at most #{n} bytes", value)
  end

  defp key!(%{form: {:record, _, _}}, _value),
    do: raise(ArgumentError, "records have no order: name the field by which they are sorted")

  @spec wrong!(String.t(), term) :: no_return
  defp wrong!(needed, value) do
    raise ArgumentError,
          "#{needed} is needed, got #{inspect(value, limit: 10, printable_limit: 100)}"
  end

  @spec to_binary(Array.t()) :: binary
  def to_binary(%{form: {:record, _, _}}),
    do: raise(ArgumentError, "records are not a tensor: name a field with column/2")

  def to_binary(%{mem: handle(ref)} = array) do
    case Native.array_pack(ref, column(array), 0, Array.count(array)) do
      bytes when is_binary(bytes) -> bytes
      error -> Array.failed!(array, :read, error)
    end
  end
end
