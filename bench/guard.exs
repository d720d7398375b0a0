# What the guard costs the hot calls: a VM with it, one with it switched off, and one with a build of the library that
# never asks for faults, in turns. Run by `make bench`; with QUICK=1 without that build, which takes a minute.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Guard do
  import Bench

  @rounds 7
  @calls 2_000_000
  @target Path.expand("../native/target/unguarded", __DIR__)

  def run(folder) do
    guarded = Application.app_dir(:emmap)
    unguarded = if quick?(), do: [], else: [without: {unguarded(guarded, folder), false}]
    sides = [with: {guarded, true}, off: {guarded, false}] ++ unguarded

    times =
      for _ <- 1..rounds(@rounds),
          {side, {app, guard}} <- sides,
          {call, ns} <- child(app, guard, folder) do
        {{call, side}, ns}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Map.new(fn {key, all} -> {key, Enum.min(all)} end)

    names = Keyword.keys(sides)
    last = List.last(names)
    IO.puts("\nthe guard: ns a call, and with it / #{last} (at most 1.03)")
    IO.puts([pad("call", 14), for(name <- names, do: left("#{name}", 10)), left("ratio", 10)])

    for call <- [:pread, :pwrite, :view, :patomic, :counter] do
      all = for side <- names, do: left(decimals(times[{call, side}], 2), 10)
      ratio = decimals(times[{call, :with}] / times[{call, last}], 3)
      IO.puts([pad("#{call}", 14), all, left(ratio, 10)])
    end
  end

  # The application again, with a library that was built without the check for faults.
  defp unguarded(guarded, folder) do
    app = Path.join(folder, "unguarded/emmap")
    File.mkdir_p!(Path.join(app, "priv/native"))
    File.cp_r!(Path.join(guarded, "ebin"), Path.join(app, "ebin"))

    {_, 0} =
      System.cmd("cargo", ~w(build --quiet --release --locked --package emmap_nif),
        cd: Path.expand("../native", __DIR__),
        env: [{"RUSTFLAGS", "--cfg unguarded"}, {"CARGO_TARGET_DIR", @target}]
      )

    File.cp!(
      Path.join(@target, "release/libemmap_nif.so"),
      Path.join(app, "priv/native/emmap_nif.so")
    )

    app
  end

  defp child(app, guard, folder) do
    {output, 0} =
      System.cmd("elixir", ["-pa", Path.join(app, "ebin"), __ENV__.file, "#{guard}", folder],
        env: [{"BENCH_GUARD", "child"}]
      )

    output |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
  end

  def measure([guard, folder]) do
    Application.put_env(:emmap, :guard, guard == "true")
    {:ok, mem} = Emmap.open(Path.join(folder, "map"), [:write, :create, size: 8192])
    counters = Emmap.Counters.open!(Path.join(folder, "counters"), 8)
    true = Emmap.guard() == if(guard == "true", do: :ok, else: :off)

    sides = [
      pread: fn n -> pread(mem, n) end,
      pwrite: fn n -> pwrite(mem, n) end,
      view: fn n -> view(mem, n) end,
      patomic: fn n -> patomic(mem, n) end,
      counter: fn n -> counter(counters, n) end
    ]

    times =
      for {name, fun} <- sides do
        calls = amount(div(@calls, 3))
        fun.(div(calls, 3))
        best = Enum.min(for _ <- 1..3, do: elem(:timer.tc(fun, [calls]), 0))
        {name, best * 1000 / calls}
      end

    IO.puts(Base.encode64(:erlang.term_to_binary(times)))
  end

  loop(pread(it, n), do: {:ok, _} = Emmap.pread(it, 8, 8))
  loop(pwrite(it, n), do: :ok = Emmap.pwrite(it, 8, "12345678"))
  loop(view(it, n), do: {:ok, _} = Emmap.view(it, 8, 100))
  loop(patomic(it, n), do: {:ok, _} = Emmap.patomic(it, 64, :add, 1))
  loop(counter(it, n), do: :ok = Emmap.Counters.add(it, 1, 1))
end

if System.get_env("BENCH_GUARD") == "child",
  do: Bench.Guard.measure(System.argv()),
  else: Bench.main(&Bench.Guard.run/1)
