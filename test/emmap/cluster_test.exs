defmodule Emmap.ClusterTest do
  # Counters of one node here, and of three real nodes in VMs of their own.
  use ExUnit.Case, async: true
  alias Emmap.Counters
  alias Emmap.Counters.Cluster
  alias Emmap.Test.Cluster, as: Nodes
  alias Emmap.Test.CounterNodes

  @moduletag :tmp_dir
  @moduletag timeout: 180_000

  setup %{test: name, tmp_dir: directory} do
    on_exit(fn -> Cluster.leave(name) end)
    %{name: name, counters: Counters.open!(Path.join(directory, "c.cnt"), [:a, "b"])}
  end

  test "one node is a cluster", %{name: name, counters: counters} do
    :ok = Cluster.join(name, counters, [])
    assert Cluster.counters(name) == counters
    :ok = Cluster.add(name, :a, 5)
    :ok = Cluster.add(name, "a", 1)
    :ok = Cluster.add(name, 1, 2)
    :ok = Cluster.add(name, :b, 1, node())
    assert Counters.to_list(counters) == [6, 3]
    for key <- [:a, "a", 0], do: assert(Cluster.sum(name, key) == {:ok, 6})
    # As this node has called them.
    assert Cluster.sums(name) == {:ok, %{:a => 6, "b" => 3}}
  end

  test "counters with numbers", %{name: name, tmp_dir: directory} do
    counters = Counters.open!(Path.join(directory, "n.cnt"), 3)
    :ok = Cluster.join(name, counters, nodes: [node()])
    :ok = Cluster.add(name, 2, -7)
    assert Cluster.sums(name) == {:ok, %{0 => 0, 1 => 0, 2 => -7}}
    assert Cluster.sum(name, 2) == {:ok, -7}
    assert_raise ArgumentError, ~r/has a counter 3/, fn -> Cluster.sum(name, 3) end
    assert_raise ArgumentError, ~r/has a counter -1/, fn -> Cluster.sum(name, -1) end
  end

  test "counters by the name they were started with", %{name: name, tmp_dir: directory} do
    options = [name: :started, path: Path.join(directory, "s.cnt"), counters: [:a]]
    assert_raise ArgumentError, ~r/no Emmap.Counters/, fn -> Cluster.join(name, :started, []) end
    {:ok, owner} = Counters.start_link(options)
    :ok = Cluster.join(name, :started, [])
    :ok = Cluster.add(name, :a, 2)
    GenServer.stop(owner)
    assert_raise ArgumentError, ~r/has not joined/, fn -> Cluster.sum(name, :a) end

    # Opened again, they are a part of the cluster again.
    {:ok, _} = Counters.start_link(options)
    :ok = Cluster.add(name, :a, 1)
    assert Cluster.sum(name, :a) == {:ok, 3}
    assert Cluster.sums(name) == {:ok, %{a: 3}}
  end

  test "a node that is away is named", %{name: name, counters: counters} do
    away = :"nobody@127.0.0.1"
    :ok = Cluster.join(name, counters, nodes: [away])
    :ok = Cluster.add(name, :a, 5)
    missing = [{away, :noconnection}]
    assert Cluster.sum(name, :a) == {:partial, 5, missing}
    assert Cluster.sum(name, :unknown) == {:partial, 0, missing}
    assert Cluster.sums(name) == {:partial, %{:a => 5, "b" => 0}, missing}
    assert Cluster.add(name, :a, 1, away) == {:error, :noconnection}
    :ok = Cluster.join(name, counters, nodes: [])
    assert Cluster.sum(name, :a) == {:ok, 5}
  end

  test "who has left or closed is named, and what nobody has is a mistake", %{
    name: name,
    counters: counters
  } do
    assert_raise ArgumentError, ~r/has not joined/, fn -> Cluster.add(name, :a, 1) end
    assert_raise ArgumentError, ~r/has not joined/, fn -> Cluster.sum(name, :a) end
    assert Cluster.counters(name) == nil
    assert Cluster.sum(name, :a, nodes: [node()]) == {:partial, 0, [{node(), :not_joined}]}
    assert Cluster.add(name, :a, 1, node()) == {:error, :not_joined}
    :ok = Cluster.join(name, counters, [])
    assert_raise ArgumentError, ~r/no node of .* :c/, fn -> Cluster.sum(name, :c) end
    assert_raise ArgumentError, ~r/:c/, fn -> Cluster.add(name, :c, 1) end
    assert_raise ArgumentError, ~r/64 bits/, fn -> Cluster.add(name, :a, 1.0, node()) end
    :ok = Counters.close(counters)
    assert Cluster.sum(name, :a) == {:partial, 0, [{node(), :closed}]}
    assert Cluster.sums(name) == {:partial, %{}, [{node(), :closed}]}
    assert Cluster.add(name, :a, 1, node()) == {:error, :closed}
    assert :ok = Cluster.leave(name)
    assert :ok = Cluster.leave(name)
  end

  test "says what is wrong with an option", %{name: name, counters: counters} do
    for mistake <- [
          fn -> apply(Cluster, :join, [name, :counters, [nodes: []]]) end,
          fn -> Cluster.join(name, counters, node: :a) end,
          fn -> Cluster.join(name, counters, nodes: :a) end,
          fn -> Cluster.join(name, counters, nodes: ["a"]) end,
          fn -> Cluster.sum(name, :a, nodes: [node()], timeout: -1) end,
          fn -> Cluster.sum(name, {:a}, nodes: [node()]) end,
          fn -> Cluster.sums(name, nodes: []) end,
          fn -> Cluster.add(name, :a, 1, "node") end,
          fn -> Cluster.add(name, :a, 1, node(), :soon) end
        ] do
      assert_raise ArgumentError, mistake
    end
  end

  unless Nodes.possible?(), do: @tag(skip: "epmd is missing, so nodes cannot be started")

  test "three nodes: all add, one is killed and comes back, one is suspended", %{
    tmp_dir: directory
  } do
    seen = Nodes.run!(CounterNodes, :run, [directory])
    all = 3 * CounterNodes.adds()
    assert seen.all.requests == List.duplicate({:ok, all}, 3)
    assert seen.all.errors == {:ok, 3 * 4 * 50 * 2}
    assert seen.all.sums == {:ok, %{requests: all, errors: 1200}}
    assert seen.all.observer == {:ok, %{"requests" => all, "errors" => 1200}}

    # Killed in the middle of adding: what it had told of is in its file, and its count is missing in the sum.
    three = :"three@127.0.0.1"
    counted = seen.in_file - CounterNodes.adds()
    assert counted >= seen.acknowledged
    assert seen.away == {:partial, 2 * CounterNodes.adds(), [{three, :noconnection}]}
    assert seen.add_away == {:error, :noconnection}

    assert seen.not_joined ==
             {{:partial, 2 * CounterNodes.adds(), [{three, :not_joined}]}, {:error, :not_joined}}

    total = all + counted
    assert seen.back.sum == {:ok, total}
    # Those who have no such counter have counted nothing.
    assert seen.back.new == {:ok, 9}
    assert seen.back.unknown =~ "no node of :web has a counter :nothing"
    assert seen.back.add_unknown =~ "has a counter :nothing"
    assert seen.back.add_too_large =~ "64 bits"

    # A node that any of them names is asked.
    four = :"four@127.0.0.1"
    assert seen.before == {:ok, total}
    assert seen.told == {:ok, total + 1_000_000}
    assert seen.closed == {:partial, total, [{four, :closed}]}
    assert seen.left == {:partial, total, [{four, :not_joined}]}

    two = :"two@127.0.0.1"

    for {answer, add, waited} <- seen.still do
      assert answer == {:partial, total - CounterNodes.adds(), [{two, :timeout}]}
      assert add == {:error, :timeout}
      assert waited < 3_000
    end
  end
end
