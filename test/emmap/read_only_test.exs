defmodule Emmap.ReadOnlyTest do
  # A map that is made read-only while others write to it.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @size 256 * 1024

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, :binary.copy("0", @size))
    %{path: path}
  end

  # How a map of the kernel may be used, where the file is mapped.
  defp rights(path) do
    for line <- File.stream!("/proc/self/maps"), line =~ path do
      [_, rights | _] = String.split(line)
      rights
    end
  end

  # Every way to change a map, in pieces of any size.
  defp writes do
    [
      &Emmap.pwrite(&1, 8, "short"),
      &Emmap.pwrite(&1, 8, :binary.copy("x", 100_000)),
      &Emmap.pwrite(&1, 8, ["io", ["data"]]),
      &Emmap.pwrite(&1, @size - 1, "past the end"),
      &Emmap.pwrite(&1, @size * 2, :binary.copy("x", 100_000)),
      &Emmap.write(&1, "short"),
      &Emmap.write(&1, :binary.copy("x", 100_000)),
      &IO.binwrite(&1, "short"),
      &:file.pwrite(&1, 0, "short"),
      &Emmap.put(&1, 3, :u8, 1),
      &Emmap.put(&1, 3, {:f64, :big}, 1.0),
      &Emmap.fill(&1, 0, 100, 1),
      &Emmap.fill(&1, 0, 100_000, 1),
      &Emmap.copy(&1, 0, 10, 100),
      &Emmap.copy(&1, 0, 10, 100_000),
      &Emmap.copy(&1, 0, @size, 100_000),
      &Emmap.patomic(&1, 8, :add, 1),
      &Emmap.patomic(&1, 8, :xchg, 1),
      &Emmap.patomic(&1, 8, :max, 1),
      &Emmap.patomic_cas(&1, 8, 0, 1),
      &Emmap.patomic_write(&1, 8, 1),
      &Emmap.grow(&1),
      &Emmap.resize(&1, 10),
      &Emmap.resize(&1, @size * 2),
      &Emmap.truncate/1,
      &Emmap.allocate(&1, 0, @size * 2),
      &:emmap.init_block_storage(&1, 5)
    ]
  end

  for options <- [
        [:write],
        [:write, :nolock],
        [:write, :direct],
        [:write, :private],
        [:write, :fixed_size],
        [:write, offset: 4096, length: 200_000]
      ] do
    test "every write is refused, #{inspect(options)}", %{path: path} do
      mem = Emmap.open!(path, unquote(options))
      {:ok, other} = Emmap.dup(mem)
      :ok = Emmap.pwrite(mem, 100_000, "before")
      assert Enum.any?(rights(path), &(&1 =~ "w"))
      assert :ok = Emmap.make_read_only(mem)
      assert :ok = Emmap.make_read_only(mem)
      refute Enum.any?(rights(path), &(&1 =~ "w"))
      file = File.read!(path)

      for write <- writes(), handle <- [mem, other] do
        assert {:error, :eacces} = catch_badmatch(fn -> write.(handle) end), inspect(write)
      end

      assert {:ok, "before"} = Emmap.pread(other, 100_000, 6)
      assert {:ok, _} = Emmap.patomic_read(mem, 0)
      assert :ok = Emmap.sync(mem)
      assert {:ok, %{flags: flags, growable_up_to: nil}} = Emmap.info(mem)
      refute :write in flags
      assert File.read!(path) == file
      assert {:ok, size} = Emmap.size(mem)
      assert size in [@size, 200_000]
    end
  end

  # `IO.binwrite` raises.
  defp catch_badmatch(write) do
    write.()
  rescue
    error in ErlangError -> {:error, error.original}
  end

  test "a handle that appends", %{path: path} do
    mem = Emmap.open!(path, [:append])
    :ok = Emmap.write(mem, "before")
    assert :ok = Emmap.make_read_only(mem)
    assert {:error, :eacces} = Emmap.write(mem, "after")
    assert {:error, :eacces} = Emmap.pwrite(mem, 0, "after")
    assert :ok = Emmap.sync(mem)
    File.write!(path, "others", [:append])
    assert :ok = Emmap.reattach(mem)
    assert {:ok, "beforeothers"} = Emmap.pread(mem, @size, 100)
    assert {:ok, %{flags: [:read, :shared, :lock]}} = Emmap.info(mem)
  end

  test "what is mapped again later is read-only, too", %{path: path} do
    mem = Emmap.open!(path, [:write])
    :ok = Emmap.make_read_only(mem)
    File.write!(path, "cut")
    assert {:error, :estale} = Emmap.pread(mem, 100_000, 1)
    File.write!(path, :binary.copy("1", 4 * @size))
    assert :ok = Emmap.reattach(mem)

    assert Emmap.size(mem) == {:ok, 4 * @size}
    assert {:error, :eacces} = Emmap.pwrite(mem, 0, "x")
    refute Enum.any?(rights(path), &(&1 =~ "w"))
    assert {:ok, "1"} = Emmap.pread(mem, 4 * @size - 1, 1)
  end

  test "anonymous memory" do
    mem = Emmap.open!([:anon, size: 100])
    :ok = Emmap.pwrite(mem, 0, "abc")
    assert :ok = Emmap.make_read_only(mem)
    assert {:error, :eacces} = Emmap.pwrite(mem, 0, "xyz")
    assert {:error, :eacces} = Emmap.resize(mem, 10)
    assert {:ok, "abc"} = Emmap.pread(mem, 0, 3)
  end

  test "counters", %{tmp_dir: directory} do
    path = Path.join(directory, "counters")

    for options <- [[], [write_concurrency: true]] do
      counters = Emmap.Counters.open!(path, 4, options)
      :ok = Emmap.Counters.add(counters, 1, 5)
      assert :ok = Emmap.make_read_only(counters)

      for change <- [
            &Emmap.Counters.add(&1, 1, 1),
            &Emmap.Counters.put(&1, 1, 1),
            &Emmap.Counters.reset/1
          ] do
        assert %{reason: :eacces} = assert_raise(Emmap.Error, fn -> change.(counters) end)
      end

      assert Emmap.Counters.get(counters, 1) == 5
      assert :ok = Emmap.Counters.sync(counters)
      Emmap.Counters.close(counters)
      File.rm!(path)
    end
  end

  test "what is closed, and what is no handle", %{path: path} do
    mem = Emmap.open!(path, [:write])
    Emmap.close(mem)
    assert {:error, :closed} = Emmap.make_read_only(mem)
    assert_raise ArgumentError, ~r/not an open/, fn -> Emmap.make_read_only(:mem) end
    assert :ok = Emmap.make_read_only(Emmap.open!(path))
  end

  # A write that had asked whether it may, before the pages were protected, would kill the VM.
  for lock <- [:lock, :nolock] do
    test "nothing crashes while many write, #{lock}", %{path: path} do
      long = :binary.copy("y", 100_000)

      for _ <- 1..30 do
        mem = Emmap.open!(path, [:write, unquote(lock)])

        writers =
          for write <- [
                &Emmap.pwrite(&1, 0, "short"),
                &Emmap.patomic(&1, 8, :add, 1),
                &Emmap.put(&1, 100, :u64, 1),
                &Emmap.pwrite(&1, 100, long),
                &Emmap.fill(&1, 100, 100_000, 7)
              ] do
            Task.async(fn -> until_refused(mem, write, 0) end)
          end

        Process.sleep(:rand.uniform(5))
        assert :ok = Emmap.make_read_only(mem)
        before = Emmap.pread(mem, 0, @size)
        for done <- Task.await_many(writers), do: assert(is_integer(done))
        assert Emmap.pread(mem, 0, @size) == before
        Emmap.close(mem)
      end
    end
  end

  defp until_refused(mem, write, done) do
    case write.(mem) do
      {:error, :eacces} -> done
      :ok -> until_refused(mem, write, done + 1)
      {:ok, _} -> until_refused(mem, write, done + 1)
    end
  end
end
