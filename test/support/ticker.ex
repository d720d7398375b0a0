defmodule Emmap.Test.Ticker do
  @moduledoc """
  How long a process waits for its turn, and a call of `:file` for a dirty I/O scheduler, while something else runs.
  """

  @pause 5

  @doc """
  Runs `fun`. Returns its result, and the longest that a process was late, and that a `stat` took, in milliseconds.
  """
  def next_to(fun) do
    parent = self()
    tick = spawn_link(fn -> loop(parent, :tick, fn -> :ok end, 0) end)
    stat = spawn_link(fn -> loop(parent, :stat, &stat/0, 0) end)
    result = fun.()
    {result, stop(tick, :tick), stop(stat, :stat)}
  end

  defp stat, do: {:ok, _} = :file.read_file_info("/", [:raw])

  defp stop(pid, what) do
    send(pid, :stop)

    receive do
      {^what, longest} -> longest
    end
  end

  defp loop(parent, what, act, longest) do
    start = System.monotonic_time(:microsecond)

    if what == :tick,
      do:
        receive(
          do: (:never -> :ok),
          after: (@pause -> :ok)
        )

    act.()
    took = System.monotonic_time(:microsecond) - start
    late = if what == :tick, do: took - 1000 * @pause, else: took
    longest = max(longest, late)

    receive do
      :stop -> send(parent, {what, longest / 1000})
    after
      if(what == :stat, do: @pause, else: 0) -> loop(parent, what, act, longest)
    end
  end
end
