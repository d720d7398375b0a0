defmodule Emmap.Test.CLibrary do
  @moduledoc "Builds the C helpers of `test/native` with the system's compiler."

  @doc "`{:ok, path_without_extension}`, or `{:error, why}` if the compiler or the header is missing."
  def build(name, directory) do
    include = Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "include"])
    output = Path.join(directory, name)
    source = Path.expand("../native/#{name}.c", __DIR__)

    cond do
      System.find_executable("cc") == nil ->
        {:error, "no C compiler"}

      not File.exists?(Path.join(include, "erl_nif.h")) ->
        {:error, "no erl_nif.h"}

      true ->
        arguments =
          ~w(-O2 -Wall -Werror -shared -fPIC -I#{include} -o #{output}.so #{source} -ldl)

        {"", 0} = System.cmd("cc", arguments, stderr_to_stdout: true)
        {:ok, output}
    end
  end

  @doc "The module of `sigbus_probe.c`, for a child that loads `library`."
  def probe(library) do
    """
    defmodule SigbusProbe do
      @on_load :load
      def load, do: :erlang.load_nif(~c"#{library}", 0)
      def take(_passes_on), do: :erlang.nif_error(:not_loaded)
      def fault, do: :erlang.nif_error(:not_loaded)
      def foreign, do: :erlang.nif_error(:not_loaded)
    end
    """
  end
end
