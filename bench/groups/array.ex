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
    count = amount(100_000_000)
    path = sorted(Path.join(folder, "sorted"), count)
    mem = Emmap.open!(path)
    {:ok, array} = Array.of(mem, :f64)
    figures = numpy(path)

    items =
      [one(path, mem), records(folder)] ++
        whole(array, figures) ++ sorted_column(array, path, figures)

    items ++ [appends(folder)]
  end

  # Sorted, with the number i * 0.5 at i.
  defp sorted(path, count) do
    {:ok, file} = :file.open(path, [:write, :raw, :binary])

    for from <- 0..(count - 1)//1_000_000 do
      last = min(from + 1_000_000, count) - 1
      :ok = :file.write(file, for(i <- from..last, into: <<>>, do: <<i * 0.5::float-native-64>>))
    end

    :ok = :file.close(file)
    path
  end

  defp one(path, mem) do
    {:ok, array} = Array.of(mem, :f64)
    table = :ets.new(:numbers, [:public, read_concurrency: true])
    :ets.insert(table, for(n <- 0..1000, do: {n, n / 1}))
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    comparison =
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

    [
      {:note,
       "An array has a name, bounds and a type. The first comparison shows what these cost in addition to `Emmap.get/3`."},
      comparison,
      headline(comparison, :get, "Emmap.Array.at, compared with Emmap.get :f64", {:at_most, 1.3})
    ]
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

  defp whole(array, figures) do
    # As many rounds as NumPy, which has read the file before, too.
    rounds = rounds()
    sums = for(_ <- 1..rounds, do: timed(fn -> Array.sum(array) end))
    leasts = for(_ <- 1..rounds, do: timed(fn -> Array.min(array) end))
    count = thousands(Array.count(array))

    for {what, key, times} <- [{"sum", :sum, sums}, {"min", :min, leasts}] do
      case figures do
        %{^key => theirs} ->
          comparison =
            Comparison.of(
              "#{what} of #{count} :f64",
              [emmap: "Emmap.Array.#{what}", numpy: "NumPy, memmap"],
              %{emmap: times, numpy: theirs}
            )

          wanted = if key == :sum, do: {:at_most, 1.3}, else: {:at_most, 1.5}

          [
            comparison,
            headline(
              comparison,
              :numpy,
              "Emmap.Array.#{what} of #{count} :f64, compared with NumPy's",
              wanted
            )
          ]

        %{} ->
          [
            Comparison.of("#{what} of #{count} :f64", [emmap: "Emmap.Array.#{what}"], %{
              emmap: times
            }),
            Outside.missing("NumPy")
          ]
      end
    end
  end

  defp sorted_column(array, path, figures) do
    count = Array.count(array)
    keys = List.to_tuple(for _ <- 1..@keys, do: :rand.uniform() * count * 0.5)
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    ours =
      compare(
        "binary search in #{thousands(count)} :f64",
        [
          side(:emmap, "Emmap.Array.binary_search", &search(array, keys, &1)),
          side(:raw, "the same with raw :file.pread", &raw_search(&1, count, keys, &2),
            setup: open,
            teardown: &:file.close/1
          )
        ],
        # Longer than the keys that the caches of the processor have from the round before.
        round: 20_000_000,
        seconds: 5
      )

    theirs =
      for {key, label} <- [
            search: "NumPy, searchsorted of many",
            one: "NumPy, searchsorted of one"
          ],
          times = figures[key],
          do: {key, label, times}

    least = Comparison.least(ours, :emmap)

    compared =
      if theirs != [] do
        Comparison.of(
          "binary search, and NumPy's",
          [
            {:emmap, "Emmap.Array.binary_search"}
            | for({key, label, _} <- theirs, do: {key, label})
          ],
          Map.new([
            {:emmap, Enum.take(ours.times.emmap, rounds())}
            | for({key, _, times} <- theirs, do: {key, times})
          ])
        )
      else
        []
      end

    [
      ours,
      compared,
      headline(
        "Emmap.Array.binary_search in #{thousands(count)} :f64, in µs",
        least / 1000,
        {:at_most, 2.0}
      ),
      headline(
        ours,
        :raw,
        "a binary search with raw :file.pread, compared with Emmap.Array.binary_search",
        {:at_least, 20}
      )
    ]
  end

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

  defp numpy(path) do
    arguments = [path, "#{rounds()}", "#{amount(100_000)}"]

    case Outside.python(Path.expand("../others/array.py", __DIR__), arguments) do
      {:ok, output} ->
        names = %{"sum" => :sum, "min" => :min, "search" => :search, "search one" => :one}

        output
        |> String.split("\n", trim: true)
        |> Enum.group_by(
          &Map.fetch!(names, hd(String.split(&1, ";"))),
          &(&1 |> String.split(";") |> List.last() |> Float.parse() |> elem(0))
        )

      {:missing, _} ->
        %{}
    end
  end
end
