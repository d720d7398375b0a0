# The example is not compiled with the library. What needs RabbitMQ's client is tested by outbox_broker_test.exs.
Code.require_file("../../examples/outbox/lib/outbox.ex", __DIR__)

defmodule OutboxTest.Broker do
  # A broker without a network. `plan` says what becomes of each item that arrives: `:confirm`, `:hold` (stored, and confirmed
  # only by `confirm/2`), `:refuse`, or `:end` (the channel ends).
  @behaviour Outbox
  use GenServer

  def start_link(plan), do: GenServer.start_link(__MODULE__, plan)
  def plan(broker, plan), do: GenServer.call(broker, {:plan, plan})
  def leave(broker), do: GenServer.call(broker, :leave)
  def return(broker), do: GenServer.call(broker, :return)
  def confirm(broker, numbers), do: GenServer.call(broker, {:confirm, numbers})
  def stored(broker), do: GenServer.call(broker, :stored)
  def connections(broker), do: GenServer.call(broker, :connections)

  # The channel

  @impl Outbox
  def connect(broker: broker) do
    case GenServer.call(broker, :connect) do
      {:ok, channel} ->
        Process.monitor(channel)
        channel

      {:error, reason} ->
        exit(reason)
    end
  end

  @impl Outbox
  def publish(_channel, :cannot_be_published), do: raise("cannot be published")
  def publish(channel, item), do: GenServer.call(channel, {:publish, item})

  @impl Outbox
  def confirmation(channel, timeout) do
    receive do
      {^channel, answer} -> answer
      {:DOWN, _, :process, ^channel, reason} -> exit(reason)
    after
      timeout -> :none
    end
  end

  defmodule Channel do
    use GenServer

    @impl true
    def init({broker, owner}), do: {:ok, %{broker: broker, owner: owner, number: 0}}

    @impl true
    def handle_call({:publish, item}, _from, state) do
      state = %{state | number: state.number + 1}
      numbers = state.number..state.number

      case GenServer.call(state.broker, {:arrived, item}) do
        :confirm -> send(state.owner, {self(), {:confirmed, numbers}})
        :refuse -> send(state.owner, {self(), {:refused, numbers}})
        :hold -> :ok
        :end -> exit(:normal)
      end

      {:reply, :ok, state}
    end

    @impl true
    def handle_info({:confirm, numbers}, state) do
      send(state.owner, {self(), {:confirmed, numbers}})
      {:noreply, state}
    end
  end

  # The broker

  @impl GenServer
  def init(plan), do: {:ok, %{plan: plan, up: true, stored: [], channel: nil, connections: 0}}

  @impl GenServer
  def handle_call({:plan, plan}, _from, state), do: {:reply, :ok, %{state | plan: plan}}
  def handle_call(:return, _from, state), do: {:reply, :ok, %{state | up: true}}
  def handle_call(:stored, _from, state), do: {:reply, Enum.reverse(state.stored), state}
  def handle_call(:connections, _from, state), do: {:reply, state.connections, state}

  def handle_call(:leave, _from, state) do
    if state.channel, do: Process.exit(state.channel, :kill)
    {:reply, :ok, %{state | up: false}}
  end

  def handle_call({:confirm, numbers}, _from, state) do
    send(state.channel, {:confirm, numbers})
    {:reply, :ok, state}
  end

  def handle_call(:connect, _from, %{up: false} = state), do: {:reply, {:error, :away}, state}

  def handle_call(:connect, {owner, _}, state) do
    {:ok, channel} = GenServer.start(Channel, {self(), owner})
    {:reply, {:ok, channel}, %{state | channel: channel, connections: state.connections + 1}}
  end

  # Of a channel whose owner has died, and after which another was opened.
  def handle_call({:arrived, _item}, {channel, _}, %{channel: current} = state)
      when channel != current,
      do: {:reply, :end, state}

  def handle_call({:arrived, item}, _from, state) do
    case state.plan.(item) do
      action when action in [:confirm, :hold] ->
        {:reply, action, %{state | stored: [item | state.stored]}}

      action ->
        {:reply, action, state}
    end
  end
end

defmodule OutboxTest do
  use ExUnit.Case, async: true
  alias Emmap.Queue
  alias OutboxTest.Broker

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    # What it logs comes here, and not on the screen.
    test = self()

    here = fn event, _ ->
      text = inspect(event, limit: :infinity, printable_limit: :infinity)
      if text =~ ~r/outbox: |OutboxTest/, do: send(test, {:logged, text}) && :stop, else: :ignore
    end

    :ok = :logger.add_primary_filter(__MODULE__, {here, []})
    on_exit(fn -> :logger.remove_primary_filter(__MODULE__) end)

    queue = Queue.open!(Path.join(directory, "outbox.queue"))
    {:ok, queue: queue, broker: start_supervised!({Broker, fn _ -> :confirm end})}
  end

  defp outbox!(context, options \\ []) do
    options =
      [queue: context.queue, broker: {Broker, broker: context.broker}, retry: 5] ++ options

    start_supervised!({Outbox, options})
  end

  defp push(queue, items), do: {:ok, _} = Queue.push_many(queue, items)

  # With a deadline.
  defp wait(condition, left \\ 12_000) do
    cond do
      condition.() -> :ok
      left == 0 -> flunk("waited in vain")
      true -> Process.sleep(5) && wait(condition, left - 1)
    end
  end

  defp wait_for_stored(broker, count), do: wait(fn -> length(Broker.stored(broker)) >= count end)

  defp wait_until_empty(queue) do
    wait(fn -> match?({:ok, %{length: 0, checked_out: 0}}, Queue.info(queue)) end)
  end

  test "compiles without warnings", %{tmp_dir: directory} do
    ebin = Application.app_dir(:emmap, "ebin")
    source = "examples/outbox/lib/outbox.ex"
    arguments = ["-pa", ebin, "--warnings-as-errors", "-o", directory, source]
    assert {_, 0} = System.cmd("elixirc", arguments, stderr_to_stdout: true)
    # The rest needs the client; but it can be read.
    assert {:ok, _} = Code.string_to_quoted(File.read!("examples/outbox/lib/outbox/rabbit_mq.ex"))
  end

  test "everything arrives, in order, and is acknowledged",
       %{queue: queue, broker: broker} = context do
    push(queue, 1..5_000)
    outbox!(context)
    wait_until_empty(queue)
    push(queue, 5_001..6_000)
    wait_until_empty(queue)
    assert Broker.stored(broker) == Enum.to_list(1..6_000)
    assert Broker.connections(broker) == 1
  end

  test "while the broker is away nothing is taken, and then it goes on", context do
    %{queue: queue, broker: broker} = context
    Broker.leave(broker)
    push(queue, 1..100)

    outbox!(context)
    assert_receive {:logged, log}, 30_000
    assert log =~ ":away; next attempt in 5 ms"
    assert {:ok, %{length: 100, checked_out: 0}} = Queue.info(queue)
    Broker.return(broker)
    wait_until_empty(queue)

    # An idle forwarder notices, too.
    Broker.leave(broker)
    Broker.return(broker)
    wait(fn -> Broker.connections(broker) == 2 end)
    push(queue, 101..200)
    wait_until_empty(queue)
    assert Broker.stored(broker) == Enum.to_list(1..200)
  end

  test "a batch is in flight and no more", %{queue: queue, broker: broker} = context do
    # After batches of 1, 2, 4, 8, 16, 32.
    Broker.plan(broker, &if(&1 <= 63, do: :confirm, else: :hold))
    push(queue, 1..1_000)
    outbox!(context, max_items: 50)
    wait_for_stored(broker, 113)
    Process.sleep(50)
    assert Broker.stored(broker) == Enum.to_list(1..113)
    assert {:ok, %{length: 887, checked_out: 50}} = Queue.info(queue)

    # What is confirmed is acknowledged.
    Broker.confirm(broker, 1..93)
    wait(fn -> elem(Queue.info(queue), 1).checked_out == 20 end)
    Broker.plan(broker, fn _ -> :confirm end)
    Broker.confirm(broker, 94..113)
    wait_until_empty(queue)
    assert Broker.stored(broker) == Enum.to_list(1..1_000)
  end

  test "a large item is a batch of its own", %{queue: queue, broker: broker} = context do
    large = :binary.copy("x", 1_000)
    Broker.plan(broker, fn {n, _} -> if n == 1, do: :confirm, else: :hold end)
    push(queue, for(n <- 1..5, do: {n, large}))
    outbox!(context, max_bytes: 500)
    wait_for_stored(broker, 2)
    Process.sleep(50)
    assert {:ok, %{length: 3, checked_out: 1}} = Queue.info(queue)
    assert length(Broker.stored(broker)) == 2
  end

  test "what was not confirmed when the connection ended comes again, in order", context do
    %{queue: queue, broker: broker} = context
    Broker.plan(broker, &if(&1 <= 15, do: :confirm, else: :hold))
    push(queue, 1..100)
    outbox!(context, max_items: 10)
    wait_for_stored(broker, 25)
    # The confirmation of 20 overtakes those of 18 and 19, which never come.
    Broker.confirm(broker, 16..17)
    Broker.confirm(broker, 20..20)
    wait(fn -> elem(Queue.info(queue), 1).checked_out == 8 end)
    Broker.leave(broker)
    wait(fn -> match?({:ok, %{length: 83, checked_out: 0}}, Queue.info(queue)) end)
    Broker.plan(broker, fn _ -> :confirm end)
    Broker.return(broker)
    wait_until_empty(queue)
    assert Broker.stored(broker) == Enum.concat(1..25, 18..100)
  end

  test "a confirmation that overtakes another one waits for it", context do
    %{queue: queue, broker: broker} = context
    Broker.plan(broker, &if(&1 == 1, do: :confirm, else: :hold))
    push(queue, 1..3)
    outbox!(context)
    wait_for_stored(broker, 3)
    Broker.confirm(broker, 3..3)
    Process.sleep(50)
    assert elem(Queue.info(queue), 1).checked_out == 2
    Broker.confirm(broker, 2..2)
    wait_until_empty(queue)
    assert Broker.stored(broker) == [1, 2, 3]
  end

  test "what is refused comes again, with all behind it, and what is before it does not",
       context do
    %{queue: queue, broker: broker} = context
    test = self()

    Broker.plan(broker, fn n ->
      if n == 20 and not Process.get(:refused, false) do
        Process.put(:refused, true)
        send(test, :refused)
        :refuse
      else
        :confirm
      end
    end)

    push(queue, 1..30)
    outbox!(context)
    assert_receive :refused, 30_000
    wait_until_empty(queue)
    assert Broker.stored(broker) == Enum.concat([1..19, 21..30, 20..30])
  end

  test "a forwarder that is killed loses nothing and keeps the order", context do
    %{queue: queue, broker: broker} = context
    push(queue, 1..20_000)
    outbox!(context, max_items: 100)

    kills =
      for kill <- 1..20 do
        # At some point of the work, which the last kill does not see done.
        wait_for_stored(broker, kill * 500)
        %{forwarder: forwarder} = :sys.get_state(outbox())
        victim = if rem(kill, 2) == 0 or forwarder == nil, do: outbox(), else: forwarder
        Process.exit(victim, :kill)
        wait(fn -> (pid = outbox()) && pid != victim && Process.alive?(pid) end)
      end

    assert length(kills) == 20
    wait_until_empty(queue)
    stored = Broker.stored(broker)
    assert Enum.uniq(stored) == Enum.to_list(1..20_000)
    assert length(stored) - 20_000 <= 20 * 100
    assert Enum.max([0 | rewinds(stored)]) <= 100
  end

  defp rewinds(stored) do
    for [before, next] <- Enum.chunk_every(stored, 2, 1, :discard),
        next <= before,
        do: before - next + 1
  end

  defp outbox do
    {:ok, supervisor} = ExUnit.fetch_test_supervisor()

    Enum.find_value(Supervisor.which_children(supervisor), fn {id, pid, _, _} ->
      id == Outbox && is_pid(pid) && pid
    end)
  end

  test "an item that can never be sent is set aside, alone", %{tmp_dir: directory} = context do
    queue = Queue.open!(Path.join(directory, "careful.queue"), max_attempts: 5)

    for {poison, plan} <- [
          {:cannot_be_published, fn _ -> :confirm end},
          {:ends_the_channel, &if(&1 == :ends_the_channel, do: :end, else: :confirm)},
          {:is_refused, &if(&1 == :is_refused, do: :refuse, else: :confirm)}
        ] do
      broker = start_supervised!({Broker, plan}, id: poison)
      push(queue, Enum.to_list(1..50) ++ [poison] ++ Enum.to_list(51..100))
      outbox!(%{context | queue: queue, broker: broker})
      wait_until_empty(queue)
      assert {poison, [{poison, 5}]} == {poison, Queue.dead_letters(queue)}
      assert {:ok, ^poison} = Queue.pop_dead_letter(queue)
      assert broker |> Broker.stored() |> Enum.uniq() |> Enum.sort() == Enum.to_list(1..100)
      stop_supervised!(Outbox)
    end
  end

  test "two for a queue take turns", %{queue: queue, broker: broker} = context do
    Broker.plan(broker, fn _ -> :hold end)
    push(queue, 1..10)
    outbox!(context)
    wait_for_stored(broker, 1)
    second = %{broker: start_supervised!({Broker, fn _ -> :confirm end}, id: :second)}
    options = [queue: queue, broker: {Broker, broker: second.broker}, retry: 5]
    start_supervised!({Outbox, options}, id: :second_outbox)
    assert_receive {:logged, log}, 30_000
    assert log =~ ":another_forwarder"
    assert Broker.connections(second.broker) == 0
    :ok = stop_supervised(Outbox)
    wait_until_empty(queue)
    assert Broker.stored(second.broker) == Enum.to_list(1..10)
  end

  test "a supervisor ends it, and what it held is available", context do
    %{queue: queue, broker: broker} = context
    Broker.plan(broker, fn _ -> :hold end)
    push(queue, 1..10)
    outbox!(context)
    wait_for_stored(broker, 1)
    :ok = stop_supervised(Outbox)
    wait(fn -> match?({:ok, %{length: 10, checked_out: 0}}, Queue.info(queue)) end)
  end

  test "a damaged item is passed, and those behind it are sent",
       %{tmp_dir: directory} = context do
    path = Path.join(directory, "damaged.queue")
    queue = Queue.open!(path)
    items = for n <- 1..20, do: {n, "payload #{n} of the item"}
    push(queue, items)
    :ok = Queue.close(queue)
    bytes = File.read!(path)
    {at, _} = :binary.match(bytes, "payload 7 of")
    {:ok, file} = :file.open(path, [:raw, :binary, :read, :write])
    :ok = :file.pwrite(file, at, "q")
    :ok = :file.close(file)

    queue = Queue.open!(path)
    outbox!(%{context | queue: queue})
    wait_until_empty(queue)
    assert_receive {:logged, log}, 30_000
    assert log =~ ~r/the item at \d+ is damaged/
    assert Broker.stored(context.broker) == List.delete_at(items, 6)
  end
end
