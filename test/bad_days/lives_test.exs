defmodule Emmap.BadDays.LivesTest do
  # What lives long, is large, or shares the VM with others.
  use Emmap.Test.BadDay
  alias Emmap.Test.CLibrary

  test "33: one million live binaries, in ETS, in messages, in persistent_term", context do
    assert {1_000_000, true, true, 0} =
             child(
               context,
               """
               File.write!(path, :crypto.strong_rand_bytes(8_000_000))
               checksum = :erlang.crc32(File.read!(path))
               maps = fn -> Enum.count(String.split(File.read!("/proc/self/maps"), "\\n"), &String.contains?(&1, path)) end
               table = :ets.new(:views, [:public])
               {:ok, mem} = Emmap.open(path, [:direct])
               holder = spawn(fn -> Process.sleep(:infinity) end)
               for n <- 0..999_999 do
                 {:ok, view} = Emmap.view(mem, n * 8, 8)
                 case rem(n, 1000) do
                   0 -> :persistent_term.put({:view, n}, view)
                   1 -> send(holder, view)
                   _ -> :ets.insert(table, {n, view})
                 end
               end
               :ok = Emmap.close(mem)
               mem = nil; _ = mem
               :erlang.garbage_collect()
               {:messages, messages} = Process.info(holder, :messages)
               all = for n <- 0..999_999 do
                 case rem(n, 1000) do
                   0 -> :persistent_term.get({:view, n})
                   1 -> Enum.at(messages, div(n, 1000))
                   _ -> :ets.lookup_element(table, n, 2)
                 end
               end
               right = :erlang.crc32(all) == checksum
               count = length(all)
               all = nil; messages = nil; _ = {all, messages}
               mapped = maps.() > 0
               :ets.delete(table)
               Process.exit(holder, :kill)
               for n <- 0..999_999//1000, do: :persistent_term.erase({:view, n})
               gone = Enum.find_value(1..300, 1, fn _ ->
                 for pid <- Process.list(), do: :erlang.garbage_collect(pid)
                 Process.sleep(20)
                 if maps.() == 0, do: 0
               end)
               {count, right, mapped, gone}
               """,
               timeout: 150
             )
  end

  test "34: the native module purged and reloaded", context do
    assert {"0123456789", true, true, :ok, {:ok, "0123456789"}} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:direct])
             {:ok, live} = Emmap.view(mem, 0, 10)
             :code.purge(Emmap.Native)
             true = :code.delete(Emmap.Native)
             :code.purge(Emmap.Native)
             answer = try do Emmap.pread(mem, 0, 10) rescue e -> e end
             clean = match?({:ok, "0123456789"}, answer) or (is_struct(answer, ArgumentError) and answer.message =~ "of this load")
             kept = :binary.copy(live)
             cut.(path, 0)
             zeros = :binary.copy(live) == <<0::80>>
             File.write!(path, "0123456789")
             {kept, clean, zeros, Emmap.guard(), Emmap.pread(Emmap.open!(path), 0, 10)}
             """)
  end

  describe "34: another library takes SIGBUS" do
    setup context do
      case CLibrary.build("sigbus_probe", context.dir) do
        {:ok, library} -> %{library: library}
        {:error, why} -> %{library: nil, why: why}
      end
    end

    test "before ours and both work", %{library: library} = context do
      if library do
        assert {1, {:error, :estale}, 2, :ok} =
                 child(
                   context,
                   CLibrary.probe(library) <>
                     """
                     {:ok, mem} = Emmap.open(path)
                     theirs = SigbusProbe.fault()
                     cut.(path, 0)
                     {theirs, Emmap.pread(mem, 0, 1), SigbusProbe.fault(), Emmap.guard()}
                     """,
                   env: [{"LD_PRELOAD", library <> ".so"}, {"EMMAP_PROBE", "before"}]
                 )
      else
        skipped(context, context.why)
      end
    end

    test "after ours and passes on other faults", %{library: library} = context do
      if library do
        assert {:ok, {:error, :estale}, 1, :lost} =
                 child(
                   context,
                   CLibrary.probe(library) <>
                     """
                     {:ok, mem} = Emmap.open(path)
                     before = Emmap.guard()
                     SigbusProbe.take(1)
                     cut.(path, 0)
                     {before, Emmap.pread(mem, 0, 1), SigbusProbe.fault(), Emmap.guard()}
                     """
                 )
      else
        skipped(context, context.why)
      end
    end

    test "after ours and keeps it: the guard reports it", %{library: library} = context do
      if library do
        assert {:ok, :lost} =
                 child(
                   context,
                   CLibrary.probe(library) <>
                     """
                     {:ok, _} = Emmap.open(path)
                     before = Emmap.guard()
                     SigbusProbe.take(0)
                     {before, Emmap.guard()}
                     """
                 )
      else
        skipped(context, context.why)
      end
    end

    test "and an unrelated fault still kills", %{library: library} = context do
      if library do
        assert {:died, 135, _} =
                 attempt(
                   context,
                   CLibrary.probe(library) <>
                     """
                     {:ok, _} = Emmap.open(path)
                     SigbusProbe.foreign()
                     """
                 )
      else
        skipped(context, context.why)
      end
    end
  end

  test "35: a very long line, a file without a newline: others keep their schedulers", context do
    # What a thread worked is told by its processor time, whatever else this machine does: the schedulers
    # must have worked next to nothing while a gigabyte is looked through.
    assert {1_000_000_000, true} =
             child(
               context,
               """
               {:ok, live} = Emmap.open(path, [:write, :direct, :truncate, :sparse, size: 1_000_000_000])
               worked = fn ->
                 for task <- File.ls!("/proc/self/task"), {:ok, name} <- [File.read("/proc/self/task/\#{task}/comm")],
                     {:ok, stat} <- [File.read("/proc/self/task/\#{task}/schedstat")], reduce: {0, 0} do
                   {normal, dirty} ->
                     nanoseconds = stat |> String.split() |> hd() |> String.to_integer()
                     cond do
                       name =~ ~r/dirty|_di|_dc/ -> {normal, dirty + nanoseconds}
                       name =~ "sched" -> {normal + nanoseconds, dirty}
                       true -> {normal, dirty}
                     end
                 end
               end
               {normal, dirty} = worked.()
               {:ok, line} = Emmap.read_line(live)
               {:ok, 1_000_000_000} = Emmap.count(live, <<0>>)
               1 = Enum.count(Emmap.stream!(live))
               {:ok, _copy} = Emmap.pread(Emmap.open!(path), 0, 100_000_000)
               {normal_after, dirty_after} = worked.()
               {byte_size(line), (normal_after - normal) * 5 < dirty_after - dirty}
               """,
               timeout: 120,
               # Schedulers that wait must not seem to work.
               env: [{"ERL_FLAGS", "+sbwt none +sbwtdcpu none +sbwtdio none"}]
             )
  end

  test "36: a map larger than memory, many cold pages", context do
    assert {:ok, true, true, true} =
             child(
               context,
               """
               [_, kilobytes] = Regex.run(~r/MemTotal:\\s+(\\d+)/, File.read!("/proc/meminfo"))
               size = String.to_integer(kilobytes) * 1024 * 2
               {:ok, mem} = Emmap.open(path, [:write, :sparse, size: size])
               places = for n <- 1..2000, do: div(size, 2000) * n - 8
               for place <- places, do: :ok = Emmap.pwrite(mem, place, <<place::64>>)
               synced = Emmap.sync(mem)
               :ok = Emmap.close(mem)
               {:ok, mem} = Emmap.open(path, [:read])
               right = Enum.all?(Enum.shuffle(places), &(Emmap.pread(mem, &1, 8) == {:ok, <<&1::64>>}))
               prefetched = Emmap.prefetch(mem, 0, 500_000_000) == :ok
               {:ok, populated} = Emmap.open(path, [:populate, length: 50_000_000])
               {:ok, info} = Emmap.info(populated)
               {synced, right, prefetched, info.resident_pages * info.page_size >= 50_000_000}
               """,
               timeout: 150
             )
  end

  test "36: a map larger than the memory limit of the VM", context do
    group = "/sys/fs/cgroup/emmap_test_#{System.unique_integer([:positive])}"

    with :ok <- File.mkdir(group),
         :ok <- File.write(Path.join(group, "memory.max"), "300000000") do
      on_exit(fn -> File.rmdir(group) end)

      assert {true, true} =
               child(
                 context,
                 """
                 {:ok, mem} = Emmap.open(path, [:write, size: 900_000_000])
                 for n <- 0..224, do: :ok = Emmap.pwrite(mem, n * 4_000_000, :binary.copy(<<n>>, 4_000_000))
                 right = for n <- 0..224, place = n * 4_000_000 + 1_234_567, do: Emmap.pread(mem, place, 1) == {:ok, <<n>>}
                 {Enum.all?(right), File.read!("#{group}/memory.max") =~ "3"}
                 """,
                 limits: "echo $$ > #{group}/cgroup.procs",
                 timeout: 150
               )
    else
      {:error, why} -> skipped(context, "no memory group here: #{why}")
    end
  end
end
