# Reads and writes beside the bare C NIF (the floor) and raw :file, in one run.
#
#     make bench

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Core do
  import Bench.Harness

  # A loop per operation, so that every side pays for the same loop.
  loop = fn name, args, call ->
    def unquote(name)(unquote_splicing(args), 0), do: :ok

    def unquote(name)(unquote_splicing(args), n) do
      unquote(call)
      unquote(name)(unquote_splicing(args), n - 1)
    end
  end

  [mem, position, count, data] =
    args = Enum.map([:mem, :position, :count, :data], &Macro.var(&1, __MODULE__))

  _ = args

  loop.(
    :empty,
    [mem, position, count],
    quote(do: {unquote(mem), unquote(position), unquote(count)})
  )

  loop.(
    :pread,
    [mem, position, count],
    quote(do: {:ok, _} = Emmap.pread(unquote(mem), unquote(position), unquote(count)))
  )

  loop.(
    :view,
    [mem, position, count],
    quote(do: {:ok, _} = Emmap.view(unquote(mem), unquote(position), unquote(count)))
  )

  loop.(
    :file_pread,
    [mem, position, count],
    quote(do: {:ok, _} = :file.pread(unquote(mem), unquote(position), unquote(count)))
  )

  loop.(
    :floor_pread,
    [mem, position, count],
    quote(do: {:ok, _} = :floor_nif.copy_out(unquote(mem), unquote(position), unquote(count)))
  )

  loop.(
    :floor_view,
    [mem, position, count],
    quote(do: {:ok, _} = :floor_nif.view(unquote(mem), unquote(position), unquote(count)))
  )

  loop.(
    :pwrite,
    [mem, position, data],
    quote(do: :ok = Emmap.pwrite(unquote(mem), unquote(position), unquote(data)))
  )

  loop.(
    :floor_pwrite,
    [mem, position, data],
    quote(do: :ok = :floor_nif.copy_in(unquote(mem), unquote(position), unquote(data)))
  )

  @size 32 * 1024 * 1024

  def run do
    load_floor!()
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)
    path = Path.join(directory, "data")
    File.write!(path, :crypto.strong_rand_bytes(@size))

    try do
      measure(path)
    after
      File.rm_rf!(directory)
    end
  end

  defp measure(path) do
    mem = Emmap.open!(path, [:read, :write])
    live = Emmap.open!(path, [:read, :direct])
    floor = :floor_nif.open(String.to_charlist(path), @size)
    empty = Bench.Harness.compare([{:empty, 2_000_000, &empty(mem, 64, 8, &1)}]).empty

    IO.puts(
      "OTP #{System.otp_release()}, Elixir #{System.version()}, ns a call, best of 15 rounds, empty loop (#{Float.round(empty, 1)}) taken off\n"
    )

    IO.puts(String.pad_trailing("", 34) <> "       emmap       floor   ratio   at most")

    for {count, limit, calls} <- [
          {8, 2.0, 1_000_000},
          {64, "", 1_000_000},
          {4096, 1.3, 200_000},
          {65_536, 1.15, 10_000}
        ] do
      result =
        compare([
          {:ours, calls, &pread(mem, 64, count, &1)},
          {:floor, calls, &floor_pread(floor, 64, count, &1)}
        ])

      row("pread #{count} B", result.ours - empty, result.floor - empty, limit)
    end

    for {count, limit, calls} <- [
          {8, 2.0, 1_000_000},
          {4096, "", 200_000},
          {65_536, 1.15, 10_000}
        ] do
      data = :crypto.strong_rand_bytes(count)

      result =
        compare([
          {:ours, calls, &pwrite(mem, 64, data, &1)},
          {:floor, calls, &floor_pwrite(floor, 64, data, &1)}
        ])

      row("pwrite #{count} B", result.ours - empty, result.floor - empty, limit)
    end

    for {count, limit} <- [{8, ""}, {4096, 1.6}, {16 * 1024 * 1024, 1.6}] do
      # A fresh resource binary of 16 MB makes the floor collect garbage at every call, which is
      # not what a view costs: the floor's 4 KB view is what both are divided by.
      result =
        compare([
          {:ours, 300_000, &pread(live, 64, count, &1)},
          {:floor, 300_000, &floor_view(floor, 64, min(count, 4096), &1)}
        ])

      row("live pread #{count} B", result.ours - empty, result.floor - empty, limit)
    end

    result =
      compare([
        {:ours, 300_000, &view(mem, 64, 4096, &1)},
        {:floor, 300_000, &floor_view(floor, 64, 4096, &1)}
      ])

    row("view 4096 B of a map that is not direct", result.ours - empty, result.floor - empty, "")

    result =
      compare([
        {:ours, 300_000, &file_pread(mem, 64, 8, &1)},
        {:floor, 300_000, &floor_pread(floor, 64, 8, &1)}
      ])

    row(":file.pread(mem) 8 B", result.ours - empty, result.floor - empty, "")

    # A raw file belongs to the process that opened it.
    raw = fn n ->
      {:ok, raw} = :file.open(path, [:read, :raw, :binary])
      file_pread(raw, 64, 64, n)
      :file.close(raw)
    end

    result = compare([{:raw, 50_000, raw}, {:ours, 1_000_000, &pread(mem, 64, 64, &1)}])

    IO.puts(
      "\nraw :file.pread of 64 B takes #{Float.round((result.raw - empty) / (result.ours - empty), 1)} times as long as Emmap.pread (at least 20)"
    )

    readers(mem, floor)
  end

  # Throughput of two processes on one handle beside that of one.
  defp readers(mem, floor) do
    calls = 1_000_000

    # The floor takes no lock and counts no reference: what it gains is what the machine gives.
    rounds =
      for _ <- 1..15 do
        for act <- [&pread(mem, &1, 64, calls), &floor_pread(floor, &1, 64, calls)],
            readers <- [1, 2],
            do: wall(act, readers)
      end

    [one, two, floor_one, floor_two] =
      rounds |> Enum.zip() |> Enum.map(&(&1 |> Tuple.to_list() |> Enum.min()))

    IO.puts(
      "two readers of one handle get #{Float.round(2 * one / two, 2)} times the throughput of one " <>
        "(at least 1.7; the floor #{Float.round(2 * floor_one / floor_two, 2)} times)"
    )
  end

  defp wall(act, readers) do
    {time, _} =
      :timer.tc(fn ->
        1..readers
        |> Enum.map(fn n -> Task.async(fn -> act.(n * 4096) end) end)
        |> Task.await_many(:infinity)
      end)

    time
  end
end

Bench.Core.run()
