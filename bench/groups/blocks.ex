defmodule Bench.Groups.Blocks do
  @moduledoc false
  # Blocks compared with OTP's tables, and with CubDB where it is there.
  import Bench
  alias Emmap.Blocks
  @compile {:no_warn_undefined, CubDB}

  @data String.duplicate("x", 64)

  loop(empty(x, n), do: _ = x)
  loop(update_counter(table, n), do: _ = :ets.update_counter(table, 1, 1))
  loop(store(blocks, n), do: {:ok, _} = Blocks.store(blocks, @data))
  loop(read(blocks, n), do: {:ok, _} = Blocks.read(blocks, n - 1))
  loop(write(blocks, n), do: :ok = Blocks.write(blocks, n - 1, @data))
  loop(free(blocks, n), do: :ok = Blocks.free(blocks, n - 1))
  loop(ets_insert(table, n), do: true = :ets.insert(table, {n, @data}))
  loop(ets_read(table, n), do: [_] = :ets.lookup(table, n))
  loop(dets_insert(table, n), do: :ok = :dets.insert(table, {n, @data}))
  loop(dets_read(table, n), do: [_] = :dets.lookup(table, n))
  loop(cub_put(db, n), do: :ok = CubDB.put(db, n, @data))
  loop(cub_get(db, n), do: @data = CubDB.get(db, n))
  loop(read_first(blocks, n), do: {:ok, _} = n && Blocks.read(blocks, 0))

  loop synced(blocks, n) do
    {:ok, _} = Blocks.store(blocks, @data)
    :ok = Blocks.sync(blocks)
  end

  loop dets_synced(table, n) do
    :ok = :dets.insert(table, {n, @data})
    :ok = :dets.sync(table)
  end

  loop cub_synced(db, n) do
    :ok = CubDB.put(db, n, @data)
    :ok = CubDB.file_sync(db)
  end

  # As many as a round may store, free or read.
  @calls 10_000

  def title, do: "Blocks"

  def run(folder) do
    [store, read, others, durable] = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    [
      {:note,
       "A block is stored when its bit is set: one store after the data and its checksum. An address is a number, so a read is arithmetic and a copy. " <>
         "The physical limit is the copy and a checksum."},
      store,
      read,
      others,
      for(
        {one, text, wanted} <- [
          {store, "Blocks.store", 0.5},
          {read, "Blocks.read", 0.5},
          {others, "Blocks.free", 0.42}
        ],
        do:
          headline(
            one,
            :counter,
            "#{text}, compared with one :ets.update_counter",
            {:at_most, wanted}
          )
      ),
      if(store.times[:cub] == nil, do: Bench.Outside.missing("CubDB"), else: []),
      {:note,
       "**With a sync of each.** `Blocks.sync/1` syncs twice: first the data, and then the record that the data is valid, because the power can fail in between. CubDB appends and syncs once."},
      durable,
      {:note, "**Large blocks, live and copied.**"},
      sizes(folder)
    ]
  end

  @doc "Of several VMs."
  def calls(folder) do
    blocks = Blocks.open!(Path.join(folder, "blocks"), block_size: 64)
    full = Blocks.open!(Path.join(folder, "full"), block_size: 64)
    {:ok, _} = Blocks.store_many(full, List.duplicate(@data, @calls))
    :ets.new(:bench_blocks, [:public, :named_table])
    :ets.insert(:bench_blocks, for(n <- 0..@calls, do: {n, @data}))
    counter = :ets.new(:bench_counter, [:public, :named_table])
    :ets.insert(counter, {1, 0})
    {:ok, dets} = :dets.open_file(:bench_blocks, file: to_charlist(Path.join(folder, "dets")))
    :dets.insert(dets, for(n <- 0..@calls, do: {n, @data}))
    cub = cub(folder)

    emptied = fn ->
      for(n <- 0..(@calls - 1), Blocks.used?(blocks, n), do: Blocks.free(blocks, n))
    end

    filled = fn ->
      missing = @calls - Blocks.count(blocks)
      if missing > 0, do: Blocks.store_many(blocks, List.duplicate(@data, missing))
    end

    store =
      compare(
        "store 64 B",
        [
          side(:emmap, "Blocks.store", fn _, n -> store(blocks, n) end,
            most: @calls,
            setup: emptied
          ),
          side(:counter, "one :ets.update_counter", &update_counter(counter, &1)),
          side(:ets, ":ets.insert", &ets_insert(:bench_blocks, &1), most: @calls),
          side(:dets, ":dets.insert", &dets_insert(dets, &1), most: @calls)
        ] ++ for(db <- cub, do: side(:cub, "CubDB.put, no sync", &cub_put(db, &1), most: @calls)),
        empty: &empty(blocks, &1),
        seconds: 2
      )

    read =
      compare(
        "read 64 B",
        [
          side(:emmap, "Blocks.read", &read(full, &1), most: @calls),
          side(:counter, "one :ets.update_counter", &update_counter(counter, &1)),
          side(:ets, ":ets.lookup", &ets_read(:bench_blocks, &1), most: @calls),
          side(:dets, ":dets.lookup", &dets_read(dets, &1), most: @calls)
        ] ++ for(db <- cub, do: side(:cub, "CubDB.get", &cub_get(db, &1), setup: nil, most: 100)),
        empty: &empty(blocks, &1)
      )

    others =
      compare(
        "write over, and free",
        [
          side(:emmap, "Blocks.free", fn _, n -> free(blocks, n) end, most: @calls, setup: filled),
          side(:write, "Blocks.write", &write(full, &1), most: @calls),
          side(:many, "Blocks.store_many, each of 1,000", fn _, _ -> store_many(blocks) end,
            most: 1000,
            setup: emptied
          ),
          side(:counter, "one :ets.update_counter", &update_counter(counter, &1))
        ],
        empty: &empty(blocks, &1),
        seconds: 2
      )

    durable =
      compare(
        "store 64 B and a sync",
        [
          side(:emmap, "Blocks.store, Blocks.sync", &synced(blocks, &1), most: 100),
          side(:dets, ":dets.insert, :dets.sync", &dets_synced(dets, &1), most: 100)
        ] ++
          for(
            db <- cub,
            do: side(:cub, "CubDB.put, CubDB.file_sync", &cub_synced(db, &1), most: 100)
          ),
        seconds: 2
      )

    Enum.each(cub, &GenServer.stop/1)
    :dets.close(dets)
    for table <- [:bench_blocks, counter], do: :ets.delete(table)
    for it <- [blocks, full], do: Blocks.close(it)
    [store, read, others, durable]
  end

  defp store_many(blocks), do: {:ok, _} = Blocks.store_many(blocks, List.duplicate(@data, 1000))

  # Without syncs and compactions, which would be in the way.
  defp cub(folder) do
    if Bench.Outside.library?("cubdb", CubDB) do
      {:ok, db} =
        CubDB.start_link(
          data_dir: Path.join(folder, "cubdb"),
          auto_file_sync: false,
          auto_compact: false
        )

      for n <- 1..100, do: :ok = CubDB.put(db, n, @data)
      [db]
    else
      []
    end
  end

  defp sizes(folder) do
    for size <- [4096, 65_536, 1_048_576] do
      path = Path.join(folder, "blocks#{size}")
      blocks = Blocks.open!(path, block_size: size)
      {:ok, 0} = Blocks.store(blocks, :binary.copy("x", size))
      live = Blocks.open!(path, direct: true)

      result =
        compare(
          "read a block of #{bytes(size)}",
          [
            side(:emmap, "live", &read_first(live, &1)),
            side(:copied, "copied", &read_first(blocks, &1))
          ],
          seconds: 0.7
        )

      for it <- [live, blocks], do: Blocks.close(it)
      result
    end
  end
end
