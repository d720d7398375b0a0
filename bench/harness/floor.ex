defmodule Bench.Floor do
  @moduledoc false
  # The bare C NIF of bench/floor, or of the folder that FLOOR names, which has a build.sh.

  @here Path.expand("../floor", __DIR__)

  @doc "Builds it into the folder of builds, where other VMs find it, too."
  def load!(folder) do
    script = Path.join(System.get_env("FLOOR") || @here, "build.sh")

    case System.cmd("sh", [script, folder]) do
      {_, 0} -> :ok
      {output, status} -> raise "#{script} ended with #{status}\n#{output}"
    end

    {:module, _} = Code.ensure_loaded(:floor_nif)
  end
end
