defmodule Bench.Groups.Array do
  @moduledoc false
  # Arrays of numbers and records, compared with what their users have today, and with NumPy on the same file.
  import Bench
  alias Bench.{Comparison, Outside}
  alias Emmap.Array

  @record [id: :u64, at: {:i64, :little}, price: :f64]
  # Keys of a search: more than the caches of the processor have pages for.
  @keys 65_536

  loop(empty(array, n), do: _ = array)
  loop(at(array, n), do: _ = Array.at(array, 64))
  loop(get(mem, n), do: {:ok, _} = Emmap.get(mem, 512, :f64))
  loop(ets(table, n), do: [{_, _}] = :ets.lookup(table, 64))
  loop(raw(file, n), do: {:ok, <<_::float-native-64>>} = :file.pread(file, 512, 8))
  loop(record_ets(table, n), do: [{_, %{}}] = :ets.lookup(table, 64))
  loop(raw_record(file, n), do: {:ok, <<_::64, _::64, _::64>>} = :file.pread(file, 64 * 24, 24))
  loop(put(array, n), do: :ok = Array.put(array, 64, 0.5))
  loop(search(array, keys, n), do: {_, _} = Array.binary_search(array, elem(keys, rem(n, @keys))))
  loop(raw_search(file, count, keys, n), do: raw_bound(file, elem(keys, rem(n, @keys)), 0, count))
  loop(append(array, values, n), do: {:ok, _} = Array.append(array, values))
  loop(raw_append(file, bytes, n), do: :ok = :file.write(file, bytes))

  def title, do: "Arrays"

  def run(folder) do
    path = sorted(Path.join(folder, "sorted"), amount(100_000_000))
    mem = Emmap.open!(path)
    {:ok, array} = Array.of(mem, :f64)
    numpy = numpy(path)

    items = [
      one(path, folder),
      records(folder),
      whole(array, :sum, &Array.sum/1, numpy, 1.3),
      whole(array, :min, &Array.min/1, numpy, 1.5),
      sorted_column(array, path, folder, numpy),
      appends(folder)
    ]

    if numpy, do: Port.close(numpy)
    items ++ if(numpy, do: [], else: [Outside.missing("NumPy")])
  end

  # Sorted, with the number i * 0.5 at i.
  defp sorted(path, count) do
    File.touch!(path)

    in_parts(count, 1_000_000, fn first..last ->
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      numbers = for i <- (first - 1)..(last - 1), into: <<>>, do: <<i * 0.5::float-native-64>>
      :ok = :file.pwrite(file, 8 * (first - 1), numbers)
      :ok = :file.close(file)
    end)

    path
  end

  defp one(path, folder) do
    comparison = Bench.VMs.compare(__MODULE__, :calls, [path], folder)

    [
      {:note,
       "An array has bounds and a type. The first comparison shows what these cost in addition to `Emmap.get/3`."},
      comparison,
      headline(comparison, :get, "Emmap.Array.at, compared with Emmap.get :f64", {:at_most, 1.3})
    ]
  end

  @doc "Of several VMs."
  def calls(path, _folder) do
    mem = Emmap.open!(path)
    {:ok, array} = Array.of(mem, :f64)
    table = :ets.new(:numbers, [:public, read_concurrency: true])
    :ets.insert(table, for(n <- 0..1000, do: {n, n / 1}))
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    compare(
      "a number of an array",
      [
        side(:emmap, "Emmap.Array.at :f64", &at(array, &1)),
        side(:get, "Emmap.get :f64", &get(mem, &1)),
        side(:ets, ":ets.lookup of a number", &ets(table, &1)),
        side(:raw, "raw :file.pread and a match", &raw(&1, &2),
          setup: open,
          teardown: &:file.close/1
        )
      ],
      empty: &empty(array, &1),
      seconds: 2
    )
  end

  defp records(folder) do
    path = Path.join(folder, "records")
    {:ok, array} = Array.open(path, @record, [:create])
    values = for n <- 0..9_999, do: %{id: n, at: n * 10, price: n / 8}
    {:ok, 0} = Array.append(array, values)
    table = :ets.new(:records, [:public, read_concurrency: true])
    :ets.insert(table, Enum.with_index(values, &{&2, &1}))
    prices = Array.column(array, :price)
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    [
      compare(
        "a record of three numbers",
        [
          side(:emmap, "Emmap.Array.at", &at(array, &1)),
          side(:column, "the same, of a column", &at(prices, &1)),
          side(:put, "Emmap.Array.put of a column", &put(prices, &1)),
          side(:ets, ":ets.lookup of a map", &record_ets(table, &1)),
          side(:raw, "raw :file.pread and a match", &raw_record(&1, &2),
            setup: open,
            teardown: &:file.close/1
          )
        ],
        empty: &empty(array, &1),
        seconds: 2
      ),
      compare(
        "all of 10,000 records",
        [
          once(:emmap, "Enum.to_list of an Emmap.Array", fn -> Enum.to_list(array) end),
          once(:sum, "Emmap.Array.sum of a column", fn -> Array.sum(prices) end),
          once(:enum, "Enum.sum of a column", fn -> Enum.sum(prices) end),
          once(:ets, ":ets.tab2list", fn -> :ets.tab2list(table) end)
        ],
        seconds: 1
      )
    ]
  end

  defp whole(array, what, act, numpy, most) do
    count = thousands(Array.count(array))
    # In turns, because the machine may be slow for a while.
    rounds = for _ <- 1..rounds(), do: {timed(fn -> act.(array) end), numpy && asked(numpy, what)}
    {ours, theirs} = Enum.unzip(rounds)

    if numpy do
      comparison =
        Comparison.of(
          "#{what} of #{count} :f64",
          [emmap: "Emmap.Array.#{what}", numpy: "NumPy, memmap"],
          %{emmap: ours, numpy: theirs}
        )

      text = "Emmap.Array.#{what} of #{count} :f64, compared with NumPy's"
      [comparison, headline(comparison, :numpy, text, {:at_most, most})]
    else
      Comparison.of("#{what} of #{count} :f64", [emmap: "Emmap.Array.#{what}"], %{emmap: ours})
    end
  end

  defp sorted_column(array, path, folder, numpy) do
    name = "binary search in #{thousands(Array.count(array))} :f64"
    [comparison] = Bench.VMs.compare(__MODULE__, :searches, [name, path], folder)

    [
      comparison,
      headline(
        "Emmap.Array.binary_search in #{thousands(Array.count(array))} :f64, in µs",
        Comparison.median(comparison, :emmap) / 1000,
        {:at_most, 2.0}
      ),
      headline(
        comparison,
        :raw,
        "a binary search with raw :file.pread, compared with Emmap.Array.binary_search",
        {:at_least, 20},
        :median
      ),
      if(numpy, do: numpy_searches(array, numpy), else: [])
    ]
  end

  @doc "Of several VMs."
  def searches(name, path, _folder) do
    array = Array.open!(path, :f64)
    count = Array.count(array)
    keys = search_keys(count)
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    [
      compare(
        name,
        [
          side(:emmap, "Emmap.Array.binary_search", &search(array, keys, &1)),
          side(:raw, "the same with raw :file.pread", &raw_search(&1, count, keys, &2),
            setup: open,
            teardown: &:file.close/1
          )
        ],
        round: 4_000_000,
        seconds: 6
      )
    ]
  end

  defp numpy_searches(array, numpy) do
    keys = search_keys(Array.count(array))
    side = side(:emmap, "", &search(array, keys, &1))

    rounds =
      for _ <- 1..rounds() do
        %{
          emmap: Comparison.round(side, 20_000),
          search: asked(numpy, :search),
          one: asked(numpy, :one)
        }
      end

    Comparison.of(
      "the same, NumPy",
      [
        emmap: "Emmap.Array.binary_search",
        search: "NumPy, searchsorted of many",
        one: "NumPy, searchsorted of one"
      ],
      for(key <- [:emmap, :search, :one], into: %{}, do: {key, Enum.map(rounds, & &1[key])})
    )
  end

  defp search_keys(count),
    do: List.to_tuple(for _ <- 1..@keys, do: :rand.uniform() * count * 0.5)

  defp raw_bound(_file, _key, from, to) when from >= to, do: from

  defp raw_bound(file, key, from, to) do
    middle = div(from + to, 2)
    {:ok, <<value::float-native-64>>} = :file.pread(file, 8 * middle, 8)

    if value < key,
      do: raw_bound(file, key, middle + 1, to),
      else: raw_bound(file, key, from, middle)
  end

  defp appends(folder) do
    path = Path.join(folder, "appended")

    fresh = fn ->
      {:ok, array} = Array.open(path, @record, [:create, :truncate])
      array
    end

    one = %{id: 1, at: 2, price: 0.5}
    many = List.duplicate(one, 1000)
    bytes = <<0::192>>

    raw = fn -> :file.open(path <> "_raw", [:append, :raw, :binary]) |> elem(1) end
    limit = [teardown: &Array.close/1, most: 20_000]

    compare(
      "append records of 24 B",
      [
        side(:emmap, "Emmap.Array.append of one", &append(&1, one, &2), [setup: fresh] ++ limit),
        side(:many, "Emmap.Array.append of 1,000", &append(&1, many, &2),
          setup: fresh,
          most: 200,
          teardown: &Array.close/1
        ),
        side(:raw, "raw :file.write of one, [:append]", &raw_append(&1, bytes, &2),
          setup: raw,
          teardown: &:file.close/1,
          most: 20_000
        )
      ],
      seconds: 2
    )
  end

  defp timed(act) do
    begun = System.monotonic_time(:nanosecond)
    act.()
    System.monotonic_time(:nanosecond) - begun
  end

  defp rounds, do: if(quick?(), do: 3, else: 15)

  # A program that waits for what to do, or nil.
  defp numpy(path) do
    script = Path.expand("../others/array.py", __DIR__)

    with python when python != nil <- Outside.python(),
         options = [:binary, :exit_status, line: 1000, args: [script, path]],
         port = Port.open({:spawn_executable, python}, options),
         "ready" <- line(port) do
      port
    else
      _ -> nil
    end
  end

  defp asked(numpy, what) do
    Port.command(numpy, "#{what}\n")
    {time, _} = numpy |> line() |> Float.parse()
    time
  end

  defp line(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, _}} -> nil
    end
  end
end
