defmodule Emmap.Test.CounterNodes do
  @moduledoc "Counters on three nodes, and what may happen to these; `test/emmap/cluster_test.exs` runs it."

  import Emmap.Test.Cluster
  alias Emmap.Counters
  alias Emmap.Counters.Cluster

  @adders 4
  @adds 2_000

  def run(directory) do
    names = [:one, :two, :three]
    nodes = for name <- names, do: :"#{name}@127.0.0.1"
    started = [one, two, three] = Enum.map(names, &start/1)
    for node <- started, do: joined(node, directory, nodes)

    # All add at once, in their own files and, from here, over the network.
    tasks =
      for node <- started, _ <- 1..@adders do
        Task.async(fn ->
          call(node, fn -> for _ <- 1..@adds, do: Cluster.add(:web, :requests, 1) end)
          for _ <- 1..50, do: :ok = Cluster.add(:web, "errors", 2, name(node))
        end)
      end

    Task.await_many(tasks, 60_000)

    all = %{
      requests: for(node <- started, do: call(node, fn -> Cluster.sum(:web, :requests) end)),
      errors: Cluster.sum(:web, :errors, nodes: nodes),
      sums: call(one, fn -> Cluster.sums(:web) end),
      observer: Cluster.sums(:web, nodes: nodes)
    }

    {killed, acknowledged} = kill_while_adding(three)
    file = file(directory, three)
    in_file = Counters.open!(file, [:requests, :errors])[:requests]
    away = call(one, fn -> Cluster.sum(:web, :requests) end)
    add_away = Cluster.add(:web, :requests, 1, name(killed))

    # A name of its own file again, with a counter more.
    three = start(:three)

    not_joined =
      call(one, fn ->
        {Cluster.sum(:web, :requests), Cluster.add(:web, :requests, 1, name(three))}
      end)

    joined(three, directory, nodes, [:requests, :errors, :timeouts])
    call(three, fn -> Cluster.add(:web, :timeouts, 9) end)

    back = %{
      sum: call(two, fn -> Cluster.sum(:web, :requests) end),
      new: call(two, fn -> Cluster.sum(:web, :timeouts) end),
      unknown: raised(fn -> Cluster.sum(:web, :nothing, nodes: nodes) end),
      add_unknown: raised(fn -> Cluster.add(:web, :nothing, 1, name(one)) end),
      add_too_large:
        raised(fn -> Cluster.add(:web, :errors, 0x1_0000_0000_0000_0000, name(one)) end)
    }

    # A fourth that only the second was told of.
    four = start(:four)
    joined(four, directory, [name(four)])
    call(four, fn -> Cluster.add(:web, :requests, 1_000_000) end)
    before = call(one, fn -> Cluster.sum(:web, :requests) end)
    joined(two, directory, nodes ++ [name(four)])
    told = call(one, fn -> Cluster.sum(:web, :requests) end)
    call(four, fn -> Counters.close(Cluster.counters(:web)) end)
    closed = call(one, fn -> Cluster.sum(:web, :requests) end)
    call(four, fn -> Cluster.leave(:web) end)
    left = call(one, fn -> Cluster.sum(:web, :requests) end)

    # The second is suspended: connected, and then found again.
    stop(two)

    still =
      for _ <- 1..2 do
        {waited, answer} =
          :timer.tc(fn -> Cluster.sum(:web, :requests, nodes: nodes, timeout: 300) end)

        {add_waited, add} = :timer.tc(fn -> Cluster.add(:web, :requests, 1, name(two), 300) end)

        Node.disconnect(name(two))
        {answer, add, div(max(waited, add_waited), 1000)}
      end

    kill(two)

    %{
      all: all,
      acknowledged: acknowledged,
      in_file: in_file,
      away: away,
      add_away: add_away,
      not_joined: not_joined,
      back: back,
      before: before,
      told: told,
      closed: closed,
      left: left,
      still: still
    }
  end

  def adds, do: @adders * @adds

  defp file(directory, node), do: Path.join(directory, "#{name(node)}.cnt")

  defp joined(node, directory, nodes, names \\ [:requests, :errors]) do
    path = file(directory, node)
    call(node, fn -> :ok = Cluster.join(:web, Counters.open!(path, names), nodes: nodes) end)
  end

  # What it had reported before it died.
  defp kill_while_adding(node) do
    test = self()

    call(node, fn ->
      spawn(fn ->
        for n <- Stream.iterate(1, &(&1 + 1)) do
          Cluster.add(:web, :requests, 1)
          send(test, {:added, n})
        end
      end)
    end)

    receive do: ({:added, 500} -> :ok)
    kill(node)
    {node, last_added(500)}
  end

  defp last_added(n) do
    receive do
      {:added, m} -> last_added(max(n, m))
    after
      0 -> n
    end
  end

  defp raised(function) do
    function.()
  rescue
    error in ArgumentError -> error.message
  end
end
