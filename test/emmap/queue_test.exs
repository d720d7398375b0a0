defmodule Emmap.QueueTest do
  use ExUnit.Case, async: true
  alias Emmap.Queue

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "q")}

  defp open!(path, options \\ []), do: Queue.open!(path, options)

  describe "pushing and popping" do
    test "first in, first out, for any term", %{path: path} do
      q = open!(path)
      items = [1, :two, "three", {4, [5.0]}, %{six: 7}, self(), make_ref(), <<8::size(7)>>, []]
      for item <- items, do: assert(:ok = Queue.push(q, item))
      assert Queue.length(q) == length(items)
      assert Queue.peek(q) == {:ok, 1}
      assert Queue.peek_last(q) == {:ok, []}
      assert Enum.to_list(q) == items
      for item <- items, do: assert({:ok, ^item} = Queue.pop(q))
      assert Queue.pop(q) == :empty
      assert Queue.peek(q) == :empty
      assert Queue.peek_last(q) == :empty
      assert Queue.empty?(q)
    end

    test "binaries are stored as they are", %{path: path} do
      q = open!(path, format: :binary)
      assert :ok = Queue.push(q, "raw")
      assert Queue.pop(q) == {:ok, "raw"}

      assert_raise ArgumentError, ~r/the items of this queue are binaries, got :raw/, fn ->
        Queue.push(q, :raw)
      end
    end

    test "of any size", %{path: path} do
      q = open!(path, format: :binary)
      sizes = [0, 1, 63, 64, 65, 4071, 4072, 4073, 65_535, 65_536, 65_537, 262_000, 262_144]
      sizes = sizes ++ [1_048_577, 5_000_000]
      items = for size <- sizes, do: :binary.copy(<<size::16>>, div(size, 2) + 1)
      for item <- items, do: assert(:ok = Queue.push(q, item))
      for item <- items, do: assert({:ok, item} == Queue.peek(q) and {:ok, item} == Queue.pop(q))
      for item <- items, do: assert(:ok = Queue.push(q, item))

      for item <- items do
        assert {:ok, ^item, receipt} = Queue.checkout(q)
        assert Queue.attempts(receipt) == 1
        assert :ok = Queue.ack(q, receipt)
      end
    end

    test "many at once", %{path: path} do
      q = open!(path)
      assert Queue.push_many(q, 1..5000) == {:ok, 5000}
      assert Queue.pop_many(q, max_items: 3) == {:ok, [1, 2, 3]}
      assert {:ok, bytes} = Queue.pop_many(q, max_bytes: 10)
      assert length(bytes) in 2..10
      assert {:ok, items} = Queue.pop_many(q)
      assert length(items) == 1000
      assert Queue.length(q) == 5000 - 3 - length(bytes) - 1000
      assert Queue.clear(q) == :ok
      assert Queue.pop_many(q) == :empty
      assert Enum.into([:a, :b], q) |> Enum.to_list() == [:a, :b]
    end

    test "compressed terms, and unsafe ones", %{path: path} do
      q = open!(path, compressed: 9)
      zeros = List.duplicate(0, 10_000)
      before = Queue.bytes(q)
      assert :ok = Queue.push(q, zeros)
      assert Queue.bytes(q) - before < 1000
      assert Queue.pop(q) == {:ok, zeros}
      raw = open!(path, format: :binary)
      # An atom that this node does not have: version, small UTF-8 atom, length, name.
      name = "never_made_before_#{System.unique_integer([:positive])}"
      unknown = <<131, 119, byte_size(name)>> <> name
      :ok = Emmap.Native.queue_push(raw.ref, unknown, 1)
      assert_raise ArgumentError, fn -> Queue.pop(q) end
      :ok = Emmap.Native.queue_push(raw.ref, unknown, 1)
      assert {:ok, atom} = Queue.pop(open!(path, safe: false))
      assert Atom.to_string(atom) == name
    end

    test "an identity is pushed once", %{path: path} do
      q = open!(path)
      assert Queue.push(q, :a, id: {"p", 0}) == :ok
      assert Queue.push(q, :a, id: {"p", 0}) == :duplicate
      assert Queue.push(q, :b, id: {"p", 7}) == :ok
      assert Queue.push(q, :c, id: {"p", 6}) == :duplicate
      assert Queue.push(q, :d, id: {{:any, :term}, 6}) == :ok
      # The number outlives the items, and the handle.
      assert {:ok, [:a, :b, :d]} = Queue.pop_many(q)
      assert :ok = Queue.close(q)
      assert Queue.push(open!(path), :b, id: {"p", 7}) == :duplicate
    end
  end

  describe "limits" do
    test "an error, at max_size", %{path: path} do
      q = open!(path, format: :binary, max_size: 10_000)
      assert {:error, :full, count} = Queue.push_many(q, List.duplicate(<<0::800>>, 200))
      assert count in 60..90
      assert Queue.bytes(q) <= 10_000
      assert Queue.push(q, <<0::800>>) == {:error, :full}
      {:ok, _} = Queue.pop(q)
      assert Queue.push(q, <<0::800>>) == :ok
    end

    test "the oldest are dropped", %{path: path} do
      q = open!(path, max_size: 10_000, full: :drop_oldest)
      for n <- 1..1000, do: assert(:ok = Queue.push(q, n))
      assert {:ok, items} = Queue.pop_many(q)
      assert items == Enum.to_list((1001 - length(items))..1000)
      assert elem(Queue.info(q), 1).dropped == 1000 - length(items)
    end

    test "a push waits for space", %{path: path} do
      q = open!(path, format: :binary, max_size: 1000, full: :block)
      item = <<0::4000>>
      assert :ok = Queue.push(q, item)
      assert Queue.push(q, item, timeout: 20) == {:error, :full}
      push = Task.async(fn -> Queue.push(q, item, timeout: 5000) end)
      refute Task.yield(push, 50)
      {:ok, _item, receipt} = Queue.checkout(q)
      refute Task.yield(push, 50)
      :ok = Queue.ack(q, receipt)
      assert Task.await(push) == :ok
    end
  end

  describe "at least once" do
    test "checked out, acknowledged, released", %{path: path} do
      q = open!(path)
      {:ok, 4} = Queue.push_many(q, [:a, :b, :c, :d])
      {:ok, :a, a} = Queue.checkout(q)
      {:ok, :b, b} = Queue.checkout(q)
      assert Queue.length(q) == 2
      assert elem(Queue.info(q), 1).checked_out == 2
      assert Queue.nack(q, b) == :ok
      assert Queue.nack(q, a) == :ok
      assert Enum.to_list(q) == [:a, :b, :c, :d]
      assert Queue.nack(q, a) == {:error, :gone}
      assert Queue.ack(q, a) == {:error, :gone}
      {:ok, [{:a, a}, {:b, b}, {:c, c}]} = Queue.checkout(q, max_items: 3)
      assert [2, 2, 1] == Enum.map([a, b, c], &Queue.attempts/1)
      assert Queue.ack(q, [a, b, c]) == :ok
      assert Queue.pop(q) == {:ok, :d}
    end

    test "take acknowledges, and releases when the function fails", %{path: path} do
      q = open!(path)
      Queue.push(q, 1)
      assert_raise RuntimeError, fn -> Queue.take(q, fn 1 -> raise "no" end) end
      assert catch_throw(Queue.take(q, fn 1 -> throw(:no) end)) == :no
      assert catch_exit(Queue.take(q, fn 1 -> exit(:no) end)) == :no
      assert Queue.take(q, &(&1 + 1)) == {:ok, 2}
      assert Queue.take(q, &(&1 + 1)) == :empty
    end

    test "the items of a process that ends are available again, in order", %{path: path} do
      q = open!(path)
      Queue.push_many(q, 1..10)
      {:ok, 1, one} = Queue.checkout(q)

      for reason <- [:kill, :normal] do
        test = self()

        {pid, monitor} =
          spawn_monitor(fn ->
            {:ok, items} = Queue.checkout(q, max_items: 4)
            send(test, {:items, Enum.map(items, &elem(&1, 0))})
            if reason == :kill, do: Process.sleep(:infinity)
          end)

        assert_receive {:items, [2, 3, 4, 5]}, 2000
        if reason == :kill, do: Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, _, _, _}
        assert {:ok, 2} = wait_for(fn -> Queue.peek(q) end, {:ok, 2})
      end

      Queue.ack(q, one)
      assert {:ok, [2, 3, 4, 5, 6, 7, 8, 9, 10]} = Queue.pop_many(q)
    end

    test "what fails too often is set aside", %{path: path} do
      q = open!(path, max_attempts: 2)
      Queue.push_many(q, [:poison, :good])

      for attempt <- 1..2 do
        {:ok, :poison, receipt} = Queue.checkout(q)
        assert Queue.attempts(receipt) == attempt
        Queue.nack(q, receipt)
      end

      assert {:ok, :good, receipt} = Queue.checkout(q)
      assert :ok = Queue.ack(q, receipt)
      assert Queue.dead_letters(q) == [{:poison, 2}]
      assert elem(Queue.info(q), 1).dead_letters == 1
      assert Queue.pop_dead_letter(q) == {:ok, :poison}
      assert Queue.pop_dead_letter(q) == :empty
    end
  end

  describe "readers" do
    test "each sees all items from its creation on", %{path: path} do
      q = open!(path)
      Queue.push(q, 1)
      {:ok, a} = Queue.reader(q, "a")
      Queue.push(q, 2)
      {:ok, b} = Queue.reader(q, "b")
      Queue.push(q, 3)
      assert Queue.pop_many(a) == {:ok, [2, 3]}
      assert Queue.pop_many(b) == {:ok, [3]}
      assert Queue.pop_many(q) == {:ok, [1, 2, 3]}
      Queue.push(q, 4)
      # The same one, by its name, also from another handle.
      {:ok, again} = Queue.reader(open!(path), "a")
      assert Queue.pop(again) == {:ok, 4}
      assert Queue.pop(a) == :empty
      assert [%{name: "a", length: 0}, %{name: "b", length: 1}] = elem(Queue.info(q), 1).readers
      assert Queue.delete_reader(q, "b") == :ok
      assert Queue.delete_reader(q, "b") == {:error, :gone}
      assert inspect(a) =~ ~s(reader: "a")
    end

    test "up to 31, and one that lags may lose items", %{path: path} do
      q = open!(path)
      for n <- 1..31, do: assert({:ok, _} = Queue.reader(q, "r#{n}"))
      assert Queue.reader(q, "r32") == {:error, :eusers}
      {:ok, slow} = Queue.reader(q, "r1", max_lag: 1000)
      for n <- 1..500, do: Queue.push(q, n)
      {:ok, items} = Queue.pop_many(slow)
      assert items == Enum.to_list((501 - length(items))..500)
      [%{name: "r1", lost: lost} | _] = elem(Queue.info(q), 1).readers
      assert lost == 500 - length(items)
      assert_raise ArgumentError, ~r/1 to 62 bytes/, fn -> Queue.reader(q, "") end
    end
  end

  describe "waiting" do
    test "a pop waits for an item, of any process", %{path: path} do
      q = open!(path)
      assert Queue.pop(q, 10) == :empty
      pops = for _ <- 1..20, do: Task.async(fn -> Queue.pop(q, 10_000) end)
      Process.sleep(20)
      for n <- 1..20, do: Queue.push(open!(path), n)
      popped = for {:ok, n} <- Task.await_many(pops, 15_000), do: n
      assert Enum.sort(popped) == Enum.to_list(1..20)
      refute_received _
    end

    test "a checkout waits, also for what is released", %{path: path} do
      q = open!(path)
      Queue.push(q, 1)
      {:ok, 1, receipt} = Queue.checkout(q)
      waiting = Task.async(fn -> Queue.checkout(q, timeout: 5000) end)
      refute Task.yield(waiting, 50)
      Queue.nack(q, receipt)
      assert {:ok, 1, _} = Task.await(waiting)
    end

    test "a close ends all waits", %{path: path} do
      q = open!(path)
      waiting = Task.async(fn -> Queue.pop(q, 5000) end)
      refute Task.yield(waiting, 50)
      assert :ok = Queue.close(q)
      assert Task.await(waiting) == {:error, :closed}
    end

    test "bad timeouts", %{path: path} do
      q = open!(path)
      assert_raise ArgumentError, ~r/timeout: must be/, fn -> Queue.pop(q, -1) end
      assert_raise ArgumentError, ~r/timeout: must be/, fn -> Queue.pop_many(q, timeout: 1.0) end
    end
  end

  describe "durability" do
    test "pushes and acknowledgements", %{path: path} do
      q = open!(path, durable: true)
      pushes = for n <- 1..50, do: Task.async(fn -> Queue.push(q, n) end)
      assert Enum.all?(Task.await_many(pushes, 30_000), &(&1 == :ok))
      {:ok, items} = Queue.checkout(q, max_items: 3)
      assert :ok = Queue.ack(q, Enum.map(items, &elem(&1, 1)))
      assert Queue.length(q) == 47
      assert Enum.count(q) == 47
      assert :ok = Queue.sync(q)
      refute_received _
    end
  end

  describe "opening and closing" do
    test "what was pushed is there", %{path: path} do
      q = open!(path)
      Queue.push_many(q, 1..10)
      assert :ok = Queue.close(q)
      assert {:error, :closed} = Queue.close(q)
      assert {:error, :closed} = Queue.push(q, 1)
      assert {:error, :closed} = Queue.pop(q)
      assert {:error, :closed} = Queue.checkout(q)
      assert_raise Emmap.Error, ~r/closed/, fn -> Queue.length(q) end
      assert inspect(q) =~ "closed"
      assert Enum.to_list(open!(path)) == Enum.to_list(1..10)
    end

    test "handles share the queue", %{path: path} do
      [a, b] = [open!(path), open!(path)]
      Queue.push(a, 1)
      assert Queue.pop(b) == {:ok, 1}
      Queue.close(a)
      Queue.push(b, 2)
      assert Queue.pop(b) == {:ok, 2}
    end

    test "errors", %{path: path, tmp_dir: directory} do
      assert Queue.open(path, create: false) == {:error, :enoent}
      assert Queue.open(directory) in [{:error, :eisdir}, {:error, :enodev}]
      File.write!(path, "something else")
      assert Queue.open(path) == {:error, {:bad_format, :kind}}
      assert_raise Emmap.Error, ~r/not a queue file/, fn -> open!(path) end

      assert_raise ArgumentError, ~r/unknown keys \[:frmat\]/, fn ->
        Queue.open(path, frmat: 1)
      end

      assert_raise ArgumentError, ~r/full: must be/, fn -> Queue.open(path, full: :no) end

      assert_raise ArgumentError, ~r/given twice/, fn ->
        Queue.open(path, full: :error, full: :error)
      end

      assert_raise ArgumentError, ~r/not a queue/, fn -> Queue.pop("q") end
      assert_raise ArgumentError, ~r/no Emmap.Queue is started/, fn -> Queue.pop(:nobody) end
    end

    test "in a supervision tree, by name", %{path: path} do
      name = :"queue_#{System.unique_integer([:positive])}"
      spec = {Queue, path: path, name: name, max_attempts: 3}
      {:ok, supervisor} = Supervisor.start_link([spec], strategy: :one_for_one)
      assert :ok = Queue.push(name, 1)
      assert Queue.length(name) == 1
      assert {:ok, 1, receipt} = Queue.checkout(name)
      assert :ok = Queue.ack(name, receipt)
      Supervisor.stop(supervisor)
      assert_raise ArgumentError, fn -> Queue.pop(name) end
    end
  end

  describe "damage" do
    test "an item is told of once, and the others stay", %{path: path, tmp_dir: directory} do
      q = open!(path, format: :binary)
      for n <- 1..100, do: Queue.push(q, <<n::1000>>)
      # In the payload of an item in the middle.
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      :ok = :file.pwrite(file, 262_144 + 64 + 50 * 152 + 40, <<255>>)
      :ok = :file.close(file)
      copy = Path.join(directory, "copy")
      assert {:ok, %{items: 99, damaged: 1}} = Queue.salvage(q, copy)
      assert Enum.count(open!(copy, format: :binary)) == 99
      assert Enum.count(q) == 99
      results = for _ <- 1..100, do: Queue.pop(q)
      assert [{:error, {:corrupt, position}}] = Enum.reject(results, &match?({:ok, _}, &1))
      assert is_integer(position)
      expected = for n <- 1..100, n != 51, do: {:ok, <<n::1000>>}
      assert Enum.filter(results, &match?({:ok, _}, &1)) == expected
      assert Queue.pop(q) == :empty
    end

    test "a truncated file, and the way back", %{path: path} do
      q = open!(path, format: :binary)
      for n <- 1..10, do: Queue.push(q, <<n::1000>>)
      whole = File.read!(path)
      File.write!(path, "", [:write])
      assert {:error, :estale} = Queue.pop(q)
      assert {:error, :estale} = Queue.push(q, "x")
      assert {:error, _} = Queue.reattach(q)
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      :ok = :file.pwrite(file, 0, whole)
      :ok = :file.close(file)
      assert :ok = Queue.reattach(q)
      assert Queue.pop(q) == {:ok, <<1::1000>>}
      assert :ok = Queue.push(q, "x")
      assert Queue.length(q) == 10
    end
  end

  defp wait_for(fun, wanted, tries \\ 100) do
    case fun.() do
      ^wanted -> wanted
      other when tries == 0 -> other
      _ -> Process.sleep(10) && wait_for(fun, wanted, tries - 1)
    end
  end
end
