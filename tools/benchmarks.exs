# Compiles the scripts of bench/, and the floor, without running them: mix run tools/benchmarks.exs. A warning is a failure:
# most of all, a function that does not exist.
System.put_env("EMMAP_BENCH_COMPILE", "1")
bench = Path.expand("../bench", __DIR__)
harness = Path.join(bench, "harness.exs")

compile = fn files ->
  # Elixir 1.14 returns a list of warnings, later ones a map of two lists.
  case Kernel.ParallelCompiler.require(files, return_diagnostics: true) do
    {:ok, _modules, []} -> :ok
    {:ok, _modules, %{compile_warnings: [], runtime_warnings: []}} -> :ok
    _ -> System.halt(1)
  end
end

compile.([harness])
Bench.load_floor!()
scripts = bench |> Path.join("*.exs") |> Path.wildcard() |> List.delete(harness)
Enum.each(scripts, &compile.([&1]))
IO.puts("#{length(scripts)} benchmarks compile")
