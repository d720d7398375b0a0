defmodule Emmap.Test.OtherVM do
  @moduledoc "A VM that evaluates one expression, prints lines, and can be killed at any time."

  alias Emmap.Test.ChildProgram

  @doc "Starts it with Elixir code. Its lines are sent to the caller as `{port, {:data, line}}`."
  def start(code) do
    arguments =
      ~w(-noinput -noshell +fnu +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none) ++
        ["-pa", Application.app_dir(:emmap, "ebin"), Application.app_dir(:elixir, "ebin")] ++
        ["-eval", "'Elixir.Code':eval_string(<<#{Enum.join(:binary.bin_to_list(code), ",")}>>)."]

    port =
      Port.open({:spawn_executable, System.find_executable("erl")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: arguments,
        env: [{~c"ERL_CRASH_DUMP", ~c"/dev/null"}]
      ])

    {port, ChildProgram.end_with_caller(port)}
  end

  @doc "Waits until it has printed `text`."
  def await({port, _pid} = vm, text, seen \\ "") do
    if String.contains?(seen, text) do
      seen
    else
      receive do
        {^port, {:data, data}} -> await(vm, text, seen <> data)
        {^port, {:exit_status, status}} -> raise "ended with #{status}: #{seen}"
      after
        60_000 -> raise "printed only #{seen}"
      end
    end
  end

  @doc "Kills it, and returns when it is gone."
  def kill({port, pid}) do
    System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true)

    receive do
      {^port, {:exit_status, _}} -> :ok
    after
      30_000 -> raise "it lives"
    end
  end
end
