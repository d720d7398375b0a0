defmodule Emmap.Table.Reader do
  @moduledoc false
  # The records of a table as a stream, in the order of the file.

  alias Emmap.{Handle, HeapRoom, Native, Structure}
  alias Emmap.Table.Format

  @most 500
  # Where the records begin.
  @first 4096

  @type what :: :pairs | :keys
  @type bound :: :none | {:last, binary} | {:prefix, binary}

  @doc "The records from `from` on, a key of a sorted table or `nil`, as far as `bound`."
  @spec stream(Emmap.Table.t(), what, binary | nil, bound) :: Enumerable.t()
  def stream(table, what, from, bound) do
    {number, key} = number(what, bound)

    Stream.resource(
      fn -> start(table, from) end,
      &next(table, number, key, &1),
      fn _position -> :ok end
    )
  end

  defp number(what, bound) do
    number = if what == :keys, do: 1, else: 0

    case bound do
      :none -> {number, ""}
      {:last, key} -> {number + 2, key}
      {:prefix, key} -> {number + 4, key}
    end
  end

  defp start(_table, nil), do: @first

  defp start(table, from) do
    case Native.table_seek(table.ref, from) do
      {:error, reason} -> failed!(table, reason)
      position -> position
    end
  end

  defp next(_table, _number, _key, nil), do: {:halt, nil}

  defp next(table, number, key, position) do
    most = HeapRoom.batch(@most)

    case Native.table_walk(table.ref, Handle.root(table.root), position, most, number, key) do
      {:error, reason} -> failed!(table, reason)
      {records, next} -> {decoded(table, number, records), next}
    end
  end

  defp decoded(%{format: {:binary, :binary}}, _number, records), do: records

  defp decoded(%{format: {keys, values}, to_term: options}, number, records) do
    case rem(number, 2) do
      1 ->
        Enum.map(records, &Format.decode(keys, &1, options))

      0 ->
        Enum.map(records, fn {key, value} ->
          {Format.decode(keys, key, options), Format.decode(values, value, options)}
        end)
    end
  end

  @spec failed!(Emmap.Table.t(), term) :: no_return
  def failed!(table, reason), do: Structure.failed!(table, :table, :read, reason)
end
