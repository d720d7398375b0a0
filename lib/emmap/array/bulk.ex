defmodule Emmap.Array.Bulk do
  @moduledoc false
  # Many elements at once.

  import Emmap.Handle, only: [handle: 1]
  import Emmap.Waiting, only: [patient: 1]

  alias Emmap.Array
  alias Emmap.Array.{Codec, Folds, Form}
  alias Emmap.Native

  # What is read at once, in bytes.
  @piece 16_384

  @doc false
  # The elements of `from .. from + count - 1`, as far as they exist.
  @spec part(Array.t(), non_neg_integer, non_neg_integer) :: [Array.element()]
  def part(%{form: form, stride: stride, field: field} = array, from, count) do
    count = count |> min(Array.count(array) - from) |> max(0)
    bytes = bytes(array, from, count)

    if stride == Form.size(form),
      do: Codec.decode_all(form, bytes),
      else: Codec.decode_column(form, bytes, field, stride)
  end

  # Whole records: fewer if the map became shorter in the meantime.
  defp bytes(_array, _from, 0), do: ""

  defp bytes(%{mem: handle(ref), first: first, stride: stride} = array, from, count) do
    case patient(Native.pread_copy(ref, first + from * stride, count * stride)) do
      bytes when is_binary(bytes) ->
        binary_part(bytes, 0, byte_size(bytes) - rem(byte_size(bytes), stride))

      :eof ->
        ""

      error ->
        Array.failed!(array, :read, error)
    end
  end

  @doc false
  # A record or a binary, or `nil` if there is none.
  @spec one(Array.t(), non_neg_integer) :: Array.element() | nil
  def one(%{mem: handle(ref), form: form, field: field} = array, index) do
    %{first: first, stride: stride} = array

    # The whole record, of which the end may be past that of the map.
    case patient(Native.pread_copy(ref, first + index * stride, stride)) do
      record when byte_size(record) == stride ->
        Codec.decode(form, record, field)

      {:error, _} = error ->
        Array.failed!(array, :read, error)

      _eof_or_incomplete ->
        nil
    end
  end

  @doc false
  # The numbers at these indices.
  @spec pick(Array.t(), [non_neg_integer]) :: [Array.element() | nil]
  def pick(array, indices), do: pick(array, Folds.column(array), indices, [])

  defp pick(_array, _column, [], done), do: done |> Enum.reverse() |> Enum.concat()

  defp pick(%{mem: handle(ref)} = array, column, indices, done) do
    case patient(Native.array_pick(ref, column, indices)) do
      {:error, _} = error -> Array.failed!(array, :read, error)
      {values, rest} -> pick(array, column, rest, [Enum.reverse(values) | done])
    end
  end

  @doc false
  # As `part/3`, of any length.
  @spec pieces(Array.t(), non_neg_integer, non_neg_integer) :: [Array.element()]
  def pieces(array, from, count) do
    step = step(array)

    from
    |> Stream.iterate(&(&1 + step))
    |> Stream.take(div(count + step - 1, step))
    |> Enum.flat_map(&part(array, &1, min(step, from + count - &1)))
  end

  @doc false
  # How many elements are read at once.
  @spec step(Array.t()) :: pos_integer
  def step(%{stride: stride}), do: max(div(@piece, stride), 1)

  @doc false
  # `count` elements, of which each is `step` after the one before.
  @spec steps(Array.t(), non_neg_integer, non_neg_integer, pos_integer) :: [Array.element()]
  def steps(array, from, count, step),
    do: for(n <- 0..(count - 1)//1, do: Array.at(array, from + n * step))

  # Writes of a piece each: a long write would keep others waiting.
  @joined 65_536

  @doc false
  # Joins writes that follow each other, of elements of `stride` bytes.
  @spec joined([{Emmap.position(), iodata}], pos_integer) :: [{Emmap.position(), iodata}]
  def joined(writes, stride) do
    Enum.chunk_while(
      writes,
      nil,
      fn
        {at, bytes}, {from, size, done} when at == from + size and size < @joined ->
          {:cont, {from, size + stride, [done | bytes]}}

        {at, bytes}, nil ->
          {:cont, {at, stride, bytes}}

        {at, bytes}, {from, _size, done} ->
          {:cont, {from, done}, {at, stride, bytes}}
      end,
      fn
        nil -> {:cont, nil}
        {from, _size, done} -> {:cont, {from, done}, nil}
      end
    )
  end
end
