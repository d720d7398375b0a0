defmodule Bench.Ticker do
  @moduledoc false
  # A process that sleeps a millisecond, over and over, on the same schedulers as what runs meanwhile: by how much its ticks
  # were late.

  @doc """
  Runs `acts`, each in a process of its own, while a process ticks: `{worst, p99.9, time}` in nanoseconds. Of so many rounds the calmest
  counts, since a machine that is shared adds delays of its own.
  """
  def ticked(acts, rounds) do
    rounds = if Bench.quick?(), do: 1, else: rounds
    Enum.min(for _ <- 1..rounds, do: ticked_once(acts))
  end

  defp ticked_once(acts) do
    parent = self()
    ticker = :erlang.spawn_opt(fn -> tick(parent, now(), []) end, [:link, min_heap_size: 100_000])
    # What an act returns is freed with its process, while the ticker still measures.
    time = Bench.together(for act <- acts, do: fn -> act.() && :ok end)
    Process.sleep(20)
    send(ticker, :stop)
    receive do: ({:late, late} -> {Enum.max(late), part(Enum.sort(late), 0.999), time})
  end

  defp part(sorted, part),
    do: Enum.at(sorted, min(ceil(part * length(sorted)), length(sorted)) - 1)

  defp tick(parent, last, late) do
    receive do
      :stop -> send(parent, {:late, late})
    after
      1 ->
        now = now()
        tick(parent, now, [max(now - last - 1_000_000, 0) | late])
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
