defmodule Emmap.BadDays.QueuesTest do
  # What happens to the file of a queue.
  use Emmap.Test.BadDay

  setup %{path: path} do
    File.rm!(path)
    :ok
  end

  @open """
  alias Emmap.Queue
  q = Queue.open!(path, segment_size: 65_536)
  item = fn n -> {n, String.duplicate("x", 1000)} end
  """

  test "1: a queue's file truncated while it is open", context do
    assert {[{:error, :estale}], "estale", {:error, {:bad_format, :length}}, {:error, :estale},
            :ok, {:ok, 0}, :ok,
            100} =
             child(
               context,
               @open <>
                 """
                 for n <- 0..99, do: :ok = Queue.push(q, item.(n))
                 whole = File.read!(path)
                 cut.(path, 5000)
                 results = for call <- [
                   &Queue.push(&1, 1), &Queue.pop/1, &Queue.pop_many/1, &Queue.checkout/1, &Queue.peek/1, &Queue.peek_last/1, &Queue.sync/1,
                   &Queue.clear/1, &Queue.reader(&1, "r")
                 ], uniq: true, do: call.(q)
                 raised = try do Queue.length(q) rescue error in Emmap.Error -> to_string(error.reason) end
                 refused = Queue.reattach(q)
                 still = Queue.pop(q)
                 File.write!(path, whole)
                 back = Queue.reattach(q)
                 {:ok, {n, _}} = Queue.pop(q)
                 {results, raised, refused, still, back, {:ok, n}, Queue.push(q, :more), Queue.length(q)}
                 """
             )
  end

  test "1: a queue's file truncated under a live payload", context do
    assert {:ok, :zeros, {:error, :estale}, :ok, :ok, true, {:ok, 1}, 0} =
             child(
               context,
               """
               alias Emmap.Queue
               q = Queue.open!(path, segment_size: 65_536, format: :binary, direct: true)
               item = &:binary.copy(<<&1>>, 10_000)
               {:ok, 4} = Queue.push_many(q, Enum.map(1..4, item))
               # As a backup has it: nothing was popped, and nothing is shown.
               whole = File.read!(path)
               shown = fn
                 <<n, _::binary>> = live when n > 0 -> if live == item.(n), do: :ok, else: :wrong
                 live -> if live == item.(0), do: :zeros, else: :wrong
               end
               holder = spawn(fn ->
                 {:ok, live} = Queue.pop(q)
                 {:ok, other} = Queue.pop(q)
                 loop = fn loop, other ->
                   receive do
                     {:show, to} -> send(to, {shown.(live), byte_size(other)}) && loop.(loop, other)
                     # Its pin is in a page that is lost.
                     :collect -> :erlang.garbage_collect() && loop.(loop, "")
                   end
                 end
                 loop.(loop, other)
               end)
               show = fn -> send(holder, {:show, self()}) && receive do: ({shown, _} -> shown) end
               before = show.()
               cut.(path, 5000)
               lost = show.()
               failed = Queue.pop(q)
               send(holder, :collect)
               :zeros = show.()
               File.write!(path, whole)
               back = Queue.reattach(q)
               again = show.()
               # The file had no pin.
               pinned = elem(Queue.info(q), 1).pinned > 30_000
               {:ok, <<n, _::binary>>} = Queue.pop(q)
               Process.exit(holder, :kill)
               left = Enum.reduce_while(1..500, nil, fn _, _ ->
                 :erlang.garbage_collect()
                 Process.sleep(10)
                 case elem(Queue.info(q), 1).pinned do
                   0 -> {:halt, 0}
                   pinned -> {:cont, pinned}
                 end
               end)
               {before, lost, failed, back, again, pinned, {:ok, n}, left}
               """
             )
  end

  for kind <- [:tmpfs, :ext4] do
    test "12: disk full while pushing to a queue (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {:ok, {:error, :enospc}, true, true, :ok, :ok} =
                   child(
                     %{context | path: Path.join(disk, "q")},
                     @open <>
                       """
                       created = :ok
                       pushed = Enum.find_value(0..100_000, fn n ->
                         case Queue.push(q, item.(n)) do
                           :ok -> nil
                           error -> {n, error}
                         end
                       end)
                       {n, error} = pushed
                       kept = Queue.length(q) == n
                       items = for i <- 0..(n - 1), do: Queue.pop(q) == {:ok, item.(i)}
                       {created, error, kept, Enum.all?(items), Queue.push(q, :room_again), Queue.sync(q)}
                       """
                   )
      end
    end
  end

  test "12: items of a queue are checked out while the disk is full", context do
    case disk(context, :tmpfs) do
      {:error, why} ->
        skipped(context, why)

      {:ok, disk} ->
        assert {[1, 2], {:error, :enospc}, :ok, 24, :ok} =
                 child(
                   %{context | path: Path.join(disk, "q")},
                   """
                   alias Emmap.Queue
                   q = Queue.open!(path, segment_size: 65_536, max_attempts: 1)
                   item = fn n -> {n, String.duplicate("x", 1000)} end
                   full = Enum.find_value(0..100_000, fn n ->
                     with :ok <- Queue.push(q, item.(n)), do: nil
                   end)
                   # Without room to set it aside, an item whose attempts are used up is delivered again.
                   attempts = for _ <- 1..2 do
                     {:ok, {0, _}, receipt} = Queue.checkout(q)
                     Queue.nack(q, receipt)
                     Queue.attempts(receipt)
                   end
                   # More claims than the control area has room for need a segment.
                   {:ok, items} = Queue.checkout(q, max_items: 50)
                   acked = Queue.ack(q, Enum.map(items, &elem(&1, 1)))
                   {:ok, _} = Queue.pop_many(q)
                   {attempts, full, acked, length(items), Queue.push(q, :room_again)}
                   """
                 )
    end
  end

  test "14: the device fails when a queue syncs", context do
    case Emmap.Test.CLibrary.build("inject", context.dir) do
      {:error, why} ->
        skipped(context, why)

      {:ok, library} ->
        File.write!(Path.join(context.dir, "control"), <<0::64*64>>)

        # The first msync from anywhere in the process fails, and only the first.
        assert {{:error, :eio}, {:error, :eio}, {:ok, 0}, :ok} =
                 child(
                   context,
                   @open <>
                     """
                     :ok = Queue.push(q, item.(0))
                     :ok = Queue.push(q, item.(1), durable: true)
                     {:ok, control} = :file.open(dir <> "/control", [:read, :write])
                     :ok = :file.pwrite(control, 0, for(word <- [0, 0xFFFF_FFFF_FFFF_FFFF, 7, 1, 5], do: <<word::native-64>>))
                     durable = Queue.push(q, item.(2), durable: true)
                     {:ok, {popped, _}} = Queue.pop(q)
                     {durable, Queue.sync(q), {:ok, popped}, Queue.push(q, 3)}
                     """,
                   env: [
                     {"LD_PRELOAD", library <> ".so"},
                     {"EMMAP_INJECT", Path.join(context.dir, "control")}
                   ]
                 )
    end
  end

  test "5: a queue's file deleted: open handles keep working, and the next open creates a new queue",
       context do
    assert {:ok, {:ok, 1}, :ok, 0, :ok, {:ok, 2}} =
             child(
               context,
               @open <>
                 """
                 :ok = Queue.push(q, 1)
                 File.rm!(path)
                 pushed = Queue.push(q, 2)
                 popped = Queue.pop(q)
                 new = Queue.open!(path)
                 {pushed, popped, Queue.sync(q), Queue.length(new), Queue.push(new, 3), Queue.pop(q)}
                 """
             )
  end

  test "31: kill -9 while pushing: what returned is there, in order, and the file opens",
       context do
    for _ <- 1..5 do
      assert {:died, _, output} =
               attempt(
                 context,
                 @open <>
                   """
                   spawn(fn -> Process.sleep(300); System.cmd("kill", ["-9", System.pid()]) end)
                   log = File.open!(dir <> "/returned", [:append, :raw])
                   first = Queue.length(q)
                   Enum.each(Stream.iterate(first, & &1 + 1), fn n ->
                     :ok = Queue.push(q, item.(n))
                     :ok = :file.write(log, "x")
                   end)
                   """
               )

      assert is_binary(output)
    end

    returned = File.stat!(Path.join(context.dir, "returned")).size
    assert returned > 5
    queue = Emmap.Queue.open!(context.path)
    # The push that was going on when the program was killed may be there, too.
    assert Emmap.Queue.length(queue) in returned..(returned + 5)
    assert {:ok, %{recovered: nil}} = Emmap.Queue.info(queue)
    numbers = for {n, _} <- queue, do: n
    assert numbers == Enum.to_list(0..(length(numbers) - 1))
    noted(context, {:ok, "none lost"})
  end
end
