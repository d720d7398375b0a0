defmodule Emmap.QueueIdleTest do
  # Waiting without CPU. Not async: the VM runs every process for a moment when any process replaces or erases a persistent
  # term, or purges code.
  use ExUnit.Case, async: false
  import Emmap.Test.Resources, only: [eventually: 2]
  alias Emmap.Queue

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    {:ok, q: Queue.open!(Path.join(directory, "queue"), format: :binary)}
  end

  defp nothing_done?(pid, milliseconds) do
    before = Process.info(pid, [:status, :reductions])
    Process.sleep(milliseconds)
    before[:status] == :waiting and Process.info(pid, [:status, :reductions]) == before
  end

  test "a process that waits does nothing until there is an item for it", %{q: q} do
    {:ok, reader} = Queue.reader(q, "behind")
    # There were items, and a reader has some.
    for n <- 1..10, do: :ok = Queue.push(q, "#{n}")
    {:ok, _} = Queue.pop_many(q)
    waiting = Task.async(fn -> Queue.pop(q, 10_000) end)
    # On a busy machine it takes a while until it waits.
    assert eventually(fn -> nothing_done?(waiting.pid, 50) end, 9_000)
    assert nothing_done?(waiting.pid, 100)
    :ok = Queue.push(q, "for the one who waits")
    assert Task.await(waiting) == {:ok, "for the one who waits"}
    assert Queue.length(reader) == 11
  end
end
