defmodule Bench.VM do
  @moduledoc false
  # A function of a group in a VM of its own.

  @doc """
  What it returns. Options: `:app` (the folder of the application, if it is to be another one than here), `:flags` of the VM,
  `waiting: :busy` (schedulers wait busily, as by default: while this VM waits for the result, it needs no core).
  """
  def call(module, function, arguments, options \\ []) do
    call = {module, function, arguments} |> :erlang.term_to_binary() |> Base.encode64()

    {output, 0} =
      System.cmd("elixir", arguments(options) ++ ["-e", "Bench.VM.serve(\"#{call}\")"])

    [_, result] = Regex.run(~r/^RESULT (.*)$/m, output)
    result |> Base.decode64!() |> :erlang.binary_to_term()
  end

  @doc "A port that runs it, and its OS process."
  def start(module, function, arguments) do
    call = {module, function, arguments} |> :erlang.term_to_binary() |> Base.encode64()

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        args: arguments([]) ++ ["-e", "Bench.VM.serve(\"#{call}\")"]
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    {port, pid}
  end

  def kill({port, pid}) do
    System.cmd("kill", ["-9", "#{pid}"])
    receive do: ({^port, {:exit_status, _}} -> :ok)
  end

  @doc false
  def serve(call) do
    {module, function, arguments} = call |> Base.decode64!() |> :erlang.binary_to_term()
    result = apply(module, function, arguments)
    IO.puts(["RESULT ", result |> :erlang.term_to_binary() |> Base.encode64()])
  end

  # By default, schedulers do not wait busily, or two VMs would take the cores from each other.
  defp arguments(options) do
    app = Keyword.get_lazy(options, :app, fn -> Application.app_dir(:emmap) end)
    folders = [Path.join(app, "ebin"), Path.dirname(:code.which(__MODULE__))]
    busy = options[:waiting] == :busy
    waiting = if busy, do: "", else: "+sbwt none +sbwtdcpu none +sbwtdio none"
    flags = "#{waiting} #{options[:flags]}"
    ["--erl", flags] ++ Enum.flat_map(folders, &["-pa", &1])
  end
end
