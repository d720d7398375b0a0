# Blocks compared with CubDB (github.com/lucaong/cubdb, not a part of this repository), on the same data. Not a part of `make bench`, for it
# needs a checkout: mix run bench/others/cubdb.exs CHECKOUT

Code.require_file("../harness.exs", __DIR__)

unless System.get_env("EMMAP_BENCH_COMPILE") == "1" do
  [checkout] = System.argv()

  {:ok, _, _} =
    checkout |> Path.join("lib/**/*.ex") |> Path.wildcard() |> Kernel.ParallelCompiler.compile()
end

defmodule Bench.CubDB do
  import Bench
  alias Emmap.Blocks

  @count 10_000
  @data String.duplicate("x", 64)

  def run(folder) do
    header("ns each, of #{@count} values of 64 bytes", "emmap", "CubDB")

    sides = for round <- 1..rounds(5), do: {blocks(folder, round), cubdb(folder, round)}

    for {name, index} <-
          Enum.with_index([
            "store",
            "read",
            "free half of them",
            "store, the sync of each included"
          ]) do
      least = fn side ->
        sides |> Enum.map(&(&1 |> elem(side) |> Enum.at(index))) |> Enum.min()
      end

      row(name, least.(0), least.(1))
    end
  end

  defp each(count, act) do
    {microseconds, _} = :timer.tc(act)
    microseconds * 1000 / count
  end

  defp blocks(folder, round) do
    blocks = Blocks.open!(Path.join(folder, "blocks#{round}"), block_size: 64)
    store = each(@count, fn -> for _ <- 1..@count, do: {:ok, _} = Blocks.store(blocks, @data) end)
    read = each(@count, fn -> for n <- 1..@count, do: {:ok, _} = Blocks.read(blocks, n - 1) end)
    free = each(div(@count, 2), fn -> for n <- 1..@count//2, do: :ok = Blocks.free(blocks, n) end)

    synced =
      each(20, fn ->
        for _ <- 1..20 do
          {:ok, _} = Blocks.store(blocks, @data)
          :ok = Blocks.sync(blocks)
        end
      end)

    Blocks.close(blocks)
    [store, read, free, synced]
  end

  defp cubdb(folder, round) do
    options = [
      data_dir: Path.join(folder, "cubdb#{round}"),
      auto_file_sync: false,
      auto_compact: false
    ]

    {:ok, db} = apply(CubDB, :start_link, [options])
    call = fn function, arguments -> apply(CubDB, function, [db | arguments]) end
    store = each(@count, fn -> for n <- 1..@count, do: :ok = call.(:put, [n - 1, @data]) end)
    read = each(@count, fn -> for n <- 1..@count, do: @data = call.(:get, [n - 1]) end)
    free = each(div(@count, 2), fn -> for n <- 1..@count//2, do: :ok = call.(:delete, [n]) end)

    synced =
      each(20, fn ->
        for n <- 1..20 do
          :ok = call.(:put, [@count + n, @data])
          :ok = call.(:file_sync, [])
        end
      end)

    GenServer.stop(db)
    [store, read, free, synced]
  end
end

Bench.main(&Bench.CubDB.run/1)
