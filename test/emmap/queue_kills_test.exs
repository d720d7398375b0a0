defmodule Emmap.QueueKillsTest do
  # A few of the kills that `make queue-kills` makes 2,000 of.
  use ExUnit.Case, async: true
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
    times = QueueKills.takeovers(directory, 10)
    assert Enum.at(times, 5) < 1_000_000
  end

  test "1,000 acknowledged pushes are there after kill -9", %{tmp_dir: directory} do
    assert {_, 1_000} = List.keyfind(QueueKills.kept(directory), "Emmap.Queue", 0)
  end
end
