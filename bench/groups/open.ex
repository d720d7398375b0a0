defmodule Bench.Groups.Open do
  @moduledoc false
  # Opening and closing a small file compared with the bare system calls (open, fstat, two mmap, munmap, close) from where they may
  # be made, a dirty I/O scheduler; with what these take without the way there and back; and with OTP's files.
  import Bench

  def title, do: "Opening and closing"

  def run(folder) do
    opens = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    [
      {:note,
       "Opening a map costs its system calls, switching to a dirty scheduler and back, and creating the records in memory that describe the map and the addresses that the guard watches."},
      opens,
      for(
        %{name: name} = one <- opens,
        do: headline(one, :floor, "#{name}, compared with the bare system calls", {:at_most, 1.5})
      )
    ]
  end

  @doc "Of several VMs."
  def calls(folder) do
    path = Path.join(folder, "small")
    File.write!(path, :binary.copy("x", 4096))
    name = String.to_charlist(path)

    for options <- [[], [:write], [:write, :direct], [:write, :create, size: 4096]] do
      # What waits for another thread is spoiled by every other program: many short rounds.
      compare(
        "open and close #{inspect(options)}",
        [
          side(:emmap, "Emmap.open, Emmap.close", &open_and_collect(path, options, &1)),
          side(:floor, "the bare system calls", &floor(name, &1)),
          side(
            :on_scheduler,
            "the same, without switching schedulers",
            &on_scheduler(name, &1)
          ),
          side(:raw, ":file.open raw, :file.close", &raw(path, [:read, :raw, :binary], &1)),
          side(:process, "File.open, File.close", &raw(path, [:read, :binary], &1))
        ],
        seconds: 2
      )
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

  loop floor(name, n) do
    {fd, base} = :floor_nif.open_small(name)
    :ok = :floor_nif.close_small(fd, base)
  end

  loop on_scheduler(name, n) do
    {fd, base} = :floor_nif.open_on_scheduler(name)
    :ok = :floor_nif.close_on_scheduler(fd, base)
  end

  loop raw(path, modes, n) do
    {:ok, file} = :file.open(path, modes)
    :ok = :file.close(file)
  end
end
