# Reads and writes compared with the bare C NIF (the floor) and raw :file, in one run. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Core do
  import Bench

  loop(empty(mem, position, count, n), do: _ = {mem, position, count})
  loop(pread(mem, position, count, n), do: {:ok, _} = Emmap.pread(mem, position, count))
  loop(view(mem, position, count, n), do: {:ok, _} = Emmap.view(mem, position, count))
  loop(pwrite(mem, position, data, n), do: :ok = Emmap.pwrite(mem, position, data))
  loop(file_pread(file, position, count, n), do: {:ok, _} = :file.pread(file, position, count))
  loop(file_pwrite(file, position, data, n), do: :ok = :file.pwrite(file, position, data))

  loop(floor_pread(map, position, count, n),
    do: {:ok, _} = :floor_nif.copy_out(map, position, count)
  )

  loop(floor_view(map, position, count, n), do: {:ok, _} = :floor_nif.view(map, position, count))
  loop(floor_pwrite(map, position, data, n), do: :ok = :floor_nif.copy_in(map, position, data))

  @size 32 * 1024 * 1024
  @position 64
  # Many short rounds: a noisy neighbour spoils a few of them only.
  @rounds 60

  def run(folder) do
    load_floor!()
    path = Path.join(folder, "data")
    File.write!(path, :crypto.strong_rand_bytes(@size))
    mem = Emmap.open!(path, [:read, :write])
    live = Emmap.open!(path, [:read, :direct])
    floor = :floor_nif.open(String.to_charlist(path), @size)
    empty = compare([{:empty, 200_000, &empty(mem, @position, 8, &1)}], @rounds).empty

    header(
      "ns a call, best of #{rounds(@rounds)} rounds, empty loop (#{decimals(empty, 1)}) taken off"
    )

    direct(mem, live, floor, empty)
    IO.puts("\nthrough :file, the floor too")
    through_file(mem, live, floor, empty)
    raw(path, mem, empty)
    two_processes(mem, floor)
    reader_and_writer(mem)
  end

  defp direct(mem, live, floor, empty) do
    for {count, limit} <- [{8, 1.05}, {64, 1.05}, {512, 1.05}, {4096, 1.05}, {65_536, 1.06}] do
      against("pread #{count} B", count, limit, empty,
        ours: &pread(mem, @position, count, &1),
        floor: &floor_pread(floor, @position, count, &1)
      )
    end

    for {count, limit} <- [{8, 1.1}, {512, 1.25}, {4096, 1.1}, {65_536, ""}] do
      data = :crypto.strong_rand_bytes(count)

      against("pwrite #{count} B", count, limit, empty,
        ours: &pwrite(mem, @position, data, &1),
        floor: &floor_pwrite(floor, @position, data, &1)
      )
    end

    # A fresh resource binary of 16 MB makes the floor collect garbage at every call, which is not what a view costs: the
    # floor's view of 4 KB is what both are divided by.
    for {count, limit} <- [{8, 1.1}, {4096, 1.1}, {16 * 1024 * 1024, ""}] do
      against("live pread #{count} B", 0, limit, empty,
        ours: &pread(live, @position, count, &1),
        floor: &floor_view(floor, @position, min(count, 4096), &1)
      )
    end

    for {name, handle} <- [{"view 4096 B", live}, {"view 4096 B, map not direct", mem}] do
      against(name, 0, 1.1, empty,
        ours: &view(handle, @position, 4096, &1),
        floor: &floor_view(floor, @position, 4096, &1)
      )
    end
  end

  defp through_file(mem, live, floor, empty) do
    copies = :floor_nif.handle(floor)
    views = :floor_nif.handle(floor, :view)

    for {ours, theirs, what} <- [{mem, copies, ""}, {live, views, ", direct"}],
        count <- [8, 512, 4096, 65_536] do
      against(":file.pread #{count} B#{what}", count, 1.1, empty,
        ours: &file_pread(ours, @position, count, &1),
        floor: &file_pread(theirs, @position, count, &1)
      )
    end

    for count <- [8, 512, 4096, 65_536] do
      data = :crypto.strong_rand_bytes(count)

      against(":file.pwrite #{count} B", count, 1.15, empty,
        ours: &file_pwrite(mem, @position, data, &1),
        floor: &file_pwrite(copies, @position, data, &1)
      )
    end
  end

  # Fewer calls where each copies more, so that rounds are about as long.
  defp against(name, count, limit, empty, sides) do
    calls = div(10_000_000, 60 + div(count, 50))
    result = compare(for({side, fun} <- sides, do: {side, calls, fun}), @rounds)
    row(name, result.ours - empty, result.floor - empty, limit)
  end

  defp raw(path, mem, empty) do
    # A raw file belongs to the process that opened it.
    raw = fn n ->
      {:ok, file} = :file.open(path, [:read, :raw, :binary])
      file_pread(file, @position, 64, n)
      :file.close(file)
    end

    result = compare([{:raw, 50_000, raw}, {:ours, 1_000_000, &pread(mem, @position, 64, &1)}])
    times = decimals((result.raw - empty) / (result.ours - empty), 1)
    IO.puts("\nraw :file.pread of 64 B takes #{times} times as long as Emmap.pread (at least 20)")
  end

  # Throughput of two processes on one handle compared with that of one. The floor takes no lock and counts no reference:
  # what it gains is what the machine has.
  defp two_processes(mem, floor) do
    calls = amount(1_000_000)
    data = :crypto.strong_rand_bytes(64)

    for {name, ours, theirs} <- [
          {"two readers of one handle get", &pread(mem, &1, 64, calls),
           &floor_pread(floor, &1, 64, calls)},
          {"two writers of different pages get", &pwrite(mem, &1, data, calls),
           &floor_pwrite(floor, &1, data, calls)}
        ] do
      best =
        best(
          15,
          for {side, act} <- [ours: ours, floor: theirs], processes <- [1, 2] do
            act = fn -> together(for n <- 1..processes, do: fn -> act.(n * 4096) end) end
            {{side, processes}, act}
          end
        )

      [ours, floor] =
        for side <- [:ours, :floor], do: decimals(2 * best[{side, 1}] / best[{side, 2}], 2)

      IO.puts(
        "#{name} #{ours} times the throughput of one (at least 1.7; the floor #{floor} times)"
      )
    end
  end

  # One process writes without a pause while another reads, of the same page or of another. Each read is timed.
  defp reader_and_writer(mem) do
    data = :crypto.strong_rand_bytes(64)
    writer = spawn_link(fn -> write_on(mem, 4096, data) end)

    for {name, position} <- [{"of another page", 8192}, {"of the same page", 4096}] do
      medians = for _ <- 1..rounds(15), do: median(mem, position, amount(50_000))
      median = decimals(Enum.min(medians) / 1000, 2)
      IO.puts("a reader #{name} next to a busy writer: median #{median} us (at most 0.5)")
    end

    Process.unlink(writer)
    Process.exit(writer, :kill)
  end

  defp write_on(mem, position, data) do
    :ok = Emmap.pwrite(mem, position, data)
    write_on(mem, position, data)
  end

  # Nanoseconds, the clock included.
  defp median(mem, position, calls) do
    timed = fn ->
      for _ <- 1..calls do
        begun = System.monotonic_time(:nanosecond)
        {:ok, _} = Emmap.pread(mem, position, 64)
        System.monotonic_time(:nanosecond) - begun
      end
    end

    times = Enum.sort(Task.await(Task.async(timed), :infinity))
    Enum.at(times, div(length(times), 2))
  end
end

Bench.main(&Bench.Core.run/1)
