defmodule Emmap.DynamicCountersTest do
  use ExUnit.Case, async: true
  alias Emmap.Counters
  alias Emmap.Counters.Cluster
  import Bitwise, only: [<<<: 2]

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "c.cnt")}

  test "a name is added by the first call that changes it", %{path: path} do
    assert {:ok, c} = Counters.open(path, dynamic: true)
    assert Enum.to_list(c) == [] and Enum.empty?(c)
    assert Counters.add(c, "GET /users", 2) == :ok
    assert Counters.add(c, "GET /users", 3) == :ok
    assert Counters.sub(c, "b", 1) == :ok
    assert Counters.put(c, "c", 7) == :ok
    assert Counters.next(c, "d") == 0
    assert Counters.add_get(c, "e", 4) == 4
    assert Counters.sub_get(c, "f", 4) == -4
    assert Counters.exchange(c, "g", 5) == 0
    assert Counters.compare_exchange(c, "h", 0, 9) == :ok
    assert Counters.compare_exchange(c, "i", 1, 9) == 0
    assert Counters.reset(c, "j") == :ok

    assert Enum.to_list(c) == [
             {"GET /users", 5},
             {"b", -1},
             {"c", 7},
             {"d", 1},
             {"e", 4},
             {"f", -4},
             {"g", 5},
             {"h", 9},
             {"i", 0},
             {"j", 0}
           ]

    assert Counters.to_list(c) == [5, -1, 7, 1, 4, -4, 5, 9, 0, 0]
    assert Counters.to_map(c) == Map.new(c)
    assert Enum.count(c) == 10
    assert Enum.at(c, 1) == {"b", -1}
    assert Enum.slice(c, 2..3) == [{"c", 7}, {"d", 1}]
    assert Enum.take(c, 2) == [{"GET /users", 5}, {"b", -1}]
    assert Enum.member?(c, {"b", -1})
    assert Counters.reset(c) == :ok
    assert Enum.sum(Counters.to_list(c)) == 0
  end

  test "a name that does not exist", %{path: path} do
    c = Counters.open!(path, dynamic: true)
    assert c["a"] == nil and c[:a] == nil and c[3] == nil and c[nil] == nil
    assert_raise ArgumentError, ~r/no counter "a"/, fn -> Counters.get(c, "a") end
    assert Enum.count(c) == 0
    assert_raise ArgumentError, ~r/have names, not numbers/, fn -> Counters.add(c, 0, 1) end
    Counters.add(c, "a", 1)
    assert c["a"] == 1 and c[:a] == 1 and Counters.get(c, :a) == 1
  end

  test "atoms that are given at open are the keys of the results", %{path: path} do
    c = Counters.open!(path, [:requests, "errors"], dynamic: true)
    assert Counters.to_map(c) == %{:requests => 0, "errors" => 0}
    Counters.add(c, :requests, 2)
    Counters.add(c, "requests", 2)
    Counters.add(c, :errors, 1)
    Counters.add(c, :other, 1)
    assert Enum.to_list(c) == [{:requests, 4}, {"errors", 1}, {"other", 1}]

    assert Enum.to_list(Counters.open!(path, [], dynamic: true)) == [
             {"requests", 4},
             {"errors", 1},
             {"other", 1}
           ]

    assert inspect(c) == ~s(#Emmap.Counters<#{inspect(path)} requests: 4, errors: 1, other: 1>)
  end

  test "names of all lengths", %{path: path} do
    c = Counters.open!(path, dynamic: true)
    names = for length <- [0, 1, 7, 8, 9, 103, 104, 105, 232, 233, 1023, 1024], do: name(length)
    for {name, n} <- Enum.with_index(names), do: Counters.add(c, name, n)
    for {name, n} <- Enum.with_index(names), do: assert(Counters.get(c, name) == n)
    assert Counters.to_map(c) == names |> Enum.with_index() |> Map.new()

    for wrong <- [String.duplicate("x", 1025), <<255>>, nil, true, 1.5, {:a}, ~c"a"] do
      assert_raise ArgumentError, fn -> Counters.add(c, wrong, 1) end
    end

    assert_raise ArgumentError, ~r/64 bits/, fn -> Counters.add(c, "a", 1 <<< 70) end
    assert Enum.count(c) == length(names)
  end

  defp name(length),
    do: binary_part(String.duplicate("ü", 600), 0, div(length, 2) * 2) <> rest(length)

  defp rest(length), do: if(rem(length, 2) == 1, do: "z", else: "")

  test "the file remembers that it is dynamic", %{path: path} do
    c = Counters.open!(path, ["a"], dynamic: true)
    Counters.add(c, "b", 1)
    # Without the option, existing names can be used, and those that are given are added.
    other = Counters.open!(path, ["c"])
    assert Counters.add(other, "b", 1) == :ok
    assert_raise ArgumentError, ~r/no counter "d"/, fn -> Counters.add(other, "d", 1) end
    assert Counters.to_map(c) == %{"a" => 0, "b" => 2, "c" => 0}
    Counters.add(c, "d", 1)
    assert Counters.add(other, "d", 1) == :ok
    assert Counters.open(path, 3) == {:error, :dynamic}
    assert {:ok, none} = Counters.open(path, 0)
    assert Enum.count(none) == 4
    assert {:ok, %{dynamic: true}} = Counters.info(none)
  end

  test "mistakes at open", %{path: path, tmp_dir: directory} do
    fixed = Path.join(directory, "fixed.cnt")
    Counters.open!(fixed, [:a])
    assert Counters.open(fixed, dynamic: true) == {:error, :not_dynamic}

    assert_raise Emmap.Error, ~r/without dynamic: true/, fn ->
      Counters.open!(fixed, [:a], dynamic: true)
    end

    predecessor = "test/fixtures/formats/counters-v0-predecessor.bin"
    copy = Path.join(directory, "predecessor.cnt")
    File.cp!(predecessor, copy)
    assert Counters.open(copy, dynamic: true) == {:error, :not_dynamic}
    text = Path.join(directory, "text")
    File.write!(text, String.duplicate("no counters", 10_000))
    assert Counters.open(text, dynamic: true) == {:error, {:bad_format, :kind}}
    assert Counters.open(path, dynamic: true, create: false) == {:error, :enoent}
    assert_raise ArgumentError, ~r/names/, fn -> Counters.open(path, 3, dynamic: true) end

    assert_raise ArgumentError, ~r/max_names/, fn ->
      Counters.open(path, [], dynamic: true, max_names: 0)
    end

    assert_raise ArgumentError, ~r/dynamic/, fn -> Counters.open(path, dynamic: :yes) end
    refute File.exists?(path)
  end

  test "no more names than max_names: allows", %{path: path} do
    c = Counters.open!(path, dynamic: true, max_names: 3)
    for name <- ["a", "b", "c"], do: Counters.add(c, name, 1)

    assert_raise Emmap.Error, ~r/as many names as max_names/, fn -> Counters.add(c, "d", 1) end

    assert %{reason: :max_names, op: :add} =
             catch_error(Counters.put(c, "d", 1)) |> Map.put(:op, :add)

    assert Counters.add(c, "a", 1) == :ok
    assert Counters.open(path, ["d"], dynamic: true, max_names: 3) == {:error, :max_names}
    # It is a limit of the programs that add, not of the file.
    more = Counters.open!(path, ["d"], dynamic: true, max_names: 4)
    assert Counters.to_map(more) == %{"a" => 2, "b" => 1, "c" => 1, "d" => 0}
    assert {:ok, %{count: 4, max_names: 3}} = Counters.info(c)
  end

  test "write concurrency", %{path: path} do
    c = Counters.open!(path, [:a], dynamic: true, write_concurrency: true)

    tasks =
      for _ <- 1..8, do: Task.async(fn -> for n <- 1..200, do: Counters.add(c, "n#{n}", 1) end)

    Task.await_many(tasks)
    assert Enum.all?(for n <- 1..200, do: Counters.get(c, "n#{n}") == 8)
    assert_raise ArgumentError, ~r/write_concurrency/, fn -> Counters.next(c, "a") end
    refute c["next"]
    assert_raise ArgumentError, ~r/write_concurrency/, fn -> Counters.exchange(c, "next", 1) end
    refute c["next"]
    Counters.put(c, :a, 4)
    assert c[:a] == 4
    assert {:ok, %{write_concurrency: true}} = Counters.info(c)
    # The file remembers it.
    assert {:ok, %{write_concurrency: true}} = Counters.info(Counters.open!(path, dynamic: true))
  end

  test "info", %{path: path} do
    c = Counters.open!(path, [:a, "b"], dynamic: true)

    assert {:ok,
            %{
              count: 2,
              names: [:a, "b"],
              dynamic: true,
              max_names: 100_000,
              recoveries: 1,
              dropped: 0,
              write_concurrency: false,
              path: ^path,
              faults: 0,
              size: size
            }} = Counters.info(c)

    assert size == File.stat!(path).size
  end

  test "closed counters", %{path: path} do
    c = Counters.open!(path, ["a"], dynamic: true)
    assert Counters.sync(c) == :ok and Counters.close(c) == :ok
    assert Counters.close(c) == {:error, :closed}
    assert Counters.info(c) == {:error, :closed}
    assert Counters.reattach(c) == {:error, :closed}

    for call <- [
          &Counters.add(&1, "a", 1),
          &Counters.get(&1, "a"),
          &Counters.to_map/1,
          &Counters.reset/1,
          &Enum.count/1
        ] do
      assert %Emmap.Error{reason: :closed} = catch_error(call.(c))
    end

    assert inspect(c) =~ "closed"
  end

  test "a process that keeps them open, by name", %{path: path} do
    start_supervised!({Counters, name: __MODULE__.Started, path: path, dynamic: true})
    Counters.add(__MODULE__.Started, "GET /", 1)
    assert Counters.to_map(__MODULE__.Started) == %{"GET /" => 1}
  end

  test "a cluster sums them", %{path: path} do
    c = Counters.open!(path, [:a], dynamic: true)
    name = {__MODULE__, path}
    Cluster.join(name, c, nodes: [node()])
    Cluster.add(name, "b", 2)
    assert Cluster.sum(name, "b") == {:ok, 2}
    assert Cluster.sum(name, :a) == {:ok, 0}
    assert Cluster.sums(name) == {:ok, %{:a => 0, "b" => 2}}
    assert_raise ArgumentError, fn -> Cluster.sum(name, "c") end
    assert Cluster.add(name, "c", 1, node()) == :ok
    assert Cluster.sum(name, "c") == {:ok, 1}
    Cluster.leave(name)
  end

  test "a file that was truncated and restored", %{path: path} do
    c = Counters.open!(path, dynamic: true)
    for n <- 1..3000, do: Counters.add(c, "n#{n}", n)
    :ok = Counters.sync(c)
    bytes = File.read!(path)
    File.write!(path, "")
    assert %Emmap.Error{reason: :estale} = catch_error(Counters.add(c, "n2000", 1))
    assert {:error, _} = Counters.reattach(c)
    File.write!(path, bytes)
    assert Counters.reattach(c) == :ok
    assert Counters.add_get(c, "n2000", 1) == 2001
    assert Enum.count(c) == 3000
    assert Counters.add(c, "new", 1) == :ok
    assert map_size(Counters.to_map(c)) == 3001
  end

  test "a name that was given is found where it is, also in an older copy of the file", %{
    path: path
  } do
    _ = Counters.open!(path, dynamic: true)
    older = File.read!(path)
    c = Counters.open!(path, [:a, :b], dynamic: true)
    Counters.add(c, :a, 1)
    other = Counters.open!(path, dynamic: true)
    File.write!(path, "")
    File.write!(path, older)
    assert Counters.reattach(c) == :ok and Counters.reattach(other) == :ok
    # In the place of :a.
    Counters.add(other, "z", 7)
    Counters.add(c, :b, 3)
    Counters.add(c, :a, 2)
    assert Enum.to_list(c) == [{"z", 7}, {:b, 3}, {:a, 2}]
    assert Counters.get(c, :a) == 2 and other["b"] == 3
  end

  test "a copy of the file has the same counters", %{path: path, tmp_dir: directory} do
    c = Counters.open!(path, dynamic: true)
    for n <- 1..2000, do: Counters.add(c, "n#{n}", n)
    copy = Path.join(directory, "copy.cnt")
    File.cp!(path, copy)
    assert Counters.to_map(Counters.open!(copy, dynamic: true)) == Counters.to_map(c)
  end

  test "a reduction in several steps goes on where it stopped, also while names are added", %{
    path: path
  } do
    c = Counters.open!(path, dynamic: true)
    for n <- 1..2500, do: Counters.add(c, "n#{n}", n)
    stream = Stream.zip(c, 1..2600)

    added =
      Enum.map(stream, fn {{name, _}, n} ->
        if n < 51, do: Counters.add(c, "more#{n}", 1)
        name
      end)

    assert length(Enum.uniq(added)) == 2550
  end
end
