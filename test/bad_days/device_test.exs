defmodule Emmap.BadDays.DeviceTest do
  # A device that is removed while it is mapped: the file system returns only EIO, also from mmap.
  use Emmap.Test.BadDay

  # FS_IOC_SHUTDOWN, without a flush of the log.
  @shutdown "import fcntl, os, struct, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))"

  setup %{path: path} do
    %{bytes: :binary.copy("0123456789abcdef", 5000), path: path}
  end

  test "14: the device is gone when lost pages are mapped again", context do
    with_device(context, fn context ->
      assert {0, {:error, :estale}, {:error, :eio}, 0, {:error, :estale}, {:error, :eio}} =
               child(context, """
               {:ok, mem} = Emmap.open(path, [:write, :direct, :fixed_size])
               {:ok, live} = Emmap.view(mem, 0, 80_000)
               cut.(path, 4096)
               lost = :binary.at(live, 70_000)
               answer = Emmap.pread(mem, 0, 1)
               {:ok, raw} = :file.open(path, [:raw, :read, :write])
               :ok = :file.pwrite(raw, 79_999, "f")
               {"", 0} = System.cmd("python3", ["-c", #{inspect(@shutdown)}, Path.dirname(path)])
               back = Emmap.reattach(mem)
               # Still there to be read, every byte of it.
               true = is_integer(:erlang.crc32(live))
               {lost, answer, back, :binary.at(live, 70_000), Emmap.pread(mem, 0, 1), Emmap.sync(mem) && Emmap.reattach(mem)}
               """)
    end)
  end

  test "14: the device is gone when a map is made shorter", context do
    with_device(context, fn context ->
      assert {{:error, :eio}, {:ok, "0"}, nil, "89ab"} =
               child(context, """
               {:ok, mem} = Emmap.open(path, [:write, :direct])
               {:ok, live} = Emmap.view(mem, 0, 80_000)
               true = is_integer(:erlang.crc32(live))
               {"", 0} = System.cmd("python3", ["-c", #{inspect(@shutdown)}, Path.dirname(path)])
               cut = Emmap.resize(mem, 5000)
               true = is_integer(:erlang.crc32(live))
               # What the file still has could be shown no more; so the file is asked first, and all of it is shown still.
               {cut, Emmap.pread(mem, 0, 1), elem(Emmap.info(mem), 1).fault, :binary.copy(binary_part(live, 5000, 4))}
               """)
    end)
  end

  # A disk of its own for a test, which the test may break.
  defp with_device(%{dir: directory, bytes: bytes} = context, test) do
    image = Path.join(directory, "image")

    make = "truncate -s 8M '#{image}' && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -m 0 '#{image}'"

    with path when is_binary(path) <- System.find_executable("python3"),
         {_, 0} <- System.cmd("sh", ["-c", make], stderr_to_stdout: true),
         {:ok, disk} <- mount(context, "disk", ["-o", "loop", image]) do
      path = Path.join(disk, "data")
      File.write!(path, bytes)
      test.(%{context | path: path})
    else
      nil -> skipped(context, "no python3 here")
      {:error, why} -> skipped(context, why)
      {why, _} -> skipped(context, "no ext4 here: #{String.trim(why)}")
    end
  end
end
