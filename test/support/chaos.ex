defmodule Emmap.Test.Chaos do
  @moduledoc """
  Processes that do all that can be done to maps, while others truncate, extend, delete and rename the files
  and fill the disk. Whatever happens, the VM lives, each result is one that the call may return, and at the end
  descriptors, maps and memory are back.
  """

  alias Emmap.{Counters, Native}

  @files 6
  @workers 8
  @most 2_000_000

  @doc """
  Runs for `seconds` in `directory`, best a small disk of its own. Returns what was done, what was strange,
  and what is left.
  """
  def run(directory, seconds, seed) do
    {:ok, _} = Agent.start_link(fn -> %{} end, name: __MODULE__)
    _ = play(directory, 1, seed)
    before = held(directory)
    play(directory, seconds, seed + 1)
    left = settled(directory, before)
    counts = Agent.get(__MODULE__, & &1)
    {strange, usual} = Enum.split_with(counts, fn {{_, answer}, _} -> strange?(answer) end)
    %{usual: usual, strange: strange, before: before, left: left}
  end

  defp play(directory, seconds, seed) do
    until = System.monotonic_time(:millisecond) + seconds * 1000

    doers = for n <- 1..@workers, do: Task.async(fn -> worker(directory, until, {seed, n, 1}) end)

    vandals = for n <- 1..2, do: Task.async(fn -> vandal(directory, until, {seed, n, 2}) end)
    Task.await_many(doers ++ vandals, :infinity)
    for name <- File.ls!(directory), do: File.rm_rf(Path.join(directory, name))
  end

  # A worker keeps some handles and some live binaries, and is killed at times.
  defp worker(directory, until, seed) do
    {pid, monitor} =
      spawn_monitor(fn ->
        :rand.seed(:exsss, seed)
        work(directory, until, %{handles: [], views: [], counters: nil, counts: %{}})
      end)

    receive do
      {:DOWN, ^monitor, _, ^pid, :normal} -> :ok
      {:DOWN, ^monitor, _, ^pid, :killed} -> again(directory, until, seed)
      {:DOWN, ^monitor, _, ^pid, why} -> note(%{{:died, {:strange, why}} => 1})
    after
      :rand.uniform(5_000) ->
        Process.exit(pid, :kill)
        receive do: ({:DOWN, ^monitor, _, ^pid, _} -> again(directory, until, seed))
    end
  end

  defp again(directory, until, {a, b, c}) do
    if System.monotonic_time(:millisecond) < until, do: worker(directory, until, {a, b, c + 1})
  end

  defp work(directory, until, state) do
    state = Enum.reduce(1..50, state, fn _, state -> step(directory, state) end)
    note(state.counts)
    state = %{state | counts: %{}}

    if System.monotonic_time(:millisecond) < until,
      do: work(directory, until, state),
      else: Enum.each(state.handles, &Emmap.close/1)
  end

  defp step(directory, %{handles: []} = state), do: open(directory, state)

  defp step(directory, state) do
    mem = Enum.random(state.handles)

    case :rand.uniform(30) do
      1 -> open(directory, state)
      2 -> closed(state, mem)
      3 -> count(directory, state)
      n when n in 4..7 -> view(state, mem)
      n when n in 8..11 -> touch(state)
      _ -> answered(state, random_call(mem))
    end
  end

  defp open(directory, state) do
    file = file(directory)

    options =
      Enum.random([
        [:read],
        [:read, :direct],
        [:write, :create],
        [:write, :create, :direct, :sparse],
        [:write, :create, size: :rand.uniform(100_000)],
        [:write, :create, :sparse, :nolock, size: :rand.uniform(@most)],
        [:write, :private],
        [:write, :fixed_size],
        [:read, offset: :rand.uniform(10_000)],
        [:write, offset: 4096, length: 5000],
        [:append, :create],
        [:append, :direct],
        [:write, :truncate],
        [:write, :truncate, size: :rand.uniform(50_000)],
        [:write, :fit, size: :rand.uniform(50_000)]
      ])

    case Emmap.open(file, options) do
      {:ok, mem} ->
        state = if length(state.handles) > 5, do: closed(state, hd(state.handles)), else: state
        counted(%{state | handles: [mem | state.handles]}, :open, :ok)

      error ->
        counted(state, :open, error)
    end
  end

  defp closed(state, mem),
    do:
      counted(
        %{state | handles: List.delete(state.handles, mem)},
        :close,
        shape(Emmap.close(mem))
      )

  defp view(state, mem) do
    case Emmap.view(mem, place(), :rand.uniform(100_000)) do
      {:ok, view} ->
        counted(%{state | views: Enum.take([view | state.views], 20)}, :view, :ok)

      other ->
        counted(state, :view, other)
    end
  end

  defp touch(%{views: []} = state), do: state

  defp touch(state) do
    view = Enum.random(state.views)

    case :rand.uniform(5) do
      1 -> :erlang.crc32(view)
      2 -> :binary.match(view, "no such thing")
      3 -> for <<byte <- view>>, reduce: 0, do: (sum -> sum + byte)
      4 -> spawn(fn -> :erlang.phash2(view) end)
      5 -> :binary.copy(binary_part(view, 0, div(byte_size(view), 2)))
    end

    counted(state, :touch, :ok)
  end

  defp count(directory, %{counters: nil} = state) do
    case Counters.open(Path.join(directory, "counters"), 100) do
      {:ok, counters} -> counted(%{state | counters: counters}, :counters, :ok)
      error -> counted(state, :counters, error)
    end
  end

  defp count(_directory, state) do
    Counters.add(state.counters, :rand.uniform(100) - 1, 1)
    counted(state, :count, :ok)
  rescue
    error in Emmap.Error ->
      counted(%{state | counters: nil}, :count, {:error, error.reason})
  end

  defp random_call(mem) do
    data = :binary.copy(<<:rand.uniform(255)>>, Enum.random([1, 8, 100, 5_000, 200_000]))
    count = Enum.random([1, 8, 4096, 100_000])

    Enum.random([
      {:pread, fn -> Emmap.pread(mem, place(), count) end},
      {:pread, fn -> Emmap.pread(mem, [{place(), 8}, {place(), 5000}]) end},
      {:pwrite, fn -> Emmap.pwrite(mem, place(), data) end},
      {:read, fn -> Emmap.read(mem, count) end},
      {:write, fn -> Emmap.write(mem, data) end},
      {:read_line, fn -> Emmap.read_line(mem) end},
      {:position, fn -> Emmap.position(mem, place()) end},
      {:patomic, fn -> Emmap.patomic(mem, div(place(), 8) * 8, :add, 1) end},
      {:resize, fn -> Emmap.resize(mem, place()) end},
      {:resize, fn -> Emmap.grow(mem) end},
      {:truncate, fn -> Emmap.truncate(mem) end},
      {:allocate, fn -> Emmap.allocate(mem, place(), count) end},
      {:prefetch, fn -> Emmap.prefetch(mem, 0, @most) end},
      {:advise,
       fn -> Emmap.advise(mem, 0, 0, Enum.random([:dont_need, :will_need, :random])) end},
      {:sync, fn -> Emmap.sync(mem, Enum.random([:sync, :async])) end},
      {:reattach, fn -> Emmap.reattach(mem) end},
      {:reattach, fn -> Emmap.reattach(mem) end},
      {:info, fn -> Emmap.info(mem) end},
      {:dup, fn -> with {:ok, other} <- Emmap.dup(mem), do: Emmap.close(other) end},
      {:inspect, fn -> inspect(mem) && :ok end},
      {:fill, fn -> Emmap.fill(mem, place(), count, 1) end},
      {:copy, fn -> Emmap.copy(mem, place(), place(), 5000) end},
      {:put, fn -> Emmap.put(mem, place(), :u64, 1) end},
      {:lines, fn -> raised(fn -> mem |> Emmap.stream!() |> Enum.take(500) end) end},
      {:live_lines,
       fn -> raised(fn -> mem |> Emmap.stream!(live: true) |> Enum.take(500) end) end},
      {:collect, fn -> raised(fn -> Enum.into([data], Emmap.stream!(mem)) end) end},
      {:string, fn -> Emmap.string(mem, place(), 100) end},
      {:metadata, fn -> :file.read_file_info(mem) end},
      {:view_written,
       fn ->
         with {:ok, live} <- Emmap.view(mem, place(), 5_000),
              do: Emmap.pwrite(mem, place(), [live, "x"])
       end}
    ])
  end

  defp answered(state, {name, call}), do: counted(state, name, shape(call.()))

  # What raises says why.
  defp raised(act) do
    act.()
    :ok
  rescue
    error in Emmap.Error -> {:error, error.reason}
  end

  defp shape({:ok, _}), do: :ok
  defp shape(other), do: other

  defp counted(state, name, answer),
    do: %{state | counts: Map.update(state.counts, {name, answer}, 1, &(&1 + 1))}

  defp note(counts),
    do: Agent.update(__MODULE__, &Map.merge(&1, counts, fn _, a, b -> a + b end))

  defp place, do: Enum.random([:rand.uniform(5_000), :rand.uniform(60_000), :rand.uniform(@most)])

  defp file(directory), do: Path.join(directory, "file#{:rand.uniform(@files)}")

  # Another program, as far as the maps know.
  defp vandal(directory, until, seed) do
    :rand.seed(:exsss, seed)
    vandalise(directory, until)
  end

  defp vandalise(directory, until) do
    file = file(directory)

    case :rand.uniform(12) do
      n when n in 1..4 -> cut(file, Enum.random([0, 1, 100, 4096, 5000, place()]))
      n when n in 5..7 -> cut(file, @most)
      8 -> File.write(file, :binary.copy("line\r\n", :rand.uniform(50_000)))
      9 -> File.rename(file, file(directory))
      10 -> File.rm(file)
      11 -> fill(directory)
      12 -> cut(Path.join(directory, "counters"), Enum.random([0, 5000, 100_000]))
    end

    Process.sleep(:rand.uniform(5))
    if System.monotonic_time(:millisecond) < until, do: vandalise(directory, until)
  end

  # To this size, shorter or longer.
  defp cut(file, size) do
    with {:ok, raw} <- :file.open(file, [:raw, :read, :write]) do
      {:ok, _} = :file.position(raw, size)
      _ = :file.truncate(raw)
      :file.close(raw)
    end
  end

  # Until the disk is full, where it is small; for a moment.
  defp fill(directory) do
    filler = Path.join(directory, "filler")

    with {:ok, raw} <- :file.open(filler, [:raw, :write]) do
      megabyte = :binary.copy("x", 1_000_000)
      Enum.find(1..60, fn _ -> :file.write(raw, megabyte) != :ok end)
      :file.close(raw)
      Process.sleep(:rand.uniform(50))
    end

    File.rm(filler)
  end

  # Results that no call may return: devices do not fail here, and nothing may crash.
  @usual [:estale, :enospc, :closed, :einval, :eacces, :enoent, :ebusy, :ebadmsg]
  defp strange?(answer) when answer in [:ok, :eof], do: false
  defp strange?({:error, {:bad_format, _}}), do: false
  defp strange?({:error, reason}) when reason in @usual, do: false
  defp strange?(_), do: true

  @doc "Descriptors, maps, mappings and handles not collected, and kilobytes of memory."
  def held(directory) do
    maps = "/proc/self/maps" |> File.read!() |> String.split("\n")
    [_, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/self/status"))

    %{
      descriptors: length(File.ls!("/proc/self/fd")),
      maps: length(maps),
      ours: Enum.count(maps, &String.contains?(&1, directory)),
      live: Native.live(),
      kilobytes: String.to_integer(kilobytes)
    }
  end

  # Unmapping may go on for a moment.
  defp settled(directory, before, tries \\ 300) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    now = held(directory)

    if tries == 0 or (now.ours == 0 and now.live == {0, 0} and now.maps <= before.maps + 50) do
      now
    else
      Process.sleep(20)
      settled(directory, before, tries - 1)
    end
  end
end
