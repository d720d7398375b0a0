defmodule Emmap.Test.Cluster do
  @moduledoc """
  Real nodes on this machine, in VMs of their own, found through an epmd of their own.

  `run!/3` starts a VM that is the first node and calls a function of a scenario there; what that returns
  is the answer. In a scenario, `start/1` starts further nodes and `call/2` runs a function on one.
  """

  alias Emmap.Test.ChildVM

  @doc "Whether there is an epmd, without which no nodes find each other."
  def possible?, do: epmd() != nil

  def run!(module, function, arguments) do
    port = free_port()
    address = [{"ERL_EPMD_PORT", "#{port}"}, {"ERL_EPMD_ADDRESS", "127.0.0.1"}]

    try do
      {_, 0} = System.cmd(epmd(), ["-daemon"], env: address)

      ChildVM.run!(
        """
        {:ok, _} = Node.start(:"first@127.0.0.1", :longnames)
        apply(#{inspect(module)}, #{inspect(function)}, #{inspect(arguments)})
        """,
        env: address,
        timeout: 120
      )
    after
      # The nodes are gone, but epmd may not have noticed.
      System.cmd(epmd(), ["-kill"], env: address, stderr_to_stdout: true)
    end
  end

  @doc "Starts a node: `{peer, node}`. It ends with the first node."
  def start(name) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    options = %{name: name, host: ~c"127.0.0.1", longnames: true, args: paths, wait_boot: 30_000}
    {:ok, peer, node} = :peer.start_link(options)
    {:ok, _} = :erpc.call(node, Application, :ensure_all_started, [:elixir])
    # Kept, because a suspended node cannot be asked.
    Process.put({__MODULE__, node}, :erpc.call(node, System, :pid, []))
    {peer, node}
  end

  @doc "Ends a node as `kill -9` does, and returns when this one knows."
  def kill({_peer, node} = started) do
    Node.monitor(node, true)
    Process.flag(:trap_exit, true)
    signal(started, "-KILL")

    receive do
      {:nodedown, ^node} -> started
    after
      10_000 -> raise "#{node} does not die"
    end
  end

  @doc "Suspends a node, like one that swaps or is debugged: it replies to nothing, and its connections stay."
  def stop({_peer, node} = started) do
    signal(started, "-STOP")
    await_stopped(Process.get({__MODULE__, node}), System.monotonic_time(:millisecond) + 10_000)
  end

  # The signal is sent when kill returns, and its threads stop one by one: a busy one may reply until then.
  # (Without /proc nobody knows.)
  defp await_stopped(pid, deadline) do
    running =
      for file <- Path.wildcard("/proc/#{pid}/task/*/stat"),
          {:ok, stat} <- [File.read(file)],
          not (stat =~ ~r/\) T /),
          do: stat

    cond do
      running == [] -> :ok
      System.monotonic_time(:millisecond) > deadline -> raise "it does not stop: #{hd(running)}"
      true -> await_stopped(pid, deadline)
    end
  end

  defp signal({_peer, node}, signal) do
    {_, 0} = System.cmd("kill", [signal, Process.get({__MODULE__, node})])
  end

  def call({_peer, node}, function), do: :erpc.call(node, function)
  def name({_peer, node}), do: node

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  defp epmd do
    places = [
      :code.root_dir() ++ ~c"/bin" | :filelib.wildcard(:code.root_dir() ++ ~c"/erts-*/bin")
    ]

    System.find_executable("epmd") ||
      Enum.find_value(places, fn directory ->
        path = Path.join(directory, "epmd")
        if File.exists?(path), do: path
      end)
  end
end
