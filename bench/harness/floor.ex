defmodule Bench.Floor do
  @moduledoc false
  # The bare C NIF of bench/floor, or of the folder that FLOOR names, which has a build.sh.

  @here Path.expand("../floor", __DIR__)

  def load! do
    script = Path.join(System.get_env("FLOOR") || @here, "build.sh")
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
end
