defmodule Bench.Machine do
  @moduledoc false
  # On what it was measured.

  def lines(folder) do
    [
      {"when", Date.to_iso8601(Date.utc_today())},
      {"processor", "#{cpu()}, #{System.schedulers_online()} schedulers"},
      {"memory", memory()},
      {"system", "#{system()}, #{file_system(folder)}"},
      {"versions", "OTP #{System.otp_release()}, Elixir #{System.version()}, #{rust()}"},
      {"load at the start", load()}
    ]
  end

  @doc "The average number of programs that wanted a core in the last minute, where the system tells."
  def load do
    case File.read("/proc/loadavg") do
      {:ok, text} -> text |> String.split() |> hd()
      _ -> "not known"
    end
  end

  defp cpu,
    do:
      field("/proc/cpuinfo", ~r/^model name\s*: (.*)$/m) ||
        "#{:erlang.system_info(:system_architecture)}"

  defp memory do
    case field("/proc/meminfo", ~r/^MemTotal:\s*(\d+) kB$/m) do
      nil -> "not known"
      kilobytes -> "#{round(String.to_integer(kilobytes) / 1_048_576)} GB"
    end
  end

  # Without what a distribution adds to the version.
  defp system, do: command("uname", ["-sr"]) |> String.replace(~r/^(\S+ \d+\.\d+).*/, "\\1")
  # `stat` has one name for three of them.
  defp file_system(folder),
    do: command("stat", ["-f", "-c", "%T", folder]) |> String.replace("ext2/ext3", "ext4")

  defp rust, do: command("rustc", ["--version"]) |> String.replace(~r/ \(.*/, "")

  defp field(file, pattern) do
    with {:ok, text} <- File.read(file),
         [_, value] <- Regex.run(pattern, text),
         do: value,
         else: (_ -> nil)
  end

  defp command(name, arguments) do
    case System.find_executable(name) && System.cmd(name, arguments, stderr_to_stdout: true) do
      {output, 0} -> String.trim(output)
      _ -> "#{name} is missing"
    end
  end
end
