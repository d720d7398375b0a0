defmodule Emmap.BadDays.LongCallsTest do
  # Calls that may take long, each in ten processes at once, which are killed in the middle of it: nobody else waits, and
  # the schedulers are free soon. `EMMAP_LONG_MS` is what "soon" means, and the table of
  # `make bad-days` has what was measured, in milliseconds.
  use ExUnit.Case, async: false
  alias Emmap.Test.{BadDayTable, ChildVM}

  @moduletag :tmp_dir
  @moduletag timeout: 180_000

  # Before these calls went in steps, they took seconds to hours.
  @soon String.to_integer(System.get_env("EMMAP_LONG_MS", "6000"))

  # In a VM of its own: what is killed in vain would hold up all other tests. `data` is any term that `before` made.
  defp measured(%{tmp_dir: directory}, before, call) do
    code = """
    directory = #{inspect(directory)}
    _ = directory
    data = (#{before})
    now = fn -> System.monotonic_time(:millisecond) end
    # The longest time that a process waited for its turn, and for a collection on a dirty CPU scheduler.
    watcher = fn watcher, work, longest ->
      begun = now.()
      work.()
      longest = max(longest, now.() - begun)
      receive do
        {:stop, pid} -> send(pid, {:longest, longest})
      after 0 -> watcher.(watcher, work, longest)
      end
    end
    tick = fn -> receive do after 2 -> :ok end end
    garbage = Enum.to_list(1..100_000)
    collect = fn -> Process.sleep(2); :erlang.garbage_collect(); length(garbage) end
    watchers = for work <- [tick, collect], do: spawn_link(fn -> watcher.(watcher, work, 0) end)
    again = fn again, data -> _ = (#{call}); again.(again, data) end
    callers = for _ <- 1..10, do: spawn(fn -> again.(again, data) end)
    Process.sleep(300)
    for pid <- callers, do: Process.exit(pid, :kill)
    killed = now.()
    busy = fn -> :erlang.statistics(:active_tasks_all) |> Enum.take(-2) |> Enum.sum() end
    [ticked, collected] =
      for watcher <- watchers do
        send(watcher, {:stop, self()})
        receive do {:longest, longest} -> longest after #{@soon * 4} -> :never end
      end
    Enum.find(Stream.repeatedly(fn -> Process.sleep(1); now.() - killed end), &(busy.() == 0 or &1 > #{@soon * 4}))
    |> then(&%{free_after: &1, ticked: ticked, collected: collected})
    """

    ChildVM.run!(code, timeout: 120)
  end

  @sparse ~S"""
  path = Path.join(directory, "sparse")
  {:ok, file} = :file.open(path, [:write, :raw])
  {:ok, _} = :file.position(file, 200_000_000_000)
  :ok = :file.truncate(file)
  :ok = :file.close(file)
  path
  """

  # Of which one begins the other, in a map of nothing else.
  @alike ~S"""
  {:ok, mem} = Emmap.open([:anon, size: 64_000_000])
  :ok = Emmap.fill(mem, 0, 64_000_000, ?a)
  {mem, Emmap.compile_pattern(["a", String.duplicate("a", 1023) <> "b"])}
  """

  @zeros ~S"{:ok, mem} = Emmap.open([:anon, size: 2_000_000_000]); mem"

  @long_pattern ~S"""
  {:ok, mem} = Emmap.open([:anon, size: 2_000_000_000])
  {mem, Emmap.compile_pattern(:binary.copy(<<0>>, 4_000_000) <> "x")}
  """

  # A copy of an open one, as after a power failure.
  @copied_queue ~S"""
  path = Path.join(directory, "queue")
  queue = Emmap.Queue.open!(path)
  items = List.duplicate(String.duplicate("x", 100), 10_000)
  for _ <- 1..60, do: {:ok, 10_000} = Emmap.Queue.push_many(queue, items)
  File.cp!(path, path <> "_copied")
  path <> "_copied"
  """

  @many_counters ~S|Emmap.Counters.open!(Path.join(directory, "counters"), 4_000_000)|

  @many_names ~S"""
  path = Path.join(directory, "names")
  _ = Emmap.Counters.open!(path, for(n <- 1..300_000, do: "name#{n}"))
  path
  """

  @cluster ~S"""
  counters = Emmap.Counters.open!(Path.join(directory, "cluster"), for(n <- 1..20_000, do: "name#{n}"))
  :ok = Emmap.Counters.Cluster.join(:long, counters, nodes: [node()])
  """

  @blocks ~S"""
  blocks = Emmap.Blocks.open!(Path.join(directory, "blocks"), block_size: 64)
  for _ <- 1..50, do: {:ok, _} = Emmap.Blocks.store_many(blocks, List.duplicate(String.duplicate("y", 64), 10_000))
  blocks
  """

  @numbers "Emmap.Array.of!((#{@zeros}), :f64)"

  @column "Emmap.Array.column(Emmap.Array.of!((#{@zeros}), a: :f64, b: {:f64, :big}, pad: 4), :b)"

  @calls [
    {"an rfind of patterns of which one is a prefix of another", @alike,
     "Emmap.rfind(elem(data, 0), elem(data, 1))"},
    {"a find_all of all matches", @alike,
     "Emmap.find_all(elem(data, 0), elem(data, 1), limit: 3_000_000)"},
    {"a count of all matches", @alike, "Emmap.count(elem(data, 0), elem(data, 1))"},
    {"a find without a match", @zeros, ~S|Emmap.find(data, ["ab", "cd"])|},
    {"a find of a long pattern", @long_pattern, "Emmap.find(elem(data, 0), elem(data, 1))"},
    {"an rfind of a long pattern", @long_pattern, "Emmap.rfind(elem(data, 0), elem(data, 1))"},
    {"a compile_pattern of 80,000 patterns",
     "for n <- 1..80_000, do: :erlang.md5(Integer.to_string(n))", "Emmap.compile_pattern(data)"},
    {"a compile_pattern of one long pattern", ~S|:binary.copy("ab", 50_000_000)|,
     "Emmap.compile_pattern(data)"},
    {"a read of a line of 200 GB", @sparse,
     "try do Enum.take(Emmap.stream!(data), 1) rescue Emmap.Error -> :enomem end"},
    {"a read of a live line of 200 GB", @sparse,
     "Enum.take(Emmap.stream!(data, :line, live: true), 1)"},
    {"a read_line of 200 GB", @sparse,
     "{:ok, mem} = Emmap.open(data); :file.read_line(mem); Emmap.close(mem)"},
    {"a count of the lines of 200 GB", @sparse, "Enum.count(Emmap.stream!(data))"},
    {"a count of the lines of 2 GB of memory", @zeros, "Enum.count(Emmap.stream!(data))"},
    {"a read of a live line of 2 GB of memory", @zeros,
     "Enum.take(Emmap.stream!(data, :line, live: true), 1)"},
    {"a split of 2 GB without a newline", @zeros, "Emmap.chunks!(data, 3)"},
    {"a read of a chunk of 500 MB", @zeros, "Enum.take(Emmap.stream!(data, 500_000_000), 1)"},
    {"an inspection of 200 GB", @sparse, "Emmap.Inspection.file(data)"},
    {"an inspection of a queue", @copied_queue, "Emmap.Inspection.file(data, values: :infinity)"},
    {"a pread of 100 MB", @zeros, "Emmap.pread(data, 0, 100_000_000)"},
    {"a pwrite of 300 MB", "{(#{@zeros}), :binary.copy(\"x\", 300_000_000)}",
     "Emmap.pwrite(elem(data, 0), 0, elem(data, 1))"},
    {"a copy of 1 GB", @zeros, "Emmap.copy(data, 0, 500_000_000, 1_000_000_000)"},
    {"a sum of 250,000,000 numbers", @numbers, "Emmap.Array.sum(data)"},
    {"a copy of a column of 100,000,000 numbers", @column, "Emmap.Array.to_binary(data)"},
    {"a read of all numbers of an array", @numbers, "Enum.sum(data)"},
    {"a read of 4,000,000 counters", @many_counters, "Emmap.Counters.to_list(data)"},
    {"a reset of 4,000,000 counters", @many_counters, "Emmap.Counters.reset(data)"},
    {"an open of counters with 300,000 names", @many_names, "Emmap.Counters.open!(data, 1)"},
    {"sums over 20,000 names", @cluster, "Emmap.Counters.Cluster.sums(:long)"},
    {"a recovery of a queue", @copied_queue, "Emmap.Queue.close(Emmap.Queue.open!(data))"},
    {"a read of all items of a queue", "Emmap.Queue.open!((#{@copied_queue}))",
     "Enum.to_list(data)"},
    {"an info of a queue", "Emmap.Queue.open!((#{@copied_queue}))", "Emmap.Queue.info(data)"},
    {"a check of blocks", @blocks, "Emmap.Blocks.check(data)"},
    {"a read of all blocks", @blocks, "Enum.to_list(data)"},
    {"a sync of blocks", @blocks, "Emmap.Blocks.sync(data)"}
  ]

  for {title, before, call} <- @calls do
    test "80: processes are killed during #{title}", context do
      measured = measured(context, unquote(before), unquote(call))
      BadDayTable.note(context.test, inspect(measured))

      for {what, milliseconds} <- measured,
          do: assert({what, milliseconds <= @soon} == {what, true})
    end
  end

  test "80: a call whose handle is closed in the middle ends", context do
    assert [:closed, :closed, :closed] =
             ChildVM.run!("""
             {:ok, mem} = Emmap.open([:anon, size: 8_000_000_000])
             pattern = Emmap.compile_pattern(["ab", "cd"])
             line = fn -> try do Enum.take(Emmap.stream!(mem), 1) rescue e in Emmap.Error -> {:error, e.reason} end end
             calls = [fn -> Emmap.count(mem, pattern) end, fn -> :file.read_line(mem) end, line]
             tasks = for call <- calls, do: Task.async(call)
             Process.sleep(200)
             :ok = Emmap.close(mem)
             for {:error, reason} <- Task.await_many(tasks, 60_000), do: reason
             """)

    _ = context
  end

  # OTP's takes about as long for few patterns, and longer for many.
  test "80: times to compile lists of patterns, compared with OTP", context do
    for {count, times} <- [{20, 50}, {1_000, 10}, {20_000, 1}, {80_000, 1}] do
      patterns = for n <- 1..count, do: binary_part(:erlang.md5("#{n}"), 0, 12)

      best = fn call ->
        Enum.min(for _ <- 1..3, do: elem(:timer.tc(fn -> for(_ <- 1..times, do: call.()) end), 0))
      end

      otp = best.(fn -> :binary.compile_pattern(patterns) end)
      ours = best.(fn -> Emmap.compile_pattern(patterns) end)

      BadDayTable.note(
        context.test,
        "#{count} patterns: #{div(ours, times)} us (OTP: #{div(otp, times)} us)"
      )

      assert {count, ours < 4 * otp + 100_000} == {count, true}
    end
  end
end
