# What the guard costs the hot calls: a VM with it, one with it switched off, and one with a build of the
# library that never asks for faults, in turns. Run by `make bench`.

defmodule Bench.Guard do
  @rounds 7
  @calls 2_000_000

  def run do
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)

    try do
      guarded = Application.app_dir(:emmap)
      unguarded = unguarded(guarded, directory)
      sides = [with: {guarded, true}, off: {guarded, false}, without: {unguarded, false}]

      times =
        for _ <- 1..@rounds,
            {side, {app, guard}} <- sides,
            {call, ns} <- child(app, guard, directory) do
          {{call, side}, ns}
        end
        |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
        |> Map.new(fn {key, all} -> {key, Enum.min(all)} end)

      IO.puts("\nthe guard: ns per call, and with it / without (limit 1.03)")
      IO.puts("call                with       off   without     ratio")

      for call <- [:pread, :pwrite, :view, :patomic, :counter] do
        [with_it, off, without] = for side <- [:with, :off, :without], do: times[{call, side}]
        ratio = with_it / without

        [
          String.pad_trailing("#{call}", 14)
          | for(n <- [with_it, off, without], do: format(n, 10, 2))
        ]
        |> Kernel.++([format(ratio, 10, 3)])
        |> IO.puts()
      end
    after
      File.rm_rf!(directory)
    end
  end

  defp format(n, width, decimals),
    do: String.pad_leading(:erlang.float_to_binary(n / 1, decimals: decimals), width)

  # The application again, with a library that was built without the question.
  defp unguarded(guarded, directory) do
    app = Path.join(directory, "unguarded/emmap")
    target = Path.join(directory, "target")
    File.mkdir_p!(Path.join(app, "priv/native"))
    File.cp_r!(Path.join(guarded, "ebin"), Path.join(app, "ebin"))

    {_, 0} =
      System.cmd("cargo", ~w(build --quiet --release --locked --package emmap_nif),
        cd: Path.expand("../native", __DIR__),
        env: [{"RUSTFLAGS", "--cfg unguarded"}, {"CARGO_TARGET_DIR", target}]
      )

    File.cp!(
      Path.join(target, "release/libemmap_nif.so"),
      Path.join(app, "priv/native/emmap_nif.so")
    )

    app
  end

  defp child(app, guard, directory) do
    {output, 0} =
      System.cmd("elixir", ["-pa", Path.join(app, "ebin"), __ENV__.file, "#{guard}", directory],
        env: [{"BENCH_GUARD", "child"}]
      )

    output |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
  end

  def measure([guard, directory]) do
    Application.put_env(:emmap, :guard, guard == "true")
    {:ok, mem} = Emmap.open(Path.join(directory, "map"), [:write, :create, size: 8192])
    counters = Emmap.Counters.open!(Path.join(directory, "counters"), 8)
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
        fun.(div(@calls, 10))
        best = Enum.min(for _ <- 1..3, do: elem(:timer.tc(fun, [div(@calls, 3)]), 0))
        {name, best * 1000 / div(@calls, 3)}
      end

    IO.puts(Base.encode64(:erlang.term_to_binary(times)))
  end

  for {name, call} <- [
        pread: quote(do: {:ok, _} = Emmap.pread(var!(it), 8, 8)),
        pwrite: quote(do: :ok = Emmap.pwrite(var!(it), 8, "12345678")),
        view: quote(do: {:ok, _} = Emmap.view(var!(it), 8, 100)),
        patomic: quote(do: {:ok, _} = Emmap.patomic(var!(it), 64, :add, 1)),
        counter: quote(do: :ok = Emmap.Counters.add(var!(it), 1, 1))
      ] do
    defp unquote(name)(_it, 0), do: :ok

    defp unquote(name)(var!(it), n) do
      unquote(call)
      unquote(name)(var!(it), n - 1)
    end
  end
end

case System.get_env("BENCH_GUARD") do
  "child" -> Bench.Guard.measure(System.argv())
  _ -> Bench.Guard.run()
end
