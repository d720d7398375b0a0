defmodule Bench.Groups.Latency do
  @moduledoc false
  # What long operations do to the others: how late a process is that sleeps a millisecond, over and over, on the same schedulers.
  import Bench
  alias Bench.{Plot, Ticker}
  alias Emmap.{Blocks, Queue}

  def title, do: "Latency of other processes"

  # Measured again in a VM whose schedulers do not wait busily, so many at once.
  @again ["pread", "a line", "sync"]
  @most 4

  def run(folder) do
    rows = measured(folder, fn _ -> true end, [1, 2, @most])
    quiet = Bench.VM.call(__MODULE__, :without_busy_waiting, [folder])
    ours = for {name, _, worst, _, _} <- rows, not (name =~ "to compare"), do: worst

    [
      {:note,
       "A process repeatedly sleeps for 1 ms, while one, two or four other processes repeatedly call a long operation. The last column is the maximum lateness of a wake-up in the best of three rounds. The column p99.9 covers the wake-ups of all three rounds, so it can be larger. Even on an idle machine, a sleep of 1 ms often ends about 1 ms late: see \"nothing\". The target is that no call delays another process by more than 20 ms. Larger figures in the last column miss the target: see [Targets](#targets)."},
      table(rows),
      {:plot, "latency", bars(rows)},
      headline(
        "lateness of a 1 ms timer, worst case, in ms",
        Enum.max(ours) / 1.0e6,
        {:at_most, 20}
      ),
      {:note,
       "**Without busy waiting.** By default, a scheduler of the VM that has nothing to do calls `sched_yield` some dozens of times before it sleeps. If other threads need all CPUs, Linux may run one of them for 4 ms at each of these calls, so more than 100 ms can pass before the scheduler looks at its timers again. With the VM flags `+sbwt none +sbwtdcpu none +sbwtdio none`, a scheduler sleeps at once, and Linux runs it as soon as a timer wakes it up. The same measurement with these flags:"},
      table(quiet),
      headline(
        "the same without busy waiting of schedulers, in ms",
        (quiet |> Enum.map(&elem(&1, 2)) |> Enum.max()) / 1.0e6,
        {:at_most, 20}
      )
    ]
  end

  @doc "Of a VM of its own, as `Bench.VM` starts it: the rows that are the latest otherwise."
  def without_busy_waiting(folder),
    do: measured(folder, &String.starts_with?(&1, @again), [@most])

  defp table(rows) do
    {:table, ["meanwhile", ">at once", ">takes", ">p99.9 late by", ">worst late by"],
     for(
       [{_, first, _, _, _} | _] = rows <- Enum.chunk_by(rows, &elem(&1, 0)),
       {name, together, worst, p999, time} <- rows,
       do: [
         if(together == first, do: name, else: ""),
         "#{together}",
         time(time),
         time(p999),
         time(worst)
       ]
     )}
  end

  # What is `wanted` by its name, by so many processes at once.
  defp measured(folder, wanted, at_once) do
    path = text(folder, 268_435_456)
    size = File.stat!(path).size
    copy = Path.join(folder, "copy")
    mem = Emmap.open!(path)
    scratch = Emmap.open!(copy, [:write, :create, size: size])
    :ok = Emmap.fill(scratch, 0, size, 1)
    {:ok, data} = Emmap.pread(mem, 0, size)
    all = bytes(size)
    files = files(folder, path)

    acts = [
      {"nothing", fn -> Process.sleep(div(amount(500), 1)) end},
      {"pread of #{all}", fn -> {:ok, _} = Emmap.pread(mem, 0, size) end},
      {"pwrite of #{all}", fn -> :ok = Emmap.pwrite(scratch, 0, data) end},
      {"fill of #{all}", fn -> :ok = Emmap.fill(scratch, 0, size, 7) end},
      {"copy of #{bytes(div(size, 2))} within a map",
       fn -> :ok = Emmap.copy(scratch, 0, div(size, 2), div(size, 2)) end},
      {"find of an absent word in #{all}", fn -> :nomatch = Emmap.find(mem, "xylophonist") end},
      {"count of a list of words in #{all}",
       fn -> {:ok, _} = Emmap.count(mem, ~w(xylophonist zeppelins quagmires)) end},
      {"find_all in #{all}", fn -> {:ok, _} = Emmap.find_all(mem, "quicksilver") end},
      {"lines of #{all} counted", fn -> Enum.count(Emmap.stream!(path)) end},
      {"lines of #{all} visited, live",
       fn -> Enum.reduce(Emmap.stream!(files.text, live: true), 0, &(byte_size(&1) + &2)) end},
      {"a line of #{bytes(files.line_size)}",
       fn -> [_] = Enum.to_list(Emmap.stream!(files.line)) end},
      {"sync of #{bytes(div(size, 4))}",
       fn -> (:ok = Emmap.fill(scratch, 0, div(size, 4), 9)) && (:ok = Emmap.sync(scratch)) end},
      {"open and close, repeatedly",
       fn -> for _ <- 1..500, do: Emmap.close(Emmap.open!(files.small)) end},
      {"durable pushes",
       fn -> for _ <- 1..50, do: :ok = Queue.push(files.queue, "x", durable: true) end},
      {"push_many and pop_many of 500 items of 131 B", fn -> many(files.queue, 100) end},
      {"store_many of 1,000 blocks", fn -> stores(files.blocks, 50) end},
      {"File.read! of #{all}, to compare", fn -> File.read!(path) end}
    ]

    rows =
      for {name, act} <- acts,
          wanted.(name),
          together <- if(name == "nothing" or quick?(), do: [1], else: at_once) do
        {worst, p999, time} = Ticker.ticked(List.duplicate(act, together), 3)

        IO.puts(
          "#{name}, #{together} at once: worst #{time(worst)} late, p99.9 #{time(p999)}, took #{time(time)}"
        )

        {name, together, worst, p999, time}
      end

    for it <- [mem, scratch], do: Emmap.close(it)
    Queue.close(files.queue)
    Blocks.close(files.blocks)
    rows
  end

  defp bars(rows) do
    groups =
      for {name, rows} <- rows |> Enum.chunk_by(&elem(&1, 0)) |> Enum.map(&{elem(hd(&1), 0), &1}) do
        ours = if name =~ "to compare" or name == "nothing", do: :other, else: :ours

        {name,
         for(
           {_, together, worst, _, _} <- rows,
           do: {"#{together} at once", max(worst, 1000), ours}
         )}
      end

    Plot.bars("Maximum lateness of a process that sleeps for 1 ms", groups)
  end

  defp files(folder, text) do
    line = Path.join(folder, "line")
    size = amount(268_435_456)
    mem = Emmap.open!(line, [:write, :create, size: size])
    :ok = Emmap.fill(mem, 0, size, ?x)
    Emmap.close(mem)
    small = Path.join(folder, "small")
    File.write!(small, "a map of a few bytes")

    %{
      text: text,
      line: line,
      line_size: size,
      small: small,
      queue: Queue.open!(Path.join(folder, "queue"), format: :binary),
      blocks: Blocks.open!(Path.join(folder, "blocks"), block_size: 64)
    }
  end

  defp many(queue, times) do
    items = List.duplicate(:binary.copy("x", 131), 500)

    # Nothing of it is kept.
    Enum.each(1..times, fn _ ->
      {:ok, 500} = Queue.push_many(queue, items)
      {:ok, _} = Queue.pop_many(queue, max_items: 500)
    end)
  end

  defp stores(blocks, times) do
    data = List.duplicate(<<7::512>>, 1000)
    Enum.each(1..times, fn _ -> {:ok, _} = Blocks.store_many(blocks, data) end)
  end
end
