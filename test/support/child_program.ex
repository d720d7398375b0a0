defmodule Emmap.Test.ChildProgram do
  @moduledoc """
  Ends programs with the process that started them. A closed port does not: a worker of a test that failed or timed out
  would work on, and take a processor from all that follow.
  """

  @doc "Kills the program of a port when the calling process ends, however it does. Returns the program's number."
  def end_with_caller(port) do
    {:os_pid, pid} = Port.info(port, :os_pid)
    caller = self()
    started = started(pid)

    spawn(fn ->
      monitor = Process.monitor(caller)
      receive do: ({:DOWN, ^monitor, _, _, _} -> kill(pid, started))
    end)

    pid
  end

  # Another program may have its number by now.
  defp kill(pid, started) do
    if started != nil and started(pid) == started,
      do: System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true)
  end

  # When it was started, of the fields that follow its name; nil where the program has ended.
  defp started(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} -> stat |> String.split(") ") |> List.last() |> String.split(" ") |> Enum.at(19)
      {:error, _} -> nil
    end
  end
end
