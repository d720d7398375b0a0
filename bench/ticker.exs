# What a copy of a gigabyte does to the others: a process that ticks each millisecond on the same
# schedulers, and by how much its worst tick is late. Of five rounds the calmest counts, for a
# shared machine adds its own delays; "nothing" shows how large they are. Run by `make bench`.

defmodule Bench.Ticker do
  @gigabyte 1024 * 1024 * 1024

  def run do
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)
    path = Path.join(directory, "gigabyte")

    try do
      mem = Emmap.open!(path, [:write, :create, size: @gigabyte])
      block = :binary.copy("0123456789abcdef", 65_536)
      for n <- 0..1023, do: :ok = Emmap.pwrite(mem, n * 1024 * 1024, block)
      report("nothing", fn -> Process.sleep(500) end)
      report("pread of 1 GB", fn -> {:ok, _} = Emmap.pread(mem, 0, @gigabyte) end)

      {:ok, data} = Emmap.pread(mem, 0, @gigabyte)
      report("pwrite of 1 GB", fn -> :ok = Emmap.pwrite(mem, 0, data) end)

      report("pread of 1 GB, small writes besides", fn ->
        writer = Task.async(fn -> for _ <- 1..1000, do: :ok = Emmap.pwrite(mem, 0, "x") end)
        {:ok, _} = Emmap.pread(mem, 0, @gigabyte)
        Task.await(writer, :infinity)
      end)

      report("a line of 1 GB", fn ->
        {:ok, _} = Emmap.position(mem, 0)
        {:ok, _} = Emmap.read_line(mem)
      end)

      # The file has no newline.
      report("a stream's line of 1 GB", fn -> [_] = Enum.to_list(Emmap.stream!(mem)) end)
      report("its lines counted", fn -> 1 = Enum.count(Emmap.stream!(mem)) end)

      report("the same, copied", fn ->
        [_] = Enum.to_list(Emmap.stream!(mem, :line, copy: true))
      end)
    after
      File.rm_rf!(directory)
    end
  end

  defp report(name, act) do
    {worst, time} = Enum.min(for _ <- 1..5, do: one_round(act))

    IO.puts(
      "#{String.pad_trailing(name, 36)} #{String.pad_leading("#{div(time, 1000)}", 6)} ms, " <>
        "the worst tick #{Float.round(worst / 1000, 1)} ms late (under 20)"
    )
  end

  defp one_round(act) do
    parent = self()
    ticker = spawn_link(fn -> tick(parent, now(), 0) end)
    # What it read goes with the process, still under the ticker's eyes.
    {time, _} = :timer.tc(fn -> Task.await(Task.async(fn -> act.() && :ok end), :infinity) end)
    Process.sleep(20)
    send(ticker, :stop)
    receive do: ({:worst, worst} -> {worst, time})
  end

  # Microseconds by which the latest of 1 ms sleeps was late.
  defp tick(parent, last, worst) do
    receive do
      :stop -> send(parent, {:worst, worst})
    after
      1 ->
        now = now()
        tick(parent, now, max(worst, now - last - 1000))
    end
  end

  defp now, do: System.monotonic_time(:microsecond)
end

Bench.Ticker.run()
