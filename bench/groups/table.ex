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
  # CubDB takes half a minute to store 200,000.
  @few 20_000
  # A power of two. Enough that their records are in no cache.
  @keys 1_048_576
  # Open at once, when their memory is measured.
  @tables 500

  loop(nothing(at, n), do: _ = key(at + n))
  loop(get(table, at, n), do: <<_::binary>> = Table.get(table, key(at + n)))
  loop(miss(table, at, n), do: nil = Table.get(table, "-" <> key(at + n)))
  loop(ets_get(table, at, n), do: [_] = :ets.lookup(table, key(at + n)))
  loop(ets_miss(table, at, n), do: [] = :ets.lookup(table, "-" <> key(at + n)))
  loop(map_get(at, n), do: %{} = map(key(at + n)))
  loop(dets_get(table, at, n), do: [_] = :dets.lookup(table, key(at + n)))
  loop(cub_get(db, at, n), do: <<_::binary>> = CubDB.get(db, record_key(few(at + n))))
  loop(pread_get(file, count, at, n), do: <<_::binary>> = search(file, key(at + n), 0, count))

  defp map(key) do
    map = :persistent_term.get(:bench_table_map)
    %{^key => <<_::binary>>} = map
  end

  defp key(n), do: elem(:persistent_term.get(:bench_table_keys), Bitwise.band(n, @keys - 1))

  # One of the records that CubDB has.
  defp few(n), do: rem(n * 7919, amount(@few)) + 1

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
      lookups(small, Bench.VMs.compare(__MODULE__, :look_up, [small], folder, 3)),
      others(folder, small),
      lookups(large, look_up(large, folder)),
      opening(folder, large)
    ]
  end

  # Text of one record on each line.
  defp lines(folder, count) do
    path = Path.join(folder, "lines")
    File.touch!(path)

    in_parts(count, 10_000, fn first.._ = some ->
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      lines = for n <- some, do: [record_key(n), record_value(n), ?\n]
      :ok = :file.pwrite(file, (first - 1) * (@record + 1), lines)
      :ok = :file.close(file)
    end)

    path
  end

  defp path(folder, count), do: Path.join(folder, "table#{count}")

  # Building

  defp building(folder, lines, count) do
    rounds = if quick?(), do: 1, else: 2

    measured =
      for round <- 1..rounds do
        sort = timed(fn -> sort(folder, lines, count) end)
        {plain, memory} = VM.call(__MODULE__, :build, [path(folder, count), lines, false])
        # It takes long, and no target is for it.
        sorted = if round == 1, do: sorted(folder, lines)
        %{sort: sort, plain: plain, sorted: sorted, memory: memory}
      end

    times =
      for key <- [:plain, :sort, :sorted],
          into: %{},
          do: {key, for(%{^key => time} when time != nil <- measured, do: time)}

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

  defp sorted(folder, lines) do
    path = Path.join(folder, "sorted")
    {time, _} = VM.call(__MODULE__, :build, [path, lines, true])
    File.rm!(path)
    time
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

  defp name(count), do: "look up one of #{thousands(count)} records"

  defp lookups(count, [found, missed]) do
    [
      found,
      headline(
        found,
        :ets,
        "#{name(count)}, compared with :ets.lookup",
        {:at_most, 1.5},
        :median
      ),
      headline(
        found,
        :pread,
        "#{name(count)}, compared with a binary search by :file.pread",
        {:at_least, 20},
        :median
      ),
      missed
    ]
  end

  @doc "Also of several VMs. In a new folder, it builds the table: how its pages are in memory differs."
  def look_up(count, folder) do
    random_keys(count)
    table = table(folder, count)
    ets = ets_table(count)
    sorted = sorted_file(folder, count)

    # A raw file belongs to its process.
    opened = fn ->
      {:ok, file} = :file.open(sorted, [:read, :raw, :binary])
      {file, random()}
    end

    found =
      compare(
        name(count),
        [
          side(:emmap, "Table.get", &get(table, &1, &2), setup: &random/0),
          side(:ets, ":ets.lookup", &ets_get(ets, &1, &2), setup: &random/0),
          side(
            :pread,
            ":file.pread raw, binary search",
            fn {file, at}, n -> pread_get(file, count, at, n) end,
            setup: opened,
            teardown: fn {file, _} -> :file.close(file) end
          )
        ],
        empty: &nothing(random(), &1),
        seconds: 6
      )

    missed =
      compare(
        "look up a key that none of #{thousands(count)} records has",
        [
          side(:emmap, "Table.get", &miss(table, &1, &2), setup: &random/0),
          side(:ets, ":ets.lookup", &ets_miss(ets, &1, &2), setup: &random/0)
        ],
        empty: &nothing(random(), &1),
        seconds: 2
      )

    # The loop of these sides fetched a key.
    Process.delete(:empty_loop)
    :ets.delete(ets)
    Table.close(table)
    [found, missed]
  end

  defp random, do: :rand.uniform(@keys)

  defp random_keys(count) do
    # No other comparison has this loop.
    Process.delete(:empty_loop)
    :rand.seed(:exsss, {1, 2, 3})
    keys = for _ <- 1..@keys, do: record_key(:rand.uniform(count))
    :persistent_term.put(:bench_table_keys, List.to_tuple(keys))
  end

  defp records(count), do: Stream.map(1..count, &{record_key(&1), record_value(&1)})

  defp table(folder, count) do
    path = path(folder, count)
    unless File.exists?(path), do: {:ok, _} = Table.build(path, records(count))
    Table.open!(path)
  end

  defp ets_table(count) do
    table = :ets.new(:bench_table, [:set, :public, read_concurrency: true])

    in_parts(count, 10_000, fn some ->
      :ets.insert(table, for(n <- some, do: {record_key(n), record_value(n)}))
    end)

    table
  end

  # Lines of the same length, in order: what sort has left, or the same of fewer records.
  defp sorted_file(folder, count) do
    path = sorted_lines(folder, count)

    unless File.exists?(path),
      do: File.write!(path, for({key, value} <- Enum.sort(records(count)), do: [key, value, ?\n]))

    path
  end

  defp sorted_lines(folder, count), do: Path.join(folder, "lines#{count}.sorted")

  # What takes long to fill is filled once.
  defp others(folder, count) do
    random_keys(count)
    table = table(folder, count)
    records = records(count)
    :persistent_term.put(:bench_table_map, Map.new(records))
    {:ok, dets} = :dets.open_file(:bench_table, file: to_charlist(Path.join(folder, "dets")))
    :ok = :dets.insert(dets, Enum.to_list(records))
    cub = cub(folder)

    comparison =
      compare(
        "the same, of other kinds",
        [
          side(:emmap, "Table.get", &get(table, &1, &2), setup: &random/0),
          side(:persistent, "a map in :persistent_term", &map_get/2, setup: &random/0),
          side(:dets, ":dets.lookup", &dets_get(dets, &1, &2), setup: &random/0)
        ] ++
          for(
            db <- cub,
            do:
              side(:cub, "CubDB.get, of #{thousands(amount(@few))}", &cub_get(db, &1, &2),
                setup: &random/0
              )
          ),
        empty: &nothing(random(), &1),
        seconds: 2
      )

    Process.delete(:empty_loop)
    :persistent_term.erase(:bench_table_map)
    :dets.close(dets)
    Enum.each(cub, &GenServer.stop/1)
    Table.close(table)
    missing = if cub == [], do: Outside.missing("CubDB"), else: []
    [comparison, missing, python(folder, count)]
  end

  defp cub(folder) do
    if Outside.library?("cubdb", CubDB) do
      {:ok, db} =
        CubDB.start_link(
          data_dir: Path.join(folder, "cubdb"),
          auto_file_sync: false,
          auto_compact: false
        )

      :ok = CubDB.put_multi(db, Enum.to_list(records(amount(@few))))
      [db]
    else
      []
    end
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

    [opens] = Bench.VMs.compare(__MODULE__, :opens, [name, path], folder, 3)

    # Without the VM's cache of freed memory.
    memory = fn _ -> VM.call(__MODULE__, :memory_of, [path], flags: "+MMmcs 0") end
    grown = 1..if(quick?(), do: 1, else: 2) |> Enum.map(memory) |> Enum.min()

    [
      {:note,
       "**Opening** reads the header alone. An open table, from which 100 values were read, takes #{digits(grown / 1000)} KB of memory, of #{@tables} tables, not counting pages of the file or what the kernel keeps."},
      opens,
      headline(
        "#{name}, compared with 1 ms",
        Comparison.least(opens, :emmap) / 1.0e6,
        {:at_most, 1}
      ),
      headline(
        "memory of the VM for an open table, compared with 1 MB",
        grown / 1.0e6,
        {:at_most, 1}
      )
    ]
  end

  @doc "Of several VMs."
  def opens(name, path, _folder) do
    [
      compare(
        name,
        [
          side(:emmap, "Table.open, Table.close", &open(path, &1)),
          side(:map, "Emmap.open, Emmap.close", &map(path, &1))
        ],
        seconds: 2
      )
    ]
  end

  @doc "Bytes of memory, except for the kernel's and for pages of files, of each of many open tables. Runs in a VM of its own."
  def memory_of(path) do
    keys = for n <- 1..100, do: record_key(n)
    warm = opened(path, 10, keys)
    before = memory()
    tables = opened(path, @tables, keys)
    grown = memory() - before
    true = length(warm) == 10 and length(tables) == @tables
    max(grown, 0) / @tables
  end

  defp opened(path, count, keys) do
    for _ <- 1..count do
      table = Table.open!(path)
      for key <- keys, do: Table.get(table, key)
      table
    end
  end

  defp memory do
    :erlang.garbage_collect()
    Bench.Groups.Whole.anonymous()
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
