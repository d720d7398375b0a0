# Hot calls on one map, compared with the same calls while 10,000 maps are open, and after 15,000 were opened and closed. Each
# VM measures the three one after the other, on the same handles; of several VMs the best time of each counts. Run by
# `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.ManyMaps do
  import Bench

  @vms 5
  @rounds 40
  @open 10_000
  @closed 15_000
  @sizes [8, 512, 4096]
  @near_fault "pwrite 4096 B, live, a page is lost"

  def run(folder) do
    rows = for _ <- 1..rounds(@vms), row <- child(folder), do: row
    all = Enum.group_by(rows, &elem(&1, 0), &elem(&1, 1))
    times = Map.new(all, fn {key, all} -> {key, Enum.min(all)} end)
    names = for({{:one, name}, _} <- rows, do: name) |> Enum.uniq() |> Enum.sort()

    many = "#{amount(@open)} open"
    header("ns a call, of #{rounds(@vms)} VMs the best", many, "one map")
    for name <- names, do: row(name, times[{:open, name}], times[{:one, name}], 1.05)
    header("as above", "#{amount(@closed)} closed", "one map")
    for name <- names, do: row(name, times[{:closed, name}], times[{:one, name}], 1.05)
  end

  defp child(folder) do
    path = Path.join(folder, "maps")
    File.mkdir_p!(path)

    {output, 0} =
      System.cmd("elixir", ["-pa", Application.app_dir(:emmap, "ebin"), __ENV__.file, path],
        env: [{"BENCH_MANY_MAPS", "child"}]
      )

    output |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
  end

  def measure([folder]) do
    handles = handles(folder)
    one = times(:one, handles)
    maps = open(folder, amount(@open), [])
    open = times(:open, handles)
    Enum.each(maps, &Emmap.close/1)
    more = open(folder, amount(@closed) - amount(@open), [])
    Enum.each(more, &Emmap.close/1)
    :erlang.garbage_collect()
    closed = times(:closed, handles)
    (one ++ open ++ closed) |> :erlang.term_to_binary() |> Base.encode64() |> IO.puts()
  end

  defp open(_folder, 0, maps), do: maps

  defp open(folder, n, maps) do
    path = Path.join(folder, "#{n}")
    # Two of three can grow, and have addresses set aside for it.
    options = if rem(n, 3) == 0, do: [], else: [:write]
    File.exists?(path) || File.write!(path, "a map of a few bytes")

    case Emmap.open(path, options) do
      {:ok, map} -> open(folder, n - 1, [map | maps])
      # Of memory, where the system allows fewer files.
      {:error, :emfile} -> open(folder, n - 1, [Emmap.open!([:anon, :write, size: 4096]) | maps])
    end
  end

  defp handles(folder) do
    lost = Path.join(folder, "lost")
    File.write!(lost, <<1>>)

    %{
      mem: Emmap.open!(Path.join(folder, "map"), [:write, :create, size: 1_048_576]),
      other: Emmap.open!([:anon, :write, size: 1_048_576]),
      counters: Emmap.Counters.open!(Path.join(folder, "counters"), 8),
      lost: {lost, Emmap.open!(lost, [:read])}
    }
  end

  defp times(state, %{lost: {path, map}} = handles) do
    near_fault = [{@near_fault, &pwrite(handles.mem, live(handles.other, 4096), &1)}]
    whole = compare_all(state, calls(handles))
    File.write!(path, "")
    {:error, :estale} = Emmap.pread(map, 0, 1)
    lost = compare_all(state, near_fault)
    File.write!(path, <<1>>)
    :ok = Emmap.reattach(map)
    whole ++ lost
  end

  defp compare_all(state, calls) do
    for({name, fun} <- calls, do: {{state, name}, 20_000, fun})
    |> compare(@rounds)
    |> Enum.to_list()
  end

  defp calls(%{mem: mem, other: other, counters: counters}) do
    # Bytes of no map, in memory that the VM maps now: it may lie among the maps.
    fresh = :crypto.strong_rand_bytes(16 * 1_048_576)

    for(size <- @sizes, do: {"pread #{size} B", &pread(mem, size, &1)}) ++
      for(size <- @sizes, do: {"view #{size} B", &view(mem, size, &1)}) ++
      for(size <- @sizes, do: {"pwrite #{size} B", &pwrite(mem, binary_part(fresh, 0, size), &1)}) ++
      for(size <- @sizes, do: {"pwrite #{size} B, live", &pwrite(mem, live(other, size), &1)}) ++
      [
        {"patomic add", &patomic(mem, &1)},
        {"counters add", &counter(counters, &1)},
        {"get :u64", &get(mem, &1)},
        {"put :u64", &put(mem, &1)}
      ]
  end

  defp live(mem, size) do
    {:ok, live} = Emmap.view(mem, 4096, size)
    live
  end

  loop(pread(it, size, n), do: {:ok, _} = Emmap.pread(it, 64, size))
  loop(view(it, size, n), do: {:ok, _} = Emmap.view(it, 64, size))
  loop(pwrite(it, data, n), do: :ok = Emmap.pwrite(it, 64, data))
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(counter(it, n), do: :ok = Emmap.Counters.add(it, 1, 1))
  loop(get(it, n), do: {:ok, _} = Emmap.get(it, 64, :u64))
  loop(put(it, n), do: :ok = Emmap.put(it, 64, :u64, 7))
end

if System.get_env("BENCH_MANY_MAPS") == "child",
  do: Bench.ManyMaps.measure(System.argv()),
  else: Bench.main(&Bench.ManyMaps.run/1)
