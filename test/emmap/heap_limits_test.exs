defmodule Emmap.HeapLimitsTest do
  # Changes a flag of the system.
  use ExUnit.Case, async: false

  alias Emmap.{Blocks, Counters, Queue}

  @moduletag :tmp_dir

  # Words. What is enough for `File.stream!/1` of short lines is less.
  @limits [10_000, 30_000, 100_000, 300_000, 1_000_000, 1_200_000]

  @lines 20_000

  setup_all do
    %{lines: for(n <- 1..@lines, into: "", do: "line number #{n} is short\n")}
  end

  setup %{tmp_dir: dir, lines: lines} do
    path = Path.join(dir, "lines")
    File.write!(path, lines)
    %{path: path}
  end

  # How a process ends that runs `act`, with a heap of at most so many words.
  defp ends(words, act) do
    limit = %{size: words, kill: true, error_logger: false}
    ends_with([max_heap_size: limit], act)
  end

  defp ends_with(options, act) do
    {pid, ref} = :erlang.spawn_opt(fn -> exit({:done, act.()}) end, [:monitor | options])
    assert_receive {:DOWN, ^ref, :process, ^pid, reason}, 30_000
    reason
  end

  defp count(enumerable), do: Enum.reduce(enumerable, 0, fn _element, count -> count + 1 end)

  test "streams do not bring a process above its max_heap_size", %{path: path} do
    {:ok, mem} = Emmap.open(path)

    for words <- @limits do
      assert {words, {:done, @lines}} ==
               {words, ends(words, fn -> count(Emmap.stream!(path)) end)}

      assert {words, {:done, @lines}} == {words, ends(words, fn -> count(Emmap.stream!(mem)) end)}

      live = fn -> count(Emmap.stream!(mem, :line, live: true, trim: true)) end
      assert {words, {:done, @lines}} == {words, ends(words, live)}

      pieces = div(File.stat!(path).size + 29, 30)

      assert {words, {:done, pieces}} ==
               {words, ends(words, fn -> count(Emmap.stream!(path, 30)) end)}

      # Suspended and resumed.
      zipped = fn -> mem |> Emmap.stream!() |> Stream.zip(Emmap.stream!(mem)) |> count() end
      assert {words, {:done, @lines}} == {words, ends(words, zipped)}
    end
  end

  test "nor do collected streams, counters, queues and blocks", %{tmp_dir: dir} do
    {:ok, counters} = Counters.open(Path.join(dir, "counters"), @lines)
    {:ok, queue} = Queue.open(Path.join(dir, "queue"))
    {:ok, blocks} = Blocks.open(Path.join(dir, "blocks"), block_size: 64)

    for n <- 1..3000 do
      :ok = Queue.push(queue, "item #{n}")
      {:ok, _} = Blocks.store(blocks, String.pad_trailing("block #{n}", 64))
    end

    into = Path.join(dir, "collected")
    numbers = Stream.map(1..@lines, &Integer.to_string/1)

    for words <- @limits do
      assert {words, {:done, @lines}} == {words, ends(words, fn -> count(counters) end)}
      assert {words, {:done, 3000}} == {words, ends(words, fn -> count(queue) end)}
      assert {words, {:done, 3000}} == {words, ends(words, fn -> count(blocks) end)}

      File.rm(into)
      assert {:done, _} = ends(words, fn -> Enum.into(numbers, Emmap.stream!(into)) && :ok end)
      assert File.read!(into) == Enum.join(numbers)
    end
  end

  test "the limit of the system counts, too, and one that kills nobody", %{path: path} do
    before =
      :erlang.system_flag(:max_heap_size, %{size: 100_000, kill: true, error_logger: false})

    {pid, ref} =
      spawn_monitor(fn -> receive do: (:go -> exit({:done, count(Emmap.stream!(path))})) end)

    :erlang.system_flag(:max_heap_size, before)
    send(pid, :go)
    assert_receive {:DOWN, ^ref, :process, ^pid, {:done, @lines}}, 30_000

    flags = fn ->
      self() |> Process.info(:garbage_collection) |> elem(1) |> Keyword.delete(:minor_gcs)
    end

    kept = fn ->
      before = flags.()
      during = Enum.map(Emmap.stream!(path) |> Stream.take(1), fn _line -> flags.() end)
      {during == [before], flags.() == before}
    end

    limit = %{size: 200_000, kill: false, error_logger: false}
    assert {:done, {true, true}} == ends_with([max_heap_size: limit], kept)
  end

  test "the flags of the process are its own again, however an enumeration ends", %{path: path} do
    flags = fn ->
      Process.info(self(), [:garbage_collection, :priority, :trap_exit, :message_queue_data])
    end

    settings = fn ->
      flags.() |> Keyword.update!(:garbage_collection, &Keyword.delete(&1, :minor_gcs))
    end

    ways = [
      fn -> count(Emmap.stream!(path)) end,
      fn -> Enum.take(Emmap.stream!(path), 3) end,
      fn -> catch_throw(Enum.each(Emmap.stream!(path), &throw/1)) end,
      fn -> catch_exit(Enum.each(Emmap.stream!(path), &exit/1)) end,
      fn -> catch_error(Enum.each(Emmap.stream!(path), &:erlang.error/1)) end,
      fn -> Enum.zip(Stream.take(Emmap.stream!(path), 3), Emmap.stream!(path, 9)) end,
      fn -> Enumerable.reduce(Emmap.stream!(path), {:cont, 0}, fn _, n -> {:suspend, n} end) end
    ]

    for way <- ways do
      run = fn ->
        before = settings.()
        way.()
        {before, settings.()}
      end

      assert {:done, {same, same}} = ends_with([min_heap_size: 1000], run)
    end
  end
end
