defmodule Bench.Harness do
  @moduledoc false
  # Times calls as nanoseconds with the empty loop taken off. The sides of a comparison take turns,
  # round after round, and the best round of each counts: what the machine does besides only ever
  # adds time.

  @doc "Best nanoseconds per call of each `{name, calls, fun}`, where `fun.(n)` makes `n` calls."
  def compare(sides, rounds \\ 15) do
    for _ <- 1..rounds, {name, calls, fun} <- sides do
      {name, time(fun, calls)}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Map.new(fn {name, times} -> {name, Enum.min(times)} end)
  end

  @doc "Nanoseconds per call, in a fresh process: no garbage of others, no heap grown by others."
  def time(fun, calls) do
    task =
      Task.async(fn ->
        {microseconds, _} = :timer.tc(fun, [calls])
        microseconds * 1000 / calls
      end)

    Task.await(task, :infinity)
  end

  @doc "Builds the bare C NIF of `FLOOR` (the folder with build.sh) and loads it."
  def load_floor! do
    source = System.get_env("FLOOR") || Path.expand("../../shared/floor", __DIR__)
    script = Path.join(source, "build.sh")

    unless File.exists?(script) do
      IO.puts("bench: no floor NIF at #{source}; set FLOOR to the folder with its build.sh")
      System.halt(2)
    end

    target = Path.join(System.tmp_dir!(), "emmap_floor_#{System.otp_release()}")
    {_, 0} = System.cmd("sh", [script, target])
    Code.prepend_path(target)
    {:module, _} = Code.ensure_loaded(:floor_nif)
  end

  def row(name, ours, theirs, limit) do
    ratio = ours / theirs

    IO.puts([
      String.pad_trailing(name, 34),
      number(ours),
      number(theirs),
      String.pad_leading(:erlang.float_to_binary(ratio, decimals: 2), 8),
      String.pad_leading("#{limit}", 10)
    ])
  end

  defp number(n), do: String.pad_leading(:erlang.float_to_binary(n / 1, decimals: 1), 12)

  @doc """
  Runs `act` while a process ticks each millisecond, and prints by how much its worst tick was late.
  Of five rounds the calmest counts.
  """
  def ticked(name, act) do
    {worst, time} = Enum.min(for _ <- 1..5, do: one_round(act))

    IO.puts(
      "#{String.pad_trailing(name, 36)} #{String.pad_leading("#{div(time, 1000)}", 6)} ms, " <>
        "the worst tick #{Float.round(worst / 1000, 1)} ms late (under 20)"
    )
  end

  defp one_round(act) do
    parent = self()
    ticker = spawn_link(fn -> tick(parent, now(), 0) end)
    # What it read goes with the process, still under the ticker's eyes.
    {time, _} = :timer.tc(fn -> Task.await(Task.async(fn -> act.() && :ok end), :infinity) end)
    Process.sleep(20)
    send(ticker, :stop)
    receive do: ({:worst, worst} -> {worst, time})
  end

  # Microseconds by which the latest of 1 ms sleeps was late.
  defp tick(parent, last, worst) do
    receive do
      :stop -> send(parent, {:worst, worst})
    after
      1 ->
        now = now()
        tick(parent, now, max(worst, now - last - 1000))
    end
  end

  defp now, do: System.monotonic_time(:microsecond)
end
