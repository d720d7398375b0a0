defmodule Emmap.Test.QueueWorker do
  @moduledoc """
  Takes part in a queue until the VM is killed, as `native/emmap_core/examples/queue_worker.rs` does, with the same items
  and the same logs.
  """

  alias Emmap.Queue

  @pushed 1
  @delivered 2
  @acknowledged 3
  @released 4

  @most_bytes 2 * 1024 * 1024

  @doc "A VM runs this: see `Emmap.Test.QueueKills`."
  def work(file, logs, producer, first, identity) do
    options = [format: :binary, max_size: @most_bytes, full: :block, create: false]
    # Every other one has live payloads, which it shows when it is killed.
    queue = Queue.open!(file, [direct: rem(producer, 2) == 0] ++ options)
    {:ok, reader} = Queue.reader(queue, "audit")

    for work <- [
          fn -> produce(queue, log(logs, "producer"), producer, first, identity) end,
          fn -> consume(queue, log(logs, "consumer"), 1) end,
          fn -> consume(reader, log(logs, "reader"), 1) end
        ] do
      spawn(fn ->
        try do
          work.()
        catch
          kind, reason ->
            IO.puts(:stderr, Exception.format(kind, reason, __STACKTRACE__))
            System.halt(101)
        end
      end)
    end

    Process.sleep(:infinity)
  end

  @doc "An item of any size that says what it must be."
  def item(producer, number) do
    filler = if rem(number, 997) == 996, do: 70_000, else: rem(number * 7, 300)
    <<producer::little-64, number::little-64, :binary.copy(<<number::8>>, filler)::binary>>
  end

  @doc "The producer and the number of an item."
  def parse!(<<producer::little-64, number::little-64, _::binary>> = payload) do
    if payload != item(producer, number), do: raise("an item is not what was pushed")
    {producer, number}
  end

  @doc "The identity of a producer, as both kinds of workers push with it."
  def identity(producer), do: "worker #{producer}"

  defp produce(queue, log, producer, number, identity) do
    options = if identity, do: [id: {identity(producer), number}], else: []
    item = item(producer, number)

    # Sometimes several at once, in one call.
    if not identity and rem(number, 64) == 0 do
      items = for n <- number..(number + 9), do: item(producer, n)
      {:ok, 10} = Queue.push_many(queue, items)
      note(log, for(n <- number..(number + 9), do: {@pushed, {producer, n}, now(), 0}))
      produce(queue, log, producer, number + 10, identity)
    else
      pushed = Queue.push(queue, item, options)
      if pushed not in [:ok, :duplicate], do: raise("push: #{inspect(pushed)}")
      note(log, [{@pushed, {producer, number}, now(), 0}])
      if rem(number, 16) == 0, do: Process.sleep(1)
      produce(queue, log, producer, number + 1, identity)
    end
  end

  defp consume(queue, log, round) do
    start = now()

    checked_out =
      case rem(round, 4) do
        0 -> Queue.checkout(queue, max_items: 4, timeout: 50)
        _ -> Queue.checkout(queue, timeout: 50)
      end

    case checked_out do
      :empty ->
        :ok

      {:ok, item, receipt} ->
        deliver(queue, log, start, [{item, receipt}], rem(round, 64) == 63)

      {:ok, items} ->
        deliver(queue, log, start, items, false)

      error ->
        raise "checkout: #{inspect(error)}"
    end

    consume(queue, log, round + 1)
  end

  defp deliver(queue, log, start, delivered, release?) do
    items = for {item, receipt} <- delivered, do: {parse!(item), Queue.attempts(receipt)}

    receipts = for {_item, receipt} <- delivered, do: receipt
    note(log, for({item, attempts} <- items, do: {@delivered, item, start, attempts}))

    kind =
      if release? do
        :ok = Queue.nack(queue, receipts)
        @released
      else
        :ok = Queue.ack(queue, receipts)
        @acknowledged
      end

    note(log, for({item, attempts} <- items, do: {kind, item, now(), attempts}))
    # What is live stays as it is, whoever has the item by now.
    for {item, _receipt} <- delivered, do: parse!(item)
  end

  defp log(logs, name), do: File.open!("#{logs}.#{name}", [:write, :raw])

  # One write, so that a kill does not tear it.
  defp note(log, records) do
    :ok =
      :file.write(
        log,
        for(
          {kind, {producer, number}, time, attempts} <- records,
          into: <<>>,
          do:
            <<kind::little-64, producer::little-64, number::little-64, time::little-64,
              attempts::little-64>>
        )
      )
  end

  defp now, do: System.os_time(:nanosecond)
end
