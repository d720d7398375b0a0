defmodule Emmap.QueueConcurrencyTest do
  # Many processes of one VM on one queue, and how long its file becomes.
  use ExUnit.Case, async: true
  alias Emmap.Queue

  @moduletag :tmp_dir
  @moduletag timeout: 3_600_000

  # What comes before the segments.
  @header 262_144

  setup %{tmp_dir: directory} do
    {:ok, path: Path.join(directory, "queue")}
  end

  describe "8 producers and 8 consumers" do
    test("of 50,000 items: none is lost or delivered twice", context, do: many(context, 50_000))

    @tag :slow
    test("of a million items: none is lost or delivered twice", context,
      do: many(context, 1_000_000)
    )
  end

  defp many(%{path: path}, count) do
    queue = Queue.open!(path, max_size: 4_000_000, full: :block)
    each = div(count, 8)

    producers =
      for producer <- 1..8 do
        Task.async(fn -> produce(queue, producer, 1, each) end)
      end

    consumers = for consumer <- 1..8, do: Task.async(fn -> consume(queue, consumer, []) end)
    Task.await_many(producers, :infinity)
    for _ <- 1..8, do: :ok = Queue.push(queue, :end)
    taken = Task.await_many(consumers, :infinity)

    # As each consumer got them: what one got of a producer is in order.
    for items <- taken,
        {_producer, numbers} <- Enum.group_by(items, &elem(&1, 0), &elem(&1, 1)) do
      assert numbers == Enum.sort(numbers)
    end

    all = taken |> Enum.concat() |> Enum.sort()
    assert length(all) == count
    assert all == for(producer <- 1..8, number <- 1..each, do: {producer, number})
    assert Queue.empty?(queue)
    assert elem(Queue.info(queue), 1).checked_out == 0
  end

  # Every kind of push takes turns.
  defp produce(_queue, _producer, number, each) when number > each, do: :ok

  defp produce(queue, producer, number, each) do
    count = if rem(number, 50) == 0, do: min(20, each - number + 1), else: 1

    if count > 1 do
      items = for n <- number..(number + count - 1), do: {producer, n}
      assert {:ok, ^count} = Queue.push_many(queue, items)
    else
      assert :ok = Queue.push(queue, {producer, number})
    end

    produce(queue, producer, number + count, each)
  end

  # And every kind of taking.
  defp consume(queue, consumer, taken) do
    got =
      case rem(consumer, 4) do
        0 ->
          {:ok, item} = Queue.pop(queue, :infinity)
          [item]

        1 ->
          {:ok, item, receipt} = Queue.checkout(queue, timeout: :infinity)
          :ok = Queue.ack(queue, receipt)
          [item]

        2 ->
          {:ok, items} = Queue.pop_many(queue, max_items: 10, timeout: :infinity)
          items

        3 ->
          {:ok, items} = Queue.checkout(queue, max_items: 10, timeout: :infinity)
          {items, receipts} = Enum.unzip(items)
          :ok = Queue.ack(queue, receipts)
          items
      end

    case Enum.split_with(got, &(&1 == :end)) do
      {[], items} ->
        consume(queue, consumer, Enum.reverse(items, taken))

      {[_ | others], items} ->
        # A batch may have the end of other consumers.
        for item <- others, do: :ok = Queue.push(queue, item)
        Enum.reverse(Enum.reverse(items, taken))
    end
  end

  describe "the file of a queue that stays short" do
    test("does not grow: 300,000 items", context, do: short(context, 300_000))

    @tag :slow
    test("does not grow: 100,000,000 items", context, do: short(context, 100_000_000))
  end

  # A queue of at most 1,000 items.
  defp short(%{path: path}, count) do
    queue = Queue.open!(path, format: :binary)
    item = :binary.copy("x", 75)
    batch = List.duplicate(item, 500)
    {:ok, 500} = Queue.push_many(queue, batch)
    # Until each segment that is ever needed is there.
    rounds(queue, batch, 20)
    size = elem(Queue.info(queue), 1).size
    {time, :ok} = :timer.tc(fn -> rounds(queue, batch, div(count, 500)) end)

    if count >= 10_000_000,
      do: IO.puts("\n#{count} items in #{Float.round(time / 1.0e6, 1)} s, file #{size} bytes")

    assert elem(Queue.info(queue), 1).size == size
    assert size <= @header + 3 * 262_144
    assert Queue.length(queue) == 500
  end

  defp rounds(_queue, _batch, 0), do: :ok

  defp rounds(queue, batch, left) do
    {:ok, 500} = Queue.push_many(queue, batch)
    {:ok, taken} = Queue.pop_many(queue, max_items: 500)
    if length(taken) != 500, do: raise("#{length(taken)} items of 500")
    rounds(queue, batch, left - 1)
  end

  test "31 readers at different positions: the slowest determines the file's length", %{
    path: path
  } do
    segment = 65_536
    queue = Queue.open!(path, format: :binary, segment_size: segment)

    readers =
      for n <- 1..31 do
        {:ok, reader} = Queue.reader(queue, "reader #{n}")
        {reader, n}
      end

    assert {:error, :eusers} = Queue.reader(queue, "one more")
    item = :binary.copy("x", 76)
    # A record is 100 bytes, rounded up to 104.
    record = 104

    for step <- 1..400 do
      {:ok, 100} = Queue.push_many(queue, List.duplicate(item, 100))
      {:ok, _} = Queue.pop_many(queue, max_items: 100)

      # Reader n stays n * 100 items behind.
      for {reader, n} <- readers, step > n do
        {:ok, taken} = Queue.pop_many(reader, max_items: 100)
        assert length(taken) == 100
      end

      # Before it took its 100 of this step.
      slowest = min(step, 32) * 100 * record
      size = elem(Queue.info(queue), 1).size

      assert size <= @header + slowest + 2 * segment,
             "step #{step}: #{size} bytes, the slowest reader is #{slowest} behind"
    end

    for {reader, n} <- readers, do: assert(Queue.length(reader) == n * 100)
  end
end
