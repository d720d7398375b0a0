# Integers beside the bare C NIF (the floor), :atomics and :ets, in one run. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Atomics do
  import Bench.Harness

  loop = fn name, call ->
    def unquote(name)(_it, 0), do: :ok

    def unquote(name)(var!(it), n) do
      unquote(call)
      unquote(name)(var!(it), n - 1)
    end
  end

  loop.(:empty, quote(do: _ = var!(it)))
  loop.(:patomic, quote(do: {:ok, _} = Emmap.patomic(var!(it), 64, :add, 1)))
  loop.(:inc_counter, quote(do: _ = :emmap.inc_counter(var!(it), 1, 1)))
  loop.(:add, quote(do: :ok = Emmap.Counters.add(var!(it), 1, 1)))
  loop.(:add_named, quote(do: :ok = Emmap.Counters.add(var!(it), :errors, 1)))
  loop.(:get, quote(do: _ = Emmap.Counters.get(var!(it), 1)))
  loop.(:floor, quote(do: {:ok, _} = :floor_nif.add(var!(it), 64, 1)))
  loop.(:atomics, quote(do: :ok = :atomics.add(var!(it), 1, 1)))
  loop.(:atomics_get, quote(do: _ = :atomics.add_get(var!(it), 1, 1)))
  loop.(:ets, quote(do: _ = :ets.update_counter(var!(it), :key, 1)))
  loop.(:nop, quote(do: :ok = :floor_nif.nop()))

  @calls 1_000_000

  def run do
    load_floor!()
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)

    try do
      measure(directory)
    after
      File.rm_rf!(directory)
    end
  end

  defp measure(directory) do
    file = &Path.join(directory, &1)
    mem = Emmap.open!(file.("map"), [:write, :create, size: 4096])
    plain = Emmap.Counters.open!(file.("plain"), 8)
    named = Emmap.Counters.open!(file.("named"), [:requests, :errors, :timeouts])
    striped = Emmap.Counters.open!(file.("striped"), 8, write_concurrency: true)
    floor = :floor_nif.open(String.to_charlist(file.("floor")), 4096)
    atomics = :atomics.new(8, [])
    # As a table of counters is usually made and used.
    ets = :ets.new(:bench, [:named_table, :public, write_concurrency: true])
    :ets.insert(ets, {:key, 0})

    sides = [
      empty: &empty(mem, &1),
      nop: &nop(mem, &1),
      floor: &floor(floor, &1),
      patomic: &patomic(mem, &1),
      inc_counter: &inc_counter(plain, &1),
      add: &add(plain, &1),
      add_named: &add_named(named, &1),
      add_striped: &add(striped, &1),
      get: &get(plain, &1),
      atomics: &atomics(atomics, &1),
      atomics_get: &atomics_get(atomics, &1),
      ets: &ets(ets, &1)
    ]

    ns = compare(for {name, fun} <- sides, do: {name, @calls, fun})
    ns = Map.new(ns, fn {name, time} -> {name, time - ns.empty} end)

    IO.puts(
      "OTP #{System.otp_release()}, Elixir #{System.version()}, ns a call, best of 15 rounds, empty loop taken off\n"
    )

    IO.puts(String.pad_trailing("", 34) <> "       emmap       floor   ratio   at most")

    for {name, label, limit} <- [
          {:patomic, "Emmap.patomic :add", 1.3},
          {:inc_counter, ":emmap.inc_counter/3", 1.3},
          {:add, "Counters.add by index", 1.2},
          {:add_named, "Counters.add by name", ""},
          {:add_striped, "Counters.add, write_concurrency", ""},
          {:get, "Counters.get", ""},
          {:atomics, ":atomics.add", ""},
          {:atomics_get, ":atomics.add_get", ""},
          {:nop, "a C NIF that does nothing", ""}
        ] do
      row(label, ns[name], ns.floor, limit)
    end

    IO.puts("")

    for name <- [:patomic, :inc_counter, :add, :add_named, :add_striped] do
      IO.puts(
        ":ets.update_counter takes #{Float.round(ns.ets / ns[name], 1)} times as long as #{name} (at least 3)"
      )
    end

    scaling()
  end

  # On one core with two threads, adds to one line cost no more than adds to two: then there is
  # nothing to gain, and the last figure says so.
  defp scaling do
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    plain = Emmap.Counters.open!(Path.join(directory, "plain2"), 64)
    striped = Emmap.Counters.open!(Path.join(directory, "striped2"), 64, write_concurrency: true)

    rounds =
      for _ <- 1..15, do: {wall(plain, [1, 1]), wall(striped, [1, 1]), wall(plain, [1, 40])}

    [same, spread, apart] = for n <- 0..2, do: rounds |> Enum.map(&elem(&1, n)) |> Enum.min()

    IO.puts(
      "\nadds to one counter from 2 processes: write_concurrency gets #{Float.round(same / spread, 2)} times the " <>
        "throughput of a plain one (at least 1.5); two counters of their own, which is all there is to gain, " <>
        "#{Float.round(same / apart, 2)} times"
    )
  end

  defp wall(counters, indices) do
    {time, _} =
      :timer.tc(fn ->
        indices
        |> Enum.map(fn index -> Task.async(fn -> add_at(counters, index, 2 * @calls) end) end)
        |> Task.await_many(:infinity)
      end)

    time
  end

  defp add_at(_counters, _index, 0), do: :ok

  defp add_at(counters, index, n) do
    :ok = Emmap.Counters.add(counters, index, 1)
    add_at(counters, index, n - 1)
  end
end

Bench.Atomics.run()
