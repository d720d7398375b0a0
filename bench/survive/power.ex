defmodule Bench.Survive.Power do
  @moduledoc false
  # A power failure, as a model: the folder is an ext4 of its own on a loop device without a page cache of its own, so the image
  # has what has reached the "disk" and nothing more. At the moment of the failure the image is copied; the copy is mounted, and
  # ext4 replays its journal, as after a boot. Needs root, and a kernel with loop devices.

  @size "134217728"

  @doc "Whether it can be done here, or why not."
  def possible do
    cond do
      :os.type() != {:unix, :linux} ->
        {:error, "it needs Linux"}

      match?({"0\n", 0}, System.cmd("id", ["-u"])) == false ->
        {:error, "it needs root"}

      missing = Enum.find(~w(losetup mkfs.ext4 mount), &(System.find_executable(&1) == nil)) ->
        {:error, "#{missing} is missing"}

      true ->
        try_it()
    end
  end

  defp try_it do
    folder = Path.join(System.tmp_dir!(), "emmap_power_#{System.pid()}")
    File.mkdir_p!(folder)
    image = create(Path.join(folder, "image"))

    case mount(image, folder) do
      {:ok, mounted} ->
        unmount(mounted)
        :ok

      error ->
        error
    end
  after
    File.rm_rf!(Path.join(System.tmp_dir!(), "emmap_power_#{System.pid()}"))
  end

  def create(image) do
    {_, 0} = System.cmd("truncate", ["-s", @size, image])
    {_, 0} = System.cmd("mkfs.ext4", ["-q", image], stderr_to_stdout: true)
    image
  end

  @doc "`{:ok, {device, folder}}`"
  def mount(image, folder) do
    at = Path.join(folder, "mounted#{System.unique_integer([:positive])}")
    File.mkdir_p!(at)

    with {device, 0} <-
           System.cmd("losetup", ["--direct-io=on", "-f", "--show", image], stderr_to_stdout: true),
         device = String.trim(device),
         {_, 0} <- System.cmd("mount", [device, at], stderr_to_stdout: true) do
      {:ok, {device, at}}
    else
      {why, _} -> {:error, String.trim(why)}
    end
  end

  def unmount({device, at}) do
    System.cmd("umount", [at], stderr_to_stdout: true)
    System.cmd("losetup", ["-d", device], stderr_to_stdout: true)
  end

  @doc "The image as it is now: what has reached it."
  def fail(image) do
    copy = image <> ".failed"
    {_, 0} = System.cmd("cp", ["--sparse=always", image, copy])
    copy
  end
end
