defmodule Emmap.ErlangTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  test "the module as Erlang calls it", %{tmp_dir: directory} do
    file = String.to_charlist(Path.join(directory, "data"))
    assert {:error, :enoent} = :emmap.open(file, [:read])

    assert {:ok, mem} =
             :emmap.open(file, 0, 8, [:create, :direct, :read, :write, :shared, :nolock])

    assert :ok = :emmap.pwrite(mem, 0, "test1")
    assert {:ok, live} = :emmap.pread(mem, 0, 5)
    assert :ok = :emmap.pwrite(mem, 0, "test2")
    assert live == "test2"
    assert {:ok, "te"} = :emmap.read(mem, 2)
    assert {:ok, "st2\0\0\0"} = :emmap.read_line(mem)
    assert :eof = :emmap.read_line(mem)
    assert {:ok, 4} = :emmap.position(mem, {:eof, -4})
    assert {:ok, 16} = :emmap.resize(mem)
    assert {:ok, 100} = :emmap.resize(mem, 100)
    assert :ok = :emmap.flush(mem)
    assert {:ok, %{size: 100}} = :emmap.info(mem)
    assert :ok = :emmap.close(mem)
    assert {:error, :closed} = :emmap.close(mem)
  end

  test "open/4: length 0 is the whole file, a shorter file is lengthened", %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "0123456789")
    assert {:ok, mem} = :emmap.open(path, 0, 0, [:read])
    assert {:ok, "0123456789"} = :emmap.pread(mem, 0, 100)
    assert {:ok, mem} = :emmap.open(path, 3, 0, [:read])
    assert {:ok, "3456789"} = :emmap.pread(mem, 0, 100)
    assert {:ok, mem} = :emmap.open(path, 8, 12, [:read, :write])
    assert {:ok, "89" <> _} = :emmap.pread(mem, 0, 100)
    assert File.stat!(path).size == 20
    assert {:ok, mem} = :emmap.open(~c"", 0, 4096, [:anon])
    assert {:ok, <<0>>} = :emmap.pread(mem, 4095, 9)
  end

  test "counters of several nodes", %{tmp_dir: directory} do
    counters = :emmap.open_counters(Path.join(directory, "c.cnt"), [:a])
    assert :ok = :emmap.join_counters(:emmap_erlang_test, counters, [:nobody@nowhere])
    assert 0 = :emmap.inc_counter(counters, :a, 3)
    missing = [nobody@nowhere: :noconnection]
    assert {:partial, 3, ^missing} = :emmap.sum_counter(:emmap_erlang_test, :a)
    assert {:partial, %{a: 3}, ^missing} = :emmap.sum_counters(:emmap_erlang_test)
    assert :ok = :emmap.leave_counters(:emmap_erlang_test)
  end
end
