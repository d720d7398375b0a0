defmodule Emmap.RepeatedCallsTest do
  # What is done again and again holds no more after it than before: descriptors, maps, threads, memory and what a VM counts.
  # `EMMAP_CYCLES=10000 mix test test/emmap/repeated_calls_test.exs` for more cycles.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag :linux
  @moduletag timeout: 1_800_000

  @cycles System.get_env("EMMAP_CYCLES", "300") |> String.to_integer()

  # In a VM of its own: first some cycles, in which caches are filled, then those that count.
  @program """
  number = fn file, key ->
    [_, n] = Regex.run(~r/\#{key}:\\s+(\\d+)/, File.read!(file))
    String.to_integer(n)
  end

  counts = fn ->
    %{
      descriptors: length(File.ls!("/proc/self/fd")),
      maps: length(String.split(File.read!("/proc/self/maps"), "\\n")),
      threads: number.("/proc/self/status", "Threads"),
      mappings: elem(Emmap.Native.live(), 0),
      handles: elem(Emmap.Native.live(), 1),
      atoms: :erlang.system_info(:atom_count),
      processes: :erlang.system_info(:process_count),
      ports: :erlang.system_info(:port_count),
      tables: :erlang.system_info(:ets_count),
      persistent: :persistent_term.info().count,
      messages: Process.info(self(), :message_queue_len) |> elem(1),
      monitors: Process.info(self(), :monitors) |> elem(1) |> length(),
      links: Process.info(self(), :links) |> elem(1) |> length()
    }
  end

  settled = fn settled, deadline, before ->
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    Process.sleep(20)
    now = counts.()
    more = for {key, n} <- now, before != nil, n > before[key] + (if key == :maps, do: 50, else: 0), do: {key, before[key], n}
    if more == [] or deadline <= 0, do: {now, more}, else: settled.(settled, deadline - 1, before)
  end

  resident = fn -> div(number.("/proc/self/status", "VmRSS"), 1024) end
  # As in a process that goes on: what one cycle holds ends with the cycle.
  again = fn n -> for _ <- 1..n, do: once.() end
  again.(100)
  {before, []} = settled.(settled, 20, nil)
  rss = resident.()
  again.(cycles)
  {_, more} = settled.(settled, 100, before)
  {more, resident.() - rss}
  """

  # Each is a function of no arguments; `path` is a file of 10,000 bytes in an empty directory `dir`.
  kinds = [
    open:
      "{:ok, mem} = Emmap.open(path, [:write, :direct]); {:ok, _} = Emmap.pread(mem, 0, 100); Emmap.close(mem)",
    forget: "{:ok, mem} = Emmap.open(path); {:ok, _} = Emmap.pread(mem, 0, 100)",
    dup:
      "{:ok, mem} = Emmap.open(path); {:ok, two} = Emmap.dup(mem); Emmap.close(mem); Emmap.close(two)",
    refused: """
    {:error, :enoent} = Emmap.open(path <> "-none")
    {:error, :eisdir} = Emmap.open(dir)
    {:error, :eexist} = Emmap.open(path, [:write, :create, :exclusive])
    {:error, :enomem} = Emmap.open([:anon, size: Integer.pow(2, 60)])
    {:error, _} = Emmap.open("/proc/version", [:write])
    {:error, :eexist} = Emmap.open(path, [:write, :fixed, address: at])
    """,
    raised: """
    for wrong <- [fn -> Emmap.open(path, [:nothing]) end, fn -> Emmap.pread(:none, 0, 1) end, fn -> Emmap.open(7) end],
        do: (try do wrong.() rescue ArgumentError -> :ok end)
    """,
    cut: """
    File.write!(path, :binary.copy("x", 10_000))
    {:ok, mem} = Emmap.open(path, [:write])
    File.write!(path, "x")
    {:error, :estale} = Emmap.pread(mem, 8_000, 100)
    :ok = Emmap.reattach(mem)
    :ok = Emmap.resize(mem, 10_000)
    Emmap.close(mem)
    """,
    failed_growth: """
    {:ok, mem} = Emmap.open(path, [:write])
    {:error, _} = Emmap.resize(mem, Integer.pow(2, 62))
    {:error, _} = Emmap.pwrite(mem, Integer.pow(2, 61), "x")
    {:error, _} = Emmap.allocate(mem, 0, Integer.pow(2, 60))
    Emmap.close(mem)
    """,
    grown: """
    {:ok, mem} = Emmap.open([:anon, :write, size: 4096])
    for size <- [50_000, 10, 1_000_000, 5_000, 2_000_000], do: :ok = Emmap.resize(mem, size)
    Emmap.close(mem)
    """,
    stream: """
    _ = Enum.take(Emmap.stream!(path, 100), 2)
    _ = catch_throw.(fn -> Enum.each(Emmap.stream!(path), &throw/1) end)
    _ = Enum.count(Emmap.stream!(path))
    _ = Enum.into(["a"], Emmap.stream!(dir <> "/collected"))
    File.rm!(dir <> "/collected")
    """,
    killed: """
    killed.(fn -> {:ok, _} = Emmap.open(path, [:direct]); Process.sleep(:infinity) end)
    """,
    device: """
    {:ok, mem} = Emmap.open(path, [:write])
    {:ok, device} = Emmap.device(mem)
    _ = IO.binread(device, 10)
    File.close(device)
    Emmap.close(mem)
    """,
    searched: """
    {:ok, mem} = Emmap.open(path)
    {:ok, pattern} = case Emmap.compile_pattern(["xx", "y"]) do {:ok, p} -> {:ok, p}; p -> {:ok, p} end
    _ = Emmap.count(mem, pattern)
    Emmap.close(mem)
    """,
    counters: """
    {:ok, counters} = Emmap.Counters.open(dir <> "/counters", ["a", "b"])
    Emmap.Counters.add(counters, "a", 1)
    Emmap.Counters.close(counters)
    {:error, _} = Emmap.Counters.open(path, ["a"])
    """,
    queue: """
    {:ok, queue} = Emmap.Queue.open(dir <> "/queue", segment_size: 65_536)
    for n <- 1..20, do: :ok = Emmap.Queue.push(queue, :binary.copy(<<n>>, 5_000))
    for _ <- 1..20, do: {:ok, _} = Emmap.Queue.pop(queue)
    :empty = Emmap.Queue.pop(queue)
    :empty = Emmap.Queue.pop(queue, 1)
    killed.(fn -> Emmap.Queue.pop(queue, 60_000) end)
    Emmap.Queue.close(queue)
    {:error, _} = Emmap.Queue.open(path)
    """,
    pinned: """
    {:ok, queue} = Emmap.Queue.open(dir <> "/pinned", format: :binary, direct: true)
    :ok = Emmap.Queue.push(queue, :binary.copy("p", 500))
    killed.(fn -> {:ok, _} = Emmap.Queue.pop(queue); Process.sleep(:infinity) end)
    Emmap.Queue.close(queue)
    """,
    blocks: """
    {:ok, blocks} = Emmap.Blocks.open(dir <> "/blocks", block_size: 512)
    stored = for n <- 1..100, do: elem(Emmap.Blocks.store(blocks, :binary.copy(<<n>>, 512)), 1)
    for address <- stored, do: :ok = Emmap.Blocks.free(blocks, address)
    Emmap.Blocks.close(blocks)
    {:error, _} = Emmap.Blocks.open(path, block_size: 512)
    """
  ]

  for {kind, code} <- kinds do
    test "#{kind}", %{tmp_dir: dir} do
      path = Path.join(dir, "file")
      File.write!(path, :binary.copy("x", 10_000))

      {more, mib} =
        ChildVM.run!(
          """
          {dir, path, cycles} = {#{inspect(dir)}, #{inspect(path)}, #{@cycles}}
          catch_throw = fn act -> try do act.() catch thrown -> thrown end end
          {:ok, keeps} = Emmap.open([:anon, size: 4096, address: 0x1357_0000_0000])
          at = 0x1357_0000_0000
          ended = fn ended, pid -> if Process.alive?(pid), do: (Process.sleep(0); ended.(ended, pid)) end
          killed = fn act -> pid = spawn(act); Process.sleep(1); Process.exit(pid, :kill); ended.(ended, pid) end
          :persistent_term.put(:keeps, keeps)
          _ = {dir, path, catch_throw, killed, at}
          # A warning for each map that loses pages.
          :logger.set_primary_config(:level, :error)
          once = fn -> Task.await(Task.async(fn -> #{unquote(code)} end), 60_000) end
          """ <> @program,
          timeout: 1_700
        )

      assert more == []
      # 10,000 cycles that lose a page each would lose 40 MiB.
      assert mib < max(24, div(@cycles, 400)), "#{mib} MiB more"
    end
  end
end
