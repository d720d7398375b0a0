defmodule Bench.Groups.Guard do
  @moduledoc false
  # What the guard costs the hot calls: a VM with it, one with it switched off, and one with a build of the library that never
  # looks for faults (bench/prepare makes it), in turns.
  import Bench

  @target Path.expand("../../native/target/unguarded/release", __DIR__)

  loop(pread(it, n), do: {:ok, _} = Emmap.pread(it, 8, 8))
  loop(pwrite(it, n), do: :ok = Emmap.pwrite(it, 8, "12345678"))
  loop(view(it, n), do: {:ok, _} = Emmap.view(it, 8, 100))
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(counter(it, n), do: :ok = Emmap.Counters.add(it, 1, 1))

  def title, do: "The guard"

  def run(folder) do
    {built, missing} = unguarded(folder)

    labels =
      [emmap: "with the guard", off: "switched off"] ++
        if(built, do: [without: "built without it"], else: [])

    app = Application.app_dir(:emmap)

    vms =
      [emmap: {app, true}, off: {app, false}] ++
        if(built, do: [without: {built, false}], else: [])

    IO.puts("#{length(vms)} VMs in turns")

    rounds =
      for _ <- 1..if(quick?(), do: 1, else: 4),
          {state, {app, guard}} <- vms,
          {call, times} <- Bench.VM.call(__MODULE__, :measure, [folder, guard], app: app),
          do: {{call, state}, times}

    all = Enum.group_by(rounds, &elem(&1, 0), &elem(&1, 1))

    comparisons =
      for call <- [:pread, :pwrite, :view, :patomic, :counter] do
        times = for {state, _} <- labels, into: %{}, do: {state, Enum.concat(all[{call, state}])}
        Bench.Comparison.of("#{call}", labels, times)
      end

    last = labels |> List.last() |> elem(0)
    worst = comparisons |> Enum.map(&(1 / Bench.Comparison.ratio(&1, last))) |> Enum.max()

    [
      {:note,
       "The guard keeps a truncation from ending the VM. In each call it costs one check of a flag, which takes about 1 ns. Larger differences in this table are not there in every run."},
      comparisons,
      headline(
        "hot calls with the guard, compared with #{labels[last]}: the worst",
        worst,
        {:at_most, 1.03}
      ),
      missing
    ]
  end

  # The application again, with a library that was built without the check for faults.
  defp unguarded(folder) do
    library = Path.join(@target, "libemmap_nif.so")

    if File.exists?(library) do
      app = Path.join(folder, "unguarded/emmap")
      File.mkdir_p!(Path.join(app, "priv/native"))
      File.cp_r!(Application.app_dir(:emmap, "ebin"), Path.join(app, "ebin"))
      File.cp!(library, Path.join(app, "priv/native/emmap_nif.so"))
      {app, []}
    else
      {nil,
       [
         {:note,
          "The library built without the guard is missing here (`bench/prepare` makes it)."}
       ]}
    end
  end

  @doc "Of a VM of its own."
  def measure(folder, guard) do
    Application.put_env(:emmap, :guard, guard)
    {:ok, mem} = Emmap.open(Path.join(folder, "map"), [:write, :create, size: 8192])
    counters = Emmap.Counters.open!(Path.join(folder, "counters"), 8)
    true = Emmap.guard() == if(guard, do: :ok, else: :off)

    sides = [
      pread: &pread(mem, &1),
      pwrite: &pwrite(mem, &1),
      view: &view(mem, &1),
      patomic: &patomic(mem, &1),
      counter: &counter(counters, &1)
    ]

    for {name, run} <- sides do
      side = side(name, "", run)
      Bench.Comparison.round(side, 10_000)

      {name,
       for(_ <- 1..if(quick?(), do: 5, else: 100), do: Bench.Comparison.round(side, 10_000))}
    end
  end
end
