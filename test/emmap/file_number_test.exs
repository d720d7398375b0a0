defmodule Emmap.FileNumberTest do
  # A descriptor's number belongs to another file as soon as the handle is collected or closed. What OTP
  # asks of a handle is always about the handle's own file.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @milliseconds 3000
  @secret :binary.copy("SECRET! ", 1000)

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "public")
    secret = Path.join(directory, "secret")
    File.write!(path, "public")
    File.write!(secret, @secret)
    # Others take every number that becomes free.
    for _ <- 1..2, do: start_supervised!({Task, fn -> open_for_ever(secret) end}, id: make_ref())
    %{path: path}
  end

  defp open_for_ever(secret) do
    {:ok, raw} = :file.open(secret, [:raw, :read])
    :file.close(raw)
    open_for_ever(secret)
  end

  # As an idle hook, or a tool that looks for leaks.
  defp collect_for_ever(pids) do
    Enum.each(pids, &:erlang.garbage_collect/1)
    collect_for_ever(pids)
  end

  # What `act` returned until the time was over, in four processes that are collected.
  defp results(act) do
    until = System.monotonic_time(:millisecond) + @milliseconds
    tasks = for _ <- 1..4, do: Task.async(fn -> repeat(act, until, MapSet.new()) end)
    pids = for task <- tasks, do: task.pid
    start_supervised!({Task, fn -> collect_for_ever(pids) end}, id: :collector)

    tasks
    |> Task.await_many(:infinity)
    |> Enum.reduce(&MapSet.union/2)
    |> Enum.sort()
  end

  defp repeat(act, until, seen) do
    seen = MapSet.put(seen, act.())
    if System.monotonic_time(:millisecond) < until, do: repeat(act, until, seen), else: seen
  end

  # The handle's last use is the call: from then on it may be collected.
  defp size(path) do
    {:ok, mem} = Emmap.open(path)
    with {:ok, info} <- :file.read_file_info(mem), do: elem(info, 1)
  end

  defp sent(path, socket) do
    {:ok, mem} = Emmap.open(path)
    # As `:file.sendfile/5` calls it; that one keeps the handle meanwhile.
    Emmap.File.sendfile(mem, socket, 0, 0, 1_048_576, [], [], [])
  end

  defp closed_meanwhile(path, act) do
    {:ok, mem} = Emmap.open(path)
    parent = self()
    closer = spawn_link(fn -> send(parent, {self(), Emmap.close(mem)}) end)
    result = act.(mem)

    receive do
      {^closer, :ok} -> result
    end
  end

  # What the call returned, and what arrived.
  defp through(send) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    {:ok, ours} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
    {:ok, theirs} = :gen_tcp.accept(listener)
    result = send.(ours)
    # Not a socket in TIME_WAIT for each round.
    :ok = :inet.setopts(theirs, linger: {true, 0})
    :gen_tcp.shutdown(ours, :write)
    arrived = received(theirs, [])
    Enum.each([theirs, ours, listener], &:gen_tcp.close/1)
    {result, arrived}
  end

  defp received(socket, got) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, data} -> received(socket, [got | data])
      {:error, :closed} -> IO.iodata_to_binary(got)
    end
  end

  test "the metadata of a handle that is not used any more is not that of another file", %{
    path: path
  } do
    assert results(fn -> spawned(fn -> size(path) end) end) == [6]
  end

  test "what is sent of a handle that is not used any more is not another file", %{path: path} do
    assert results(fn -> through(&sent(path, &1)) end) == [
             {{:ok, 6}, "public"}
           ]
  end

  test "the metadata of a handle that is closed meanwhile is not that of another file", %{
    path: path
  } do
    size = fn mem -> with {:ok, info} <- :file.read_file_info(mem), do: elem(info, 1) end
    seen = results(fn -> closed_meanwhile(path, size) end)
    assert seen -- [6, {:error, :closed}] == []
  end

  test "what is sent of a handle that is closed meanwhile is not another file", %{path: path} do
    seen =
      results(fn ->
        through(fn socket ->
          closed_meanwhile(path, &:file.sendfile(&1, socket, 0, 0, []))
        end)
      end)

    assert seen -- [{{:ok, 6}, "public"}, {{:error, :closed}, ""}] == []
  end

  test "a process that is killed between the calls leaves no descriptor open", %{path: path} do
    {:ok, {_, _, {ref, _, _}} = mem} = Emmap.open(path)

    numbers =
      for _ <- 1..50 do
        spawned(fn ->
          {:ok, _descriptor, number} = Emmap.Native.descriptor_open(ref)
          number
        end)
      end

    # Each was free again for the next.
    assert numbers |> Enum.uniq() |> length() < 50
    {:ok, descriptor, _} = Emmap.Native.descriptor_open(ref)
    assert :ok = Emmap.Native.descriptor_close(descriptor)
    assert {:error, :closed} = Emmap.Native.descriptor_close(descriptor)
    Emmap.close(mem)
    assert {:error, :closed} = Emmap.Native.descriptor_open(ref)
    assert_raise ArgumentError, fn -> Emmap.Native.descriptor_close(ref) end
  end

  # In a process of its own, which ends.
  defp spawned(act) do
    parent = self()
    {pid, monitor} = spawn_monitor(fn -> send(parent, {self(), act.()}) end)

    receive do
      {^pid, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, _, _, reason} ->
        exit(reason)
    end
  end
end
