defmodule Bench.Survive.Contenders do
  @moduledoc false
  # The contenders that acknowledge operations, how many of these are there afterwards, and how each syncs them.
  @compile {:no_warn_undefined, [:mnesia, :replayq, CubDB]}

  alias Emmap.{Blocks, Counters, Queue}

  @count 1_000
  @record String.duplicate("x", 75)

  @doc "`{name, label, what one operation is, what the sync is}`; a sync that is nil is there at each operation, or not at all."
  def all do
    [
      {:counters, "Emmap.Counters", "add", "sync"},
      {:queue, "Emmap.Queue", "push", "sync"},
      {:blocks, "Emmap.Blocks", "store", "sync"},
      {:pwrite, "Emmap.pwrite", "pwrite of 75 B", "sync"},
      {:append, "Emmap.write, :append", "write of 75 B", "sync"},
      {:ets, ":ets, with tab2file", "insert", "tab2file, sync: true"},
      {:persistent_term, ":persistent_term", "put", nil},
      {:dets, ":dets", "insert", "sync"},
      {:disk_log, ":disk_log", "log", "sync"},
      {:mnesia_ram, ":mnesia, ram_copies", "transaction", "dump_tables"},
      {:mnesia_disc, ":mnesia, disc_copies", "transaction", "sync_log"},
      {:mnesia_only, ":mnesia, disc_only_copies", "transaction", "sync_log"},
      {:raw, "raw :file.write", "write of 75 B", "sync"},
      {:delayed, ":file.write, delayed_write", "write of 75 B", "sync"},
      {:file_write, "File.write!, [:append]", "open, write, close", "sync"},
      {:replayq, "replayq", "append", nil},
      {:cubdb, "CubDB", "put, its own sync off", "file_sync"},
      {:cubdb_synced, "CubDB, auto_file_sync", "put", nil}
    ] ++
      for {name, label, sync} <- [
            {:sqlite, "SQLite, from Python", nil},
            {:sqlite_off, "SQLite, synchronous = off", "wal_checkpoint"},
            {:lmdb, "LMDB, from Python", nil},
            {:lmdb_nosync, "LMDB, sync=False", "sync"}
          ],
          do: {name, label, "transaction", sync}
  end

  def count, do: @count

  @doc "Of the programs in Python."
  def python?(name), do: name in [:sqlite, :sqlite_off, :lmdb, :lmdb_nosync]

  def there?(:replayq), do: Bench.Outside.library?("replayq", :replayq)

  def there?(name) when name in [:cubdb, :cubdb_synced],
    do: Bench.Outside.library?("cubdb", CubDB)

  def there?(name) when name in [:mnesia_ram, :mnesia_disc, :mnesia_only],
    do: Bench.Outside.otp?(:mnesia)

  def there?(_), do: true

  @doc "In a VM of its own: all operations, each of which has returned; then the sync, if wanted. Then it waits to be killed."
  def work(name, folder, sync?) do
    true = there?(name)
    it = open(name, folder)
    {microseconds, it} = :timer.tc(fn -> Enum.reduce(1..@count, it, &add(name, &2, &1)) end)
    if sync?, do: sync(name, it, folder)
    IO.puts("DONE #{microseconds}")
    Process.sleep(:infinity)
  end

  @doc """
  In a VM of its own, afterwards: how many of them are there. After a power failure there was another boot: a structure finds
  that out by its file, so a copy of the file, which is another one, is opened.
  """
  def found(name, folder, rebooted?) do
    true = there?(name)

    if rebooted? and name in [:counters, :queue, :blocks] do
      File.cp!(file(folder), file(folder, "copy"))
      File.rename!(file(folder, "copy"), file(folder))
    end

    here(name, folder)
  rescue
    # It does not open any more, or is not there.
    error ->
      IO.puts(:stderr, Exception.message(error))
      0
  end

  defp file(folder, name \\ "file"), do: Path.join(folder, name)
  defp charlist(folder, name \\ "file"), do: folder |> file(name) |> String.to_charlist()

  defp open(:counters, folder), do: Counters.open!(file(folder), 8)
  defp open(:queue, folder), do: Queue.open!(file(folder))
  defp open(:blocks, folder), do: Blocks.open!(file(folder), block_size: 75)
  defp open(:pwrite, folder), do: Emmap.open!(file(folder), [:write, :create])
  defp open(:append, folder), do: Emmap.open!(file(folder), [:append, :create])
  defp open(:ets, _), do: :ets.new(:survive, [:public])
  defp open(:persistent_term, _), do: nil

  defp open(:dets, folder) do
    {:ok, table} = :dets.open_file(:survive, file: charlist(folder))
    table
  end

  defp open(:disk_log, folder) do
    {:ok, log} = :disk_log.open(name: :survive, file: charlist(folder))
    log
  end

  defp open(:mnesia_ram, folder), do: mnesia(folder, :ram_copies)
  defp open(:mnesia_disc, folder), do: mnesia(folder, :disc_copies)
  defp open(:mnesia_only, folder), do: mnesia(folder, :disc_only_copies)
  defp open(:raw, folder), do: raw(folder, [])
  defp open(:delayed, folder), do: raw(folder, [:delayed_write])
  defp open(:file_write, folder), do: file(folder)

  defp open(:replayq, folder) do
    {:ok, _} = Application.ensure_all_started(:replayq)
    :replayq.open(%{dir: file(folder), seg_bytes: 10_000_000})
  end

  defp open(:cubdb, folder), do: cubdb(folder, false)
  defp open(:cubdb_synced, folder), do: cubdb(folder, true)

  defp raw(folder, modes) do
    {:ok, file} = :file.open(file(folder), [:append, :raw, :binary] ++ modes)
    file
  end

  defp mnesia(folder, copies) do
    Application.put_env(:mnesia, :dir, charlist(folder, "mnesia"))
    Application.put_env(:mnesia, :core_dir, charlist(folder, ""))
    :mnesia.stop()
    :ok = :mnesia.create_schema([node()])
    :ok = :mnesia.start()
    {:atomic, :ok} = :mnesia.create_table(:survive, [{copies, [node()]}])
    :survive
  end

  defp cubdb(folder, sync?) do
    {:ok, db} =
      CubDB.start_link(data_dir: file(folder), auto_file_sync: sync?, auto_compact: false)

    db
  end

  # An operation is acknowledged when it has returned.
  defp add(:counters, it, _), do: did(Counters.add(it, 0, 1), it)
  defp add(:queue, it, n), do: did(Queue.push(it, {n, @record}), it)

  defp add(:blocks, it, _) do
    {:ok, _} = Blocks.store(it, @record)
    it
  end

  defp add(:pwrite, it, n), do: did(Emmap.pwrite(it, (n - 1) * 75, @record), it)
  defp add(:append, it, _), do: did(Emmap.write(it, @record), it)

  defp add(:ets, it, n) do
    :ets.insert(it, {n, @record})
    it
  end

  defp add(:persistent_term, it, n), do: did(:persistent_term.put({:survive, n}, @record), it)
  defp add(:dets, it, n), do: did(:dets.insert(it, {n, @record}), it)
  defp add(:disk_log, it, n), do: did(:disk_log.log(it, {n, @record}), it)

  defp add(name, it, n) when name in [:mnesia_ram, :mnesia_disc, :mnesia_only] do
    {:atomic, :ok} = :mnesia.transaction(fn -> :mnesia.write({it, n, @record}) end)
    it
  end

  defp add(name, it, _) when name in [:raw, :delayed], do: did(:file.write(it, @record), it)
  defp add(:file_write, it, _), do: did(File.write!(it, @record, [:append]), it)
  defp add(:replayq, it, _), do: :replayq.append(it, [@record])

  defp add(name, it, n) when name in [:cubdb, :cubdb_synced],
    do: did(CubDB.put(it, n, @record), it)

  defp did(:ok, it), do: it

  defp sync(:counters, it, _), do: :ok = Counters.sync(it)
  defp sync(:queue, it, _), do: :ok = Queue.sync(it)
  defp sync(:blocks, it, _), do: :ok = Blocks.sync(it)
  defp sync(name, it, _) when name in [:pwrite, :append], do: :ok = Emmap.sync(it)
  defp sync(:ets, it, folder), do: :ok = :ets.tab2file(it, charlist(folder), sync: true)
  defp sync(:dets, it, _), do: :ok = :dets.sync(it)
  defp sync(:disk_log, it, _), do: :ok = :disk_log.sync(it)
  defp sync(:mnesia_ram, it, _), do: {:atomic, :ok} = :mnesia.dump_tables([it])
  defp sync(name, _, _) when name in [:mnesia_disc, :mnesia_only], do: :ok = :mnesia.sync_log()
  defp sync(name, it, _) when name in [:raw, :delayed], do: :ok = :file.sync(it)

  defp sync(:file_write, path, _) do
    {:ok, file} = :file.open(path, [:append, :raw])
    :ok = :file.sync(file)
  end

  defp sync(:cubdb, it, _), do: :ok = CubDB.file_sync(it)
  defp sync(_, _, _), do: :ok

  defp here(:counters, folder), do: Counters.get(Counters.open!(file(folder), 8), 0)

  defp here(:queue, folder),
    do: folder |> file() |> Queue.open!() |> Enum.count(&match?({_, @record}, &1))

  defp here(:blocks, folder),
    do: folder |> file() |> Blocks.open!() |> Enum.count(&match?({_, @record}, &1))

  defp here(name, folder) when name in [:pwrite, :append, :raw, :delayed, :file_write] do
    data = File.read!(file(folder))
    for(<<record::binary-75 <- data>>, record == @record, do: 1) |> length()
  end

  defp here(:ets, folder) do
    {:ok, table} = :ets.file2tab(charlist(folder))
    :ets.info(table, :size)
  end

  defp here(:persistent_term, _), do: 0

  defp here(:dets, folder) do
    {:ok, table} = :dets.open_file(:survive, file: charlist(folder))
    :dets.info(table, :size)
  end

  defp here(:disk_log, folder) do
    case :disk_log.open(name: :survive, file: charlist(folder)) do
      {:ok, log} -> terms(log, :start, 0)
      {:repaired, log, _, _} -> terms(log, :start, 0)
    end
  end

  defp here(name, folder) when name in [:mnesia_ram, :mnesia_disc, :mnesia_only] do
    Application.put_env(:mnesia, :dir, charlist(folder, "mnesia"))
    Application.put_env(:mnesia, :core_dir, charlist(folder, ""))
    :mnesia.stop()
    :ok = :mnesia.start()
    :ok = :mnesia.wait_for_tables([:survive], 20_000)
    :mnesia.table_info(:survive, :size)
  end

  defp here(:replayq, folder) do
    {:ok, _} = Application.ensure_all_started(:replayq)
    :replayq.count(:replayq.open(%{dir: file(folder), seg_bytes: 10_000_000}))
  end

  defp here(name, folder) when name in [:cubdb, :cubdb_synced],
    do: CubDB.size(cubdb(folder, false))

  defp terms(log, from, count) do
    case :disk_log.chunk(log, from) do
      {next, terms} -> terms(log, next, count + length(terms))
      {next, terms, _bad} -> terms(log, next, count + length(terms))
      :eof -> count
    end
  end
end
