defmodule Emmap.Test.ChildVM do
  @moduledoc """
  Runs Elixir code in a VM of its own, as a bad day may kill it.

  `run!/2` returns the last value of the code, and fails if the VM died or hung.
  """

  @marker "child-answer:"

  @doc """
  Options: `:limits` (shell commands run before, such as `"ulimit -n 64"`), `:prefix` (a command
  that runs the VM), `:timeout` in seconds, `:env`.
  """
  def run!(code, options \\ []) do
    case run(code, options) do
      {:ok, answer} -> answer
      {:died, status, output} -> raise "the VM died (status #{status}): #{output}"
    end
  end

  @doc "As `run!/2`, but `{:ok, answer} | {:died, status, output}`."
  def run(code, options \\ []) do
    script = """
    answer = (
    #{code}
    )
    IO.puts("\\n#{@marker}" <> Base.encode64(:erlang.term_to_binary(answer)))
    """

    path =
      Path.join(
        System.tmp_dir!(),
        "emmap_child_#{System.unique_integer([:positive])}_#{System.pid()}.exs"
      )

    File.write!(path, script)
    limits = Keyword.get(options, :limits, "true")
    prefix = Keyword.get(options, :prefix, "")
    timeout = Keyword.get(options, :timeout, 120)
    ebin = Application.app_dir(:emmap, "ebin")

    command =
      "#{limits} && exec timeout -s KILL #{timeout} #{prefix} elixir -pa '#{ebin}' '#{path}'"

    try do
      # Ours is built for tests; a child needs no more than the code path.
      env = [{"MIX_ENV", nil}, {"ERL_CRASH_DUMP", "/dev/null"}] ++ Keyword.get(options, :env, [])
      {output, status} = System.cmd("sh", ["-c", command], stderr_to_stdout: true, env: env)

      with 0 <- status, [_, rest] <- String.split(output, @marker) do
        {:ok, rest |> String.split("\n") |> hd() |> Base.decode64!() |> :erlang.binary_to_term()}
      else
        _ -> {:died, status, output}
      end
    after
      File.rm(path)
    end
  end
end
