defmodule Outbox do
  @moduledoc """
  Forwards the items of an `Emmap.Queue` to a broker, in order, at least once. In a supervisor, after the queue:

      {Emmap.Queue, path: "/var/lib/shop/outbox.queue", name: :outbox, max_size: 64 * 1024 * 1024},
      {Outbox, queue: :outbox, broker: {Outbox.RabbitMQ, queues: ["orders"], host: ~c"broker.internal"}}

  Producers, in any process or VM: `Emmap.Queue.push(queue, {"orders", payload})`.

  A forwarder lives as long as its connection. It checks out a batch, publishes it, and acknowledges what the broker has
  confirmed. When it ends, for whatever reason, what it has not acknowledged is available again, in order, and the next
  forwarder starts after `:retry` milliseconds (1,000). It holds at most one batch, of `:max_items` (500) and `:max_bytes`
  (1 MB). Run one for a queue: two would mix the order.
  """
  use GenServer
  require Logger
  alias Emmap.Queue

  @doc "Connects, or exits. The calling process is the one that publishes."
  @callback connect(options :: keyword) :: channel :: term
  @doc "Publishes an item. A channel numbers its items from 1."
  @callback publish(channel :: term, item :: term) :: :ok | (reason :: term)
  @doc "Returns the numbers that the broker has confirmed or refused, or exits when the channel has ended."
  @callback confirmation(channel :: term, timeout) ::
              {:confirmed, Range.t()} | {:refused, Range.t()} | :none

  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  # The process that is supervised only starts forwarders, again and again.

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)
    defaults = %{max_items: 500, max_bytes: 1_000_000, retry: 1_000, forwarder: nil}
    {:ok, Enum.into(options, defaults), {:continue, :start}}
  end

  @impl true
  def handle_continue(:start, state) do
    {:noreply, %{state | forwarder: spawn_link(fn -> forward(state) end)}}
  end

  @impl true
  def handle_info(:start, state), do: {:noreply, state, {:continue, :start}}

  def handle_info({:EXIT, forwarder, reason}, %{forwarder: forwarder} = state) do
    Logger.warning("outbox: #{inspect(reason)}; next attempt in #{state.retry} ms")
    Process.send_after(self(), :start, state.retry)
    {:noreply, %{state | forwarder: nil}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: state.forwarder && Process.exit(state.forwarder, :shutdown)

  # The forwarder.

  defp forward(%{broker: {module, options}} = state) do
    # The one before may still be ending. The lock ends with its owner, what it has checked out a moment later.
    {:ok, %{path: path}} = Queue.info(state.queue)

    alone? =
      :global.set_lock({{__MODULE__, path}, self()}, [node()], 0) and
        none_checked_out?(state.queue)

    unless alone?, do: exit(:another_forwarder)

    # Batches begin small: of an item that ends every connection, few others share the attempts.
    batch(state, module, module.connect(options), 1, 1)
  end

  defp none_checked_out?(queue), do: match?({:ok, %{checked_out: 0}}, Queue.info(queue))

  defp batch(state, module, channel, number, max_items) do
    limits = [max_items: max_items, max_bytes: state.max_bytes, timeout: 1_000]

    case Queue.checkout(state.queue, limits) do
      {:ok, items} ->
        numbered =
          Enum.with_index(items, fn {item, receipt}, i -> {number + i, item, receipt} end)

        published =
          Enum.take_while(numbered, fn {_, item, _} -> published?(module, channel, item) end)

        receipts = for {number, _item, receipt} <- published, do: {number, receipt, false}
        :ok = acknowledge(state.queue, module, channel, receipts)
        if length(published) < length(items), do: exit(:not_published)
        batch(state, module, channel, number + length(items), min(2 * max_items, state.max_items))

      :empty ->
        # Exits when the channel has ended.
        :none = module.confirmation(channel, 0)
        batch(state, module, channel, number, max_items)

      {:error, {:corrupt, position}} ->
        # The call has moved past the damaged item, and what follows is intact.
        Logger.error("outbox: the item at #{position} is damaged")
        batch(state, module, channel, number, max_items)

      {:error, reason} ->
        exit({:queue, reason})
    end
  end

  defp published?(module, channel, item) do
    module.publish(channel, item) == :ok
  catch
    kind, reason ->
      Logger.error("outbox: #{Exception.format(kind, reason, __STACKTRACE__)}")
      false
  end

  # Acknowledges in order: an item whose confirmation overtook another's waits for that one.
  defp acknowledge(_queue, _module, _channel, []), do: :ok

  defp acknowledge(queue, module, channel, pending) do
    case module.confirmation(channel, :infinity) do
      {:confirmed, numbers} ->
        marked =
          for {number, receipt, done?} <- pending,
              do: {number, receipt, done? or number in numbers}

        {done, pending} = Enum.split_while(marked, fn {_, _, done?} -> done? end)
        # `:gone`: `clear/1` or `full: :drop_oldest` has dropped it meanwhile.
        ack = Queue.ack(queue, for({_, receipt, _} <- done, do: receipt))
        if ack not in [:ok, {:error, :gone}], do: exit({:queue, ack})
        acknowledge(queue, module, channel, pending)

      {:refused, numbers} ->
        # It and all behind it are published again.
        before = Enum.take_while(pending, fn {number, _, _} -> number not in numbers end)
        :ok = acknowledge(queue, module, channel, before)
        exit(:refused)
    end
  end
end
