defmodule Emmap.Test.BlocksWorker do
  @moduledoc """
  Stores, replaces and frees blocks until it is killed, in a VM of its own: `native/emmap_core/examples/blocks_worker.rs` is the same
  program in Rust. A record of its log is three words: what, the address, the number.
  """

  alias Emmap.Blocks

  @most 300

  @doc "The bytes of a worker's block with a number."
  def block(worker, number) do
    words = for index <- 1..7, into: <<>>, do: <<number * index::little-64>>
    <<worker::little-64, words::binary>>
  end

  @doc "The addresses that a log says are in use, and what was going on at its end."
  def replay(log) do
    for <<what::little-64, address::little-64, number::little-64 <- log>>, reduce: {%{}, nil} do
      {held, _pending} ->
        case what do
          0 -> {held, {:store, number}}
          what when what in [1, 5] -> {Map.put(held, address, number), nil}
          2 -> {held, {:free, address}}
          3 -> {Map.delete(held, address), nil}
          4 -> {held, {:write, address, number}}
        end
    end
  end

  def main([path, log, worker, first]) do
    [worker, first] = Enum.map([worker, first], &List.to_integer/1)
    {held, nil} = log |> File.read!() |> replay()
    blocks = Blocks.open!(path)
    {:ok, file} = :file.open(log, [:append, :raw, :binary])
    IO.puts("works")
    :rand.seed(:exsss, {worker, first, 0})
    work(%{blocks: blocks, log: file, worker: worker}, held, first)
  end

  defp work(state, held, next) do
    case {:rand.uniform(10), map_size(held)} do
      {n, count} when n <= 3 and count > 0 ->
        {address, _} = Enum.random(held)
        note(state, 4, address, next)
        :ok = Blocks.write(state.blocks, address, block(state.worker, next))
        note(state, 5, address, next)
        work(state, Map.put(held, address, next), next + 1)

      {n, count} when n <= 6 and count > 10 ->
        {address, _} = Enum.random(held)
        note(state, 2, address, 0)
        :ok = Blocks.free(state.blocks, address)
        note(state, 3, address, 0)
        work(state, Map.delete(held, address), next)

      {7, count} when count > 0 ->
        {address, number} = Enum.random(held)
        {:ok, data} = Blocks.read(state.blocks, address)
        true = data == block(state.worker, number)
        if :rand.uniform(100) == 1, do: :ok = Blocks.sync(state.blocks)
        work(state, held, next)

      {_, count} when count < @most ->
        note(state, 0, 0, next)
        {:ok, address} = Blocks.store(state.blocks, block(state.worker, next))
        note(state, 1, address, next)
        false = Map.has_key?(held, address)
        work(state, Map.put(held, address, next), next + 1)

      _ ->
        work(state, held, next)
    end
  end

  defp note(state, what, address, number),
    do: :ok = :file.write(state.log, <<what::little-64, address::little-64, number::little-64>>)
end
