defmodule Emmap.FileSystemsTest do
  # What guides/limits.md says of times, of programs that watch files, and of holes; and advice about pages.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  defp stat(path, format) do
    {out, 0} = System.cmd("stat", ["-c", format, path])
    String.trim(out)
  end

  defp changes_mtime?(path, change) do
    before = stat(path, "%.9Y")
    Process.sleep(30)
    change.()
    stat(path, "%.9Y") != before
  end

  defp on_tmpfs(name) do
    path =
      Path.join("/dev/shm", "emmap_#{name}_#{System.pid()}_#{System.unique_integer([:positive])}")

    on_exit(fn -> File.rm(path) end)
    path
  end

  # "tmpfs" in the table of file systems.
  defp tmpfs?, do: stat("/dev/shm", "%m") == "/dev/shm" and kind("/dev/shm") == "tmpfs"

  defp kind(path) do
    {out, 0} = System.cmd("stat", ["-f", "-c", "%T", path])
    String.trim(out)
  end

  test "the time of change", %{tmp_dir: directory} do
    places =
      [{:disk, Path.join(directory, "data")}] ++
        if(tmpfs?(), do: [tmpfs: on_tmpfs("mtime")], else: [])

    for {place, path} <- places, place == :tmpfs or kind(directory) != "tmpfs" do
      {:ok, mem} = Emmap.open(path, [:create, size: 10_000])
      write = fn -> :ok = Emmap.pwrite(mem, 0, "map") end

      # The first write to a page; and the first one since it was written to the disk, which no page of tmpfs ever is.
      assert changes_mtime?(path, write)
      refute changes_mtime?(path, write)
      :ok = Emmap.sync(mem)
      assert changes_mtime?(path, write) == (place == :disk)
      assert changes_mtime?(path, fn -> :ok = Emmap.pwrite(mem, 10_000, "grows") end)
      assert changes_mtime?(path, fn -> File.touch!(path) end)
    end
  end

  @watch """
  import ctypes, os, select, sys
  libc = ctypes.CDLL(None)
  fd = libc.inotify_init()
  assert libc.inotify_add_watch(fd, sys.argv[1].encode(), 0x2) > 0
  print("watching", flush=True)
  for line in sys.stdin:
      ready, _, _ = select.select([fd], [], [], 0.3)
      print("modified" if ready else "nothing", flush=True)
      if ready: os.read(fd, 4096)
  """

  @tag :python
  test "programs that watch the file", %{tmp_dir: directory} do
    if python = System.find_executable("python3") do
      path = Path.join(directory, "data")
      {:ok, mem} = Emmap.open(path, [:create, size: 10_000])

      port =
        Port.open({:spawn_executable, python}, [:binary, line: 100, args: ["-c", @watch, path]])

      assert_receive {^port, {:data, {:eol, "watching"}}}, 20_000

      seen = fn ->
        Port.command(port, "\n")
        assert_receive {^port, {:data, {:eol, seen}}}, 20_000
        seen
      end

      :ok = Emmap.pwrite(mem, 0, "through the map")
      :ok = Emmap.sync(mem)
      assert seen.() == "nothing"
      :ok = Emmap.pwrite(mem, 10_000, "past the end")
      assert seen.() == "modified"
      Port.close(port)
    end
  end

  test "holes are copied as zeros", %{tmp_dir: directory} do
    path = Path.join(directory, "sparse")
    copy = Path.join(directory, "copy")
    {:ok, mem} = Emmap.open(path, [:create, :sparse, size: 4_000_000])
    :ok = Emmap.pwrite(mem, 3_000_000, "data")
    :ok = Emmap.sync(mem)
    blocks = fn path -> String.to_integer(stat(path, "%b")) * 512 end
    assert blocks.(path) < 100_000
    File.cp!(path, copy)
    assert File.stat!(copy).size == 4_000_000
    assert blocks.(copy) >= 4_000_000
    {_, 0} = System.cmd("cp", ["--sparse=always", path, copy])
    assert blocks.(copy) < 100_000
    assert File.read!(copy) == File.read!(path)
  end

  describe "advice of Linux" do
    @harmless [:cold, :pageout, :hugepage, :nohugepage, :collapse, :dontdump, :dodump, :dontfork] ++
                [:dofork, :mergeable, :unmergeable, :populate_read, :populate_write]

    test "changes no bytes", %{tmp_dir: directory} do
      path = Path.join(directory, "data")
      data = :crypto.strong_rand_bytes(100_000)
      File.write!(path, data)

      for options <- [[], [:write], [:write, :private], [offset: 5000]] do
        mem = Emmap.open!(path, options)
        from = Keyword.get(Enum.filter(options, &is_tuple/1), :offset, 0)
        {:ok, bytes} = Emmap.pread(mem, 0, 100_000)
        assert bytes == binary_part(data, from, 100_000 - from)

        for advice <- @harmless,
            {position, count} <- [{0, 0}, {100, 5000}, {90_000, 99_999_999}] do
          case Emmap.advise(mem, position, count, advice) do
            :ok ->
              :ok

            # Of a kernel or a map that has it not.
            {:error, reason} ->
              assert reason in [:einval, :eacces, :eagain, :enomem, :ebusy, :enotsup]
          end
        end

        assert {:ok, ^bytes} = Emmap.pread(mem, 0, 100_000)
        assert :ok = :file.advise(mem, 0, 0, :cold)
      end

      mem = Emmap.open!(path)

      for advice <- [:cold, :dontdump, :dodump, :populate_read],
          do: assert(:ok = Emmap.advise(mem, 0, 0, advice))

      assert {:error, :eacces} = Emmap.advise(mem, 0, 0, :populate_write)
      assert {:error, :einval} = Emmap.advise(mem, 0, 0, :unknown)
      assert {:error, :einval} = Emmap.advise(mem, -1, 0, :cold)
      assert {:error, :badarg} = Emmap.advise(mem, nil, 0, :cold)
      assert :ok = Emmap.advise(mem, 1_000_000, 10, :cold)
    end

    test ":remove makes whole pages zeros, and no byte outside of the range", %{
      tmp_dir: directory
    } do
      page = elem(Emmap.info(Emmap.open!([:anon, size: 1])), 1).page_size
      places = [Path.join(directory, "data")] ++ if(tmpfs?(), do: [on_tmpfs("remove")], else: [])

      for path <- places, offset <- [0, 100] do
        size = 8 * page
        File.write!(path, :binary.copy("x", size))
        mem = Emmap.open!(path, [:write] ++ if(offset == 0, do: [], else: [offset: offset]))

        case Emmap.advise(mem, 10, 3 * page, :remove) do
          :ok ->
            first = div(10 + offset + page - 1, page) * page
            last = div(10 + offset + 3 * page, page) * page
            zeros = :binary.copy(<<0>>, last - first)
            expected = :binary.copy("x", first) <> zeros <> :binary.copy("x", size - last)
            assert File.read!(path) == expected
            # Less than a page.
            assert :ok = Emmap.advise(mem, 5 * page + 1, page - 2, :remove)
            assert File.read!(path) == expected

          {:error, reason} ->
            assert reason in [:einval, :enotsup]
        end

        assert {:error, :eacces} = Emmap.advise(Emmap.open!(path), 0, 0, :remove)
        :ok = Emmap.make_read_only(mem)
        assert {:error, :eacces} = Emmap.advise(mem, 0, 0, :remove)
        assert {:error, :eacces} = Emmap.advise(mem, 0, 0, :free)
      end
    end
  end
end
