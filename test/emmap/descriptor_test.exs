defmodule Emmap.DescriptorTest do
  # Files that are open already, and windows, which are made of them.
  use ExUnit.Case, async: true

  import Bitwise

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, Enum.map(0..99, &String.pad_leading("#{&1}", 100)))
    %{path: path}
  end

  defp descriptors_of(path) do
    Enum.count(
      File.ls!("/proc/self/fd"),
      &(File.read_link("/proc/self/fd/" <> &1) == {:ok, path})
    )
  end

  test "a raw file, which either side may close first", %{path: path} do
    {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
    assert descriptors_of(path) == 1
    {:ok, mem} = Emmap.open(file, [:write])
    assert {:ok, %{path: ^path, position: 0, fd: fd}} = Emmap.info(mem)
    assert :ok = Emmap.pwrite(mem, 0, "map")
    assert {:ok, "map"} = :file.pread(file, 0, 3)
    # Neither its position nor its flags are the file's.
    {:ok, 50} = :file.position(file, 50)
    assert {:ok, 0} = Emmap.position(mem, :cur)
    :ok = :file.close(file)
    assert :ok = Emmap.pwrite(mem, 10_000, "longer")
    assert :ok = Emmap.sync(mem)
    assert File.stat!(path).size == 10_006
    assert {:ok, other} = Emmap.open({:fd, fd})
    :ok = Emmap.close(mem)
    assert {:ok, "longer"} = Emmap.pread(other, 10_000, 10)
    :ok = Emmap.close(other)
    assert descriptors_of(path) == 0
  end

  test "a deleted file", %{path: path} do
    {:ok, file} = :file.open(path, [:read, :raw, :binary])
    File.rm!(path)
    assert {:ok, mem} = Emmap.open(file)
    assert {:ok, "99"} = Emmap.pread(mem, 9998, 10)
    assert {:ok, again} = Emmap.open(mem, offset: 9998)
    assert {:ok, "99"} = Emmap.pread(again, 0, 10)
    refute File.exists?(path)
  end

  test "what may not be done", %{path: path, tmp_dir: directory} do
    {:ok, reads} = :file.open(path, [:read, :raw])
    {:ok, writes} = :file.open(Path.join(directory, "new"), [:write, :raw])
    {:ok, closed} = :file.open(path, [:read, :raw])
    :file.close(closed)
    assert {:error, :eacces} = Emmap.open(reads, [:write])
    assert {:ok, private} = Emmap.open(reads, [:write, :private])
    assert :ok = Emmap.pwrite(private, 0, "x")
    assert {:error, :eacces} = Emmap.open(writes)
    assert {:error, :einval} = Emmap.open(closed)
    assert {:error, :ebadf} = Emmap.open({:fd, 1_000_000})
    {:ok, folder} = :file.open(directory, [:read, :raw, :directory])
    assert {:error, :eisdir} = Emmap.open(folder)
    assert {:error, :enotsup} = Emmap.open(Emmap.open!([:anon, size: 10]), [])
    mem = Emmap.open!(path)
    Emmap.close(mem)
    assert {:error, :closed} = Emmap.open(mem, [])

    for wrong <- [{:fd, -1}, {:fd, "3"}, {:fd, nil}],
        do:
          assert_raise(ArgumentError, ~r/number of an open descriptor/, fn ->
            Emmap.open(wrong)
          end)

    {:ok, device} = File.open(path)
    {:ok, delayed} = :file.open(path, [:read, :write, :raw, :delayed_write])

    for wrong <- [device, delayed],
        do: assert_raise(ArgumentError, ~r/opened with :raw/, fn -> Emmap.open(wrong) end)

    for option <- [:create, :auto_unlink],
        do:
          assert_raise(ArgumentError, ~r/works only with a path/, fn ->
            Emmap.open(reads, [option])
          end)

    assert_raise Emmap.Error, ~r/could not open: /, fn -> Emmap.open!({:fd, 1_000_000}) end
  end

  test "no file but a regular one" do
    {output, 0} =
      System.cmd("sh", ["-c", "ls -l /proc/$PPID/fd | grep -m1 -E 'pipe|socket|null'"])

    [_, number] = Regex.run(~r/ (\d+) -> /, output)
    assert {:error, :enodev} = Emmap.open({:fd, String.to_integer(number)})
  end

  test "a handle that appends", %{path: path} do
    {:ok, file} = :file.open(path, [:read, :write, :raw])
    {:ok, mem} = Emmap.open(file, [:append])
    :ok = Emmap.write(mem, "end")
    assert {:ok, "end"} = Emmap.pread(mem, 10_000, 10)
    # The flag is not the file's.
    :ok = :file.pwrite(file, 0, "start")
    assert {:ok, "start"} = Emmap.pread(mem, 0, 5)
  end

  test "a map by descriptor grows while its file is locked by nobody", %{path: path} do
    {:ok, file} = :file.open(path, [:read, :write, :raw])
    maps = for _ <- 1..4, {:ok, mem} = Emmap.open(file, [:write]), do: mem

    1..200
    |> Enum.map(fn n ->
      Task.async(fn -> Emmap.pwrite(Enum.at(maps, rem(n, 4)), 10_000 + n * 5000, "#{n}.") end)
    end)
    |> Task.await_many()
    |> Enum.each(&assert(&1 == :ok))

    for n <- 1..200, mem <- maps do
      :ok = Emmap.reattach(mem)
      text = "#{n}."
      assert {:ok, ^text} = Emmap.pread(mem, 10_000 + n * 5000, byte_size(text))
    end
  end

  describe "a window" do
    test "moves, and leaves the file as it is", %{path: path} do
      file = File.read!(path)
      {:ok, window} = Emmap.window(Emmap.open!(path, [:write, :direct]), 0, 100)
      {:ok, live} = Emmap.pread(window, 0, 100)

      window =
        for offset <- Enum.shuffle(0..10_100//97), length <- [1, 99, 5000], reduce: window do
          window ->
            assert {:ok, window} = Emmap.move_window(window, offset, length)
            from = min(offset, 10_000)
            bytes = binary_part(file, from, min(length, 10_000 - from))
            result = if bytes == "", do: :eof, else: {:ok, bytes}
            assert Emmap.pread(window, 0, 10_000) == result
            assert {:ok, %{offset: ^offset, growable_up_to: nil}} = Emmap.info(window)
            window
        end

      assert live == binary_part(file, 0, 100)
      assert File.read!(path) == file
      assert {:ok, window} = Emmap.move_window(window, 9_900, 0)
      assert {:ok, 100} = Emmap.size(window)
      assert :ok = Emmap.pwrite(window, 0, "written")
      assert {:error, :enospc} = Emmap.pwrite(window, 99, "past")
      assert {:error, :enospc} = Emmap.resize(window, 200)
      assert {:error, :einval} = Emmap.resize(window, 20)
      assert File.stat!(path).size == 10_000
      assert binary_part(File.read!(path), 9_900, 7) == "written"
    end

    test "has the access of the map", %{path: path} do
      for options <- [[], [:write], [:write, :private], [:direct], [:write, :nolock], [:append]] do
        mem = Emmap.open!(path, options)
        assert {:ok, window} = Emmap.window(mem, 100, 200)
        {:ok, %{flags: flags}} = Emmap.info(window)
        {:ok, %{flags: map_flags}} = Emmap.info(mem)

        assert flags -- [:fixed_size] ==
                 if(options == [:append],
                   do: [:read, :shared, :lock],
                   else: map_flags -- [:fixed_size]
                 )
      end

      mem = Emmap.open!(path, [:write])
      :ok = Emmap.make_read_only(mem)
      {:ok, window} = Emmap.window(mem, 0, 10)
      assert {:error, :eacces} = Emmap.pwrite(window, 0, "x")
    end

    test "of a file larger than memory", %{tmp_dir: directory} do
      path = Path.join(directory, "sparse")
      {:ok, file} = :file.open(path, [:read, :write, :raw])
      terabytes = 4 * 1024 ** 4
      :ok = :file.pwrite(file, terabytes, "end")
      {:ok, window} = Emmap.window(Emmap.open!(file, length: 1), terabytes - 5, 100)
      assert {:ok, <<0, 0, 0, 0, 0, "end">>} = Emmap.pread(window, 0, 100)
    end

    test "what is wrong", %{path: path} do
      mem = Emmap.open!(path)
      assert {:error, :einval} = Emmap.window(mem, -1, 10)
      assert {:error, :einval} = Emmap.window(mem, 0, -10)
      assert {:error, :einval} = Emmap.move_window(mem, 0, 1 <<< 64)
      assert {:error, :enotsup} = Emmap.window(Emmap.open!([:anon, size: 10]), 0, 1)
      assert_raise ArgumentError, ~r/got :bof and 3/, fn -> Emmap.window(mem, :bof, 3) end
      assert_raise ArgumentError, ~r/not an open/, fn -> Emmap.window(path, 0, 3) end
      assert {:ok, 10_000} = Emmap.size(mem)
      :ok = Emmap.close(mem)
      assert {:error, :closed} = Emmap.window(mem, 0, 1)
    end
  end
end
