# Blocks compared with ets and among themselves, in one run: single calls, many blocks, and opening. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Blocks do
  import Bench
  alias Emmap.Blocks

  @data String.duplicate("x", 64)
  # Of a named table, as in the README.
  @limits %{store: 0.5, read: 0.5, free: 0.42}

  loop(empty(x, n), do: _ = x)
  loop(update_counter(table, n), do: _ = :ets.update_counter(table, 1, 1))
  loop(store(blocks, n), do: {:ok, _} = Blocks.store(blocks, @data))
  loop(read(blocks, n), do: {:ok, _} = Blocks.read(blocks, n - 1))
  loop(write(blocks, n), do: :ok = Blocks.write(blocks, n - 1, @data))
  loop(free(blocks, first, n), do: :ok = Blocks.free(blocks, first + n - 1))
  loop(store_many(blocks, data, n), do: {:ok, _} = Blocks.store_many(blocks, data))

  @calls 20_000
  @rounds 40

  def run(folder) do
    blocks = Blocks.open!(Path.join(folder, "blocks"), block_size: 64)
    :ets.new(:bench_blocks, [:public, :named_table])
    :ets.insert(:bench_blocks, {1, 0})
    header("ns, best of #{rounds(@rounds)} rounds, blocks of 64 bytes", "blocks", "ets")
    count = amount(@calls)

    best =
      compare(
        [
          {:empty, @calls, &empty(blocks, &1)},
          {:ets, @calls, &update_counter(:bench_blocks, &1)},
          {:store, @calls, &store(blocks, &1)},
          {:read, @calls, &read(blocks, &1)},
          {:write, @calls, &write(blocks, &1)},
          {:free, @calls, &free(blocks, 0, &1)}
        ],
        @rounds
      )

    ets = best.ets - best.empty

    for call <- [:store, :read, :write, :free],
        do: row("#{call} : ets.update_counter", best[call] - best.empty, ets, @limits[call] || "")

    data = List.duplicate(@data, 1000)

    many =
      best(@rounds,
        many: fn ->
          one = time(&store_many(blocks, data, &1), 10) / 1000
          for address <- 0..9_999, do: :ok = Blocks.free(blocks, address)
          one
        end
      ).many

    row("store_many, each of 1,000 : store", many, best.store - best.empty)
    0 = Blocks.count(blocks)
    Blocks.close(blocks)
    sizes(folder, count)
    large(folder)
  end

  # A copy of 64 KiB and the memory that it is copied from.
  defp sizes(folder, _count) do
    for size <- [4096, 65_536, 1_048_576] do
      path = Path.join(folder, "blocks#{size}")
      data = :binary.copy("x", size)
      blocks = Blocks.open!(path, block_size: size)
      {:ok, 0} = Blocks.store(blocks, data)
      live = Blocks.open!(path, direct: true)
      calls = max(div(50_000_000, size), 20)

      result =
        compare(
          [{:copy, calls, &read_first(blocks, &1)}, {:live, calls, &read_first(live, &1)}],
          15
        )

      row("read of #{div(size, 1024)} KiB, live : copied", result.live, result.copy)
      Blocks.close(live)
      Blocks.close(blocks)
    end
  end

  loop(read_first(blocks, n), do: _n = n && ({:ok, _} = Blocks.read(blocks, 0)))

  defp large(folder) do
    path = Path.join(folder, "many")
    blocks = Blocks.open!(path, block_size: 64)
    few = at_length(blocks, 1_000)
    total = amount(10_000_000)
    data = List.duplicate(@data, 10_000)
    for _ <- 1..div(total, 10_000), do: {:ok, _} = Blocks.store_many(blocks, data)
    many = at_length(blocks, total)
    row("store at #{total} blocks : at 1,000", many, few, 1.5)
    {_, 0} = System.cmd("sh", ["-c", "true"])
    opening(path, total)
    Blocks.close(blocks)
    File.rm!(path)
  end

  # Stores behind so many blocks, and frees again.
  defp at_length(blocks, length) do
    missing = max(length - Blocks.count(blocks), 0)
    {:ok, _} = Blocks.store_many(blocks, List.duplicate(@data, missing))
    count = Blocks.count(blocks)

    best(@rounds,
      store: fn ->
        time = time(&store(blocks, &1), amount(@calls))
        for address <- count..(Blocks.count(blocks) - 1), do: :ok = Blocks.free(blocks, address)
        time
      end
    ).store
  end

  # As after kill -9: another handle is open, so that nothing is synced or closed. And as after a power failure: a copy has another inode.
  defp opening(path, total) do
    open = fn path ->
      best(10,
        open: fn ->
          {microseconds, {:ok, blocks}} = :timer.tc(fn -> Blocks.open(path) end)
          Blocks.close(blocks)
          microseconds
        end
      ).open
    end

    IO.puts("  opening #{total} blocks: #{open.(path)} us (at most 1,000)")
    copy = path <> ".copy"
    File.cp!(path, copy)
    {microseconds, {:ok, blocks}} = :timer.tc(fn -> Blocks.open(copy) end)
    %{recovered: recovered} = Blocks.info(blocks)
    IO.puts("  after a power failure: #{microseconds} us (at most 20,000); #{inspect(recovered)}")
    Blocks.close(blocks)
    File.rm!(copy)
  end
end

Bench.main(&Bench.Blocks.run/1)
