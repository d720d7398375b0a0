defmodule Emmap.CountersTest do
  use ExUnit.Case, async: true
  import Bitwise
  alias Emmap.Counters

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "c.cnt")}

  # What plain and striped counters have in common runs on both.
  for {name, options} <- [plain: [], striped: [write_concurrency: true]] do
    test "counts (#{name})", %{path: path} do
      {:ok, c} = Counters.open(path, 40, unquote(options))
      assert Counters.to_list(c) == List.duplicate(0, 40)
      for index <- 0..39, do: assert(:ok = Counters.add(c, index, index * 10))
      assert :ok = Counters.sub(c, 39, 400)
      assert Counters.get(c, 39) == -10
      assert :ok = Counters.put(c, 0, 7)
      assert :ok = Counters.add(c, 0, -10)
      assert c[0] == -3
      assert Counters.to_list(c) == [-3 | Enum.map(1..38, &(&1 * 10))] ++ [-10]
      assert Counters.to_map(c)[5] == 50
      assert {:ok, %{count: 40, names: nil, write_concurrency: concurrent}} = Counters.info(c)
      assert concurrent == unquote(options != [])
      assert :ok = Counters.reset(c, 5)
      assert Counters.get(c, 5) == 0
      assert :ok = Counters.reset(c)
      assert Enum.sum(c) == 0
      # Others see it, and it stays.
      :ok = Counters.add(c, 3, 3)
      {:ok, other} = Counters.open(path, 1)
      assert Counters.get(other, 3) == 3
      assert :ok = Counters.sync(c)
      assert :ok = Counters.close(c)
      assert {:error, :closed} = Counters.close(c)
      assert_raise Emmap.Error, ~r/closed/, fn -> Counters.get(c, 3) end
      assert_raise Emmap.Error, ~r/closed/, fn -> Counters.to_list(c) end
      assert Counters.get(other, 3) == 3
    end

    test "grows in place while others have it open (#{name})", %{path: path} do
      {:ok, c} = Counters.open(path, 3, unquote(options))
      for index <- 0..2, do: Counters.add(c, index, index + 1)
      adder = Task.async(fn -> for _ <- 1..20_000, do: Counters.add(c, 0, 1) end)
      grown = for n <- [4, 17, 100, 5000], do: Counters.open!(path, n)
      Task.await(adder)
      last = List.last(grown)
      assert Enum.take(last, 4) == [20_001, 2, 3, 0]
      assert Enum.count(last) == 5000
      Counters.add(last, 4999, 9)
      assert Counters.to_list(Counters.open!(path, 0)) |> Enum.sum() == 20_006 + 9
      # The old term has what it was opened with.
      assert_raise ArgumentError, fn -> Counters.get(c, 3) end
    end

    test "no add is lost between processes (#{name})", %{path: path} do
      c = Counters.open!(path, [:hits], unquote(options))

      1..8
      |> Enum.map(fn _ ->
        Task.async(fn -> for _ <- 1..20_000, do: Counters.add(c, :hits, 1) end)
      end)
      |> Task.await_many()

      assert Counters.get(c, :hits) == 160_000
    end
  end

  describe "plain counters" do
    setup %{path: path}, do: %{c: Counters.open!(path, 2)}

    test "give the value before, or after", %{c: c} do
      assert Counters.next(c, 0) == 0
      assert Counters.next(c, 0, 5) == 1
      assert Counters.add_get(c, 0, 4) == 10
      assert Counters.sub_get(c, 0, 3) == 7
      assert Counters.exchange(c, 0, 70) == 7
      assert Counters.compare_exchange(c, 0, 70, 71) == :ok
      assert Counters.compare_exchange(c, 0, 70, 72) == 71
    end

    test "wrap as :counters do", %{c: c} do
      most = 0x7FFF_FFFF_FFFF_FFFF
      model = :counters.new(1, [])

      for n <- [most, 1, -1, most, most, -0x8000_0000_0000_0000, 5] do
        Counters.add(c, 0, n)
        :counters.add(model, 1, n)
        assert Counters.get(c, 0) == :counters.get(model, 1)
        subtracted = [Counters.sub(c, 0, n), :counters.sub(model, 1, n)] |> Enum.uniq()
        assert subtracted == [:ok] and Counters.get(c, 0) == :counters.get(model, 1)
      end

      Counters.put(c, 0, most)
      assert Counters.add_get(c, 0, 1) == -most - 1
      assert Counters.sub_get(c, 0, 1) == most
      Counters.put(c, 0, 0)
      assert Counters.sub_get(c, 0, -0x8000_0000_0000_0000) == -0x8000_0000_0000_0000
    end

    test "numbers that nobody else gets", %{c: c} do
      numbers =
        1..8
        |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..2000, do: Counters.next(c, 1) end) end)
        |> Task.await_many()
        |> List.flatten()

      assert Enum.sort(numbers) == Enum.to_list(0..15_999)
    end
  end

  test "striped counters have no value before or after", %{path: path} do
    c = Counters.open!(path, 2, write_concurrency: true)

    for call <- [
          &Counters.next(&1, 0),
          &Counters.add_get(&1, 0, 1),
          &Counters.sub_get(&1, 0, 1),
          &Counters.exchange(&1, 0, 1),
          &Counters.compare_exchange(&1, 0, 0, 1)
        ] do
      assert_raise ArgumentError, ~r/write_concurrency/, fn -> call.(c) end
    end

    # The file remembers.
    assert {:ok, %{write_concurrency: true}} = Counters.info(Counters.open!(path, 2))
  end

  describe "names" do
    test "that are live binaries are kept as they were", %{path: path} do
      {:ok, mem} = Emmap.open([:anon, :direct, size: 8])
      :ok = Emmap.pwrite(mem, 0, "requests")
      {:ok, live} = Emmap.pread(mem, 0, 8)
      c = Counters.open!(path, [live, "errors"])
      :ok = Emmap.fill(mem, 0, 8, ?x)
      assert :ok = Counters.add(c, "requests", 1)
      assert Counters.to_map(c) == %{"requests" => 1, "errors" => 0}
    end

    test "name counters, and stay in the file", %{path: path} do
      c = Counters.open!(path, [:requests, "with space", :blåbær])
      :ok = Counters.add(c, :requests, 12)
      :ok = Counters.add(c, "with space", 1)
      assert c[:requests] == 12 and c["with space"] == 1 and c[0] == 12
      assert c[:nothing] == nil and c[3] == nil
      assert Counters.to_map(c) == %{:requests => 12, "with space" => 1, :blåbær => 0}
      assert Enum.to_list(c) == [{:requests, 12}, {"with space", 1}, {:blåbær, 0}]
      # Strings and atoms of the same letters are the same name.
      d = Counters.open!(path, ["requests", :"with space"])
      assert d["requests"] == 12 and d[:requests] == 12 and d["with space"] == 1
      assert Counters.add_get(d, :requests, 1) == 13 and Counters.sub_get(c, "requests", 1) == 12
      # What was not asked for is shown as a string, whichever atoms there are.
      e = Counters.open!(path, 0)
      assert Enum.map(e, &elem(&1, 0)) == ["requests", "with space", "blåbær"]
      assert e[:requests] == 12 and e["requests"] == 12

      assert_raise ArgumentError, ~r/no counter :nothing: there are \[:requests/, fn ->
        Counters.add(c, :nothing, 1)
      end
    end

    test "more may follow, others may not", %{path: path} do
      :ok = Counters.add(Counters.open!(path, [:a, :b]), :b, 5)

      assert {:error, {:other_names, %{asked: [:b, :a], file: ["a", "b"]}}} =
               Counters.open(path, [:b, :a])

      assert {:error, {:other_names, %{asked: [], file: ["a", "b"]}}} = Counters.open(path, 3)
      error = assert_raise Emmap.Error, fn -> Counters.open!(path, [:a, :x]) end
      assert Exception.message(error) =~ ~s(its names are ["a", "b"], not [:a, :x])
      c = Counters.open!(path, [:a, :b, :c])
      assert Counters.to_map(c) == %{a: 0, b: 5, c: 0}
      assert Counters.to_map(Counters.open!(path, [:a])) == %{:a => 0, "b" => 5, "c" => 0}

      assert {:error, {:other_names, %{file: []}}} =
               Counters.open((path <> "2") |> numbered(), [:a])
    end

    defp numbered(path) do
      Counters.close(Counters.open!(path, 1))
      path
    end

    test "what was asked for, and what the file has, are told apart in words", %{path: path} do
      Counters.close(Counters.open!(path, [:a, :b]))
      error = assert_raise Emmap.Error, fn -> Counters.open!(path, 3) end

      assert Exception.message(error) =~
               ~s(its counters have names, ["a", "b"], and are fewer)

      error = assert_raise Emmap.Error, fn -> Counters.open!(numbered(path <> "2"), [:a]) end

      assert Exception.message(error) =~
               "its counters are numbered, and have no names such as [:a]"
    end

    test "make no atoms on reading", %{path: path} do
      fresh = for n <- 1..2000, do: "never_an_atom_#{System.unique_integer([:positive])}_#{n}"
      Counters.close(Counters.open!(path, fresh))

      # In a VM of its own, where nothing else makes atoms.
      assert {new_atoms, ^fresh} =
               Emmap.Test.ChildVM.run!("""
               warm = Emmap.Counters.open!(#{inspect(path <> "2")}, [:warm])
               _ = {inspect(warm), Enum.map(warm, &elem(&1, 0))}
               before = :erlang.system_info(:atom_count)
               c = Emmap.Counters.open!(#{inspect(path)}, 0)
               names = Enum.map(c, &elem(&1, 0))
               true = inspect(c) =~ "never_an_atom"
               {:erlang.system_info(:atom_count) - before, names}
               """)

      assert new_atoms < 50
    end

    test "that cannot be", %{path: path} do
      for names <- [
            [],
            [:a, :a],
            [:a, "a"],
            [nil],
            [1],
            ["\xFF"],
            [String.duplicate("x", 1025)],
            :a
          ] do
        assert_raise ArgumentError, fn -> Counters.open(path, names) end
      end

      assert_raise ArgumentError, ~r/write_concurrency/, fn ->
        Counters.open(path, 1, fast: true)
      end

      assert_raise ArgumentError, fn -> Counters.open(path, -1) end
      refute File.exists?(path)
    end
  end

  test "an invalid counter or value raises", %{path: path} do
    c = Counters.open!(path, 2)

    for key <- [-1, 2, 1 <<< 40, 1 <<< 64, :name, "name", nil, 0.0] do
      assert_raise ArgumentError, ~r/no counter/, fn -> Counters.add(c, key, 1) end
      assert_raise ArgumentError, ~r/no counter/, fn -> Counters.get(c, key) end
      assert_raise ArgumentError, ~r/no counter/, fn -> Counters.put(c, key, 1) end
      assert_raise ArgumentError, ~r/no counter/, fn -> Counters.next(c, key) end
    end

    for value <- [1 <<< 64, -(1 <<< 63) - 1, 1.0, :one] do
      assert_raise ArgumentError, ~r/64 bits/, fn -> Counters.add(c, 0, value) end
      assert_raise ArgumentError, ~r/64 bits/, fn -> Counters.put(c, 0, value) end
    end

    # What may be subtracted is what may be added, negated, as with :atomics.
    for value <- [1 <<< 64, -(1 <<< 64), 1.0, :one] do
      assert_raise ArgumentError, ~r/64 bits/, fn -> Counters.sub(c, 0, value) end
    end

    assert Counters.to_list(c) == [0, 0]
    foreign = %{c | ref: make_ref()}
    assert_raise ArgumentError, ~r/this node/, fn -> Counters.add(foreign, 0, 1) end
    assert inspect(foreign) =~ "not of this node"
  end

  test "is Enumerable, Access and Inspect", %{path: path, tmp_dir: directory} do
    c = Counters.open!(path, [:requests, :errors])
    Counters.add(c, :requests, 12)
    assert inspect(c) == "#Emmap.Counters<#{inspect(path)} requests: 12, errors: 0>"
    assert Enum.count(c) == 2
    assert {:errors, 0} in c
    refute {:errors, 1} in c
    assert Enum.at(c, 0) == {:requests, 12}
    assert Enum.slice(c, 1, 5) == [errors: 0]
    assert Enum.map(c, fn {_, value} -> value end) == [12, 0]
    assert Enum.zip(c, c) |> length() == 2
    n = Counters.open!(Path.join(directory, "n.cnt"), 3)
    Counters.add(n, 1, 5)
    assert inspect(n) =~ "n.cnt\" [0, 5, 0]>"
    m = Counters.open!(Path.join(directory, "m.cnt"), 3)
    for i <- 0..2, do: Counters.put(m, i, 65 + i)
    assert inspect(m) =~ "m.cnt\" [65, 66, 67]>"
    assert Enum.to_list(n) == [0, 5, 0]
    assert Enum.sum(n) == 5
    assert Enum.slice(n, 1..2) == [5, 0]
    assert get_in(%{c: n}, [:c, 1]) == 5
    assert_raise ArgumentError, fn -> put_in(n[1], 3) end
    :ok = Counters.close(n)
    assert inspect(n) =~ "closed"
    # Read where it holds up nobody.
    many = Counters.open!(Path.join(directory, "many.cnt"), 100_000)
    Counters.add(many, 99_999, 1)
    assert Enum.sum(many) == 1
  end

  # 2^40 counters, of which a few are on the disk: reading all of them takes hours.
  defp endless(path) do
    File.write!(path, "EMMAP01\n" <> <<1 <<< 40::little-64>>)
    {:ok, raw} = :file.open(path, [:raw, :read, :write])
    {:ok, _} = :file.position(raw, 16 + (8 <<< 40))
    :ok = :file.truncate(raw)
    :ok = :file.close(raw)
    c = Counters.open!(path, 0)
    for index <- [0, 1, 2, 5000], do: Counters.put(c, index, index + 1)
    Counters.put(c, (1 <<< 40) - 1, -1)
    c
  end

  describe "more counters than anybody can read" do
    @describetag timeout: 20_000
    setup %{path: path}, do: %{c: endless(path)}

    test "inspect reads what it shows", %{c: c} do
      assert inspect(c, limit: 3) =~ ~r/ \[1, 2, 3, \.\.\.\]>$/
      assert inspect(c) =~ ~r/ \[1, 2, 3, 0, [0, ]+ \.\.\.\]>$/
      assert inspect(c, limit: 6000) =~ ", 0, 5001, 0, "
      assert inspect(%{counters: c}, limit: 3) =~ "[1, 2, ...]>}"
    end

    test "Enum and Stream read what they are asked for", %{c: c} do
      last = (1 <<< 40) - 1
      assert Enum.count(c) == last + 1
      assert Enum.take(c, 3) == [1, 2, 3]
      assert Enum.take(c, 0) == []
      assert Enum.take(c, -2) == [0, -1]
      assert Enum.at(c, 5000) == 5001
      assert Enum.at(c, -1) == -1
      assert Enum.at(c, last + 1) == nil
      assert Enum.fetch!(c, last) == -1
      assert Enum.slice(c, 4999, 3) == [0, 5001, 0]
      assert Enum.slice(c, 0..5000//2500) == [1, 0, 5001]
      assert Enum.slice(c, (last - 1)..last) == [0, -1]
      assert Enum.random(c) in -1..5001
      assert 5001 in c
      assert Enum.find_index(c, &(&1 == 5001)) == 5000
      assert Enum.empty?(c) == false
      assert c |> Stream.drop(5000) |> Enum.take(2) == [5001, 0]
      assert c |> Stream.zip(c) |> Enum.take(2) == [{1, 1}, {2, 2}]
      assert Enum.zip(c, [:a, :b]) == [{1, :a}, {2, :b}]
      assert {:suspended, 1, next} = Enumerable.reduce(c, {:cont, 0}, &{:suspend, &1 + &2})
      assert {:suspended, 3, next} = next.({:cont, 1})
      assert {:halted, :done} = next.({:halt, :done})
      # It may change between two batches, or be closed.
      assert_raise Emmap.Error, fn -> Enum.each(c, fn _ -> Counters.close(c) end) end
    end
  end

  test "batches have every counter once, with and without names and stripes", %{path: path} do
    for names <- [false, true],
        spread <- [false, true],
        count <- [0, 1, 2047, 2048, 2049, 5000] do
      File.rm(path)
      wanted = if names and count > 0, do: for(n <- 1..count, do: "n#{n}"), else: count
      c = Counters.open!(path, wanted, write_concurrency: spread)
      for n <- 0..(count - 1)//1, do: Counters.put(c, n, n * 3)
      values = Counters.to_list(c)
      assert values == for(n <- 0..(count - 1)//1, do: n * 3)
      elements = if is_list(wanted), do: Enum.zip(wanted, values), else: values
      assert Enum.to_list(c) == elements
      assert Enum.reverse(c) == Enum.reverse(elements)

      for range <- [0..-1//1, 1..3, 0..4999//7, 2000..2100//100, -5..-1, 4990..6000] do
        assert Enum.slice(c, range) == Enum.slice(elements, range), inspect({count, range})
      end

      for limit <- [0, 1, 2047, 2048, 2049, :infinity] do
        shown =
          if is_list(wanted), do: "", else: inspect(values, limit: limit, charlists: :as_lists)

        assert inspect(c, limit: limit) =~ shown
      end

      Counters.close(c)
    end

    c = Counters.open!(path <> "2", for(n <- 1..60, do: "n#{n}"))
    assert inspect(c, limit: 2) =~ ~r/ n1: 0, n2: 0, \.\.\.>$/
    assert inspect(c, limit: 50) =~ "n50: 0, ...>"
    assert inspect(c, limit: :infinity) =~ "n60: 0>"
  end

  describe "create: false" do
    test "makes no file", %{path: path} do
      assert {:error, :enoent} = Counters.open(path, [:a], create: false)
      refute File.exists?(path)
      Counters.close(Counters.open!(path, [:a], create: true))
      # It may grow all the same.
      assert {:ok, c} = Counters.open(path, [:a, :b], create: false)
      assert Counters.to_map(c) == %{a: 0, b: 0}
    end

    test "takes an empty file for no counters", %{path: path} do
      File.write!(path, "")
      assert {:error, {:bad_format, :kind}} = Counters.open(path, 1, create: false)
      assert File.read!(path) == ""
      assert {:ok, _} = Counters.open(path, 1)
    end

    test "options that are none", %{path: path} do
      for options <- [
            [creat: false],
            [create: 1],
            [create: true, create: true],
            [:create],
            %{},
            :create
          ] do
        assert_raise ArgumentError,
                     ~r/create: (must be true \| false|is given twice)|unknown keys|a keyword list|the allowed keys/,
                     fn ->
                       Counters.open(path, 1, options)
                     end
      end

      refute File.exists?(path)
    end
  end

  describe "reattach" do
    defp raised(act) do
      act.()
    rescue
      error in Emmap.Error -> error.reason
    end

    test "of a file that has them under other names: nobody counts in it", %{path: path} do
      {:ok, c} = Counters.open(path, [:a, :b])
      :ok = Counters.add(c, :a, 1)
      good = File.read!(path)

      for names <- [[:b, :a], [:a], 2] do
        Counters.close(Counters.open!(path <> "2", names))
        other = File.read!(path <> "2")
        File.rm!(path <> "2")
        # Whole at once, so that no page is lost.
        File.write!(path, other, [:read, :write])
        assert {:error, {:bad_format, _}} = Counters.reattach(c)
        assert raised(fn -> Counters.add(c, :a, 1) end) == :estale
        assert File.read!(path) |> binary_part(0, byte_size(other)) == other

        File.write!(path, good)
        assert :ok = Counters.reattach(c)
        assert Counters.to_map(c) == %{a: 1, b: 0}
      end
    end

    test "of a file that has them in other places: nobody counts in it", %{path: path} do
      {:ok, c} = Counters.open(path, 20)
      Counters.close(Counters.open!(path <> "2", 20, write_concurrency: true))
      good = File.read!(path)
      other = File.read!(path <> "2")
      File.write!(path, other, [:read, :write])
      assert {:error, {:bad_format, :length}} = Counters.reattach(c)
      for n <- 0..19, do: assert(raised(fn -> Counters.add(c, n, 1000) end) == :estale)
      assert File.read!(path) == other
      File.write!(path, good)
      assert :ok = Counters.reattach(c)
      assert Enum.sum(c) == 0
    end

    test "what raised was not counted", %{path: path} do
      {:ok, c} = Counters.open(path, 3, write_concurrency: false)
      {:ok, spread} = Counters.open(path <> "2", 3, write_concurrency: true)

      for {counters, path} <- [{c, path}, {spread, path <> "2"}] do
        good = File.read!(path)
        File.write!(path, "")
        assert {:error, :estale} = Counters.sync(counters)
        File.write!(path, good)

        for act <- [
              fn -> Counters.add(counters, 0, 1) end,
              fn -> Counters.put(counters, 0, 1) end,
              fn -> Counters.reset(counters) end
            ] do
          assert raised(act) == :estale
        end

        if counters == c do
          assert raised(fn -> Counters.next(c, 0) end) == :estale
          assert raised(fn -> Counters.exchange(c, 0, 1) end) == :estale
          assert raised(fn -> Counters.compare_exchange(c, 0, 0, 1) end) == :estale
        end

        assert File.read!(path) == good
        assert :ok = Counters.reattach(counters)
        assert Counters.to_list(counters) == [0, 0, 0]
      end
    end
  end

  test "the answer of open is no counters", %{path: path} do
    answer = Counters.open(path, 1)
    assert_raise ArgumentError, ~r/match {:ok, counters}/, fn -> Counters.add(answer, :a, 1) end
    {:ok, c} = answer
    :ok = Counters.close(c)
    error = assert_raise Emmap.Error, fn -> Counters.add(c, 0, 1) end

    assert Exception.message(error) ==
             "could not add to a counter of #{inspect(path)}: it is closed"
  end

  test "an error says which kind of file it is about", %{path: path} do
    File.write!(path, "something else")
    error = assert_raise Emmap.Error, fn -> Counters.open!(path, 1) end
    assert %{kind: :counters, op: :open, path: ^path, reason: {:bad_format, :kind}} = error

    assert Exception.message(error) ==
             "could not open #{inspect(path)}: it is not a counter file"

    File.write!(path, "EMMAP01\n")
    error = assert_raise Emmap.Error, fn -> Counters.open!(path, 1) end

    assert Exception.message(error) ==
             "could not open #{inspect(path)}: it is not a valid counter file (length)"

    # Of a plain file there is nothing to say, and no format that it could have.
    error = assert_raise Emmap.Error, fn -> Emmap.open!(path <> ".none") end
    assert %{kind: nil, reason: :enoent} = error
    error = %{error | reason: {:bad_format, :kind}}
    assert Exception.message(error) =~ "it is not a file of this format"
    c = Counters.open!(path <> ".c", 1)
    :ok = Counters.close(c)
    assert %{kind: :counters, op: :add} = catch_error(Counters.add(c, 0, 1))
    assert {:error, :closed} = Counters.info(c)
    assert %{kind: :counters, op: :write} = catch_error(Counters.put(c, 0, 1))
  end

  test "a handle of something else is refused by every call on counters", %{path: path} do
    counters = Counters.open!(path, [:a, :b])
    {:ok, {:file_descriptor, _, {ref, _, _}} = mem} = Emmap.open(path)
    other = %{counters | ref: ref}
    many = %{other | count: 1_000_000}

    for call <- [
          &Counters.add(&1, :a, 1),
          &Counters.get(&1, :a),
          &Counters.put(&1, :a, 1),
          &Counters.next(&1, :a),
          &Counters.exchange(&1, :a, 1),
          &Counters.compare_exchange(&1, :a, 0, 1),
          &Counters.to_list/1,
          &Counters.reattach/1
        ],
        wrong <- [other, many] do
      assert_raise ArgumentError, ~r/^not an open Emmap handle/, fn -> call.(wrong) end
    end

    :ok = Emmap.close(mem)
    assert_raise ArgumentError, fn -> Counters.add(other, :a, 1) end
    assert Counters.to_list(counters) == [0, 0]
  end

  describe "29: files that are none" do
    test "say why, and are not touched", %{path: path, tmp_dir: directory} do
      Counters.close(Counters.open!(path, [:a, :b]))
      good = File.read!(path)

      flip = fn bytes, at ->
        binary_part(bytes, 0, at) <>
          <<bxor(:binary.at(bytes, at), 1)>> <>
          binary_part(bytes, at + 1, byte_size(bytes) - at - 1)
      end

      for {bytes, why} <- [
            {"text", :kind},
            {:crypto.strong_rand_bytes(20_000), :kind},
            {good |> flip.(24) |> flip.(4096 + 24), :checksum},
            {good |> flip.(79) |> flip.(4096 + 9), :checksum},
            {flip.(good, 8194), :names},
            {binary_part(good, 0, 9000), :length},
            {"EMMAP01\n" <> <<5::little-64, 1::64>>, :length}
          ] do
        File.write!(path, bytes)
        assert {:error, {:bad_format, ^why}} = Counters.open(path, [:a, :b])
        assert File.read!(path) == bytes
      end

      assert {:error, :eisdir} = Counters.open(directory, 1)
      assert {:error, :enodev} = Counters.open("/dev/null", 1)
      assert {:error, :enoent} = Counters.open(Path.join(directory, "no/such"), 1)
      assert {:error, :einval} = Counters.open("a\0b", 1)
    end

    test "the predecessor's files work in place", %{path: path} do
      File.write!(path, "EMMAP01\n" <> <<2::little-64, 40::native-64, -1::signed-native-64>>)
      c = Counters.open!(path, 2)
      assert Counters.to_list(c) == [40, -1]
      Counters.add(c, 0, 2)
      assert <<"EMMAP01\n", 2::little-64, 42::native-64, -1::signed-native-64>> = File.read!(path)
      grown = Counters.open!(path, 4)
      Counters.add(grown, 3, 7)

      assert <<"EMMAP01\n", 4::little-64, 42::native-64, -1::signed-native-64, 0::64,
               7::native-64>> = File.read!(path)
    end

    test "an empty file counts as none", %{path: path} do
      File.touch!(path)
      assert Counters.to_list(Counters.open!(path, 2)) == [0, 0]
    end
  end

  test "4: a file cut under counters raises estale and kills nobody", %{path: path} do
    c = Counters.open!(path, 1000)
    Counters.add(c, 999, 1)
    File.write!(path, "")
    error = assert_raise Emmap.Error, fn -> Counters.add(c, 999, 1) end
    assert error.reason == :estale
    assert_raise Emmap.Error, ~r/cut/, fn -> Counters.to_list(c) end
    assert {:ok, %{faults: faults}} = Counters.info(c)
    assert faults > 0
  end

  test "the Erlang names", %{path: path} do
    file = String.to_charlist(path)
    c = :emmap.open_counters(file, 2)

    first = [
      :emmap.inc_counter(c, 0),
      :emmap.inc_counter(c, 0, 5),
      :emmap.inc_counter(c, 0),
      :emmap.inc_counter(c, 0, 2),
      :emmap.set_counter(c, 0, 15),
      :emmap.read_counter(c, 0)
    ]

    assert first == [0, 1, 6, 7, 9, 15]
    assert :emmap.dec_counter(c, 0) == 15
    assert :emmap.dec_counter(c, 0, 4) == 14

    assert :emmap.fold_counters(c, fn index, value, acc -> [{index, value} | acc] end, []) == [
             {1, 0},
             {0, 10}
           ]

    assert :ok = :emmap.close_counters(c)
    assert :emmap.read_counter(:emmap.open_counters(file), 0) == 10
    assert_raise Emmap.Error, fn -> :emmap.open_counters(~c"/no/such/place") end
  end

  test "in a supervision tree, by name", %{path: path} do
    options = [path: path, counters: [:hits, "errors"], name: :metrics, write_concurrency: false]
    start_supervised!({Counters, options})
    assert :ok = Counters.add(:metrics, :hits, 2)
    assert :ok = Counters.sub(:metrics, "errors", 1)
    assert 2 = Counters.get(:metrics, :hits)
    assert 5 = Counters.add_get(:metrics, 0, 3)
    assert 4 = Counters.sub_get(:metrics, :hits, 1)
    assert 4 = Counters.next(:metrics, :hits)
    assert 5 = Counters.exchange(:metrics, :hits, 9)
    assert :ok = Counters.compare_exchange(:metrics, :hits, 9, 10)
    assert 10 = Counters.compare_exchange(:metrics, :hits, 9, 11)
    assert :ok = Counters.put(:metrics, "errors", 3)
    assert [10, 3] = Counters.to_list(:metrics)
    assert %{:hits => 10, "errors" => 3} = Counters.to_map(:metrics)
    assert {:ok, %{count: 2, names: [:hits, "errors"]}} = Counters.info(:metrics)
    assert :ok = Counters.sync(:metrics)
    assert :ok = Counters.reattach(:metrics)
    assert :ok = Counters.reset(:metrics, :hits)
    assert :ok = Counters.reset(:metrics)
    assert [0, 0] = Counters.to_list(:metrics)
    :ok = Counters.add(:metrics, :hits, 7)
    stop_supervised!({Counters, :metrics})

    assert_raise ArgumentError, ~r/no Emmap.Counters is started with the name :metrics/, fn ->
      Counters.add(:metrics, :hits, 1)
    end

    # The counts are still there if the process is killed.
    Process.flag(:trap_exit, true)
    {:ok, owner} = Counters.start_link(options)
    Process.exit(owner, :kill)
    assert_receive {:EXIT, ^owner, :killed}
    {:ok, owner} = Counters.start_link(options)
    assert 7 = Counters.get(:metrics, :hits)
    GenServer.stop(owner)
  end

  test "without a name, two of one file, and wrong options", %{path: path} do
    {:ok, owner} = Counters.start_link(path: path, counters: 3)
    assert %{id: {Counters, ^path}} = Counters.child_spec(path: path, counters: 3)
    GenServer.stop(owner)

    for {options, message} <- [
          {[counters: 1], ~r/path: is required/},
          {[path: path], ~r/counters: is required/},
          {[path: path, counters: 1, name: "text"], ~r/name: must be an atom/},
          {[path: path, counters: 1, name: :a, name: :b], ~r/name: is given twice/},
          {:metrics, ~r/a keyword list/}
        ] do
      assert_raise ArgumentError, message, fn -> Counters.start_link(options) end
    end

    for module <- [Counters, Emmap.Queue, Emmap.Blocks, Emmap.Device],
        wrong <- [:metrics, nil, [1]] do
      assert_raise ArgumentError, ~r/a keyword list/, fn -> module.child_spec(wrong) end
    end

    Process.flag(:trap_exit, true)
    # The report of a process that did not start.
    :ok = :logger.add_primary_filter(__MODULE__, {&not_of_owner/2, []})
    on_exit(fn -> :logger.remove_primary_filter(__MODULE__) end)
    # A second owner of a name must not take the calls of the first, nor end its name.
    {:ok, owner} = Counters.start_link(path: path, counters: 1, name: :owned)
    other = [path: path <> ".other", counters: 1, name: :owned]
    assert {:error, {:already_started, ^owner}} = Counters.start_link(other)
    refute File.exists?(path <> ".other")
    assert :ok = Counters.add(:owned, 0, 1)
    GenServer.stop(owner)
    {:ok, owner} = Counters.start_link(other)
    GenServer.stop(owner)

    # Each takes long enough to be overtaken.
    for _ <- 1..10 do
      racers = for n <- 1..4, do: Task.async(fn -> start_one(path, n) end)

      results = Enum.map(racers, &Task.await/1)
      assert [_] = for({:ok, _} = started <- results, do: started)
      assert 3 = Enum.count(results, &match?({:error, {:already_started, _}}, &1))
      assert :ok = Counters.add(:raced, 0, 1)
      for {:ok, owner} <- results, do: GenServer.stop(owner)
    end

    none = Path.join(path <> ".none", "file")
    assert {:error, :enoent} = Counters.start_link(path: none, counters: 1)
  end

  # Its owner must outlive the task.
  defp start_one(path, n) do
    Process.flag(:trap_exit, true)

    with {:ok, owner} <- Counters.start_link(path: "#{path}.#{n}", counters: 1, name: :raced),
         do: Process.unlink(owner) && {:ok, owner}
  end

  defp not_of_owner(event, _) do
    if inspect(event.msg) =~ "Emmap.StructureOwner", do: :stop, else: :ignore
  end
end
