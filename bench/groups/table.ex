defmodule Bench.Groups.Table do
  @moduledoc false
  # A table that many processes read, compared with what the BEAM has for it: ETS, a map in persistent_term, dets, and a binary
  # search in a sorted file; with LMDB from Python and with CubDB, where they are there. Building, compared with sort.
  import Bench
  alias Bench.{Comparison, Outside, VM}
  alias Emmap.Table
  @compile {:no_warn_undefined, CubDB}

  # A record has 40 bytes.
  @key 16
  @value 24
  @record @key + @value

  @small 200_000
  @large 10_000_000
  # A power of two. Enough that their records are in no cache.
  @keys 1_048_576

  loop(nothing(at, n), do: _ = key(at + n))
  loop(get(table, at, n), do: <<_::binary>> = Table.get(table, key(at + n)))
  loop(miss(table, at, n), do: nil = Table.get(table, "-" <> key(at + n)))
  loop(ets_get(table, at, n), do: [_] = :ets.lookup(table, key(at + n)))
  loop(ets_miss(table, at, n), do: [] = :ets.lookup(table, "-" <> key(at + n)))
  loop(map_get(at, n), do: %{} = map(key(at + n)))
  loop(dets_get(table, at, n), do: [_] = :dets.lookup(table, key(at + n)))
  loop(cub_get(db, at, n), do: <<_::binary>> = CubDB.get(db, key(at + n)))
  loop(pread_get(file, count, at, n), do: <<_::binary>> = search(file, key(at + n), 0, count))

  defp map(key) do
    map = :persistent_term.get(:bench_table_map)
    %{^key => <<_::binary>>} = map
  end

  defp key(n), do: elem(:persistent_term.get(:bench_table_keys), Bitwise.band(n, @keys - 1))

  # Different for each record, in no order, and the same in every run.
  defp record_key(n),
    do: Base.encode16(<<n * 0x9E3779B97F4A7C15::64>>, case: :lower)

  defp record_value(n), do: String.pad_leading("#{n}", @value, ".")

  # The record of this key in a file of sorted records.
  defp search(file, key, low, high) do
    middle = div(low + high, 2)

    {:ok, <<found::binary-size(@key), value::binary>>} =
      :file.pread(file, middle * (@record + 1), @record)

    cond do
      found == key -> value
      found < key -> search(file, key, middle + 1, high)
      true -> search(file, key, low, middle)
    end
  end

  def title, do: "Lookup tables"

  def run(folder) do
    {small, large} = {amount(@small), amount(@large)}
    lines = lines(folder, large)

    [
      {:note,
       "Records of #{@record} bytes: a key of #{@key} and a value of #{@value}. The keys that are looked up are random ones, so at 10 million records most of the time is spent waiting for memory: a lookup in a table reads one cache line of the index and one or two of the record. Everything is in the page cache. One process looks up."},
      building(folder, lines, large),
      lookups(folder, small, true),
      lookups(folder, large, false),
      opening(folder, large)
    ]
  end

  # Text of one record on each line.
  defp lines(folder, count) do
    path = Path.join(folder, "lines")

    1..count
    |> Stream.chunk_every(10_000)
    |> Stream.map(fn some -> for n <- some, do: [record_key(n), record_value(n), ?\n] end)
    |> Enum.into(File.stream!(path, [:raw, :delayed_write]))

    path
  end

  defp path(folder, count), do: Path.join(folder, "table#{count}")

  # Building

  defp building(folder, lines, count) do
    rounds = if quick?(), do: 1, else: 2

    measured =
      for _ <- 1..rounds do
        sort = timed(fn -> sort(folder, lines, count) end)
        {plain, memory} = VM.call(__MODULE__, :build, [path(folder, count), lines, false])
        {sorted, _} = VM.call(__MODULE__, :build, [Path.join(folder, "sorted"), lines, true])
        %{sort: sort, plain: plain, sorted: sorted, memory: memory}
      end

    File.rm!(Path.join(folder, "sorted"))

    times =
      for key <- [:plain, :sort, :sorted], into: %{}, do: {key, Enum.map(measured, & &1[key])}

    name = "build #{thousands(count)} records from a text file"

    comparison =
      Comparison.of(
        name,
        [plain: "Table.build", sort: "LC_ALL=C sort", sorted: "Table.build, sorted: true"],
        times
      )

    memory = measured |> Enum.map(& &1.memory) |> Enum.min()

    [
      {:note,
       "**Building** reads the same lines that `sort` sorts, and ends when the file is on the disk. It ran in a VM of its own, which used at most #{round(memory / 1.0e6)} MB of memory in total."},
      comparison,
      headline(comparison, :sort, "#{name}, compared with sort", {:at_most, 3}),
      headline(
        "memory of the VM that builds it, compared with 200 MB",
        memory / 200.0e6,
        {:at_most, 1}
      )
    ]
  end

  defp sort(folder, lines, count) do
    {_, 0} =
      System.cmd("sort", ["-o", sorted_lines(folder, count), lines],
        env: [{"LC_ALL", "C"}, {"TMPDIR", folder}]
      )
  end

  @doc "Nanoseconds, and the most bytes that the VM had in memory. Runs in a VM of its own."
  def build(path, lines, sorted) do
    records =
      lines
      |> Emmap.stream!()
      |> Stream.map(fn <<key::binary-size(@key), value::binary-size(@value), _::binary>> ->
        {key, value}
      end)

    time = timed(fn -> {:ok, _} = Table.build(path, records, sorted: sorted) end)
    {time, most_memory()}
  end

  # Without the pages of the mapped text file, which belong to the page cache.
  defp most_memory do
    status = File.read!("/proc/self/status")
    [_, kilobytes] = Regex.run(~r/VmHWM:\s+(\d+) kB/, status)
    [_, of_file] = Regex.run(~r/RssFile:\s+(\d+) kB/, status)
    1024 * max(String.to_integer(kilobytes) - String.to_integer(of_file), 0)
  end

  defp timed(act) do
    begun = System.monotonic_time(:nanosecond)
    act.()
    System.monotonic_time(:nanosecond) - begun
  end

  # Lookups

  defp lookups(folder, count, all) do
    :rand.seed(:exsss, {1, 2, 3})
    keys = for _ <- 1..@keys, do: record_key(:rand.uniform(count))
    :persistent_term.put(:bench_table_keys, List.to_tuple(keys))
    path = path(folder, count)
    records = Stream.map(1..count, &{record_key(&1), record_value(&1)})
    unless File.exists?(path), do: {:ok, _} = Table.build(path, records)
    table = Table.open!(path)
    ets = :ets.new(:bench_table, [:set, :public, read_concurrency: true])
    Enum.each(records, &:ets.insert(ets, &1))
    sorted = sorted_file(folder, count, records)

    # A raw file belongs to its process.
    opened = fn ->
      {:ok, file} = :file.open(sorted, [:read, :raw, :binary])
      {file, :rand.uniform(@keys)}
    end

    others = if all, do: others(folder, records), else: []
    at = fn -> :rand.uniform(@keys) end
    # The loop of these sides fetches a key.
    Process.delete(:empty_loop)
    empty = &nothing(:rand.uniform(@keys), &1)

    sides =
      [
        side(:emmap, "Table.get", &get(table, &1, &2), setup: at),
        side(:ets, ":ets.lookup", &ets_get(ets, &1, &2), setup: at),
        side(
          :pread,
          ":file.pread raw, binary search",
          fn {file, at}, n -> pread_get(file, count, at, n) end,
          setup: opened,
          teardown: fn {file, _} -> :file.close(file) end
        )
      ] ++ for({key, label, run} <- others, do: side(key, label, run, setup: at))

    name = "look up one of #{thousands(count)} records"
    found = compare(name, sides, empty: empty, seconds: 4)

    missed =
      compare(
        "look up a key that none of #{thousands(count)} records has",
        [
          side(:emmap, "Table.get", &miss(table, &1, &2), setup: at),
          side(:ets, ":ets.lookup", &ets_miss(ets, &1, &2), setup: at)
        ],
        empty: empty,
        seconds: 2
      )

    Process.delete(:empty_loop)
    :ets.delete(ets)
    Table.close(table)
    if all, do: close_others()

    [
      found,
      headline(found, :ets, "#{name}, compared with :ets.lookup", {:at_most, 1.5}),
      headline(
        found,
        :pread,
        "#{name}, compared with a binary search by :file.pread",
        {:at_least, 20}
      ),
      missed,
      if(all, do: [missing_cub(), python(folder, count)], else: [])
    ]
  end

  # Lines of the same length, in order: what sort has left, or the same of fewer records.
  defp sorted_file(folder, count, records) do
    path = sorted_lines(folder, count)

    unless File.exists?(path),
      do:
        File.write!(
          path,
          records |> Enum.sort() |> Enum.map(fn {key, value} -> [key, value, ?\n] end)
        )

    path
  end

  defp sorted_lines(folder, count), do: Path.join(folder, "lines#{count}.sorted")

  defp others(folder, records) do
    :persistent_term.put(:bench_table_map, Map.new(records))
    {:ok, dets} = :dets.open_file(:bench_table, file: to_charlist(Path.join(folder, "dets")))
    :ok = :dets.insert(dets, Enum.to_list(records))

    [
      {:persistent, "a map in :persistent_term", &map_get/2},
      {:dets, ":dets.lookup", &dets_get(dets, &1, &2)}
    ] ++ cub(folder, records)
  end

  defp cub(folder, records) do
    if Outside.library?("cubdb", CubDB) do
      {:ok, db} =
        CubDB.start_link(
          data_dir: Path.join(folder, "cubdb"),
          auto_file_sync: false,
          auto_compact: false
        )

      for some <- Stream.chunk_every(records, 10_000), do: :ok = CubDB.put_multi(db, some)
      Process.put(:bench_table_cub, db)
      [{:cub, "CubDB.get", &cub_get(db, &1, &2)}]
    else
      []
    end
  end

  defp missing_cub,
    do: if(Outside.library?("cubdb", CubDB), do: [], else: Outside.missing("CubDB"))

  defp close_others do
    :persistent_term.erase(:bench_table_map)
    :dets.close(:bench_table)
    if db = Process.delete(:bench_table_cub), do: GenServer.stop(db)
  end

  # LMDB, whose own overhead in Python is less than its lookup.
  defp python(folder, count) do
    script = Path.expand("../others/table.py", __DIR__)
    rounds = if quick?(), do: 2, else: 15
    lines = Path.join(folder, "few_lines")
    File.write!(lines, for(n <- 1..count, do: [record_key(n), record_value(n), ?\n]))

    with {:ok, output} <- Outside.python(script, [folder, lines, "#{rounds}"]),
         [_ | _] = times <-
           for(line <- String.split(output), {time, ""} <- [Float.parse(line)], do: time) do
      table = Table.open!(path(folder, count))
      side = side(:emmap, "", &get(table, &1, &2), setup: fn -> :rand.uniform(@keys) end)
      own = for _ <- times, do: Comparison.round(side, 20_000)

      Comparison.of(
        "look up one of #{thousands(count)} records, LMDB",
        [emmap: "Table.get", lmdb: "LMDB in Python"],
        %{emmap: own, lmdb: times}
      )
    else
      _ -> Outside.missing("LMDB for Python")
    end
  end

  # Opening

  defp opening(folder, count) do
    path = path(folder, count)
    name = "open and close a table of #{thousands(count)} records"

    opens =
      compare(
        name,
        [
          side(:emmap, "Table.open, Table.close", &open(path, &1)),
          side(:map, "Emmap.open, Emmap.close", &map(path, &1))
        ],
        seconds: 2
      )

    {before, tables} = {memory(), for(_ <- 1..10, do: Table.open!(path))}
    for table <- tables, n <- 1..1000, do: Table.get(table, record_key(n))
    grown = (memory() - before) / 10
    Enum.each(tables, &Table.close/1)

    [
      {:note,
       "**Opening** reads the header alone. An open table, from which 1,000 values were read, took #{round(max(grown, 0) / 1000)} KB of the memory of the VM (`:erlang.memory(:total)`)."},
      opens,
      headline(
        "#{name}, compared with 1 ms",
        Comparison.least(opens, :emmap) / 1.0e6,
        {:at_most, 1}
      ),
      headline(
        "memory of the VM for an open table, compared with 1 MB",
        max(grown, 0) / 1.0e6,
        {:at_most, 1}
      )
    ]
  end

  defp memory do
    :erlang.garbage_collect()
    :erlang.memory(:total)
  end

  loop open(path, n) do
    {:ok, table} = Table.open(path)
    :ok = Table.close(table)
  end

  loop map(path, n) do
    {:ok, mem} = Emmap.open(path, [])
    :ok = Emmap.close(mem)
  end
end
