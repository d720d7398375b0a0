# Queues compared with ets, the external term format, disk_log, dets and a futex, in one run. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Queue do
  import Bench
  alias Emmap.Queue

  @term {:event, 12345, "some payload of a message in a queue", [:a, :b, :c]}
  @raw String.duplicate("x", 75)
  @manifest Path.expand("../native/Cargo.toml", __DIR__)

  loop(empty(x, n), do: _ = x)
  loop(update_counter(table, n), do: _ = :ets.update_counter(table, 1, 1))
  loop(external(term, n), do: _ = :erlang.binary_to_term(:erlang.term_to_binary(term)))
  loop(push(q, item, n), do: :ok = Queue.push(q, item))
  loop(pop(q, n), do: {:ok, _} = Queue.pop(q))
  loop(log(log, n), do: :ok = :disk_log.log(log, @raw))
  loop(insert(table, n), do: :ok = :dets.insert(table, {n, @raw}))
  loop(push_many(q, items, n), do: {:ok, _} = Queue.push_many(q, items))
  loop(pop_many(q, n), do: {:ok, _} = Queue.pop_many(q, max_items: 1000))
  loop(durable(q, n), do: :ok = Queue.push(q, @raw, durable: true))

  loop push_pop(q, item, n) do
    :ok = Queue.push(q, item)
    {:ok, _} = Queue.pop(q)
  end

  loop checkout_ack(q, n) do
    {:ok, _item, receipt} = Queue.checkout(q)
    :ok = Queue.ack(q, receipt)
  end

  loop checkout_ack_many(q, n) do
    {:ok, items} = Queue.checkout(q, max_items: 1000)
    :ok = Queue.ack(q, for({_, receipt} <- items, do: receipt))
  end

  @calls 100_000
  @rounds 40

  def run(folder) do
    q = Queue.open!(Path.join(folder, "queue"), format: :binary)
    terms = Queue.open!(Path.join(folder, "terms"))
    table = :ets.new(:counters, [:public])
    :ets.insert(table, {1, 0})
    {:ok, log} = :disk_log.open(name: :bench, file: to_charlist(Path.join(folder, "log")))
    {:ok, dets} = :dets.open_file(:bench, file: to_charlist(Path.join(folder, "dets")))

    header("ns, best of #{rounds(@rounds)} rounds", "queue", "the other")
    empty = compare([{:empty, @calls, &empty(q, &1)}], @rounds).empty

    for {name, ours, theirs, calls, limit} <- [
          {"push, pop 75 B : ets.update_counter", &push_pop(q, @raw, &1),
           &update_counter(table, &1), @calls, 1.3},
          {"push, pop a term : its own format", &push_pop(terms, @term, &1), &external(@term, &1),
           @calls, 1.3},
          {"push, pop 75 B : disk_log.log", &push_pop(q, @raw, &1), &log(log, &1),
           div(@calls, 20), 0.5},
          {"push, pop 75 B : dets.insert", &push_pop(q, @raw, &1), &insert(dets, &1),
           div(@calls, 20), 0.5}
        ] do
      result = compare([{:ours, calls, ours}, {:theirs, calls, theirs}], @rounds)
      row(name, result.ours - empty, result.theirs - empty, limit)
    end

    :disk_log.close(log)
    :dets.close(dets)
    taking(q)
    live(folder)
    adding(q)
    durably(folder)
    waiting(folder)
    long(folder)
  end

  defp fill(q, count) do
    Queue.clear(q)
    {:ok, ^count} = Queue.push_many(q, List.duplicate(@raw, count))
  end

  defp taking(q) do
    count = amount(10_000)

    side = fn name, fun, calls ->
      {name,
       fn ->
         fill(q, count)
         time(fun, calls) * calls / count
       end}
    end

    result =
      best(@rounds, [
        side.(:pop, &pop(q, &1), count),
        side.(:checkout, &checkout_ack(q, &1), count),
        side.(:pop_many, &pop_many(q, &1), ceil(count / 1000)),
        side.(:checkout_many, &checkout_ack_many(q, &1), ceil(count / 1000))
      ])

    row("checkout, ack : pop", result.checkout, result.pop, 2)
    row("pop_many of 1,000, an item : pop", result.pop_many, result.pop)
    row("a batch of 1,000, acknowledged : pop_many", result.checkout_many, result.pop_many)
  end

  # Payloads that are not copied, and are collected with the process that has popped them.
  defp live(folder) do
    path = Path.join(folder, "live")

    [copied, direct] =
      for direct <- [false, true], do: Queue.open!(path, format: :binary, direct: direct)

    for size <- [64, 1024] do
      count = amount(div(8192, size))
      payload = :binary.copy("x", size * 1024)

      side = fn name, q ->
        {name,
         fn ->
           {:ok, ^count} = Queue.push_many(q, List.duplicate(payload, count))
           time(&pop(q, &1), count)
         end}
      end

      result = best(@rounds, [side.(:direct, direct), side.(:copied, copied)])
      row("pop #{size} KiB, live : copied", result.direct, result.copied, 1)
    end

    Enum.each([copied, direct], &Queue.close/1)
  end

  defp adding(q) do
    count = amount(10_000)
    items = List.duplicate(@raw, min(1000, count))

    side = fn name, fun, calls ->
      {name,
       fn ->
         Queue.clear(q)
         time(fun, calls) * calls / count
       end}
    end

    result =
      best(@rounds, [
        side.(:push, &push(q, @raw, &1), count),
        side.(:push_many, &push_many(q, items, &1), div(count, length(items)))
      ])

    row("push_many of 1,000, an item : push", result.push_many, result.push, 0.5)

    # The longest that a call may hold up its scheduler: as many items, and as many bytes, as one may have.
    largest = List.duplicate(:binary.copy("x", 131), 500)

    longest =
      best(@rounds, [
        {:push,
         fn ->
           Queue.clear(q)
           time(fn 1 -> {:ok, 500} = Queue.push_many(q, largest) end, 1)
         end},
        {:pop, fn -> time(fn 1 -> {:ok, _} = Queue.pop_many(q, max_items: 500) end, 1) end}
      ])

    Queue.clear(q)
    row("push_many of 500 items, 64 KiB : 1 ms", longest.push, 1_000_000, 1)
  end

  defp durably(folder) do
    q = Queue.open!(Path.join(folder, "durable"), format: :binary)
    calls = amount(160)

    many = fn callers ->
      together(for _ <- 1..callers, do: fn -> durable(q, calls) end) * 1000 / (callers * calls)
    end

    result = best(5, one: fn -> many.(1) end, many: fn -> many.(64) end)
    row("a durable push of 64 callers : of one", result.many, result.one, 0.05)
    Queue.close(q)
  end

  # A VM that sends back what it gets, by another queue.
  defp waiting(folder) do
    [there, back] = for name <- ["there", "back"], do: Path.join(folder, name)
    [to, from] = for path <- [there, back], do: Queue.open!(path, format: :binary)
    {port, pid} = start("Bench.Queue.echo(#{inspect(there)}, #{inspect(back)})")
    {:ok, "ready"} = Queue.pop(from, :infinity)

    trips =
      for _ <- 1..amount(1600) do
        # By then the other one waits, and so do threads that have waited before.
        Process.sleep(1)
        start = System.monotonic_time()
        :ok = Queue.push(to, @raw)
        {:ok, @raw} = Queue.pop(from, :infinity)
        System.monotonic_time() - start
      end

    median = trips |> Enum.sort() |> Enum.at(div(length(trips), 2))
    median = System.convert_time_unit(median, :native, :nanosecond)
    row("a wake in another VM : of a futex", median / 2, futex() / 2, 3)
    idle = cpu(pid)
    Process.sleep(2000)
    used = cpu(pid) - idle

    IO.puts([
      pad("CPU of a waiting pop in 2 s", 36),
      left("#{used} ms", 12),
      left("at most 10", 30)
    ])

    System.cmd("kill", ["-9", "#{pid}"])
    receive do: ({^port, {:exit_status, _}} -> :ok)
    Enum.each([to, from], &Queue.close/1)
  end

  @doc "Of the other VM."
  def echo(there, back) do
    [from, to] = for path <- [there, back], do: Queue.open!(path, format: :binary)
    :ok = Queue.push(to, "ready")
    echo_each(from, to)
  end

  defp echo_each(from, to) do
    {:ok, item} = Queue.pop(from, :infinity)
    :ok = Queue.push(to, item)
    echo_each(from, to)
  end

  defp start(code) do
    require = "Code.require_file(#{inspect(__ENV__.file)})"
    code = "System.put_env(\"EMMAP_BENCH_COMPILE\", \"1\"); #{require}; #{code}"
    ebin = Application.app_dir(:emmap, "ebin")
    erl = "+sbwt none +sbwtdcpu none +sbwtdio none"

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        args: ["--erl", erl, "-pa", ebin, "-e", code]
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    {port, pid}
  end

  # Nanoseconds of a round trip between two threads that wait by a futex.
  defp futex do
    arguments = ~w(run --quiet --release --locked --package emmap_core --example queue_worker)
    arguments = arguments ++ ["--manifest-path", @manifest, "--", "bounce", "#{amount(1600)}"]
    {nanoseconds, 0} = System.cmd("cargo", arguments)
    nanoseconds |> String.trim() |> String.to_integer()
  end

  # Milliseconds of CPU that a program has used.
  defp cpu(pid) do
    [_, fields] = String.split(File.read!("/proc/#{pid}/stat"), ") ")
    fields = String.split(fields)
    # Clock ticks of 10 ms: user and system.
    10 * Enum.sum(for index <- [11, 12], do: fields |> Enum.at(index) |> String.to_integer())
  end

  defp long(folder) do
    path = Path.join(folder, "long")
    count = amount(10_000_000)

    [short, long] =
      [Queue.open!(Path.join(folder, "short"), format: :binary)] ++
        [Queue.open!(path, format: :binary)]

    items = List.duplicate("12345678", 10_000)
    for _ <- 1..max(div(count, 10_000), 1), do: {:ok, _} = Queue.push_many(long, items)
    {:ok, 10} = Queue.push_many(short, Enum.take(items, 10))

    result =
      compare(
        [
          {:short, @calls, &push_pop(short, "12345678", &1)},
          {:long, @calls, &push_pop(long, "12345678", &1)}
        ],
        @rounds
      )

    row("push, pop with 10 million items : 10", result.long, result.short, 1.1)
    Queue.close(long)

    open =
      for _ <- 1..5 do
        {port, pid} =
          start(
            "Emmap.Queue.open!(#{inspect(path)}); IO.puts(\"open\"); Process.sleep(:infinity)"
          )

        receive do: ({^port, {:data, "open\n"}} -> :ok)
        System.cmd("kill", ["-9", "#{pid}"])
        receive do: ({^port, {:exit_status, _}} -> :ok)
        {microseconds, {:ok, q}} = :timer.tc(fn -> Queue.open(path, format: :binary) end)
        Queue.close(q)
        microseconds * 1000
      end

    row("open 10 million after kill -9 : 1 ms", Enum.min(open), 1_000_000, 1)
  end
end

Bench.main(&Bench.Queue.run/1)
