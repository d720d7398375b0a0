defmodule Bench.Groups.Integers do
  @moduledoc false
  # Atomic integers and counters compared with the floor and with all that OTP counts with.
  import Bench
  @compile {:no_warn_undefined, :mnesia}

  loop(empty(x, n), do: _ = x)
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(inc_counter(it, n), do: _ = :emmap.inc_counter(it, 1, 1))
  loop(add(it, index, n), do: :ok = Emmap.Counters.add(it, index, 1))
  loop(get(it, n), do: _ = Emmap.Counters.get(it, 1))
  loop(floor(it, n), do: {:ok, _} = :floor_nif.add(it, 64, 1))
  loop(nop(it, n), do: :ok = :floor_nif.nop())
  loop(atomics(it, n), do: :ok = :atomics.add(it, 1, 1))
  loop(atomics_get(it, n), do: _ = :atomics.get(it, 1))
  loop(counters(it, n), do: :ok = :counters.add(it, 1, 1))
  loop(ets(it, n), do: _ = :ets.update_counter(it, :key, 1))
  loop(ets_get(it, n), do: _ = :ets.lookup_element(it, :key, 2))
  loop(dets(it, n), do: _ = :dets.update_counter(it, :key, 1))
  loop(mnesia(it, n), do: _ = :mnesia.dirty_update_counter(it, :key, 1))
  loop(put(it, n), do: :persistent_term.put(it, n))
  loop(term(it, n), do: _ = :persistent_term.get(it))

  def title, do: "Integers and counters"

  def run(folder) do
    [adds, gets, all] = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    [
      {:note,
       "Counters are words of a file: an add survives `kill -9`, and programs in any language can add to the same words. `:atomics`, `:counters` and `:ets` are lost with the VM. The lower bound is one locked instruction (about 5 ns) plus one call of a function built into the VM: `:atomics.add`. A NIF call costs more (see \"a C NIF that does nothing\"); the floor also converts its arguments and result."},
      adds,
      headline(adds, :floor, "Counters.add, compared with the floor", {:at_most, 1.0}),
      headline(
        of(adds, :patomic),
        :floor,
        "Emmap.patomic :add, compared with the floor",
        {:at_most, 1.0}
      ),
      headline(adds, :ets, ":ets.update_counter, compared with Counters.add", {:at_least, 3}),
      if(adds.times[:mnesia_ram],
        do: [
          mnesia_headline(adds, :mnesia_disc, "disc_copies"),
          mnesia_headline(adds, :mnesia_ram, "ram_copies")
        ],
        else:
          {:note,
           "Mnesia was not installed for this run, so it is left out (Debian: `apt-get install erlang-mnesia`)."}
      ),
      gets,
      {:note,
       "**All schedulers add to one counter.** Adding to the same cache line costs more than adding to different ones, unless both schedulers are threads of one core, which share its cache. In that case, `write_concurrency` gains nothing."},
      all
    ]
  end

  @doc "Of several VMs."
  def calls(folder) do
    file = &Path.join(folder, &1)
    mem = Emmap.open!(file.("map"), [:write, :create, size: 4096])
    plain = Emmap.Counters.open!(file.("plain"), 64)
    named = Emmap.Counters.open!(file.("named"), [:requests, :errors, :timeouts])
    striped = Emmap.Counters.open!(file.("striped"), 64, write_concurrency: true)
    floor = :floor_nif.open(String.to_charlist(file.("floor")), 4096)
    atomics = :atomics.new(8, [])
    counters = :counters.new(8, [])
    # As a table of counters is usually made and used.
    ets = :ets.new(:bench_counters, [:named_table, :public, write_concurrency: true])
    :ets.insert(ets, {:key, 0})
    {:ok, dets} = :dets.open_file(:bench_dets, file: String.to_charlist(file.("dets")))
    :dets.insert(dets, {:key, 0})
    tables = mnesia(folder)

    adds =
      compare(
        "add 1",
        [
          side(:emmap, "Emmap.Counters.add by index", &add(plain, 1, &1)),
          side(:named, "Emmap.Counters.add by name", &add(named, :errors, &1)),
          side(:striped, "the same, write_concurrency", &add(striped, 1, &1)),
          side(:inc_counter, ":emmap.inc_counter", &inc_counter(plain, &1)),
          side(:patomic, "Emmap.patomic :add", &patomic(mem, &1)),
          side(:floor, "the floor", &floor(floor, &1)),
          side(:nop, "a C NIF that does nothing", &nop(floor, &1)),
          side(:atomics, ":atomics.add", &atomics(atomics, &1)),
          side(:counters, ":counters.add", &counters(counters, &1)),
          side(:ets, ":ets.update_counter", &ets(ets, &1))
        ] ++
          for({key, label, table} <- tables, do: side(key, label, &mnesia(table, &1))) ++
          [
            side(:dets, ":dets.update_counter", &dets(dets, &1)),
            side(:put, ":persistent_term.put", &put(:bench_term, &1), most: 2_000)
          ],
        empty: &empty(mem, &1),
        seconds: 5
      )

    gets =
      compare(
        "read one",
        [
          side(:emmap, "Emmap.Counters.get", &get(plain, &1)),
          side(:atomics, ":atomics.get", &atomics_get(atomics, &1)),
          side(:ets, ":ets.lookup_element", &ets_get(ets, &1)),
          side(:term, ":persistent_term.get", &term(:bench_term, &1))
        ],
        empty: &empty(mem, &1)
      )

    all = schedulers(plain, striped, atomics, counters, ets)
    :dets.close(dets)
    :ets.delete(ets)
    :persistent_term.erase(:bench_term)
    if tables != [], do: Application.stop(:mnesia)

    [adds, gets, all]
  end

  defp of(%{sides: sides} = comparison, first),
    do: %{comparison | sides: [{first, ""} | List.keydelete(sides, first, 0)]}

  defp mnesia_headline(adds, key, copies),
    do:
      headline(
        adds,
        key,
        ":mnesia.dirty_update_counter of #{copies}, compared with Counters.add",
        {:at_least, 50}
      )

  # A table in memory, and one on the disk.
  defp mnesia(folder) do
    directory = Path.join(folder, "mnesia")
    Application.put_env(:mnesia, :dir, String.to_charlist(directory))
    Application.put_env(:mnesia, :core_dir, String.to_charlist(directory))

    if Bench.Outside.otp?(:mnesia) do
      :stopped = :mnesia.stop()
      :ok = :mnesia.create_schema([node()])
      :ok = :mnesia.start()

      for {key, copies} <- [mnesia_ram: :ram_copies, mnesia_disc: :disc_copies] do
        {:atomic, :ok} = :mnesia.create_table(key, [{copies, [node()]}])
        {key, ":mnesia.dirty_update_counter, #{copies}", key}
      end
    else
      []
    end
  end

  defp schedulers(plain, striped, atomics, counters, ets) do
    all = System.schedulers_online()

    each = fn run ->
      fn n -> together(for _ <- 1..all, do: fn -> run.(max(div(n, all), 1)) end) end
    end

    compare(
      "add 1, all schedulers",
      [
        side(:emmap, "Emmap.Counters.add", each.(&add(plain, 1, &1))),
        side(:striped, "the same, write_concurrency", each.(&add(striped, 1, &1))),
        side(:apart, "the same, a counter each", fn n ->
          together(
            for p <- 1..all, do: fn -> add(plain, 1 + 8 * (p - 1), max(div(n, all), 1)) end
          )
        end),
        side(:atomics, ":atomics.add", each.(&atomics(atomics, &1))),
        side(:counters, ":counters.add", each.(&counters(counters, &1))),
        side(:ets, ":ets.update_counter", each.(&ets(ets, &1)))
      ],
      round: 4_000_000
    )
  end
end
