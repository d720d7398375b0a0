defmodule Bench.Comparison do
  @moduledoc false
  # The sides of a comparison take turns in many short rounds, within one run. What else the machine does only adds time, so
  # the least time of each side counts; and since a machine that is slow for a while is slow for all sides of a round, so does
  # the median of the ratios within each round. The first side is the one that the others are divided by.

  defstruct [:name, :rounds, :sides, times: %{}]

  # In words. The heap of a new process is as large as what it was given needs, 233 words at least. A few words more in a
  # handle, and one side collects garbage half as often as the other: a difference of 3 to 8 ns a call.
  @heap 4_000
  # Nanoseconds of a round: shorter than the time for which the system gives a core to another program.
  @round 400_000
  @fewest 5
  @most 400

  @doc """
  Options: `seconds:` (1.0) that all rounds may take, `round:` nanoseconds of each, `quiet: true`, `empty:` a loop `fn n -> … end` whose time is
  taken off.
  """
  def run(name, sides, options) do
    unless options[:quiet], do: IO.write("#{name} ")
    round = div(options[:round] || @round, if(Bench.quick?(), do: 2, else: 1))
    empty = if options[:empty], do: empty(options[:empty]), else: 0.0
    sides = Enum.map(sides, &Map.put(&1, :calls, calls(&1, round)))
    seconds = Bench.seconds(options[:seconds] || 1.0) / Process.get(:bench_share, 1)
    deadline = now() + round(seconds * 1.0e9)
    rounds = rounds(sides, {round, deadline}, 0, [])

    times =
      for %{key: key} <- sides, into: %{} do
        # Nothing takes no time.
        {key, for(round <- rounds, do: max(round[key] - empty, 0.1))}
      end

    comparison = %__MODULE__{
      name: name,
      rounds: length(rounds),
      sides: for(%{key: key, label: label} <- sides, do: {key, label}),
      times: times
    }

    unless options[:quiet], do: IO.puts(summary(comparison))
    comparison
  end

  @doc "From figures that were measured elsewhere, in rounds: nanoseconds for each key."
  def of(name, sides, times) do
    rounds = times |> Map.values() |> hd() |> length()
    comparison = %__MODULE__{name: name, rounds: rounds, sides: sides, times: times}
    report(comparison)
    comparison
  end

  @doc "The comparisons of this VM take one of so many parts of their time: as many VMs make the same ones."
  def share(vms), do: Process.put(:bench_share, vms)

  @doc "One comparison, of the rounds of all of these."
  def merge([first | _] = comparisons) do
    times =
      for {key, _} <- first.sides,
          into: %{},
          do: {key, Enum.flat_map(comparisons, & &1.times[key])}

    rounds = comparisons |> Enum.map(& &1.rounds) |> Enum.sum()
    %{first | times: times, rounds: rounds}
  end

  @doc "Shows it, as `run/3` does."
  def report(comparison), do: IO.puts([comparison.name, " ", summary(comparison)])

  def least(%{times: times}, key), do: Enum.min(times[key])

  def median(%{times: times}, key),
    do: times[key] |> Enum.sort() |> Enum.at(div(length(times[key]), 2))

  @doc "How many times as long as the first side it takes, by their least times."
  def ratio(%{sides: [{first, _} | _]} = comparison, key),
    do: least(comparison, key) / least(comparison, first)

  @doc "The first quartile, the median and the third of the ratios within each round."
  def ratios(%{sides: [{first, _} | _], times: times}, key) do
    sorted =
      times[key] |> Enum.zip(times[first]) |> Enum.map(fn {a, b} -> a / b end) |> Enum.sort()

    for part <- [0.25, 0.5, 0.75], do: Enum.at(sorted, trunc(part * (length(sorted) - 1)))
  end

  @doc "Nanoseconds per call, in a fresh process: no garbage of others, and a heap of the same size for each side."
  def round(%{setup: setup, run: run, teardown: teardown}, calls) do
    parent = self()

    measure = fn ->
      it = setup.()
      begun = now()
      run.(it, calls)
      ended = now()
      teardown.(it)
      send(parent, {self(), (ended - begun) / calls})
    end

    {pid, monitor} = :erlang.spawn_opt(measure, [:link, :monitor, min_heap_size: @heap])
    receive do: ({^pid, time} -> receive(do: ({:DOWN, ^monitor, _, _, _} -> time)))
  end

  defp summary(%{sides: [{first, _} | others]} = comparison) do
    rest =
      for {key, label} <- others,
          do: ", #{label} #{Bench.digits(ratio(comparison, key))} times"

    "#{Bench.time(least(comparison, first))}#{rest} (#{comparison.rounds} rounds)"
  end

  defp rounds(sides, {round, deadline} = limits, count, rounds) do
    enough = count >= @fewest and now() > deadline
    # A comparison of large things ends after three rounds.
    late = count >= 3 and now() > deadline + 2_000_000_000

    if enough or late or count == @most do
      rounds
    else
      # In both orders, so that none always runs after the same other.
      order = if rem(count, 2) == 0, do: sides, else: Enum.reverse(sides)
      times = Map.new(order, fn side -> {side.key, round(side, side.calls)} end)
      # How many calls fill a round is learnt on the way: the first estimate may have met a pause.
      sides =
        for side <- sides, do: %{side | calls: max(side.calls, fit(side, round, times[side.key]))}

      rounds(sides, limits, count + 1, [times | rounds])
    end
  end

  # So many calls as fill a round.
  defp calls(%{most: 1}, _round), do: 1
  defp calls(side, round), do: calls(side, round, 1)

  defp calls(side, round, calls) do
    took = round(side, calls) * calls

    cond do
      took >= round / 4 -> fit(side, round, took / calls)
      calls >= side.most -> side.most
      true -> calls(side, round, min(calls * 4, side.most))
    end
  end

  defp fit(side, round, each), do: min(max(trunc(round / each), 1), side.most)

  # It is the same for all comparisons, and shorter than its noise: measured once.
  defp empty(loop) do
    with nil <- Process.get(:empty_loop) do
      side = Bench.side(:empty, "", loop)
      least = Enum.min(for _ <- 1..100, do: round(side, 50_000))
      Process.put(:empty_loop, least)
      least
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
