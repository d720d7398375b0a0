defmodule Emmap.Test.RabbitMQ do
  @moduledoc """
  A RabbitMQ server of its own: all its files are in one directory, and its ports, its node and its epmd are its own, too.
  It ends with this VM.
  """

  @doc "Where RabbitMQ is installed, or nil."
  def home do
    [System.get_env("RABBITMQ_HOME"), "/usr/lib/rabbitmq/lib/*", "/usr/local/opt/rabbitmq"]
    |> Enum.reject(&is_nil/1)
    |> Enum.flat_map(&Path.wildcard(Path.join(&1, "sbin/rabbitmq-server")))
    |> Enum.map(&Path.expand(Path.join(&1, "../..")))
    |> List.last()
  end

  @doc "How to get it."
  def missing do
    "skipped: no RabbitMQ here. On Debian or Ubuntu: apt-get install rabbitmq-server (the service need not run: " <>
      "systemctl disable --now rabbitmq-server). Elsewhere RABBITMQ_HOME names the folder that has sbin/rabbitmq-server."
  end

  @doc "The folder of its Erlang libraries, for `ERL_LIBS`."
  def libraries, do: Path.join(home(), "plugins")

  @doc "Starts a server, or starts it again; returns when it can be connected to."
  def start!(directory) when is_binary(directory) do
    File.mkdir_p!(directory)
    [amqp, distribution, epmd_port] = free_ports(3)
    arguments = ["-port", "#{epmd_port}", "-address", "127.0.0.1"]
    program = System.find_executable("epmd") || Path.join(:code.root_dir(), "bin/epmd")
    epmd = spawn!(program, arguments, [], Path.join(directory, "epmd.log"))

    server = %{
      directory: directory,
      port: amqp,
      distribution: distribution,
      epmd_port: epmd_port,
      epmd: epmd,
      process: nil
    }

    File.write!(Path.join(directory, "enabled_plugins"), "[].\n")
    File.write!(Path.join(directory, "rabbitmq.conf"), "listeners.tcp.1 = 127.0.0.1:#{amqp}\n")
    start!(server)
  end

  def start!(%{process: nil, directory: directory} = server) do
    script = Path.join(home(), "sbin/rabbitmq-server")
    process = spawn!(script, ["-noinput"], env(server), Path.join(directory, "output"))
    server = %{server | process: process}
    wait_for_port(server, System.monotonic_time(:millisecond) + 120_000)
    server
  end

  defp env(%{directory: directory} = server) do
    in_directory = &Path.join(directory, &1)

    [
      {"HOME", directory},
      {"ERL_EPMD_PORT", "#{server.epmd_port}"},
      {"ERL_EPMD_ADDRESS", "127.0.0.1"},
      {"ERL_CRASH_DUMP", "/dev/null"},
      {"RABBITMQ_NODENAME", "emmap_#{server.port}@localhost"},
      {"RABBITMQ_DIST_PORT", "#{server.distribution}"},
      {"RABBITMQ_CONFIG_FILE", in_directory.("rabbitmq.conf")},
      {"RABBITMQ_ADVANCED_CONFIG_FILE", in_directory.("advanced.config")},
      {"RABBITMQ_CONF_ENV_FILE", in_directory.("rabbitmq-env.conf")},
      {"RABBITMQ_ENABLED_PLUGINS_FILE", in_directory.("enabled_plugins")},
      {"RABBITMQ_MNESIA_BASE", in_directory.("mnesia")},
      {"RABBITMQ_LOG_BASE", in_directory.("log")},
      {"RABBITMQ_PID_FILE", in_directory.("pid")},
      # The script is replaced by the VM, which gets the signals.
      {"RABBITMQ_ALLOW_INPUT", "1"}
    ]
  end

  @doc "Calls `rabbitmqctl`."
  def ctl!(server, arguments) do
    script = Path.join(home(), "sbin/rabbitmqctl")
    {_, 0} = System.cmd(script, arguments, env: env(server), stderr_to_stdout: true)
  end

  @doc "Stops it as `systemctl stop` would (`:term`), or kills it (`:kill`)."
  def stop!(server, signal \\ :term) do
    kill!(server.process, signal)
    %{server | process: nil}
  end

  @doc "Stops what is left of it."
  def end!(server) do
    if server.process, do: kill!(server.process, :kill)
    kill!(server.epmd, :kill)
  end

  defp wait_for_port(server, deadline) do
    case :gen_tcp.connect({127, 0, 0, 1}, server.port, []) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, _} ->
        output = Path.join(server.directory, "output")

        if ended?(server.process) or System.monotonic_time(:millisecond) > deadline,
          do: raise("RabbitMQ does not start: #{File.read!(output)}")

        Process.sleep(50)
        wait_for_port(server, deadline)
    end
  end

  # Programs that end with this VM

  @doc "Starts a program, whose output goes to a file. It is killed when its standard input, a pipe from here, is closed."
  def spawn!(program, arguments, env, output) do
    script = """
    exec 3<&0
    pid=$$
    (while read -r _; do :; done; kill -9 $pid) <&3 >/dev/null 2>&1 &
    exec "$0" "$@" </dev/null 3<&- >>"#{output}" 2>&1
    """

    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :exit_status,
        args: ["-c", script, program | arguments],
        env:
          for({name, value} <- env, do: {to_charlist(name), value != nil and to_charlist(value)})
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    %{port: port, pid: pid}
  end

  @doc "Whether a program has ended by itself. Asked by the process that started it, as are the rest."
  def ended?(%{port: port}) do
    receive do
      {^port, {:exit_status, _}} = ended -> send(self(), ended) && true
    after
      0 -> false
    end
  end

  @doc "Ends a program that still runs, and waits for its end."
  def kill!(%{port: port, pid: pid}, signal \\ :kill) do
    name = signal |> to_string() |> String.upcase()
    {_, 0} = System.cmd("kill", ["-#{name}", "#{pid}"], stderr_to_stdout: true)

    receive do
      {^port, {:exit_status, status}} -> status
    after
      120_000 -> raise "#{pid} does not end"
    end
  end

  defp free_ports(count) do
    sockets =
      for _ <- 1..count do
        {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
        socket
      end

    for socket <- sockets do
      {:ok, port} = :inet.port(socket)
      :ok = :gen_tcp.close(socket)
      port
    end
  end
end
