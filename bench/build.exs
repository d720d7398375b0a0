# Compiles the harness and the groups into the folder of builds, so that VMs that a benchmark starts have them, too. The floor comes
# between them: groups call its functions.
defmodule Bench.Build do
  @moduledoc false
  # Of this run: others may run at the same time.
  @folder Path.expand("../_build/bench/ebin-#{System.pid()}", __DIR__)

  @doc "The modules of the groups. `:strict` raises where there is a warning: most of all, a function that does not exist."
  def run(mode \\ :lenient) do
    File.mkdir_p!(@folder)
    System.at_exit(fn _ -> File.rm_rf!(@folder) end)
    Code.prepend_path(@folder)
    compile("harness/*.ex", mode)
    apply(Bench.Floor, :load!, [@folder])
    compile("{groups,survive}/*.ex", mode)
  end

  defp compile(pattern, mode) do
    files = __DIR__ |> Path.join(pattern) |> Path.wildcard()

    # Elixir 1.14 returns a list of warnings, later ones a map of two lists.
    case Kernel.ParallelCompiler.compile_to_path(files, @folder, return_diagnostics: true) do
      {:ok, modules, []} -> modules
      {:ok, modules, %{compile_warnings: [], runtime_warnings: []}} -> modules
      {:ok, modules, _} when mode == :lenient -> modules
      {:ok, _, _} -> raise "warnings in #{pattern}"
      {:error, _, _} -> raise "#{pattern} does not compile"
    end
  end
end
