defmodule Emmap.Test.Disks do
  @moduledoc "File systems in a file, mounted for the time of a test. Each takes root, a loop device and the tools of its kind."

  import Emmap.Test.BadDay, only: [mount: 3]

  # The smallest that the tools make, or a little more.
  @sizes %{ext4: "16M", xfs: "320M", btrfs: "128M"}

  @doc "Mounts a new file system: `{:ok, folder}` or `{:error, why}`. `options` are for the tool that makes it."
  def mount_new(%{dir: directory} = context, kind, options \\ [], mount_options \\ []) do
    image = Path.join(directory, "image")
    File.write!(image, "")
    {_, 0} = System.cmd("truncate", ["-s", Map.fetch!(@sizes, kind), image])
    command = Enum.join(["PATH=$PATH:/sbin:/usr/sbin mkfs.#{kind} -q" | options], " ")

    case System.cmd("sh", ["-c", "#{command} '#{image}'"], stderr_to_stdout: true) do
      {_, 0} -> mount(context, "disk", ["-o", Enum.join(["loop" | mount_options], ","), image])
      {why, _} -> {:error, "no #{kind} here: #{String.trim(why)}"}
    end
  end

  @doc "Code for `child/3`: `fill.(folder)` takes the last block of a disk, `free.(folder)` gives all of that back."
  def filler do
    """
    fill = fn folder ->
      # First, as a full disk has no room for another name, either.
      {:ok, raw} = :file.open(folder <> "/filler", [:write, :raw])
      sizes = "64M 16M 4M 1M 256K 64K 16K 4K"
      one = "fallocate -l $size '" <> folder <> "'/filler.$i"
      loop = "i=0; for size in " <> sizes <> "; do while " <> one <> "; do i=$((i+1)); done; done; true"
      {_, 0} = System.cmd("sh", ["-c", loop], stderr_to_stdout: true)
      until_full = fn -> Stream.repeatedly(fn -> :file.write(raw, :binary.copy("x", 4096)) end) |> Enum.find(&(&1 != :ok)) end
      _ = until_full.()
      :file.sync(raw)
      _ = until_full.()
      :file.close(raw)
    end
    free = fn folder ->
      for file <- Path.wildcard(folder <> "/filler*"), do: File.rm!(file)
      System.cmd("sync", [])
    end
    _ = {fill, free}
    """
  end
end
