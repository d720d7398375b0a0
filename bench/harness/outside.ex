defmodule Bench.Outside do
  @moduledoc false
  # What is compared with, and need not be there: each that is missing is one line in the results, and no error.

  @doc "An application of OTP that Mix may have taken out of the code path."
  def otp?(application) do
    with {:error, _} <- Application.ensure_all_started(application) do
      ebin = Path.wildcard(Path.join([:code.root_dir(), "lib", "#{application}-*", "ebin"]))
      Enum.each(ebin, &Code.append_path/1)
    end

    match?({:ok, _}, Application.ensure_all_started(application))
  end

  @doc "The folder into which `bench/others/get` brings them: OTHERS, or one in the folder of builds."
  def folder,
    do: System.get_env("OTHERS") || Path.expand("../../_build/bench/others", __DIR__)

  def python do
    python = Path.join(folder(), "venv/bin/python")
    if File.exists?(python), do: python, else: System.find_executable("python3")
  end

  @doc "What a Python program prints, or why it did not."
  def python(script, arguments) do
    case python() do
      nil -> {:missing, "python3"}
      python -> run(python, [script | arguments])
    end
  end

  @doc "What a program that `bench/others/get` has built prints, or why it did not."
  def built(name, arguments) do
    program = Path.join([folder(), "bin", name])
    if File.exists?(program), do: run(program, arguments), else: {:missing, name}
  end

  defp run(program, arguments) do
    case System.cmd(program, arguments, stderr_to_stdout: true) do
      {output, 0} -> {:ok, output}
      {output, _} -> {:missing, output |> String.trim() |> String.split("\n") |> List.last()}
    end
  end

  @doc "A library on the BEAM that `bench/others/get` has compiled, if it is there or in the code path."
  def library?(name, module) do
    ebin = Path.join([folder(), name, "ebin"])
    if File.dir?(ebin), do: Code.append_path(ebin)
    Code.ensure_loaded?(module)
  end

  def missing(what),
    do:
      {:note,
       "#{what} was not installed when this group was measured, so it is left out (`bench/others/get` installs it)."}
end
