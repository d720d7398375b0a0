# Open and close of a small file, compared with the bare system calls (bench/floor: open, fstat, two mmap, munmap, close) from where
# they may be made, a dirty I/O scheduler; and what these take without the way there and back. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Open do
  import Bench

  # Many short rounds: what waits for another thread is spoiled by every other program.
  @rounds 300
  @calls 20

  def run(folder) do
    load_floor!()
    path = Path.join(folder, "small")
    File.write!(path, :binary.copy("x", 4096))
    name = String.to_charlist(path)
    header("ns for an open and a close, best of #{rounds(@rounds)} rounds")

    for options <- [[], [:write], [:write, :direct], [:write, :create, size: 4096]] do
      sides = [
        {:ours, @calls, &open_and_collect(path, options, &1)},
        {:floor, @calls, &floor(name, &1)},
        {:on_scheduler, @calls, &on_scheduler(name, &1)}
      ]

      result = compare(sides, @rounds)
      row("open and close #{inspect(options)}", result.ours, result.floor, 1.5)
      row("  without the way to the scheduler", result.ours, result.on_scheduler)
    end
  end

  # What is collected is unmapped, which is a part of the close.
  defp open_and_collect(path, options, n) do
    open(path, options, n)
    :erlang.garbage_collect()
  end

  defp open(_path, _options, 0), do: :ok

  defp open(path, options, n) do
    {:ok, mem} = Emmap.open(path, options)
    :ok = Emmap.close(mem)
    open(path, options, n - 1)
  end

  defp floor(_name, 0), do: :ok

  defp floor(name, n) do
    {fd, base} = :floor_nif.open_small(name)
    :ok = :floor_nif.close_small(fd, base)
    floor(name, n - 1)
  end

  defp on_scheduler(_name, 0), do: :ok

  defp on_scheduler(name, n) do
    {fd, base} = :floor_nif.open_on_scheduler(name)
    :ok = :floor_nif.close_on_scheduler(fd, base)
    on_scheduler(name, n - 1)
  end
end

Bench.main(&Bench.Open.run/1)
