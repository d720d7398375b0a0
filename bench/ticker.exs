# What a copy of a gigabyte does to the others: a process that ticks each millisecond on the same
# schedulers, and by how much its worst tick is late. Of five rounds the calmest counts, for a
# shared machine adds delays of its own; "nothing" shows how large they are. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Ticker do
  import Bench

  def run(folder) do
    size = amount(1024 * 1024 * 1024)
    all = megabytes(size)
    mem = Emmap.open!(Path.join(folder, "text"), [:write, :create, size: size])
    block = :binary.copy("0123456789abcdef", 65_536)

    for at <- 0..(size - 1)//byte_size(block), do: :ok = Emmap.pwrite(mem, at, block)

    IO.puts("\na process that ticks, while there is")
    ticked("nothing", fn -> Process.sleep(500) end)
    ticked("pread of #{all}", fn -> {:ok, _} = Emmap.pread(mem, 0, size) end)

    {:ok, data} = Emmap.pread(mem, 0, size)
    ticked("pwrite of #{all}", fn -> :ok = Emmap.pwrite(mem, 0, data) end)

    ticked("pread of #{all}, and small writes", fn ->
      writer = Task.async(fn -> for _ <- 1..1000, do: :ok = Emmap.pwrite(mem, 0, "x") end)
      {:ok, _} = Emmap.pread(mem, 0, size)
      Task.await(writer, :infinity)
    end)

    ticked("a line of #{all}", fn ->
      {:ok, _} = Emmap.position(mem, 0)
      {:ok, _} = Emmap.read_line(mem)
    end)

    # The file has no newline.
    for {name, live} <- [{"a copy", false}, {"live", true}] do
      lines = Emmap.stream!(mem, :line, live: live)
      ticked("a stream's line of #{all}, #{name}", fn -> [_] = Enum.to_list(lines) end)
    end

    ticked("its lines counted", fn -> 1 = Enum.count(Emmap.stream!(mem)) end)
  end
end

Bench.main(&Bench.Ticker.run/1)
