defmodule Bench.Groups.Growth do
  @moduledoc false
  # How the cost of a call grows with what there is: the measured curve, and the one that the algorithm promises.
  import Bench
  alias Bench.{Comparison, Plot}
  alias Emmap.{Blocks, Counters, Queue}

  loop(pread(mem, at, n), do: {:ok, _} = Emmap.pread(mem, at, 64))
  loop(view(mem, at, n), do: {:ok, _} = Emmap.view(mem, at, 64))
  loop(add(counters, name, n), do: :ok = Counters.add(counters, name, 1))

  loop(store_free(blocks, n),
    do: :ok = Blocks.free(blocks, elem(Blocks.store(blocks, <<7::512>>), 1))
  )

  loop(read(blocks, at, n), do: {:ok, _} = Blocks.read(blocks, at))

  loop push_pop(q, n) do
    :ok = Queue.push(q, "12345678")
    {:ok, _} = Queue.pop(q)
  end

  loop open_close(path, n) do
    {:ok, mem} = Emmap.open(path)
    :ok = Emmap.close(mem)
  end

  def title, do: "Growth"

  def run(folder) do
    curves =
      [files(folder), live(folder), counters(folder), queue(folder), blocks(folder), maps(folder)]
      |> Enum.concat()

    [
      {:note,
       "Each call is measured at each size. The expected curve starts at the first measured point and is flat if the cost should not depend on the size. In each plot, the dashed curve in the same color is the expected one."},
      table(curves),
      for(
        {name, {title, caption}} <- plots(),
        do:
          {:plot, name,
           plot(
             title,
             caption,
             for(
               {^name, {what, unit, points, expected}} <- curves,
               do: {what, unit, Enum.sort(points), expected}
             )
           )}
      ),
      headlines(curves)
    ]
  end

  defp plots do
    [
      {"growth-size", {"Cost against the size of a sparse file", "bytes of the file"}},
      {"growth-calls",
       {"Cost of a call against the number of items, blocks, counters or maps",
        "live binaries, counters, items, blocks, or maps"}},
      {"growth-opens",
       {"Cost of opening against the number of items, blocks or maps", "items, blocks, or maps"}}
    ]
  end

  # A curve: {what, [{x, nanoseconds}], expected}, where expected is :flat.
  defp curve(plot, what, unit, points, expected \\ :flat) do
    IO.puts(
      "#{what}: #{Enum.map_join(points, ", ", fn {x, ns} -> "#{label(x)} #{time(ns)}" end)}"
    )

    {plot, {what, unit, points, expected}}
  end

  defp plot(title, caption, curves) do
    series =
      for {what, _unit, [{_, first} | _] = points, expected} <- curves,
          part <- [:measured, :expected] do
        if part == :measured,
          do: {what, :measured, points},
          else:
            {"", :expected, for({x, _} <- points, do: {x, expected(expected, first, points, x)})}
      end

    Plot.curves(title, series, caption: caption, x: &label/1)
  end

  defp expected(:flat, first, _, _), do: first
  defp expected(:linear, first, [{x0, _} | _], x), do: first * x / x0

  defp table(curves) do
    rows =
      for {_, {what, unit, points, expected}} <- curves do
        [{x1, first} | _] = points
        {x2, last} = List.last(points)

        worst =
          points
          |> Enum.map(fn {x, ns} -> ns / expected(expected, first, points, x) end)
          |> Enum.max()

        [
          what,
          "#{label(x1)} – #{label(x2)} #{unit}",
          time(first),
          time(last),
          "#{expected}",
          "#{digits(worst)} ×"
        ]
      end

    {:table,
     ["what", "from – to", ">at first", ">at last", "expected", ">worst, compared with expected"],
     rows}
  end

  defp headlines(curves) do
    for {_, {what, unit, points, :flat}} <- curves,
        not (what =~ "open"),
        {_, first} = hd(points),
        {x, last} = List.last(points) do
      headline(
        "#{what}: #{label(x)} #{unit}, compared with #{label(points |> hd() |> elem(0))}",
        last / first,
        {:at_most, 1.5}
      )
    end
  end

  defp label(n) when n >= 1_048_576 and rem(n, 1_048_576) == 0, do: bytes(n)
  defp label(n), do: thousands(n)

  # The least time of each call, of rounds in which all of them take turns.
  defp turns(sides, seconds \\ 1.0) do
    comparison =
      Comparison.run("", for({key, run} <- sides, do: side(key, label(key), run)),
        seconds: seconds,
        quiet: true
      )

    for {key, _} <- sides, do: {key, Comparison.least(comparison, key)}
  end

  defp files(folder) do
    sizes = for power <- [0, 2, 4, 6, 8, 10, 11, 12, 13], do: Bitwise.bsl(1_048_576, power)

    maps =
      for size <- sizes do
        path = Path.join(folder, "sparse#{size}")
        Emmap.close(Emmap.open!(path, [:write, :create, :sparse, size: size]))
        {size, path, Emmap.open!(path)}
      end

    # In the middle of the file, where the page has been read once.
    at = fn size -> div(size, 2) end
    reads = turns(for {size, _, mem} <- maps, do: {size, &pread(mem, at.(size), &1)})
    views = turns(for {size, _, mem} <- maps, do: {size, &view(mem, at.(size), &1)})
    opens = turns(for({size, path, _} <- maps, do: {size, &open_close(path, &1)}), 3.0)
    for {_, path, mem} <- maps, do: {Emmap.close(mem), File.rm!(path)}

    [
      curve("growth-size", "pread of 64 B", "of the file", reads),
      curve("growth-size", "view of 64 B", "of the file", views),
      curve("growth-size", "open and close", "of the file", opens)
    ]
  end

  # So many live binaries are held while one more is made.
  defp live(folder) do
    mem = Emmap.open!(Path.join(folder, "live"), [:write, :create, :direct, size: 67_108_864])

    points =
      for count <- [1, 1000, 100_000, 1_000_000] do
        count = if count > 1, do: amount(count), else: 1
        parent = self()

        holder =
          spawn_link(fn ->
            held = for n <- 1..count, do: elem(Emmap.view(mem, rem(n, 500_000) * 100, 100), 1)
            send(parent, :held)
            receive do: (:stop -> length(held))
          end)

        receive do: (:held -> :ok)
        [{_, ns}] = turns([{count, &view(mem, 64, &1)}], 0.5)
        monitor = Process.monitor(holder)
        send(holder, :stop)
        receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
        {count, ns}
      end

    Emmap.close(mem)
    [curve("growth-calls", "view, live binaries", "live binaries", points)]
  end

  defp counters(folder) do
    counts = [1, 100, 10_000, 1_000_000]
    indexed = for n <- counts, do: {n, Counters.open!(Path.join(folder, "indexed#{n}"), n)}
    index = turns(for {n, counters} <- indexed, do: {n, &add(counters, n - 1, &1)})

    named =
      for n <- [1, 100, 1_000, 10_000] do
        names = for i <- 1..n, do: :"counter_#{i}"
        {n, List.last(names), Counters.open!(Path.join(folder, "named#{n}"), names)}
      end

    name = turns(for {n, name, counters} <- named, do: {n, &add(counters, name, &1)})
    for {_, counters} <- indexed, do: Counters.close(counters)
    for {_, _, counters} <- named, do: Counters.close(counters)

    [
      curve("growth-calls", "Counters.add by index", "counters", index),
      curve("growth-calls", "Counters.add by name", "counters", name)
    ]
  end

  # Opening is measured while another handle is open, as after `kill -9`: then nothing is synced or closed.
  defp queue(folder) do
    counts = [10, 1_000, 100_000, 10_000_000]

    queues =
      for n <- counts do
        n = if n > 1000, do: amount(n), else: n
        q = Queue.open!(Path.join(folder, "queue#{n}"), format: :binary)
        batch = List.duplicate("12345678", min(n, 10_000))
        for _ <- 1..div(n, length(batch)), do: {:ok, _} = Queue.push_many(q, batch)
        {n, q}
      end

    calls = turns(for({n, q} <- queues, do: {n, &push_pop(q, &1)}), 2.0)
    opens = turns(for({n, q} <- queues, do: {n, &open_close_queue(q.path, &1)}), 2.0)
    for {_, q} <- queues, do: {Queue.close(q), File.rm!(q.path)}

    [
      curve("growth-calls", "queue push and pop", "items", calls),
      curve("growth-opens", "open of a queue", "items", opens)
    ]
  end

  loop open_close_queue(path, n) do
    {:ok, q} = Queue.open(path, format: :binary)
    :ok = Queue.close(q)
  end

  loop open_close_blocks(path, n) do
    {:ok, blocks} = Blocks.open(path)
    :ok = Blocks.close(blocks)
  end

  defp blocks(folder) do
    counts = [1, 1_000, 100_000, 10_000_000]

    all =
      for n <- counts do
        n = if n > 1000, do: amount(n), else: n
        blocks = Blocks.open!(Path.join(folder, "blocks#{n}"), block_size: 64)
        batch = List.duplicate(<<7::512>>, min(n, 10_000))
        for _ <- 1..div(n, length(batch)), do: {:ok, _} = Blocks.store_many(blocks, batch)
        {n, blocks}
      end

    stores = turns(for({n, blocks} <- all, do: {n, &store_free(blocks, &1)}), 2.0)
    reads = turns(for({n, blocks} <- all, do: {n, &read(blocks, div(n, 2), &1)}), 1.0)
    opens = turns(for({n, blocks} <- all, do: {n, &open_close_blocks(blocks.path, &1)}), 2.0)
    for {_, blocks} <- all, do: {Blocks.close(blocks), File.rm!(blocks.path)}

    [
      curve("growth-calls", "block store and free", "blocks", stores),
      curve("growth-calls", "block read", "blocks", reads),
      curve("growth-opens", "open of blocks", "blocks", opens)
    ]
  end

  defp maps(folder) do
    path = Path.join(folder, "small")
    File.write!(path, :binary.copy("x", 4096))
    mem = Emmap.open!(path)

    points =
      for count <- [1, 100, 1_000, 10_000] do
        count = if count > 100, do: amount(count), else: count
        maps = for _ <- 2..count//1, do: Emmap.open!(path)
        [{_, read}] = turns([{count, &pread(mem, 64, &1)}], 0.5)
        [{_, open}] = turns([{count, &open_close(path, &1)}], 0.7)
        Enum.each(maps, &Emmap.close/1)
        :erlang.garbage_collect()
        {count, read, open}
      end

    [
      curve(
        "growth-calls",
        "pread, maps open",
        "maps",
        for({n, read, _} <- points, do: {n, read})
      ),
      curve(
        "growth-opens",
        "open and close, maps open",
        "maps",
        for({n, _, open} <- points, do: {n, open})
      )
    ]
  end
end
