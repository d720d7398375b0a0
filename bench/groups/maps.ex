defmodule Bench.Groups.Maps do
  @moduledoc false
  # Hot calls on one map, compared with the same calls while 10,000 maps are open, and after 15,000 were opened and closed; and the
  # memory of a map. Each VM measures all of it on the same handles.
  import Bench

  @open 10_000
  @closed 15_000
  @sizes [8, 512, 4096]

  loop(empty(x, n), do: _ = x)
  loop(pread(it, size, n), do: {:ok, _} = Emmap.pread(it, 64, size))
  loop(view(it, size, n), do: {:ok, _} = Emmap.view(it, 64, size))
  loop(pwrite(it, data, n), do: :ok = Emmap.pwrite(it, 64, data))
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(counter(it, n), do: :ok = Emmap.Counters.add(it, 1, 1))
  loop(get(it, n), do: {:ok, _} = Emmap.get(it, 64, :u64))
  loop(put(it, n), do: :ok = Emmap.put(it, 64, :u64, 7))

  def title, do: "Many maps"

  def run(folder) do
    IO.write("hot calls with one map, #{amount(@open)} open, #{amount(@closed)} closed ")

    vms =
      for _ <- 1..if(quick?(), do: 1, else: 3), do: Bench.VM.call(__MODULE__, :measure, [folder])

    IO.puts("(#{length(vms)} VMs)")
    names = vms |> hd() |> Map.fetch!(:one) |> Enum.map(&elem(&1, 0))

    labels = [
      one: "one map",
      open: "#{thousands(amount(@open))} open",
      closed: "#{thousands(amount(@closed))} closed"
    ]

    comparisons =
      for name <- names do
        times =
          for {state, _} <- labels, into: %{} do
            {state,
             Enum.flat_map(vms, &(&1 |> Map.fetch!(state) |> List.keyfind!(name, 0) |> elem(1)))}
          end

        Bench.Comparison.of(name, labels, times)
      end

    worst = fn state ->
      comparisons |> Enum.map(&Bench.Comparison.ratio(&1, state)) |> Enum.max()
    end

    memory = memory(folder)

    [
      {:note,
       "A call uses only its own map. A write whose data is a live binary must also find the map that the data belongs to. This is a binary search: 14 steps for 10,000 maps."},
      comparisons,
      headline(
        "hot calls with 10,000 maps open, compared with one: the worst",
        worst.(:open),
        {:at_most, 1.05}
      ),
      headline(
        "hot calls after 15,000 maps were closed, compared with one: the worst",
        worst.(:closed),
        {:at_most, 1.05}
      ),
      {:note,
       "**Memory used by each map**, not counting pages of the file or what the kernel keeps (an open file, a mapping, page tables). The first write creates the lock of a map, which takes 2 KB more: 16 words, each on its own pair of cache lines."},
      memory
    ]
  end

  @doc "Of a VM of its own."
  def measure(folder) do
    handles = handles(folder)
    one = times(handles)
    maps = open(folder, amount(@open), [])
    open = times(handles)
    Enum.each(maps, &Emmap.close/1)
    more = open(folder, amount(@closed) - amount(@open), [])
    Enum.each(more, &Emmap.close/1)
    :erlang.garbage_collect()
    %{one: one, open: open, closed: times(handles)}
  end

  # Two of three can grow, and have addresses set aside for it.
  defp open(folder, count, _) do
    for n <- 1..count, do: open_one(folder, n, if(rem(n, 3) == 0, do: [], else: [:write]))
  end

  defp open_one(folder, n, options) do
    path = Path.join(folder, "#{n}")
    File.exists?(path) || File.write!(path, "a map of a few bytes")

    case Emmap.open(path, options) do
      {:ok, map} -> map
      # Of memory, where the system allows fewer files.
      {:error, :emfile} -> Emmap.open!([:anon, :write, size: 4096])
    end
  end

  defp handles(folder) do
    %{
      mem: Emmap.open!(Path.join(folder, "map"), [:write, :create, size: 1_048_576]),
      other: Emmap.open!([:anon, :write, size: 1_048_576]),
      counters: Emmap.Counters.open!(Path.join(folder, "counters"), 8)
    }
  end

  defp times(handles) do
    sides = for {name, run} <- calls(handles), do: {name, side(name, name, run)}

    calls =
      for {name, side} <- sides,
          do: {name, side, max(trunc(200_000 / Bench.Comparison.round(side, 1000)), 100)}

    rounds =
      for _ <- 1..if(quick?(), do: 5, else: 60),
          {name, side, n} <- calls,
          do: {name, Bench.Comparison.round(side, n)}

    for {name, _, _} <- calls, do: {name, for({^name, time} <- rounds, do: time)}
  end

  defp calls(%{mem: mem, other: other, counters: counters}) do
    # Bytes of no map, in memory that the VM maps now: it may lie among the maps.
    fresh = :crypto.strong_rand_bytes(16 * 1_048_576)

    live = fn size ->
      {:ok, live} = Emmap.view(other, 4096, size)
      live
    end

    for(size <- @sizes, do: {"pread #{size} B", &pread(mem, size, &1)}) ++
      for(size <- @sizes, do: {"view #{size} B", &view(mem, size, &1)}) ++
      for(size <- @sizes, do: {"pwrite #{size} B", &pwrite(mem, binary_part(fresh, 0, size), &1)}) ++
      for(
        size <- @sizes,
        do: {"pwrite #{size} B from a live binary", &pwrite(mem, live.(size), &1)}
      ) ++
      [
        {"patomic :add", &patomic(mem, &1)},
        {"Counters.add", &counter(counters, &1)},
        {"get :u64", &get(mem, &1)},
        {"put :u64", &put(mem, &1)}
      ]
  end

  defp memory(folder) do
    rows =
      for {label, options} <- [
            {"of read-only maps", []},
            {"of maps that can grow", [:write]},
            {"of direct maps that can grow", [:write, :direct]},
            {"of read-only maps with :nolock", [:nolock]}
          ] do
        # Without the VM's cache of freed memory: it holds what the heap of the process was before it grew.
        {program, vm, files} =
          Bench.VM.call(__MODULE__, :memory_of, [folder, options], flags: "+MMmcs 0")

        {label, program, vm, files}
      end

    count = amount(@open)
    worst = rows |> Enum.map(&elem(&1, 1)) |> Enum.max()
    IO.puts("memory of a map: #{worst} bytes at most, of #{count}")

    header = [
      "one of #{thousands(count)} maps",
      ">total",
      ">of which in VM heaps",
      ">open files"
    ]

    [
      {:table, header,
       for(
         {label, program, vm, files} <- rows,
         do: [label, "#{thousands(program)} B", "#{thousands(vm)} B", thousands(files)]
       )},
      headline(
        "memory per map in bytes, with 10,000 maps open, excluding kernel memory",
        worst / 1,
        {:at_most, 2048}
      )
    ]
  end

  @doc "Of a VM of its own: bytes of each map."
  def memory_of(folder, options) do
    count = amount(@open)
    warm = for n <- 1..10, do: open_one(folder, n, options)
    :erlang.garbage_collect()
    before = {Bench.Groups.Whole.anonymous(), :erlang.memory(:total)}
    maps = for n <- 1..count, do: open_one(folder, n, options)
    :erlang.garbage_collect()
    {program, vm} = {Bench.Groups.Whole.anonymous(), :erlang.memory(:total)}
    files = length(File.ls!("/proc/self/fd"))
    true = length(maps) == count and is_list(warm)
    {div(program - elem(before, 0), count), div(vm - elem(before, 1), count), files}
  end
end
