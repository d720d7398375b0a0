defmodule OutboxBrokerTest do
  # `make test-broker`: the example with a real RabbitMQ. MESSAGES, KILLS and RESTARTS make it longer or shorter; SIGNAL=kill
  # kills the broker, too.
  use ExUnit.Case, async: false
  alias Emmap.Queue
  alias Emmap.Test.RabbitMQ

  @moduletag :broker
  @moduletag :capture_log
  @moduletag :tmp_dir
  @moduletag timeout: 3_600_000

  @project Path.expand("../../examples/outbox", __DIR__)
  @scripts Path.expand("outbox", __DIR__)

  @producers 4
  # What the forwarder may have in flight, and how large the queue may be: some 1,000 items.
  @max_items 200
  @max_size 131_072
  @segment_size 65_536

  unless RabbitMQ.home() do
    @moduletag skip: "no RabbitMQ"
    if :broker in ExUnit.configuration()[:include], do: IO.puts(RabbitMQ.missing())
  end

  setup_all do
    {:ok, _} = Application.ensure_all_started(:logger)
    build = Path.join(System.tmp_dir!(), "emmap_outbox_#{System.pid()}")
    compile!(build)
    on_exit(fn -> File.rm_rf!(build) end)

    for ebin <- Path.wildcard(Path.join(RabbitMQ.libraries(), "*/ebin")),
        do: Code.append_path(ebin)

    ebin = Path.join(build, "lib/outbox/ebin")
    Code.append_path(ebin)
    {:ok, _} = Application.ensure_all_started(:amqp_client)
    Code.require_file(Path.join(@scripts, "client.exs"))
    {:ok, ebin: ebin, client: OutboxTest.Client}
  end

  # As its user would, warnings being errors.
  defp compile!(build) do
    env = [{"MIX_ENV", "prod"}, {"MIX_BUILD_PATH", build}, {"ERL_LIBS", RabbitMQ.libraries()}]
    options = [cd: @project, env: env, stderr_to_stdout: true]
    {output, status} = System.cmd("mix", ["compile", "--warnings-as-errors"], options)
    assert status == 0, output
  end

  setup %{tmp_dir: directory} do
    {:ok, path: Path.join(directory, "outbox.queue"), server: Path.join(directory, "server")}
  end

  test "kills of pushing and forwarding VMs and restarts of the broker lose nothing", context do
    messages = setting("MESSAGES", 100_000)
    kills = setting("KILLS", 50)
    restarts = setting("RESTARTS", 10)
    seed = setting("SEED", :rand.uniform(1_000_000))
    :rand.seed(:exsss, {seed, seed, seed})
    started = System.monotonic_time(:millisecond)

    each = div(messages, @producers)
    queue = Queue.open!(context.path, segment_size: @segment_size)
    watch = watch(queue, context.path)

    world = %{
      queue: queue,
      path: context.path,
      ebin: context.ebin,
      count: each,
      directory: context.tmp_dir,
      broker: RabbitMQ.start!(context.server)
    }

    world = world |> start(:pusher) |> start(:forwarder)
    kinds = for n <- 1..kills//1, do: if(rem(n, 2) == 0, do: :pusher, else: :forwarder)
    events = Enum.shuffle(kinds ++ List.duplicate(:broker, restarts))

    world =
      events
      |> Enum.with_index(1)
      |> Enum.map(fn {event, n} -> {event, n / (length(events) + 1)} end)
      |> happen(world)

    assert wait_for_end(world.pusher) == 0
    wait_until_empty(world)
    memory = peak_memory(world.forwarder)
    RabbitMQ.kill!(world.forwarder)
    arrived = context.client.drain(world.broker.port, "orders")
    RabbitMQ.end!(world.broker)

    found = judge(arrived)
    interruptions = Enum.count(kinds, &(&1 == :forwarder)) + restarts
    {bytes, file} = largest(watch)
    seconds = div(System.monotonic_time(:millisecond) - started, 1_000)

    IO.puts("""

    seed #{seed}: #{messages} messages of #{@producers} producers, #{kills} kills, #{restarts} restarts, #{seconds} s
      arrived #{length(arrived)}, of these again #{found.again}, in #{length(found.rewinds)} pieces of at most \
    #{Enum.max(found.rewinds, fn -> 0 end)}
      the queue had at most #{bytes} bytes, its file #{file}; the forwarder's VM at the end #{memory} kB at most
    """)

    # Each message, and each producer's in order.
    for producer <- 1..@producers do
      assert found.first[producer] == Enum.to_list(1..each)
    end

    # Again came only what was in flight at an interruption.
    assert Enum.all?(found.rewinds, &(&1 <= @max_items))
    assert length(found.rewinds) <= interruptions

    # The queue became full and no larger: with the rest of a segment that the next record does not fit in, and the file with
    # its header, a segment that is being filled, and one for what is checked out.
    assert restarts == 0 or bytes > @max_size - 300
    assert bytes <= @max_size + 300
    assert file <= 262_144 + @max_size + 2 * @segment_size
  end

  test "a queue that is deleted is declared again, and nothing is lost", context do
    broker = RabbitMQ.start!(context.server)
    queue = Queue.open!(context.path)
    outbox!(queue, broker)
    push(queue, 1..1_000)
    wait_until_empty(%{queue: queue})
    assert length(context.client.drain(broker.port, "orders")) == 1_000
    context.client.delete(broker.port, "orders")
    push(queue, 1_001..2_000)
    wait_until_empty(%{queue: queue})
    assert context.client.drain(broker.port, "orders") == for(n <- 1_001..2_000, do: "#{n}")
    RabbitMQ.end!(broker)
  end

  test "what the broker refuses is set aside, and what is behind it arrives", context do
    broker = RabbitMQ.start!(context.server)
    queue = Queue.open!(context.path, max_attempts: 20)
    push(queue, 1..100)
    # Its routing key is too long for the protocol; this one is not a message.
    :ok = Queue.push(queue, {String.duplicate("k", 300), "payload"})
    :ok = Queue.push(queue, :no_message)
    push(queue, 101..200)
    outbox!(queue, broker)
    wait_until_empty(%{queue: queue})
    assert [{{_, "payload"}, 20}, {:no_message, 20}] = Queue.dead_letters(queue)
    arrived = context.client.drain(broker.port, "orders")
    assert Enum.uniq(arrived) == for(n <- 1..200, do: "#{n}")
    RabbitMQ.end!(broker)
  end

  test "a broker that accepts nothing for a while, its memory being full", context do
    broker = RabbitMQ.start!(context.server)
    queue = Queue.open!(context.path)
    outbox!(queue, broker)
    push(queue, 1..1_000)
    wait_until_empty(%{queue: queue})
    RabbitMQ.ctl!(broker, ~w(set_vm_memory_high_watermark absolute 1))
    push(queue, 1_001..5_000)
    # Longer than it takes to notice that a connection is dead.
    Process.sleep(25_000)
    assert {:ok, %{checked_out: checked_out, length: length}} = Queue.info(queue)
    assert checked_out in 1..500 and checked_out + length == 4_000
    RabbitMQ.ctl!(broker, ~w(set_vm_memory_high_watermark 0.4))
    wait_until_empty(%{queue: queue})
    arrived = context.client.drain(broker.port, "orders")
    assert Enum.uniq(arrived) == for(n <- 1..5_000, do: "#{n}")
    RabbitMQ.end!(broker)
  end

  test "a connection ends with its forwarder", context do
    broker = RabbitMQ.start!(context.server)
    queue = Queue.open!(context.path)
    outbox = outbox!(queue, broker)

    for n <- 1..5 do
      push(queue, [n])
      wait_until_empty(%{queue: queue})
      Process.exit(:sys.get_state(outbox).forwarder, :kill)
    end

    push(queue, [6])
    wait_until_empty(%{queue: queue})
    wait(fn -> connections() == 1 end)
    stop_supervised!(Outbox)
    wait(fn -> connections() == 0 end)

    # One that is being opened, too.
    for _ <- 1..20 do
      outbox!(queue, broker)
      Process.sleep(:rand.uniform(10))
      stop_supervised!(Outbox)
    end

    wait(fn -> connections() == 0 end)
    RabbitMQ.end!(broker)
  end

  defp setting(name, default), do: String.to_integer(System.get_env(name, "#{default}"))

  # Whether the broker is stopped or killed.
  defp signal,
    do: Map.fetch!(%{"term" => :term, "kill" => :kill}, System.get_env("SIGNAL", "term"))

  defp outbox!(queue, broker) do
    broker = {Outbox.RabbitMQ, port: broker.port, queues: ["orders"]}
    start_supervised!({Outbox, queue: queue, broker: broker, retry: 20})
  end

  defp push(queue, numbers),
    do: {:ok, _} = Queue.push_many(queue, for(n <- numbers, do: {"orders", "#{n}"}))

  defp connections, do: length(Supervisor.which_children(:amqp_sup))

  # The VMs

  defp start(world, :pusher) do
    arguments = [world.path, "#{@producers}", "#{world.count}", "#{@max_size}"]
    Map.put(world, :pusher, elixir(world, "pusher", arguments))
  end

  defp start(world, :forwarder) do
    arguments = [world.path, "#{world.broker.port}", "#{@max_items}"]
    Map.put(world, :forwarder, elixir(world, "forwarder", arguments))
  end

  defp elixir(world, script, arguments) do
    paths = ["-pa", Application.app_dir(:emmap, "ebin"), "-pa", world.ebin]
    arguments = paths ++ [Path.join(@scripts, "#{script}.exs") | arguments]
    env = [{"ERL_LIBS", RabbitMQ.libraries()}, {"ERL_CRASH_DUMP", "/dev/null"}, {"MIX_ENV", nil}]
    output = Path.join(world.directory, "#{script}.log")
    RabbitMQ.spawn!(System.find_executable("elixir"), arguments, env, output)
  end

  # What happens to them, each when so much of all messages has been taken from the queue.

  defp happen([], world), do: world

  defp happen([{:broker, share} | rest], world) do
    wait_for_progress(world, share)
    world = %{world | broker: RabbitMQ.stop!(world.broker, signal())}
    # Away until the queue is full, and through the next kill.
    wait(fn -> Queue.bytes(world.queue) > @max_size - 300 end)

    {rest, world} =
      case rest do
        [{kind, _} | rest] when kind != :broker -> {rest, kill(world, kind)}
        rest -> {rest, world}
      end

    Process.sleep(:rand.uniform(1_000))
    happen(rest, %{world | broker: RabbitMQ.start!(world.broker)})
  end

  defp happen([{kind, share} | rest], world) do
    wait_for_progress(world, share)
    Process.sleep(:rand.uniform(50))
    happen(rest, kill(world, kind))
  end

  defp kill(world, kind) do
    refute RabbitMQ.ended?(world[kind]), "the #{kind} has ended, see #{world.directory}"
    RabbitMQ.kill!(world[kind])
    start(world, kind)
  end

  defp wait_for_progress(world, share) do
    wait(fn ->
      {:ok, info} = Queue.info(world.queue)
      # All records are about as long as these.
      count = info.length + info.checked_out
      taken = if count > 100, do: (info.tail - info.bytes) / (info.bytes / count), else: 0
      # While producers have more to push than the queue can hold.
      taken >= share * (world.count * @producers - 2_000)
    end)
  end

  defp wait_until_empty(world),
    do: wait(fn -> match?({:ok, %{length: 0, checked_out: 0}}, Queue.info(world.queue)) end)

  defp wait_for_end(%{port: port}) do
    receive do
      {^port, {:exit_status, status}} -> status
    after
      600_000 -> flunk("the pusher does not end")
    end
  end

  defp wait(condition, left \\ 60_000) do
    cond do
      condition.() -> :ok
      left == 0 -> flunk("waited in vain")
      true -> Process.sleep(5) && wait(condition, left - 1)
    end
  end

  # How large the queue and its file have been, looked at all the time.

  defp watch(queue, path), do: Task.async(fn -> watch(queue, path, 0, 0) end)

  defp watch(queue, path, bytes, file) do
    bytes = max(bytes, Queue.bytes(queue))
    file = max(file, File.stat!(path).size)

    receive do
      :stop -> {bytes, file}
    after
      1 -> watch(queue, path, bytes, file)
    end
  end

  defp largest(watch) do
    send(watch.pid, :stop)
    Task.await(watch)
  end

  defp peak_memory(%{pid: pid}) do
    case File.read("/proc/#{pid}/status") do
      {:ok, status} -> ~r/VmHWM:\s+(\d+)/ |> Regex.run(status) |> Enum.at(1)
      _ -> "?"
    end
  end

  # What arrived

  defp judge(arrived) do
    items =
      for payload <- arrived do
        [producer, number, _] = String.split(payload, " ")
        {String.to_integer(producer), String.to_integer(number)}
      end

    # Each item has the place of its first arrival.
    {places, _} =
      Enum.map_reduce(items, %{}, fn item, seen ->
        place = Map.get(seen, item, map_size(seen))
        {place, Map.put_new(seen, item, place)}
      end)

    rewinds =
      for [before, next] <- Enum.chunk_every(places, 2, 1, :discard),
          next <= before,
          do: before - next + 1

    first = items |> Enum.uniq() |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    again = length(items) - (first |> Map.values() |> Enum.map(&length/1) |> Enum.sum())
    %{first: first, rewinds: rewinds, again: again}
  end
end
