# What a copy of a gigabyte does to the others: a process that ticks each millisecond on the same
# schedulers, and by how much its worst tick is late. Of five rounds the calmest counts, for a
# shared machine adds its own delays; "nothing" shows how large they are. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Ticker do
  import Bench.Harness, only: [ticked: 2]

  @gigabyte 1024 * 1024 * 1024

  def run do
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)
    path = Path.join(directory, "gigabyte")

    try do
      mem = Emmap.open!(path, [:write, :create, size: @gigabyte])
      block = :binary.copy("0123456789abcdef", 65_536)
      for n <- 0..1023, do: :ok = Emmap.pwrite(mem, n * 1024 * 1024, block)
      ticked("nothing", fn -> Process.sleep(500) end)
      ticked("pread of 1 GB", fn -> {:ok, _} = Emmap.pread(mem, 0, @gigabyte) end)

      {:ok, data} = Emmap.pread(mem, 0, @gigabyte)
      ticked("pwrite of 1 GB", fn -> :ok = Emmap.pwrite(mem, 0, data) end)

      ticked("pread of 1 GB, small writes besides", fn ->
        writer = Task.async(fn -> for _ <- 1..1000, do: :ok = Emmap.pwrite(mem, 0, "x") end)
        {:ok, _} = Emmap.pread(mem, 0, @gigabyte)
        Task.await(writer, :infinity)
      end)

      ticked("a line of 1 GB", fn ->
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
end

Bench.Ticker.run()
