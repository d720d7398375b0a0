# Compiles the scripts of bench/, and the floor, without running them: mix run tools/benchmarks.exs. A warning is a failure:
# most of all, a function that does not exist.
System.put_env("EMMAP_BENCH_COMPILE", "1")
bench = Path.expand("../bench", __DIR__)
harness = Path.join(bench, "harness.exs")

compile = fn files ->
  case Kernel.ParallelCompiler.require(files) do
    {:ok, _modules, []} -> :ok
    _ -> System.halt(1)
  end
end

compile.([harness])
Bench.load_floor!()
scripts = bench |> Path.join("*.exs") |> Path.wildcard() |> List.delete(harness)
Enum.each(scripts, &compile.([&1]))
IO.puts("#{length(scripts)} benchmarks compile")
