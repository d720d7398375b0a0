defmodule Bench.Groups.Snapshot do
  @moduledoc false
  # Replacing data that 20,000 processes hold, and getting the current version.
  import Bench

  alias Emmap.Snapshot

  @processes 20_000
  @publishes 100
  # How many entries the data has; fewer with :persistent_term, because every process copies them.
  @entries 10_000
  @few 1_000
  @key {Bench.Groups.Snapshot, :rates}

  loop(current(snapshot, n), do: {:ok, _} = Snapshot.current(snapshot))
  loop(persistent(key, n), do: _ = :persistent_term.get(key))
  loop(ets(table, n), do: [{_, _}] = :ets.lookup(table, :rates))

  def title, do: "Replacing data under load"

  def run(folder) do
    :rand.seed(:exsss, {1, 2, 3})
    data = entries(@entries)
    few = entries(@few)
    currents = Bench.VMs.compare(__MODULE__, :currents, [], folder)

    ways =
      for {name, count, way, data} <- [
            {:synced, @publishes, &snapshots(folder, &1, true), data},
            {:snapshot, @publishes, &snapshots(folder, &1, false), data},
            {:ets, @publishes, &ets_tables/1, data},
            {:few, @publishes, &snapshots(folder, &1, false), few},
            {:persistent_term, 1, &persistent_terms/1, few}
          ],
          into: %{},
          do: {name, median(count, way, data)}

    killed = killed(folder)
    times = fn one, other -> ways[one] / ways[other] end

    [
      {:note,
       "#{thousands(amount(@processes))} processes hold the version before, while #{@publishes} versions are published and " <>
         "opened. The data has #{thousands(@entries)} entries: for a snapshot, they are encoded and written to a file; with ETS, they are " <>
         "inserted into a new table, whose identifier is inserted into another table, and the previous table is deleted. With " <>
         "`:persistent_term`, the data has #{thousands(@few)} entries, and each process that holds the previous value copies it: only one " <>
         "update is made, and the table shows #{@publishes} times its duration."},
      currents,
      {:table, ["#{@publishes} replacements", ">"],
       [
         ["Emmap.Snapshot.publish, #{thousands(@entries)} entries", time(ways.synced)],
         ["the same with sync: false", time(ways.snapshot)],
         ["ETS, new tables of #{thousands(@entries)} entries", time(ways.ets)],
         ["Emmap.Snapshot.publish, sync: false, #{thousands(@few)} entries", time(ways.few)],
         [":persistent_term.put, #{thousands(@few)} entries", time(ways.persistent_term)],
         ["the slowest of 20 publications while a VM that reads is killed", time(killed)]
       ]},
      headline(
        currents,
        :persistent,
        "Snapshot.current, compared with :persistent_term.get",
        {:at_most, 2.0}
      ),
      headline(
        "100 publications, compared with 100 new ETS tables",
        times.(:snapshot, :ets),
        {:at_most, 2.0}
      ),
      headline(
        "100 :persistent_term.put, compared with 100 publications",
        times.(:persistent_term, :few),
        {:at_least, 1000.0}
      )
    ]
  end

  defp entries(count), do: for(n <- 1..count, into: %{}, do: {"key #{n}", n})

  @doc "Of several VMs."
  def currents(folder) do
    data = entries(@few)
    snapshot = Snapshot.open!(Path.join(folder, "current"))
    {:ok, 1} = Snapshot.publish(snapshot, :erlang.term_to_binary(data))
    opened = Snapshot.open!(Path.join(folder, "current"), open: &{:ok, %{path: &1, size: 1}})
    {:ok, mem} = Snapshot.current(snapshot)
    :persistent_term.put(@key, mem)
    table = :ets.new(:rates, [:public, read_concurrency: true])
    :ets.insert(table, {:rates, mem})

    comparison =
      compare(
        "get the current version",
        [
          side(:emmap, "Snapshot.current, a handle", &current(snapshot, &1)),
          side(:opened, "Snapshot.current, a map of two keys", &current(opened, &1)),
          side(:persistent, ":persistent_term.get", &persistent(@key, &1)),
          side(:ets, ":ets.lookup", &ets(table, &1))
        ],
        seconds: 3
      )

    :persistent_term.erase(@key)
    for one <- [snapshot, opened], do: :ok = Snapshot.close(one)
    comparison
  end

  # The median, because each round has files and processes of its own.
  defp median(count, way, data) do
    rounds = if quick?(), do: 1, else: 3
    times = for _ <- 1..rounds, do: replaced(count, way, data)
    times |> Enum.sort() |> Enum.at(div(rounds, 2))
  end

  # Nanoseconds of 100 replacements. A way has a set-up, which returns what a process does to hold a version, a replacement and an
  # end.
  defp replaced(count, way, data) do
    {hold, replace, finish} = way.(data)
    parent = self()

    holders =
      for _ <- 1..amount(@processes) do
        spawn_link(fn ->
          held = hold.()
          send(parent, :holds)
          receive do: (:end -> send(parent, {:held, held != nil}))
        end)
      end

    for _ <- holders, do: receive(do: (:holds -> :ok))
    Process.put(:holders, holders)
    {time, _} = :timer.tc(fn -> for n <- 1..count, do: replace.(n) end)

    for holder <- holders do
      Process.unlink(holder)
      Process.exit(holder, :kill)
    end

    finish.()
    time * 1000 * @publishes / count
  end

  defp snapshots(folder, data, sync?) do
    directory = Path.join(folder, "published#{System.unique_integer([:positive])}")
    snapshot = Snapshot.open!(directory, sync: sync?)
    {:ok, 1} = Snapshot.publish(snapshot, :erlang.term_to_binary(data))

    {fn -> Snapshot.current!(snapshot) end,
     fn _ ->
       {:ok, _} = Snapshot.publish(snapshot, :erlang.term_to_binary(data))
       {:ok, _} = Snapshot.current(snapshot)
     end, fn -> :ok = Snapshot.close(snapshot) end}
  end

  defp ets_tables(data) do
    names = :ets.new(:names, [:public, read_concurrency: true])
    entries = Map.to_list(data)

    replace = fn _ ->
      before = :ets.lookup(names, :current)
      table = :ets.new(:rates, [:public, read_concurrency: true])
      :ets.insert(table, entries)
      :ets.insert(names, {:current, table})
      for {_, old} <- before, do: :ets.delete(old)
      [{_, _}] = :ets.lookup(names, :current)
    end

    replace.(0)
    {fn -> :ets.lookup(names, :current) end, replace, fn -> :ets.delete(names) end}
  end

  # An update is complete when all processes have their copy of the previous value.
  defp persistent_terms(data) do
    :persistent_term.put(@key, data)

    {fn -> :persistent_term.get(@key) end,
     fn n ->
       :persistent_term.put(@key, Map.put(data, "n", n))
       await_copies(data)
     end, fn -> :persistent_term.erase(@key) end}
  end

  defp await_copies(data) do
    # The processes of this VM whose heap is smaller than the value hold it as a literal.
    size = :erts_debug.flat_size(data)

    for pid <- Process.get(:holders), do: await_copy(pid, size)
  end

  defp await_copy(pid, size) do
    case Process.info(pid, :total_heap_size) do
      {_, words} when words >= size -> :ok
      _ -> Process.sleep(1) && await_copy(pid, size)
    end
  end

  # A VM that reads is killed during 20 publications: nanoseconds of the slowest.
  defp killed(folder) do
    directory = Path.join(folder, "killed")
    snapshot = Snapshot.open!(directory, sync: false)
    {:ok, 1} = Snapshot.publish(snapshot, "1")

    code =
      "{ok, _} = application:ensure_all_started(elixir), " <>
        "{ok, S} = 'Elixir.Emmap.Snapshot':open(<<\"#{directory}\">>), " <>
        "{ok, M} = 'Elixir.Emmap.Snapshot':current(S), io:format(\"reads~n\"), " <>
        "receive never -> M end."

    port =
      Port.open({:spawn_executable, System.find_executable("erl")}, [
        :binary,
        args:
          ["-noinput", "-noshell", "-pa", Application.app_dir(:emmap, "ebin")] ++
            ["-pa", Application.app_dir(:elixir, "ebin"), "-eval", code]
      ])

    receive do: ({^port, {:data, _}} -> :ok)
    {:os_pid, pid} = Port.info(port, :os_pid)

    times =
      for n <- 1..20 do
        if n == 5, do: System.cmd("kill", ["-9", "#{pid}"])
        {time, {:ok, _}} = :timer.tc(fn -> Snapshot.publish(snapshot, "#{n}") end)
        time
      end

    :ok = Snapshot.close(snapshot)
    Enum.max(times) * 1000
  end
end
