defmodule Emmap.Inspection.CounterNames do
  @moduledoc false
  # The names of a counter file, version 1, and whether they are as they were written.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{FlippedBit, Source}

  @doc """
  The names in the order of the counters, or `nil` where these are numbered or the names are damaged.
  """
  @spec read(Source.t(), map, non_neg_integer) ::
          {[String.t()] | nil, [Emmap.Inspection.Format.problem()]}
  def read(_source, %{names_length: 0, names_checksum: 0}, _count), do: {nil, []}

  def read(source, %{names_offset: at, names_length: length} = header, count) do
    table = Source.read(source, at, length)
    computed = :erlang.crc32(table)

    cond do
      # Then so is the file, which is said elsewhere.
      byte_size(table) < length -> {nil, []}
      computed != header.names_checksum -> {nil, [changed(table, header, computed)]}
      true -> decode(table, at, count)
    end
  end

  defp changed(table, %{names_offset: at, names_checksum: written}, computed) do
    whole =
      "names, checksum: of bytes #{at} to #{at + byte_size(table) - 1} is 0x#{hex(computed)}, and the header says 0x#{hex(written)}"

    case FlippedBit.find(table, written) do
      {:ok, byte, bit} when byte < byte_size(table) ->
        was = FlippedBit.flip(table, byte, bit)

        problem(
          :damage,
          at + byte,
          1,
          "names, bit #{length(Integer.digits(bit, 2)) - 1} of this byte was flipped: " <>
            "it is #{inspect(<<:binary.at(table, byte)>>)} and was #{inspect(<<:binary.at(was, byte)>>)}"
        )

      _ ->
        problem(:damage, at, byte_size(table), whole)
    end
  end

  defp hex(n), do: n |> Integer.to_string(16) |> String.pad_leading(8, "0")

  # The checksum is right, so an error here was written as it is. Stops at the first invalid name: a table
  # of 16 MiB may hold eight million empty ones.
  defp decode(table, at, count) do
    with {:ok, names} <- split(table, at, [], MapSet.new()),
         :ok <- counted(names, at, table, count) do
      {if(names != [], do: names), []}
    else
      {:error, problem} -> {nil, [problem]}
    end
  end

  defp split(<<>>, _at, names, _seen), do: {:ok, Enum.reverse(names)}

  defp split(<<length::little-16, name::binary-size(length), rest::binary>>, at, names, seen) do
    cond do
      not String.valid?(name) ->
        message = "names, number #{MapSet.size(seen)} is not UTF-8"
        {:error, problem(:damage, at + 2, length, message)}

      name in seen ->
        {:error, problem(:damage, at, 2 + length, "names, #{inspect(name)} stands twice")}

      true ->
        split(rest, at + 2 + length, [name | names], MapSet.put(seen, name))
    end
  end

  defp split(rest, at, _names, seen) do
    message = "names, number #{MapSet.size(seen)} is longer than what is left of the names"
    {:error, problem(:damage, at, byte_size(rest), message)}
  end

  defp counted([], _at, _table, _count), do: :ok

  defp counted(names, at, table, count) do
    if length(names) == count do
      :ok
    else
      message = "names, there are #{length(names)} for #{count} counters"
      {:error, problem(:damage, at, byte_size(table), message)}
    end
  end
end
