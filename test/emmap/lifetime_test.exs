defmodule Emmap.LifetimeTest do
  # Everything that is opened must be released, and not before its last user is gone.
  use ExUnit.Case, async: false
  import Emmap.Test.Resources

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, :binary.copy("0123456789", 1000))
    # What other tests still hold (a failed one keeps its context) is not counted.
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    %{path: path, live: Emmap.Native.live()}
  end

  # An earlier test may still have held something when this one began, and have released it since.
  defp released({mappings, handles}) do
    {now_mappings, now_handles} = Emmap.Native.live()
    now_mappings <= mappings and now_handles <= handles
  end

  defp in_process(act) do
    parent = self()
    {pid, monitor} = spawn_monitor(fn -> send(parent, {self(), act.()}) end)

    receive do
      {^pid, answer} ->
        receive do: ({:DOWN, ^monitor, _, _, _} -> answer)
    end
  end

  test "a handle that is dropped, closed or not", %{path: path, tmp_dir: directory, live: live} do
    for close? <- [true, false], options <- [[], [:direct], [:write], [:write, :private]] do
      in_process(fn ->
        {:ok, mem} = Emmap.open(path, options)
        {:ok, _} = Emmap.dup(mem)
        assert {1, maps} = held(directory)
        assert maps >= 1
        if close?, do: Emmap.close(mem)
        :done
      end)

      assert eventually(fn -> held(directory) == {0, 0} and released(live) end)
    end
  end

  test "a live binary keeps the map, wherever it is", %{
    path: path,
    tmp_dir: directory,
    live: live
  } do
    table = :ets.new(:views, [:public])

    in_process(fn ->
      {:ok, mem} = Emmap.open(path, [:direct])
      {:ok, view} = Emmap.pread(mem, 10, 1000)
      :ets.insert(table, {:view, view})
      :persistent_term.put(__MODULE__, view)
      :ok = Emmap.close(mem)
    end)

    :erlang.garbage_collect()
    # The descriptor is released by the close, and the pages are not.
    assert {0, 1} = held(directory)
    assert [{:view, view}] = :ets.lookup(table, :view)
    assert view == :binary.copy("0123456789", 100)
    send(self(), {:mail, view})
    :ets.delete(table)
    :persistent_term.erase(__MODULE__)
    assert {0, 1} = held(directory)
    receive do: ({:mail, view} -> assert(byte_size(view) == 1000))
    assert eventually(fn -> held(directory) == {0, 0} and released(live) end)
  end

  test "one million live binaries in ETS", %{path: path, tmp_dir: directory} do
    table = :ets.new(:views, [:public])

    in_process(fn ->
      {:ok, mem} = Emmap.open(path, [:direct])

      for n <- 1..1_000_000 do
        {:ok, live} = Emmap.pread(mem, rem(n, 9000), 65 + rem(n, 100))
        :ets.insert(table, {n, live})
      end
    end)

    # The handle was never closed: its collection closes it.
    assert {0, 1} = held(directory)
    assert :ets.info(table, :size) == 1_000_000
    [{_, live}] = :ets.lookup(table, 500_003)
    assert live == binary_part(:binary.copy("0123456789", 1000), rem(500_003, 9000), 68)
    :ets.delete(table)
    assert eventually(fn -> held(directory) == {0, 0} end, 20_000)
  end

  test "10,000 opens and closes", %{path: path, tmp_dir: directory, live: live} do
    in_process(fn ->
      for n <- 1..10_000 do
        {:ok, mem} = Emmap.open(path, if(rem(n, 2) == 0, do: [:direct], else: [:write]))
        {:ok, "0123"} = Emmap.pread(mem, 0, 4)
        :ok = Emmap.close(mem)
      end
    end)

    assert eventually(fn -> held(directory) == {0, 0} and released(live) end)
  end

  test "a killed owner, in the middle of calls", %{path: path, tmp_dir: directory} do
    {:ok, mem} = Emmap.open(path, [:write])
    size = 10_000

    for _ <- 1..50 do
      killed =
        spawn(fn ->
          data = :binary.copy("k", size)
          Stream.repeatedly(fn -> :ok = Emmap.pwrite(mem, 0, data) end) |> Stream.run()
        end)

      Process.sleep(:rand.uniform(5))
      Process.exit(killed, :kill)
      # No lock stays held.
      :ok = Emmap.pwrite(mem, 0, :binary.copy("a", size))
      assert {:ok, _} = Emmap.pread(mem, 0, size)
    end

    opener =
      spawn(fn ->
        {:ok, _} = Emmap.open(path, [:direct])
        Process.sleep(:infinity)
      end)

    assert eventually(fn -> match?({2, _}, held(directory)) end)
    Process.exit(opener, :kill)
    assert eventually(fn -> match?({1, _}, held(directory)) end)
    assert {:ok, _} = Emmap.pread(mem, 0, 1)
  end

  test "large maps are unmapped on a thread of their own", %{tmp_dir: directory} do
    path = Path.join(directory, "large")

    in_process(fn ->
      {:ok, mem} = Emmap.open(path, [:write, :create, size: 64 * 1024 * 1024])
      :ok = Emmap.pwrite(mem, 0, :binary.copy(<<1>>, 64 * 1024 * 1024))
    end)

    assert eventually(fn -> held(directory) == {0, 0} end)
  end
end
