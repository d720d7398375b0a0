defmodule Emmap.Blocks.Import do
  @moduledoc false
  # Copies the blocks of a predecessor's file. See `Emmap.Blocks.import/3`.

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Blocks, Handle, Native, OptionList}

  @options [addresses: {&__MODULE__.addresses?/1, ":same | :new"}]
  # How many bytes of blocks are read at once.
  @at_once 4_194_304

  def addresses?(addresses), do: addresses in [:same, :new]

  def run(path, to, options) do
    how = options |> OptionList.check!(@options) |> Map.get(:addresses, :same)

    with {:ok, mem} <- Emmap.open(path, [:read]) do
      try do
        ref = Handle.ref!(mem)

        with {:ok, size} <- patient(Native.block_storage_look(ref)),
             :ok <- small(size),
             do: into(to, size, &copy(ref, &1, how, most(size), 0, %{}))
      after
        Emmap.close(mem)
      end
    end
  end

  defp small(size), do: if(Blocks.size?(size), do: :ok, else: {:error, {:bad_format, :kind}})

  defp most(size), do: (@at_once / size) |> trunc() |> max(1) |> min(500)

  defp into(%Blocks{block_size: size} = blocks, size, copy), do: copy.(blocks)

  defp into(%Blocks{block_size: other}, _size, _copy),
    do: {:error, {:other_block_size, other}}

  defp into(path, size, copy) do
    with {:ok, blocks} <- Blocks.open(path, block_size: size) do
      try do
        copy.(blocks)
      after
        # Either everything is on the disk already, or the copy has failed.
        Blocks.close(blocks)
      end
    end
  end

  defp copy(_ref, blocks, _how, _most, :eof, addresses) do
    with :ok <- Blocks.sync(blocks), do: {:ok, addresses}
  end

  defp copy(ref, blocks, how, most, from, addresses) do
    with {some, next} when is_list(some) <-
           patient(Native.block_storage_read_from(ref, from, most, 1)),
         {:ok, addresses} <- store(blocks, how, Enum.reverse(some), addresses),
         do: copy(ref, blocks, how, most, next, addresses)
  end

  defp store(blocks, :same, some, addresses) do
    Enum.reduce_while(some, {:ok, addresses}, fn {address, data}, {:ok, addresses} ->
      case patient(Native.blocks_store_at(blocks.ref, address, data)) do
        :ok -> {:cont, {:ok, Map.put(addresses, address, address)}}
        error -> {:halt, error}
      end
    end)
  end

  defp store(blocks, :new, some, addresses) do
    {old, data} = Enum.unzip(some)

    with {:ok, new} <- stored(Blocks.store_many(blocks, data)),
         do: {:ok, old |> Enum.zip(new) |> Enum.into(addresses)}
  end

  defp stored({:error, reason, _addresses}), do: {:error, reason}
  defp stored(stored), do: stored
end
