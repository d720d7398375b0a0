defmodule Bench.Groups.Queue do
  @moduledoc false
  # Queues compared with what OTP and others have: in memory, on the disk, and with a sync.
  import Bench
  alias Emmap.Queue
  @compile {:no_warn_undefined, [:mnesia, :replayq]}

  @term {:event, 12345, "some payload of a message in a queue", [:a, :b, :c]}
  @raw String.duplicate("x", 75)
  @futex Path.expand("../../native/target/release/examples/queue_worker", __DIR__)

  loop(empty(x, n), do: _ = x)
  loop(update_counter(table, n), do: _ = :ets.update_counter(table, 1, 1))
  loop(external(term, n), do: _ = :erlang.binary_to_term(:erlang.term_to_binary(term)))
  loop(push(q, item, n), do: :ok = Queue.push(q, item))
  loop(pop(q, n), do: {:ok, _} = Queue.pop(q))
  loop(log(log, n), do: :ok = :disk_log.log(log, @raw))
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

  loop ets(table, n) do
    true = :ets.insert(table, {n, @raw})
    [{_, _}] = :ets.take(table, :ets.first(table))
  end

  loop dets(table, n) do
    :ok = :dets.insert(table, {n, @raw})
    :ok = :dets.delete(table, n)
  end

  loop mnesia(table, n) do
    :ok = :mnesia.dirty_write(table, {table, n, @raw})
    :ok = :mnesia.dirty_delete(table, n)
  end

  loop log_synced(log, n) do
    :ok = :disk_log.log(log, @raw)
    :ok = :disk_log.sync(log)
  end

  # The queue of a process: a message there and back, in a loop of its own.
  loop server(pid, n) do
    send(pid, {self(), @raw})
    receive do: ({^pid, _} -> :ok)
  end

  def title, do: "Queues"

  def run(folder) do
    q = Queue.open!(Path.join(folder, "queue"), format: :binary)
    [both, term] = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    items = [
      {:note,
       "When a push has returned, the item is in the file and survives `kill -9`. `:queue` and `:ets` are kept in the memory of the VM; `disk_log` and `dets` buffer their writes. The lower bound is to write the bytes and their checksum once."},
      both,
      headline(
        both,
        :ets_counter,
        "push and pop of 75 B, compared with one :ets.update_counter",
        {:at_most, 1.3}
      ),
      headline(both, :log, ":disk_log.log, compared with a push and a pop", {:at_least, 2}),
      headline(
        both,
        :dets,
        ":dets.insert and delete, compared with a push and a pop",
        {:at_least, 2}
      ),
      term,
      headline(
        term,
        :external,
        "push and pop of a term, compared with its external format",
        {:at_most, 1.3}
      ),
      if(both.times[:mnesia],
        do: [],
        else:
          {:note,
           "Mnesia was not installed for this run, so it is left out (Debian: `apt-get install erlang-mnesia`)."}
      ),
      if(both.times[:replayq], do: [], else: Bench.Outside.missing("replayq")),
      {:note,
       "**Ways to take items, and batches.** Each figure is the total for the number of items in the first column."},
      taking(q),
      live(folder),
      {:note,
       "**Durable pushes** return once the item is on the disk. Callers that wait at the same time share one sync."},
      durably(folder),
      waiting(folder)
    ]

    Queue.close(q)
    items
  end

  @doc "Of several VMs."
  def calls(folder) do
    q = Queue.open!(Path.join(folder, "queue"), format: :binary)
    terms = Queue.open!(Path.join(folder, "terms"))
    counter = :ets.new(:counters, [:public, :named_table])
    :ets.insert(counter, {1, 0})

    both =
      compare(
        "push and pop 75 B",
        [
          side(:emmap, "Emmap.Queue", &push_pop(q, @raw, &1)),
          side(:ets_counter, "one :ets.update_counter", &update_counter(counter, &1)),
          side(:queue, ":queue, in one process", &in_process(&1)),
          side(:ets, ":ets, ordered_set", &ets(&1, &2),
            setup: fn -> :ets.new(:q, [:ordered_set, :public]) end
          ),
          side(:server, "a message to a process and back", &server(&1, &2),
            setup: &echo_process/0,
            teardown: &send(&1, :stop)
          ),
          side(:log, ":disk_log.log, no pop", &log(&1, &2),
            setup: log(folder),
            teardown: &:disk_log.close/1
          ),
          side(:dets, ":dets.insert and delete", &dets(&1, &2),
            setup: table(folder),
            teardown: &:dets.close/1
          )
        ] ++ mnesia(folder) ++ replayq(folder),
        empty: &empty(q, &1),
        seconds: 6
      )

    term =
      compare(
        "push and pop a term",
        [
          side(:emmap, "Emmap.Queue", &push_pop(terms, @term, &1)),
          side(:external, "term_to_binary and back, nothing else", &external(@term, &1))
        ],
        empty: &empty(q, &1)
      )

    Enum.each([q, terms], &Queue.close/1)
    :ets.delete(counter)
    if mnesia?(), do: Application.stop(:mnesia)
    [both, term]
  end

  defp in_process(n), do: in_process(:queue.new(), n)
  defp in_process(_, 0), do: :ok

  defp in_process(q, n) do
    {{:value, _}, q} = :queue.out(:queue.in(@raw, q))
    in_process(q, n - 1)
  end

  defp echo_process, do: spawn_link(&echo_messages/0)

  defp echo_messages do
    receive do
      {from, message} ->
        send(from, {self(), message})
        echo_messages()

      :stop ->
        :ok
    end
  end

  defp log(folder) do
    fn ->
      {:ok, log} =
        :disk_log.open(
          name: :bench_log,
          file: to_charlist(Path.join(folder, "log")),
          type: :wrap,
          size: {100_000_000, 2}
        )

      log
    end
  end

  defp table(folder) do
    fn ->
      {:ok, table} = :dets.open_file(:bench_queue, file: to_charlist(Path.join(folder, "dets")))
      table
    end
  end

  defp mnesia?, do: Bench.Outside.otp?(:mnesia)

  defp mnesia(folder) do
    Application.put_env(:mnesia, :dir, String.to_charlist(Path.join(folder, "mnesia")))
    # Otherwise, Mnesia writes a dump to the working directory when it is stopped by force.
    Application.put_env(:mnesia, :core_dir, String.to_charlist(folder))

    if mnesia?() do
      :stopped = :mnesia.stop()
      :ok = :mnesia.create_schema([node()])
      :ok = :mnesia.start()
      {:atomic, :ok} = :mnesia.create_table(:bench_queue, disc_copies: [node()])
      [side(:mnesia, ":mnesia.dirty_write and delete, disc_copies", &mnesia(:bench_queue, &1))]
    else
      []
    end
  end

  defp replayq?, do: Bench.Outside.library?("replayq", :replayq) and Bench.Outside.otp?(:replayq)

  # It has no process: each append returns the next state.
  defp replayq(folder) do
    setup = fn ->
      directory = Path.join(folder, "replayq#{System.unique_integer([:positive])}")
      :replayq.open(%{dir: directory, seg_bytes: 10_000_000})
    end

    run = fn q, n ->
      Enum.reduce(1..n, q, fn _, q ->
        {q, ref, [_]} = :replayq.pop(:replayq.append(q, [@raw]), %{count_limit: 1})
        :ok = :replayq.ack_sync(q, ref)
        q
      end)
      |> :replayq.close()
    end

    # A new one for each round.
    if replayq?(),
      do: [side(:replayq, "replayq append, pop, ack", run, setup: setup, most: 500)],
      else: []
  end

  defp taking(q) do
    count = amount(10_000)
    items = List.duplicate(@raw, 1000)
    batches = max(div(count, 1000), 1)
    filled = fn -> fill(q, batches * 1000) end
    clear = fn -> Queue.clear(q) end

    all = fn name, label, setup, run ->
      side(name, label, fn _, 1 -> run.() end, most: 1, setup: setup)
    end

    # Each round takes or adds all of them: the time of one is that of the round divided by their number.
    compare(
      "10,000 items",
      [
        all.(:pop, "pop", filled, fn -> pop(q, batches * 1000) end),
        all.(:checkout, "checkout and ack", filled, fn -> checkout_ack(q, batches * 1000) end),
        all.(:pop_many, "pop_many, batches of 1,000", filled, fn -> pop_many(q, batches) end),
        all.(:checkout_many, "the same, acknowledged", filled, fn ->
          checkout_ack_many(q, batches)
        end),
        all.(:push, "push", clear, fn -> push(q, @raw, batches * 1000) end),
        all.(:push_many, "push_many, batches of 1,000", clear, fn ->
          push_many(q, items, batches)
        end)
      ],
      seconds: 2
    )
  end

  defp fill(q, count) do
    Queue.clear(q)
    {:ok, ^count} = Queue.push_many(q, List.duplicate(@raw, count))
  end

  # Payloads that are not copied, and are collected with the process that has popped them.
  defp live(folder) do
    path = Path.join(folder, "live")

    [copied, direct] =
      for direct <- [false, true], do: Queue.open!(path, format: :binary, direct: direct)

    compared =
      for size <- [64, 1024] do
        count = max(amount(div(8192, size)), 1)
        payload = :binary.copy("x", size * 1024)
        fill = fn -> {:ok, ^count} = Queue.push_many(copied, List.duplicate(payload, count)) end

        compare(
          "pop #{count} items of #{size} KB",
          [
            once(:emmap, "live", fn _ -> pop(direct, count) end, setup: fill),
            once(:copied, "copied", fn _ -> pop(copied, count) end, setup: fill)
          ],
          seconds: 1
        )
      end

    Enum.each([copied, direct], &Queue.close/1)
    compared
  end

  defp durably(folder) do
    q = Queue.open!(Path.join(folder, "durable"), format: :binary)
    calls = max(amount(64), 4)
    open = log(folder)

    result =
      compare(
        "#{calls} durable pushes",
        [
          once(:emmap, "Emmap.Queue, one caller", fn -> durable(q, calls) end),
          once(:many, "the same by 64 callers", fn ->
            together(for _ <- 1..64, do: fn -> durable(q, max(div(calls, 64), 1)) end)
          end),
          once(:log, ":disk_log.log and sync", fn log -> log_synced(log, calls) end,
            setup: open,
            teardown: &:disk_log.close/1
          )
        ],
        seconds: 3
      )

    Queue.close(q)
    result
  end

  # A VM that sends back what it gets, by another queue.
  defp waiting(folder) do
    [there, back] = for name <- ["there", "back"], do: Path.join(folder, name)
    [to, from] = for path <- [there, back], do: Queue.open!(path, format: :binary)
    {_, pid} = vm = Bench.VM.start(__MODULE__, :echo, [there, back])
    {:ok, "ready"} = Queue.pop(from, :infinity)

    trips =
      for _ <- 1..amount(800) do
        # By then the other one waits, and so do threads that have waited before.
        Process.sleep(1)
        begun = System.monotonic_time(:nanosecond)
        :ok = Queue.push(to, @raw)
        {:ok, @raw} = Queue.pop(from, :infinity)
        (System.monotonic_time(:nanosecond) - begun) / 2
      end

    idle = cpu(pid)
    Process.sleep(2000)
    used = cpu(pid) - idle
    Bench.VM.kill(vm)
    Enum.each([to, from], &Queue.close/1)
    median = trips |> Enum.sort() |> Enum.at(div(length(trips), 2))

    rows =
      [["time to wake a pop that waits in another VM, median of #{length(trips)}", time(median)]] ++
        futex() ++
        [["CPU of a pop that waits for 2 s", if(used, do: "#{used} ms", else: "not known")]]

    {:table, ["waiting", ">"], rows}
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

  # Of a round trip between two threads that wait by a futex, where bench/prepare has built that program.
  defp futex do
    if File.exists?(@futex) do
      {nanoseconds, 0} = System.cmd(@futex, ["bounce", "#{amount(800)}"])

      [
        [
          "time to wake a thread with a futex, median",
          time((nanoseconds |> String.trim() |> String.to_integer()) / 2)
        ]
      ]
    else
      []
    end
  end

  # Milliseconds of CPU that a program has used.
  defp cpu(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, text} ->
        fields = text |> String.split(") ") |> List.last() |> String.split()
        # Clock ticks of 10 ms: user and system.
        10 * Enum.sum(for index <- [11, 12], do: fields |> Enum.at(index) |> String.to_integer())

      _ ->
        nil
    end
  end
end
