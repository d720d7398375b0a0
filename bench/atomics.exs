# Integers compared with the bare C NIF (the floor), :atomics and :ets, in one run. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Atomics do
  import Bench

  loop(empty(it, n), do: _ = it)
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(inc_counter(it, n), do: _ = :emmap.inc_counter(it, 1, 1))
  loop(add(it, index, n), do: :ok = Emmap.Counters.add(it, index, 1))
  loop(get(it, n), do: _ = Emmap.Counters.get(it, 1))
  loop(floor(it, n), do: {:ok, _} = :floor_nif.add(it, 64, 1))
  loop(atomics(it, n), do: :ok = :atomics.add(it, 1, 1))
  loop(atomics_get(it, n), do: _ = :atomics.add_get(it, 1, 1))
  loop(ets(it, n), do: _ = :ets.update_counter(it, :key, 1))
  loop(nop(it, n), do: :ok = :floor_nif.nop())

  @calls 200_000
  @rounds 60

  def run(folder) do
    load_floor!()
    file = &Path.join(folder, &1)
    mem = Emmap.open!(file.("map"), [:write, :create, size: 4096])
    plain = Emmap.Counters.open!(file.("plain"), 64)
    named = Emmap.Counters.open!(file.("named"), [:requests, :errors, :timeouts])
    striped = Emmap.Counters.open!(file.("striped"), 64, write_concurrency: true)
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
      add: &add(plain, 1, &1),
      add_named: &add(named, :errors, &1),
      add_striped: &add(striped, 1, &1),
      get: &get(plain, &1),
      atomics: &atomics(atomics, &1),
      atomics_get: &atomics_get(atomics, &1),
      ets: &ets(ets, &1)
    ]

    ns = compare(for({name, fun} <- sides, do: {name, @calls, fun}), @rounds)
    ns = Map.new(ns, fn {name, time} -> {name, time - ns.empty} end)
    header("ns a call, best of #{rounds(@rounds)} rounds, empty loop taken off")

    for {name, label, limit} <- [
          {:patomic, "Emmap.patomic :add", 1.0},
          {:inc_counter, ":emmap.inc_counter/3", 1.0},
          {:add, "Counters.add by index", 1.0},
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
      times = decimals(ns.ets / ns[name], 1)
      IO.puts(":ets.update_counter takes #{times} times as long as #{name} (at least 3)")
    end

    scaling(plain, striped)
  end

  # On one core with two threads, adds to one line cost no more than adds to two: then there is
  # nothing to gain, and the last figure shows it.
  defp scaling(plain, striped) do
    both = fn counters, indices ->
      fn ->
        together(for index <- indices, do: fn -> add(counters, index, amount(2_000_000)) end)
      end
    end

    best =
      best(15,
        same: both.(plain, [1, 1]),
        spread: both.(striped, [1, 1]),
        apart: both.(plain, [1, 40])
      )

    IO.puts(
      "\nadds to one counter from 2 processes: write_concurrency gets #{decimals(best.same / best.spread, 2)} times " <>
        "the throughput of a plain one (at least 1.5); two counters of their own, which is all there is to gain, " <>
        "#{decimals(best.same / best.apart, 2)} times"
    )
  end
end

Bench.main(&Bench.Atomics.run/1)
