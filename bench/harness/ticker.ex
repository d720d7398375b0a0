defmodule Bench.Ticker do
  @moduledoc false
  # A process that sleeps a millisecond, over and over, on the same schedulers as what runs meanwhile: by how much its ticks
  # were late.

  # So long each process goes on, or for one act that takes longer.
  @goes_on 200_000_000

  @doc """
  Runs `acts`, each over and over in a process of its own, while a process ticks, in so many rounds: `{worst, p99.9, time of the acts}` in
  nanoseconds. The worst is that of the calmest round, since a machine that is shared adds delays of its own; the other is of the ticks
  of all rounds.
  """
  def ticked(acts, rounds) do
    rounds = for _ <- 1..if(Bench.quick?(), do: 1, else: rounds), do: ticked_once(acts)
    ticks = rounds |> Enum.flat_map(&elem(&1, 0)) |> Enum.sort()
    worst = rounds |> Enum.map(&(&1 |> elem(0) |> Enum.max())) |> Enum.min()
    {worst, part(ticks, 0.999), rounds |> Enum.map(&elem(&1, 1)) |> Enum.min()}
  end

  # What an act returns is freed with its process, while the ticker still measures.
  defp ticked_once(acts) do
    parent = self()
    ticker = :erlang.spawn_opt(fn -> tick(parent, now(), []) end, [:link, min_heap_size: 100_000])
    until = now() + if(Bench.quick?(), do: 0, else: @goes_on)

    times =
      acts
      |> Enum.map(&Task.async(fn -> on_and_on(&1, until, now(), 0) end))
      |> Task.await_many(:infinity)

    Process.sleep(20)
    send(ticker, :stop)
    receive do: ({:late, late} -> {late, Enum.min(times)})
  end

  # The time of one of them.
  defp on_and_on(act, until, begun, count) do
    act.()
    now = now()
    if now < until, do: on_and_on(act, until, begun, count + 1), else: (now - begun) / (count + 1)
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
