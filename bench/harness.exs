defmodule Bench do
  @moduledoc false
  # What the scripts share. The sides of a comparison take turns, round after round, and the best round of each counts:
  # whatever else the machine does only adds time.
  #
  # QUICK=1 makes fewer and shorter rounds on smaller files: whether a script runs, not how fast anything is.

  @doc """
  Runs `measure` with a temporary folder. Each script ends with it. With `EMMAP_BENCH_COMPILE=1`, which
  `tools/benchmarks.exs` sets, a script is only compiled.
  """
  def main(measure) do
    unless System.get_env("EMMAP_BENCH_COMPILE") == "1" do
      folder = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
      File.mkdir_p!(folder)

      try do
        measure.(folder)
      after
        File.rm_rf!(folder)
      end
    end
  end

  def quick?, do: System.get_env("QUICK") not in [nil, "", "0"]

  @doc "So many rounds, or three if it is to be quick."
  def rounds(n), do: if(quick?(), do: min(n, 3), else: n)

  @doc "So many calls or bytes, or a sixteenth of them if it is to be quick."
  def amount(n), do: if(quick?(), do: max(div(n, 16), 1), else: n)

  @doc "A number of bytes for people: MB of 2^20."
  def megabytes(bytes), do: "#{div(bytes, 1024 * 1024)} MB"

  @doc """
  Defines a loop, so that every side pays for the same one: `loop(name(arguments, n), do: call)`. The last
  argument is how many calls are left.
  """
  defmacro loop({name, _, arguments}, do: call) do
    {others, [n]} = Enum.split(arguments, -1)

    quote do
      def unquote(name)(unquote_splicing(Enum.map(others, fn _ -> quote(do: _) end)), 0), do: :ok

      def unquote(name)(unquote_splicing(arguments)) do
        unquote(call)
        unquote(name)(unquote_splicing(others), unquote(n) - 1)
      end
    end
  end

  @doc "Best nanoseconds per call of each `{name, calls, fun}`, where `fun.(n)` makes `n` calls."
  def compare(sides, rounds \\ 15) do
    best(rounds, for({name, calls, fun} <- sides, do: {name, fn -> time(fun, amount(calls)) end}))
  end

  @doc "The least that each `{name, measure}` returned in so many rounds."
  def best(rounds, sides) do
    for _ <- 1..rounds(rounds), {name, measure} <- sides do
      {name, measure.()}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Map.new(fn {name, times} -> {name, Enum.min(times)} end)
  end

  # In words. The heap of a new process is as large as what it was given needs, 233 words at least. A few words more in a
  # handle, and one side collects garbage half as often as the other: a difference of 3 to 8 ns a call.
  @heap 4_000

  @doc "Nanoseconds per call, in a fresh process: no garbage of others, and a heap of the same size for each side."
  def time(fun, calls) do
    parent = self()

    measure = fn ->
      {microseconds, _} = :timer.tc(fun, [calls])
      send(parent, {self(), microseconds * 1000 / calls})
    end

    {pid, monitor} = :erlang.spawn_opt(measure, [:link, :monitor, min_heap_size: @heap])
    receive do: ({^pid, time} -> receive(do: ({:DOWN, ^monitor, _, _, _} -> time)))
  end

  @doc "Microseconds until each of these functions has returned, each in a process of its own."
  def together(functions) do
    run = fn -> functions |> Enum.map(&Task.async/1) |> Task.await_many(:infinity) end
    {microseconds, _} = :timer.tc(run)
    microseconds
  end

  @doc "Builds and loads the bare C NIF of `bench/floor`, or of the folder `FLOOR`, which has a build.sh."
  def load_floor! do
    script = Path.join(System.get_env("FLOOR") || Path.join(__DIR__, "floor"), "build.sh")
    folder = Path.join(System.tmp_dir!(), "emmap_floor_#{System.pid()}")

    try do
      case System.cmd("sh", [script, folder]) do
        {_, 0} -> :ok
        {output, status} -> raise "#{script} ended with #{status}\n#{output}"
      end

      Code.prepend_path(folder)
      {:module, _} = Code.ensure_loaded(:floor_nif)
    after
      Code.delete_path(folder)
      File.rm_rf!(folder)
    end
  end

  @doc "What is measured, and the titles of the columns of `row/4`."
  def header(what, ours \\ "emmap", theirs \\ "floor") do
    quick = if quick?(), do: ", QUICK: too short to be figures", else: ""
    IO.puts("\nOTP #{System.otp_release()}, Elixir #{System.version()}, #{what}#{quick}")

    IO.puts([pad("", 36), left(ours, 12), left(theirs, 12), left("ratio", 8), left("at most", 10)])
  end

  def row(name, ours, theirs, limit \\ "") do
    ratio = left(decimals(ours / theirs, 2), 8)
    sides = for ns <- [ours, theirs], do: left(decimals(ns, 1), 12)
    IO.puts([pad(name, 36), sides, ratio, left("#{limit}", 10)])
  end

  def pad(text, width), do: String.pad_trailing(text, width)
  def left(text, width), do: String.pad_leading(text, width)
  def decimals(number, decimals), do: :erlang.float_to_binary(number / 1, decimals: decimals)

  @doc """
  Runs `act` while a process ticks each millisecond, and prints by how much its worst tick was late.
  Of five rounds the calmest counts.
  """
  def ticked(name, act) do
    {worst, time} = Enum.min(for _ <- 1..rounds(5), do: ticked_once(act))

    IO.puts(
      "#{pad(name, 36)} #{left("#{div(time, 1000)}", 6)} ms, " <>
        "the worst tick #{decimals(worst / 1000, 1)} ms late (under 20)"
    )
  end

  defp ticked_once(act) do
    parent = self()
    ticker = spawn_link(fn -> tick(parent, now(), 0) end)
    # Freed with the process, while the ticker still measures.
    time = together([fn -> act.() && :ok end])
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
