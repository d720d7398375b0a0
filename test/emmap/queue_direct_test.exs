defmodule Emmap.QueueDirectTest do
  # Live payloads of queues: `direct: true`.
  use ExUnit.Case, async: true
  alias Emmap.Queue
  alias Emmap.Test.{ChildVM, Resources}

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "q")}

  @segment 65_536

  defp open!(path, options \\ []) do
    Queue.open!(path, [format: :binary, direct: true, segment_size: @segment] ++ options)
  end

  # Nothing else has the same bytes.
  defp payload(n, size \\ 1000) do
    Enum.map_join(0..div(size, 32), &:crypto.hash(:sha256, "#{inspect(n)} #{&1}"))
    |> binary_part(0, size)
  end

  # Pushes and pops so much that each free segment is used again several times.
  defp churn(q, rounds \\ 500) do
    for n <- 1..rounds do
      :ok = Queue.push(q, <<n::8000>>)
      {:ok, <<^n::8000>>} = Queue.pop(q)
    end

    :erlang.garbage_collect()
    :ok
  end

  defp pinned(q), do: elem(Queue.info(q), 1).pinned
  defp unpinned?(q), do: Resources.eventually(fn -> pinned(q) == 0 end)

  # Where the bytes are in the file.
  defp position(path, payload) do
    {at, _} = :binary.match(File.read!(path), payload)
    at
  end

  defp overwrite(path, at, bytes) do
    {:ok, file} = :file.open(path, [:raw, :read, :write])
    :ok = :file.pwrite(file, at, bytes)
    :ok = :file.close(file)
  end

  # In a process of its own, so that nothing else holds what it returns.
  defp elsewhere(fun), do: fun |> Task.async() |> Task.await(60_000)

  describe "payloads" do
    test "are live, whoever returns them", %{path: path} do
      q = open!(path)
      {:ok, reader} = Queue.reader(q, "r")
      for n <- 1..8, do: :ok = Queue.push(q, payload(n))
      assert {:ok, peeked} = Queue.peek(q)
      assert {:ok, last} = Queue.peek_last(q)
      listed = Enum.to_list(q)
      assert {:ok, popped} = Queue.pop(q)
      assert {:ok, [two, three]} = Queue.pop_many(q, max_items: 2)
      assert {:ok, four, receipt} = Queue.checkout(q)
      assert :ok = Queue.ack(q, receipt)
      assert {:ok, [{five, r5}, {six, r6}]} = Queue.checkout(q, max_items: 2)
      assert :ok = Queue.ack(q, [r5, r6])
      assert {:ok, seven} = Queue.take(q, & &1)
      assert {:ok, again} = Queue.pop(reader)
      # Popped after it was checked out and released.
      assert {:ok, eight, receipt} = Queue.checkout(q)
      assert :ok = Queue.nack(q, receipt)
      assert {:ok, eight_again} = Queue.pop(q)

      live = [peeked, popped, again, two, three, four, five, six, seven, eight, eight_again]
      numbers = [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8]
      assert live == Enum.map(numbers, &payload/1)
      assert listed == Enum.map(1..8, &payload/1)
      assert last == payload(8)

      # Overwriting the file changes each of them.
      for n <- 1..8, do: overwrite(path, position(path, payload(n)), <<n, n, n>>)
      for {bytes, n} <- Enum.zip(live, numbers), do: assert(<<^n, ^n, ^n, _::binary>> = bytes)
      for {bytes, n} <- Enum.zip(listed, 1..8), do: assert(<<^n, ^n, ^n, _::binary>> = bytes)
      assert <<8, 8, 8, _::binary>> = last
    end

    test "of any size", %{path: path} do
      q = open!(path)
      sizes = [0, 1, 63, 64, 65, 4095, 65_384, 65_448, 65_449, 65_535, 65_536, 65_537]
      sizes = sizes ++ [262_144, 1_048_576, 1_048_577, 5_000_000]
      items = for size <- sizes, do: payload(size, size)
      for item <- items, do: :ok = Queue.push(q, item)
      assert Enum.to_list(q) == items
      {:ok, [first | _] = batch} = Queue.pop_many(q, max_items: 3)
      rest = for _ <- 4..length(items), do: elem(Queue.pop(q), 1)
      assert first == "" and batch ++ rest == items
      churn(q)
      assert batch ++ rest == items

      for item <- items, do: :ok = Queue.push(q, item)

      checked_out =
        for _ <- items do
          {:ok, item, receipt} = Queue.checkout(q)
          :ok = Queue.ack(q, receipt)
          item
        end

      churn(q)
      assert checked_out == items
    end

    test "of up to 64 bytes, terms and dead letters are copies", %{path: path} do
      q = open!(path, max_attempts: 1)
      terms = Queue.open!(path)
      :ok = Queue.push(q, payload(1, 64))
      :ok = Queue.push(terms, {:term, payload(2)})
      one = payload(1, 64)
      assert {:ok, ^one} = Queue.pop(q)
      assert {:ok, {:term, term}} = Queue.pop(q)
      assert term == payload(2) and pinned(q) == 0

      :ok = Queue.push(q, payload(3))

      elsewhere(fn ->
        {:ok, _, receipt} = Queue.checkout(q)
        :ok = Queue.nack(q, receipt)
      end)

      assert Queue.checkout(q) == :empty
      assert unpinned?(q)
      assert [{dead, 1}] = Queue.dead_letters(q)
      assert {:ok, ^dead} = Queue.pop_dead_letter(q)
      assert dead == payload(3) and pinned(q) == 0
    end

    test "that are damaged are not returned", %{path: path} do
      q = open!(path)
      for n <- 1..3, do: :ok = Queue.push(q, payload(n))
      overwrite(path, position(path, payload(2)) + 500, "damage")
      assert {:ok, [one]} = Queue.pop_many(q)
      assert {:error, {:corrupt, _}} = Queue.pop_many(q)
      assert {:ok, three, receipt} = Queue.checkout(q)
      assert :ok = Queue.ack(q, receipt)
      assert {one, three} == {payload(1), payload(3)}
    end

    test "are copied by salvage, and pushed again", %{path: path} do
      q = open!(path)
      for n <- 1..3, do: :ok = Queue.push(q, payload(n))
      assert {:ok, %{items: 3}} = Queue.salvage(q, path <> ".copy")
      assert Enum.to_list(open!(path <> ".copy")) == Enum.map(1..3, &payload/1)
      assert {:ok, 3} = Queue.push_many(q, Enum.to_list(q))
      assert Enum.to_list(q) == Enum.map([1, 2, 3, 1, 2, 3], &payload/1)
    end
  end

  describe "a live payload" do
    test "keeps its bytes while everything else is used again", %{path: path} do
      q = open!(path)
      :ok = Queue.push(q, payload(0))
      {:ok, live} = Queue.pop(q)
      churn(q, 3000)
      assert live == payload(0)
      assert pinned(q) in 3_000_000..3_200_000
      assert File.stat!(path).size > 3_000_000
      # A part of it, too.
      part = binary_part(live, 100, 200)
      churn(q)
      assert part == binary_part(payload(0), 100, 200)
    end

    test "is released by the garbage collector, and its space is used again", %{path: path} do
      q = open!(path)

      elsewhere(fn ->
        for n <- 1..100, do: :ok = Queue.push(q, payload(n, 10_000))
        {:ok, items} = Queue.pop_many(q)
        churn(q)
        assert items == for(n <- 1..100, do: payload(n, 10_000))
        assert pinned(q) > 1_000_000
      end)

      assert unpinned?(q)
      size = File.stat!(path).size
      # By copies: these pin nothing until they are collected.
      churn(Queue.open!(path, format: :binary), 3000)
      assert File.stat!(path).size == size
    end

    test "outlives the queue, and the queue's next life", %{path: path} do
      q = open!(path)
      :ok = Queue.push(q, payload(0))
      :ok = Queue.push(q, payload(1))
      {:ok, live} = Queue.pop(q)
      :ok = Queue.close(q)
      assert live == payload(0)
      q = open!(path)
      assert elem(Queue.info(q), 1).recovered == nil and pinned(q) > 0
      one = payload(1)
      assert {:ok, ^one} = Queue.pop(q)
      churn(q)
      assert live == payload(0)

      # And is released then.
      q2 = open!(path)
      assert live == payload(0) and pinned(q2) > 0
      live = nil
      assert live == nil and unpinned?(q2)
    end

    test "outlives what drops its item", %{path: path} do
      q = open!(path, max_size: 20_000, full: :drop_oldest)
      {:ok, reader} = Queue.reader(q, "lagging", max_lag: 10_000)
      :ok = Queue.push(q, payload(0))
      {:ok, peeked} = Queue.peek(reader)
      {:ok, out, receipt} = Queue.checkout(q)
      [listed] = Enum.to_list(q) |> Enum.concat(Enum.to_list(reader))
      for n <- 1..500, do: :ok = Queue.push(q, payload(n))
      assert Queue.ack(q, receipt) == {:error, :gone}
      assert Queue.bytes(q) <= 20_000
      assert {:ok, %{readers: [%{lost: lost}], pinned: pinned}} = Queue.info(q)
      # The limit is of the items: the file is longer.
      assert lost > 400 and pinned > 500_000 and File.stat!(path).size > 500_000
      :ok = Queue.clear(q)
      :ok = Queue.delete_reader(q, "lagging")
      churn(q)
      assert [peeked, out, listed] == List.duplicate(payload(0), 3)
    end

    test "is sound to the inspection", %{path: path} do
      q = open!(path)
      :ok = Queue.push(q, payload(0))
      {:ok, live} = Queue.pop(q)
      churn(q)
      :ok = Queue.push(q, payload(1))
      assert {:ok, %{problems: []}} = Emmap.Inspection.file(path)
      assert live == payload(0)
    end
  end

  describe "another VM" do
    # A VM that has a live payload, and keeps it.
    defp holder(path) do
      code = """
      q = Emmap.Queue.open!(#{inspect(path)}, format: :binary, direct: true)
      {:ok, live} = Emmap.Queue.pop(q)
      IO.puts("held")
      Process.sleep(:infinity)
      IO.puts(live)
      """

      ebin = Application.app_dir(:emmap, "ebin")
      arguments = ["-pa", ebin, "-e", code]
      executable = System.find_executable("elixir")
      port = Port.open({:spawn_executable, executable}, [:binary, :exit_status, args: arguments])
      assert_receive {^port, {:data, "held\n"}}, 30_000
      {:os_pid, pid} = Port.info(port, :os_pid)

      fn ->
        {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
        assert_receive {^port, {:exit_status, _}}, 10_000
      end
    end

    @tag timeout: 120_000
    test "does not write over what this one shows", %{path: path} do
      q = open!(path)
      :ok = Queue.push(q, payload(0))
      {:ok, live} = Queue.pop(q)
      :ok = Queue.close(q)

      assert {:ok, pinned} =
               ChildVM.run!("""
               q = Emmap.Queue.open!(#{inspect(path)}, format: :binary)
               for n <- 1..2000 do
                 :ok = Emmap.Queue.push(q, <<n::8000>>)
                 {:ok, _} = Emmap.Queue.pop(q)
               end
               pinned = elem(Emmap.Queue.info(q), 1).pinned
               Emmap.Queue.close(q)
               {:ok, pinned}
               """)

      assert pinned > 2_000_000
      assert live == payload(0)
    end

    @tag timeout: 120_000
    test "that was killed shows nothing any more", %{path: path} do
      q = open!(path, max_size: 100_000, full: :drop_oldest)
      push = fn -> for n <- 1..500, do: :ok = Queue.push(q, payload(n)) end
      :ok = Queue.push(q, payload(0))
      kill = holder(path)
      push.()
      assert pinned(q) > 500_000
      kill.()
      # A process that only pushes finds it when the file would have to grow.
      push.()
      assert pinned(q) == 0
      size = File.stat!(path).size
      for _ <- 1..5, do: push.()
      assert File.stat!(path).size <= size

      # A process that waits for items finds it, too, and so does one that opens the queue.
      Queue.clear(q)
      :ok = Queue.push(q, payload(0))
      kill = holder(path)
      assert pinned(q) > 0
      kill.()
      assert Queue.pop(q) == :empty
      assert pinned(q) == 0
    end
  end

  test "processes that take and drop live payloads at any time", %{path: path} do
    q = open!(path)

    producers =
      for producer <- 1..2 do
        Task.async(fn ->
          for n <- 1..3000, do: :ok = Queue.push(q, payload({producer, n}, 500 + rem(n, 700)))
        end)
      end

    consumers =
      for seed <- 1..3 do
        Task.async(fn ->
          :rand.seed(:exsss, seed)
          consume(q, [], 0)
        end)
      end

    Task.await_many(producers, 60_000)
    assert Enum.sum(Task.await_many(consumers, 60_000)) == 6000
    assert unpinned?(q)
  end

  # Looks at each again before it drops it.
  defp consume(q, held, count) do
    {dropped, kept} = Enum.split_with(held, fn _ -> :rand.uniform(4) == 1 end)
    for {live, hash} <- dropped, do: assert(:erlang.md5(live) == hash)
    if rem(count, 16) == 0, do: :erlang.garbage_collect()

    case Queue.pop(q, 500) do
      {:ok, live} -> consume(q, [{live, :erlang.md5(live)} | kept], count + 1)
      :empty -> count
    end
  end

  test "only queues of binaries have live payloads", %{path: path} do
    for options <- [[direct: true], [direct: true, format: :term]] do
      assert_raise ArgumentError, ~r/direct: true is for queues with format: :binary/, fn ->
        Queue.open(path, options)
      end
    end

    assert_raise ArgumentError, ~r/direct: must be true \| false, got :yes/, fn ->
      Queue.open(path, format: :binary, direct: :yes)
    end

    refute File.exists?(path)
    assert q = Queue.open!(path, format: :binary, direct: false)
    :ok = Queue.push(q, payload(1))
    {:ok, copy} = Queue.pop(q)
    assert pinned(q) == 0 and copy == payload(1)
  end
end
