defmodule Emmap.Test.DeviceNodes do
  @moduledoc "What nodes do with one another's devices; `test/emmap/device_nodes_test.exs` runs these."

  import Emmap.Test.Cluster

  @doc "Two nodes read and write the map of a third."
  def share(path) do
    [one, two] = [start(:one), start(:two)]
    File.write!(path, "")
    {:ok, mem} = Emmap.open(path, [:write])
    {:ok, device} = Emmap.device(mem, encoding: :unicode)
    {:ok, bytes} = Emmap.device(mem)

    [one, two]
    |> Enum.map(fn node ->
      Task.async(fn ->
        call(node, fn -> for n <- 1..500, do: IO.puts(device, "ż #{n} #{node()}") end)
      end)
    end)
    |> Task.await_many(30_000)

    written = File.read!(path)
    :ok = call(one, fn -> :file.pwrite(bytes, 0, "from one") end)

    %{
      lines: written |> String.split("\n", trim: true) |> Enum.sort(),
      pread: call(two, fn -> :file.pread(bytes, 0, 8) end),
      view: Emmap.pread(mem, 0, 8),
      whole:
        call(two, fn ->
          {:ok, 0} = :file.position(bytes, 0)
          IO.binread(bytes, :eof)
        end) == File.read!(path),
      read:
        call(one, fn ->
          {:ok, _} = :file.position(device, {:eof, -9})
          IO.read(device, :line)
        end),
      fread:
        call(one, fn ->
          {:ok, _} = :file.position(device, 9)
          :io.fread(device, "", ~c"~ts ~ts")
        end),
      leader:
        call(two, fn ->
          Process.group_leader(self(), device)
          {:ok, _} = :file.position(device, :eof)
          IO.puts("led")
          node()
        end),
      last: File.read!(path) |> String.slice(-4, 4)
    }
  end

  @doc "The owner's node, a client's node and the device's node are killed."
  def deaths(path) do
    File.write!(path, :binary.copy("0123456789abcdef", 2_000_000))
    {:ok, mem} = Emmap.open(path, [:write])
    [client, owner, server] = Enum.map([:client, :owner, :server], &start/1)

    # A client that is suspended while 32 MB are being sent to it, and then killed.
    {:ok, device} = Emmap.device(mem)
    test = self()

    call(client, fn ->
      for _ <- 1..3 do
        spawn(fn ->
          send(test, :asks)
          for _ <- Stream.cycle([1]), do: :file.pread(device, 0, 32_000_000)
        end)
      end
    end)

    for _ <- 1..3, do: receive(do: (:asks -> :ok))
    stop(client)
    {waited, answers} = :timer.tc(fn -> for n <- 1..20, do: :file.pread(device, 16 * n, 4) end)
    kill(client)
    client_killed = {Enum.uniq(answers), :file.pread(device, 16, 4), name(client) in Node.list()}

    # An owner on another node.
    remote = call(owner, fn -> spawn(fn -> Process.sleep(:infinity) end) end)
    {:ok, owned} = Emmap.device(mem, owner: remote)
    alive = :file.pread(owned, 0, 4)
    monitor = Process.monitor(owned)
    kill(owner)
    ended = receive do: ({:DOWN, ^monitor, _, _, reason} -> reason)
    owner_killed = {alive, ended, :file.pread(owned, 0, 4)}

    # A device on another node.
    far =
      call(server, fn ->
        {:ok, mem} = Emmap.open(path, [:write])
        {:ok, device} = Emmap.device(mem, owner: Process.whereis(:init))
        device
      end)

    near = {:file.pread(far, 0, 4), IO.write(far, "far"), Emmap.pread(mem, 0, 4)}
    # One that asks while the node dies.
    waiting = Task.async(fn -> ask_until_error(far) end)
    kill(server)
    before = System.monotonic_time(:millisecond)

    gone = [
      :file.pread(far, 0, 4),
      :file.position(far, 0),
      :file.close(far),
      IO.binread(far, 4),
      :io.get_line(far, ""),
      try do
        IO.puts(far, "x")
      rescue
        error -> Exception.message(error)
      end
    ]

    %{
      client: client_killed,
      waited_beside_the_stopped: div(waited, 1000),
      owner: owner_killed,
      near: near,
      gone: gone,
      waiting: Task.await(waiting),
      waited: System.monotonic_time(:millisecond) - before,
      mine: :file.pread(device, 0, 4)
    }
  end

  defp ask_until_error(device) do
    with {:ok, _} <- :file.pread(device, 0, 9), do: ask_until_error(device)
  end
end
