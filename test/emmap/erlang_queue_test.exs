defmodule Emmap.ErlangQueueTest do
  use ExUnit.Case, async: true

  alias Emmap.Queue

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "q")
    {:ok, queue} = :emmap_queue.open(String.to_charlist(path), 0, [])
    %{path: path, queue: queue}
  end

  defp collect(term, terms), do: {:cont, [term | terms]}

  test "the module as Erlang calls it", %{path: path, queue: queue} do
    assert File.regular?(path)
    assert :emmap_queue.is_empty(queue)
    assert :emmap_queue.length(queue) == 0

    for look <- [:peek_front, :peek_back, :pop, :pop_and_purge],
        do: assert(apply(:emmap_queue, look, [queue]) == nil)

    for term <- [:a, "b", {3, [4.0]}], do: assert(:emmap_queue.push(queue, term) == :ok)
    refute :emmap_queue.is_empty(queue)
    assert :emmap_queue.length(queue) == 3
    assert :emmap_queue.peek_front(queue) == :a
    assert :emmap_queue.peek_back(queue) == {3, [4.0]}
    assert :emmap_queue.peek(queue, [], &collect/2) == [{3, [4.0]}, "b", :a]
    assert :emmap_queue.rpeek(queue, [], &collect/2) == [:a, "b", {3, [4.0]}]
    assert :emmap_queue.peek(queue, 0, fn term, 0 -> {:halt, term} end) == :a
    assert :emmap_queue.rpeek(queue, 0, fn term, 0 -> {:halt, term} end) == {3, [4.0]}
    assert :emmap_queue.pop(queue) == :a
    assert :emmap_queue.pop_and_purge(queue) == "b"
    assert :emmap_queue.length(queue) == 1
    refute :emmap_queue.purge(queue)
    assert :emmap_queue.erase(queue) == :ok
    assert :emmap_queue.purge(queue)
    assert :emmap_queue.pop(queue) == nil
    assert :emmap_queue.flush(queue) == :ok
    assert :emmap_queue.close(queue) == :ok
    assert :emmap_queue.close(queue) == {:error, :closed}
    assert :emmap_queue.push(queue, :late) == {:error, :closed}
    assert_raise Emmap.Error, fn -> :emmap_queue.pop(queue) end
    assert_raise Emmap.Error, fn -> :emmap_queue.length(queue) end
  end

  test "push/3 compresses", %{queue: queue} do
    term = String.duplicate("x", 100_000)
    before = Queue.bytes(queue)
    for level <- 1..9, do: assert(:emmap_queue.push(queue, term, level) == :ok)
    assert Queue.bytes(queue) - before < 9 * 1000
    assert :emmap_queue.push(queue, term, 0) == :ok
    assert Queue.bytes(queue) - before > 100_000
    assert :emmap_queue.pop(queue, [], &collect/2) == List.duplicate(term, 10)
    for level <- [-1, 10, 1.0, :a], do: catch_error(:emmap_queue.push(queue, term, level))
    assert :emmap_queue.length(queue) == 0
  end

  test "pop/3 takes what its function says", %{queue: queue} do
    for n <- 1..5, do: :emmap_queue.push(queue, n)
    halt_at_3 = fn n, sum -> if n == 3, do: {:halt, sum}, else: {:cont, sum + n} end
    assert :emmap_queue.pop(queue, 0, halt_at_3) == 3
    assert :emmap_queue.peek_front(queue) == 3
    assert :emmap_queue.peek(queue, [], &collect/2) == [5, 4, 3]
    assert :emmap_queue.rpeek(queue, [], &collect/2) == [3, 4, 5]

    raises_at_4 = fn n, _ -> if n == 4, do: :erlang.error(:four), else: {:cont, n} end
    assert catch_error(:emmap_queue.pop(queue, 0, raises_at_4)) == :four
    assert :emmap_queue.peek(queue, [], &collect/2) == [5, 4]
    assert catch_error(:emmap_queue.pop(queue, 0, fn _, _ -> :what end)) == {:case_clause, :what}
    assert :emmap_queue.length(queue) == 2

    # What is pushed meanwhile is left for the next call.
    again = fn n, popped ->
      :emmap_queue.push(queue, n + 10)
      {:cont, [n | popped]}
    end

    assert :emmap_queue.pop(queue, [], again) == [5, 4]
    assert :emmap_queue.pop(queue, [], &collect/2) == [15, 14]
    assert :emmap_queue.pop(queue, :state, &collect/2) == :state
  end

  test "try_pop/2 leaves the term when its function raises", %{queue: queue} do
    for try_pop <- [:try_pop, :try_pop_and_purge] do
      assert apply(:emmap_queue, try_pop, [queue, fn _ -> flunk("there is none") end]) == nil
      for n <- 1..2, do: :emmap_queue.push(queue, n)
      failing = fn 1 -> :erlang.error(:failed) end
      assert catch_error(apply(:emmap_queue, try_pop, [queue, failing])) == :failed
      assert catch_throw(apply(:emmap_queue, try_pop, [queue, fn 1 -> throw(:out) end])) == :out
      assert :emmap_queue.length(queue) == 2
      assert apply(:emmap_queue, try_pop, [queue, &(&1 + 10)]) == 11
      assert apply(:emmap_queue, try_pop, [queue, &(&1 + 10)]) == 12
    end
  end

  test "metadata/1 has positions that do not go back", %{path: path, queue: queue} do
    assert %{head: empty, tail: empty, next_tail: empty} = :emmap_queue.metadata(queue)
    :emmap_queue.push(queue, :a)
    metadata = %{head: head, tail: tail} = :emmap_queue.metadata(queue)
    assert metadata.next_tail == tail and tail - head == Queue.bytes(queue)
    assert metadata.size == File.stat!(path).size
    :emmap_queue.pop(queue)
    assert %{head: ^tail, tail: ^tail} = :emmap_queue.metadata(queue)
  end

  test "it is shared, and the same queue as Emmap.Queue's", %{path: path, queue: queue} do
    {:ok, other} = :emmap_queue.open(path, 0, [:shared, :direct])
    :emmap_queue.push(queue, :a)
    assert :emmap_queue.pop(other) == :a
    elixir = Queue.open!(path)
    Queue.push(elixir, :b)
    assert :emmap_queue.pop(queue) == :b
    assert {:ok, :c, receipt} = :emmap_queue.push(queue, :c) && Queue.checkout(queue)
    assert :emmap_queue.pop(other) == nil
    assert Queue.ack(queue, receipt) == :ok
  end

  test "fixed_size is a limit in bytes", %{tmp_dir: directory} do
    path = Path.join(directory, "limited")
    {:ok, queue} = :emmap_queue.open(path, 1000, [:fixed_size])
    blob = String.duplicate("x", 300)
    for _ <- 1..2, do: assert(:emmap_queue.push(queue, blob) == :ok)
    assert :emmap_queue.push(queue, blob) == {:error, :full}
    assert :emmap_queue.pop(queue) == blob
    assert :emmap_queue.push(queue, blob) == :ok
  end

  test "open/3 creates directories, and close/1 with auto_unlink deletes the file", %{
    tmp_dir: directory
  } do
    path = Path.join([directory, "a", "b", "q"])
    {:ok, queue} = :emmap_queue.open(path, 1024, [:auto_unlink])
    :emmap_queue.push(queue, 1)
    assert :emmap_queue.close(queue) == :ok
    refute File.exists?(path)
    assert {:error, :eisdir} = :emmap_queue.open(directory, 0, [])
  end

  test "options that cannot be", %{path: path} do
    for options <- [[:private], [:fixed_size], [:unknown], [{:unknown, 1}], [{:durable, 7}]],
        do: assert_raise(ArgumentError, fn -> :emmap_queue.open(path, 0, options) end)
  end

  test "terms are read as the predecessor does, or safe", %{path: path, queue: queue} do
    unknown = fn ->
      <<131, 119, 12,
        "emq#{System.unique_integer([:positive])}" |> String.pad_trailing(12)::binary>>
    end

    raw = Queue.open!(path, format: :binary)
    # The item of a raw queue is not a term; as one, by the NIF itself.
    for _ <- 1..2, do: :ok = Emmap.Native.queue_push(raw.ref, unknown.(), 1)
    {:ok, safe} = :emmap_queue.open(path, 0, [:safe])
    assert_raise ArgumentError, fn -> :emmap_queue.peek_front(safe) end
    assert is_atom(:emmap_queue.peek_front(queue))
  end

  test "a queue of the predecessor is refused, and is not changed", %{tmp_dir: directory} do
    path = Path.join(directory, "predecessor")

    # One term, a: size, head, tail, next tail; then its length, the term, padding, and the length.
    term = :erlang.term_to_binary(:a)
    size = byte_size(term) + 8
    content = <<1024::32, 16::32, 16 + size::32, 16 + size::32, size::32, term::binary, size::32>>
    content = content <> <<0::size((1024 - byte_size(content)) * 8)>>
    File.write!(path, content)
    assert :emmap_queue.open(path, 1024, []) == {:error, {:bad_format, :predecessor}}
    assert File.read!(path) == content
    File.write!(path, String.duplicate("no queue ", 1000))
    assert :emmap_queue.open(path, 0, []) == {:error, {:bad_format, :kind}}
  end

  test "the process", %{tmp_dir: directory} do
    path = Path.join(directory, "of_a_process")
    {:ok, pid} = :emmap_queue.start_link(:emmap_queue_test, path, 512, [:auto_unlink])
    assert Process.whereis(:emmap_queue_test) == pid
    assert :emmap_queue.inspect(pid) == nil
    for term <- [:a, :b, :c], do: assert(:emmap_queue.enqueue(:emmap_queue_test, term) == :ok)
    assert :emmap_queue.dequeue(pid) == :a
    assert :emmap_queue.inspect(:emmap_queue_test) == :b
    assert :emmap_queue.dequeue({:emmap_queue_test, node()}) == :b
    failing = fn :c -> :erlang.error(:failed) end
    assert catch_error(:emmap_queue.try_dequeue(pid, failing)) == :failed
    assert catch_exit(:emmap_queue.try_dequeue(pid, fn :c -> exit(:out) end)) == :out
    assert :emmap_queue.try_dequeue(pid, fn :c -> {:got, :c} end) == {:got, :c}
    assert :emmap_queue.try_dequeue(pid, fn _ -> flunk("there is none") end) == nil
    assert :emmap_queue.dequeue(pid) == nil
    assert %{head: _, tail: _, next_tail: _, size: size} = :emmap_queue.info(pid)
    assert size == File.stat!(path).size
    send(pid, :unexpected)
    assert :emmap_queue.inspect(pid) == nil
    :ok = :gen_server.stop(pid)
    refute File.exists?(path)
  end

  test "a process that cannot open its queue does not start", %{tmp_dir: directory} do
    Emmap.Test.Quiet.logs("eisdir")
    Process.flag(:trap_exit, true)
    assert {:error, :eisdir} = :emmap_queue.start_link(:emmap_queue_none, directory, 0, [])
  end

  test "what the Erlang shell shows is there for each function and type" do
    {:ok, docs} = :code.get_doc(:emmap_queue)
    internal = [:init, :handle_call, :handle_cast, :handle_info, :terminate]

    for {{kind, name, arity}, _, _, doc, meta} <- elem(docs, 6),
        kind in [:function, :type] and name not in internal do
      assert %{"en" => _} = doc, "#{kind} #{name}/#{arity}"
      assert %{signature: [_]} = meta, "#{kind} #{name}/#{arity}"
    end
  end
end
