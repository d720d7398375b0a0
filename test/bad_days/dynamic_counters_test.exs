defmodule Emmap.BadDays.DynamicCountersTest do
  # What happens to the file of counters whose names appear at run time.
  use Emmap.Test.BadDay

  setup %{path: path} do
    File.rm!(path)
    :ok
  end

  @open """
  alias Emmap.Counters
  c = Counters.open!(path, dynamic: true)
  reason = fn call -> try do call.() rescue error in Emmap.Error -> error.reason end end
  """

  test "4: truncated under dynamic counters", context do
    assert {[:estale], {:error, :estale}, {:error, {:bad_format, :length}}, [:estale], :ok, 501,
            3000,
            1} =
             child(
               context,
               @open <>
                 """
                 for n <- 1..3000, do: :ok = Counters.add(c, "n\#{n}", n)
                 whole = File.read!(path)
                 cut.(path, 5000)
                 calls = [
                   fn -> Counters.add(c, "n500", 1) end, fn -> Counters.add(c, "new", 1) end, fn -> Counters.get(c, "n9") end,
                   fn -> c["n9"] end, fn -> Counters.to_map(c) end, fn -> Counters.reset(c) end, fn -> Enum.count(c) end
                 ]
                 during = calls |> Enum.map(reason) |> Enum.uniq()
                 sync = Counters.sync(c)
                 refused = Counters.reattach(c)
                 after_it = calls |> Enum.map(reason) |> Enum.uniq()
                 File.write!(path, whole)
                 back = Counters.reattach(c)
                 value = Counters.add_get(c, "n500", 1)
                 {during, sync, refused, after_it, back, value, Enum.count(c), Counters.add_get(c, "new", 1)}
                 """
             )
  end

  for kind <- [:tmpfs, :ext4] do
    test "11: disk full when a name is added (#{kind})", context do
      with {:error, why} <- disk(context, unquote(kind)) do
        skipped(context, why)
      else
        {:ok, disk} ->
          assert {:enospc, true, 2, true, :ok, true} =
                   child(
                     %{context | path: Path.join(disk, "data")},
                     """
                     alias Emmap.Counters
                     c = Counters.open!(path, dynamic: true, max_names: 10_000_000)
                     {name, reason} =
                       Enum.reduce_while(1..1_000_000, nil, fn n, _ ->
                         name = "n\#{n}/" <> String.duplicate("x", 400)
                         try do
                           :ok = Counters.add(c, name, 1)
                           {:cont, nil}
                         rescue
                           error in Emmap.Error -> {:halt, {n, error.reason}}
                         end
                       end)
                     # What exists can be used, and nothing of the name that did not fit.
                     all = Counters.to_map(c)
                     complete = map_size(all) == name - 1 and Enum.uniq(Map.values(all)) == [1]
                     first = "n1/" <> String.duplicate("x", 400)
                     more = Counters.add_get(c, first, 1)
                     again = try do Counters.add(c, "n\#{name}/" <> String.duplicate("y", 400), 1) rescue error in Emmap.Error -> error.reason end
                     synced = Counters.sync(c)
                     {:ok, other} = Counters.open(path, dynamic: true)
                     {reason, complete, more, again in [:enospc, :ok], synced, Enum.count(other) in (name - 1)..(name + 1)}
                     """
                   )
      end
    end
  end

  test "13: ulimit -f when a name is added", context do
    assert {:efbig, 1, true} =
             child(
               context,
               @open <>
                 """
                 Counters.add(c, "first", 1)
                 {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--fsize=500000"])
                 failed = Enum.find_value(1..100_000, fn n ->
                   case reason.(fn -> Counters.add(c, "n\#{n}", 1) end) do
                     :ok -> nil
                     reason -> reason
                   end
                 end)
                 {failed, Counters.get(c, "first"), File.stat!(path).size <= 500_000}
                 """
             )
  end

  test "29: a hole of 8 TB in a file of dynamic counters", context do
    assert {:ok, {:ok, 2}, true} =
             child(
               context,
               @open <>
                 """
                 Counters.add(c, "a", 1)
                 Counters.close(c)
                 copy = path <> ".copy"
                 File.cp!(path, copy)
                 cut.(copy, 8 * 1024 * 1024 * 1024 * 1024)
                 begun = System.monotonic_time(:millisecond)
                 result = case Counters.open(copy, dynamic: true) do
                   {:ok, other} -> {:ok, Counters.add_get(other, "a", 1)}
                   error -> error
                 end
                 {:ok, result, System.monotonic_time(:millisecond) - begun < 10_000}
                 """
             )
  end

  test "29: corrupted files of dynamic counters, at random", context do
    assert {:ok, true} =
             child(
               context,
               @open <>
                 """
                 for n <- 1..60, do: Counters.add(c, "n\#{n}", n)
                 Counters.sync(c)
                 whole = File.read!(path)
                 size = byte_size(whole)
                 results = for seed <- 1..400 do
                   :rand.seed(:exsss, seed)
                   # Half of them in the file that is open, half in a copy.
                   place = if rem(seed, 2) == 0, do: path, else: path <> ".\#{seed}"
                   if place != path, do: File.write!(place, whole)
                   {:ok, raw} = :file.open(place, [:raw, :read, :write])
                   for _ <- 1..Enum.random(1..30) do
                     at = Enum.random([8448, 8456, 8464, 8320, 16_384, 16_400, 24_704, 24_720, Enum.random(8192..size - 8)])
                     :ok = :file.pwrite(raw, at, :crypto.strong_rand_bytes(Enum.random(1..8)))
                   end
                   :file.close(raw)
                   case Counters.open(place, dynamic: true, create: false) do
                     {:ok, other} ->
                       for call <- [&Counters.to_map/1, &Counters.add(&1, "n7", 1), &Counters.add(&1, "new", 1), &Counters.get(&1, "n8")] do
                         try do call.(other) rescue _ in [Emmap.Error, ArgumentError] -> :failed end
                       end
                       Counters.close(other)
                       :opened
                     {:error, _} -> :refused
                   end
                   if place == path do
                     # The lock and the participants are of this boot, so they stay as they are.
                     File.write!(path, whole)
                   else
                     File.rm!(place)
                   end
                 end
                 {:ok, length(results) == 400}
                 """
             )
  end

  test "70: processes that add names are killed", context do
    assert {true, true, :ok} =
             child(
               context,
               @open <>
                 """
                 # On a slow machine the processes add more names than the default limit before the last is killed.
                 Counters.close(c)
                 c = Counters.open!(path, dynamic: true, max_names: 1_000_000_000)
                 pids = for p <- 1..40 do
                   spawn(fn -> Enum.each(Stream.iterate(0, & &1 + 1), &Counters.add(c, "\#{rem(p, 4)}/\#{&1}", 1)) end)
                 end
                 for pid <- pids do
                   Process.sleep(2)
                   Process.exit(pid, :kill)
                 end
                 names = Enum.map(c, &elem(&1, 0))
                 {length(names) == length(Enum.uniq(names)), length(names) == Enum.count(c), Counters.add(c, "last", 1)}
                 """
             )
  end

  test "28 (dynamic counters): a stale reference, and one of another VM", context do
    assert [:raised, :raised, :raised] =
             child(
               context,
               @open <>
                 """
                 other = make_ref()
                 for ref <- [other, nil, %{}] do
                   try do Counters.add(%{c | ref: ref}, "a", 1) rescue ArgumentError -> :raised end
                 end
                 """
             )
  end
end
