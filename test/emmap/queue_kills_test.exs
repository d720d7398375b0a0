defmodule Emmap.QueueKillsTest do
  # A few of the kills that `make queue-kills` makes 2,000 of.
  use ExUnit.Case, async: true
  alias Emmap.Queue
  alias Emmap.Test.QueueKills

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  test "20 kills of participants lose nothing", %{tmp_dir: directory} do
    kills(directory, 20, [])
  end

  @tag :slow
  test "300 kills of participants lose nothing", %{tmp_dir: directory} do
    kills(directory, 300, [])
  end

  test "20 kills across PID namespaces lose nothing", %{tmp_dir: directory} do
    case System.cmd("sh", ["-c", "unshare --pid --fork true"], stderr_to_stdout: true) do
      {_, 0} -> kills(directory, 20, namespaces: true)
      _ -> IO.puts("\nskipped: no PID namespaces here")
    end
  end

  defp kills(directory, rounds, options) do
    seed = :rand.uniform(1_000_000)
    found = QueueKills.run(directory, rounds, seed, options)
    assert found.problems == [], "seed #{seed}: #{inspect(found.problems)}"
    if QueueKills.left_out(), do: IO.puts("\n" <> QueueKills.left_out())
    assert found.kills |> Map.values() |> Enum.sum() == rounds
    # One of each kind that is there; in as few as 20 kills one may be spared.
    if rounds > 100 and QueueKills.left_out() == nil,
      do: assert(Enum.sort(Map.keys(found.kills)) == [:python, :rust, :vm])

    assert found.pushed > 10 * rounds and found.acknowledged > 10 * rounds
  end

  test "a waiting survivor gets what a dead program had checked out", %{tmp_dir: directory} do
    # A quiet machine needs some milliseconds.
    for what <- ~w(hold lock) do
      times = QueueKills.takeovers(directory, 10, what)
      assert Enum.at(times, 5) < 1_000_000, what
    end
  end

  test "a waiting survivor gets what a program pushed that died before it told of it", context do
    path = Path.join(context.tmp_dir, "untold")

    # Built before the survivor waits: on a new machine, this takes longer than the survivor waits.
    program = QueueKills.program!()
    queue = Queue.open!(path, format: :binary)
    survivor = Task.async(fn -> Queue.pop(queue, 60_000) end)
    refute Task.yield(survivor, 100)
    assert System.cmd(program, ["untold", path]) == {"pushed\n", 0}
    # It looks once a second.
    assert {:ok, "untold"} = Task.await(survivor, 30_000)
    Queue.close(queue)
  end

  test "a waiting survivor gets what a program had checked out that closes the queue", context do
    path = Path.join(context.tmp_dir, "closed")
    queue = Queue.open!(path, format: :binary)
    :ok = Queue.push(queue, "item")
    library = Application.app_dir(:emmap, "ebin")

    code = """
    q = Emmap.Queue.open!(#{inspect(path)}, format: :binary)
    {:ok, "item", _} = Emmap.Queue.checkout(q)
    IO.puts("taken")
    IO.gets("")
    :ok = Emmap.Queue.close(q)
    IO.gets("")
    """

    elixir = System.find_executable("elixir")
    options = [:binary, :exit_status, args: ["-pa", library, "-e", code]]
    port = Port.open({:spawn_executable, elixir}, options)
    receive do: ({^port, {:data, "taken\n"}} -> :ok)
    survivor = Task.async(fn -> Queue.pop(queue, 60_000) end)
    refute Task.yield(survivor, 100)
    Port.command(port, "close\n")
    assert {:ok, "item"} = Task.await(survivor, 30_000)
    Port.command(port, "end\n")
    assert_receive {^port, {:exit_status, 0}}, 30_000
    Queue.close(queue)
  end

  test "1,000 acknowledged pushes are there after kill -9", %{tmp_dir: directory} do
    assert {_, 1_000} = List.keyfind(QueueKills.kept(directory), "Emmap.Queue", 0)
  end
end
