defmodule Emmap.BadDays.SnapshotsTest do
  # Snapshots and mutexes: truncated files, full disks, killed programs.
  use Emmap.Test.BadDay

  @open """
  alias Emmap.{Mutex, Snapshot}
  {:ok, s} = Snapshot.open(Path.join(dir, "s"))
  {:ok, 1} = Snapshot.publish(s, String.duplicate("1", 10_000))
  """

  test "1: a snapshot's control file truncated while processes wait for a version", context do
    assert {{:error, :estale}, {:error, :estale}, {:error, :estale}, {:ok, 1}, "1111"} =
             child(context, """
             #{@open}
             {:ok, mem} = Snapshot.current(s)
             waiting = Task.async(fn -> Snapshot.wait(s, 1) end)
             Process.sleep(200)
             File.write!(Path.join(dir, "s/control"), "")
             current = Snapshot.current(s)
             waited = Task.await(waiting)
             published = Snapshot.publish(s, "2")
             :ok = Snapshot.close(s)
             File.rm!(Path.join(dir, "s/control"))
             {:ok, s} = Snapshot.open(Path.join(dir, "s"))
             {current, waited, published, Snapshot.publish(s, "again"), elem(Emmap.pread(mem, 0, 4), 1)}
             """)
  end

  test "1: the file of a version truncated under a live binary", context do
    assert {true, {:error, :estale}, {:ok, 2}, "2"} =
             child(context, """
             #{@open}
             {:ok, mem} = Snapshot.current(s)
             {:ok, view} = Emmap.view(mem)
             cut.(Path.join(dir, "s/version-1"), 0)
             zeros = :binary.last(view) == 0
             failed = Emmap.pread(mem, 9000, 1)
             published = Snapshot.publish(s, "2")
             {zeros, failed, published, Emmap.view!(Snapshot.current!(s))}
             """)
  end

  test "1: the file of a mutex truncated while processes wait", context do
    assert {{:error, :estale}, {:error, :estale}, :ok} =
             child(context, """
             #{@open}
             path = Path.join(dir, "m")
             m = Mutex.open!(path)
             :ok = Mutex.lock(m)
             waiting = Task.async(fn -> Mutex.lock(m) end)
             Process.sleep(200)
             cut.(path, 0)
             released = Mutex.unlock(m)
             waited = Task.await(waiting)
             :ok = Mutex.close(m)
             {released, waited, Mutex.lock(Mutex.open!(path))}
             """)
  end

  for kind <- [:ext4, :tmpfs] do
    test "12: disk full while publishing a version (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {{:error, :enospc}, 1, "1111", ["control", "version-1"], {:ok, 2}} =
                   child(%{context | dir: disk}, """
                   #{@open}
                   failed = Snapshot.publish(s, :binary.copy("x", 200_000_000))
                   {:ok, mem} = Snapshot.current(s)
                   {:ok, data} = Emmap.pread(mem, 0, 4)
                   files = Enum.sort(File.ls!(Path.join(dir, "s")))
                   {failed, Snapshot.generation(s), data, files, Snapshot.publish(s, "2")}
                   """)
      end
    end
  end

  test "80: 200 processes are killed while they publish, read and wait", context do
    assert {:ok, 200, ["control"]} =
             child(context, """
             #{@open}
             pids = for n <- 1..200 do
               spawn(fn ->
                 case rem(n, 4) do
                   0 -> Snapshot.publish(s, fn path -> File.write!(path, "half"); Process.sleep(:infinity) end)
                   1 -> {:ok, mem} = Snapshot.current(s); Process.sleep(:infinity); mem
                   2 -> Snapshot.wait(s, 1)
                   3 -> Snapshot.subscribe(s); Process.sleep(:infinity)
                 end
               end)
             end
             Process.sleep(300)
             for pid <- pids, do: Process.exit(pid, :kill)
             {:ok, n} = Snapshot.publish(s, "after", timeout: 20_000)
             "after" = Emmap.view!(Snapshot.current!(s))
             {:ok, length(pids), File.ls!(Path.join(dir, "s")) -- ["version-\#{n}"]}
             """)
  end
end
