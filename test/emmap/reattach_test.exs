defmodule Emmap.ReattachTest do
  # What a map must show after it was reattached, and which calls check the file before they return.
  use ExUnit.Case, async: true
  alias Emmap.Test.{BadDay, ChildVM}

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, :binary.copy("0", 4096))
    %{path: path}
  end

  test "a private map keeps what was written to it when its file grows", %{path: path} do
    mem = Emmap.open!(path, [:write, :private, :direct])
    {:ok, live} = Emmap.view(mem, 0, 100)
    :ok = Emmap.pwrite(mem, 0, "private")

    for more <- [10, 4096, 1_000_000] do
      File.write!(path, :binary.copy("1", more), [:append])
      assert :ok = Emmap.reattach(mem)
      # Longer it would be in other addresses, and there show the file's bytes.
      assert {:ok, %{size: 4096, address_ranges: 1}} = Emmap.info(mem)
      assert {:ok, "private"} = Emmap.pread(mem, 0, 7)
      :ok = Emmap.pwrite(mem, 1, "RIVATE")
      assert <<"pRIVATE", _::binary>> = live
      :ok = Emmap.pwrite(mem, 1, "rivate")
    end

    assert <<"0000000", _::binary>> = File.read!(path)
  end

  # It raises no signal: inside its page, a truncated file reads as zeros.
  for {what, look} <- [
        info: quote(do: &Emmap.info/1),
        "a stream": quote(do: &Enum.take(Emmap.stream!(&1), 1)),
        "a count of lines": quote(do: &Enum.count(Emmap.stream!(&1)))
      ] do
    test "a file cut inside the last page of a map is noticed by #{what}", %{path: path} do
      mem = Emmap.open!(path)
      File.write!(path, "new\n")
      assert {:ok, "new\n" <> <<0, _::binary>>} = Emmap.pread(mem, 0, 100)

      case (try do
              unquote(look).(mem)
            rescue
              error in Emmap.Error -> error.reason
            end) do
        {:ok, %{fault: fault}} -> assert fault == {4, {:error, :estale}}
        reason -> assert reason == :estale
      end

      assert {:error, :estale} = Emmap.pread(mem, 0, 100)
      assert :ok = Emmap.reattach(mem)
      assert {:ok, "new\n"} = Emmap.pread(mem, 0, 100)
      assert {:ok, %{fault: nil}} = Emmap.info(mem)
      assert {:ok, 4} = Emmap.size(mem)
    end
  end

  test "to look at a handle, or to ask for its size, changes nothing", %{path: path} do
    mem = Emmap.open!(path)
    File.write!(path, "new\n")
    assert inspect(mem) =~ "4096 bytes"
    assert {:ok, 4096} = Emmap.size(mem)
    assert {:ok, "new\n"} = Emmap.pread(mem, 0, 4)
  end

  test "a call that returns a fault has done nothing", %{path: path} do
    mem = Emmap.open!(path, [:write])
    File.write!(path, "")
    assert {:error, :estale} = Emmap.sync(mem)
    # Whole again, and nobody has touched a page meanwhile: all of them are there.
    File.write!(path, :binary.copy("0", 4096))

    for write <- [
          &Emmap.pwrite(&1, 0, "hi"),
          &Emmap.pwrite(&1, 0, "as long as a copy that is no number"),
          &Emmap.write(&1, "hi"),
          &Emmap.pwrite(&1, 4096, "past the end"),
          &Emmap.put(&1, 16, :u32, 1),
          &Emmap.fill(&1, 0, 100, ?x),
          &Emmap.fill(&1, 0, 4096, ?x),
          &Emmap.copy(&1, 0, 100, 10),
          &Emmap.patomic(&1, 64, :add, 1),
          &Emmap.patomic(&1, 64, :xchg, 1),
          &Emmap.patomic_cas(&1, 64, 0x3030303030303030, 1),
          &Emmap.patomic_write(&1, 64, 1)
        ] do
      assert {:error, :estale} = write.(mem)
    end

    assert File.read!(path) == :binary.copy("0", 4096)
    assert :ok = Emmap.reattach(mem)
    assert :ok = Emmap.pwrite(mem, 0, "hi")
  end

  test "a private map that was written is not lost because its file became shorter", %{path: path} do
    mem = Emmap.open!(path, [:private, :write])
    :ok = Emmap.pwrite(mem, 4000, "mine")

    File.open!(path, [:read, :write, :raw], fn file ->
      {:ok, 4} = :file.position(file, 4)
      :ok = :file.truncate(file)
    end)

    assert {:ok, %{fault: nil, size: 4096}} = Emmap.info(mem)
    assert {:ok, "mine"} = Emmap.pread(mem, 4000, 4)
  end

  test "a private map keeps what was written to it between two lost pages", context do
    case BadDay.mount(%{dir: context.tmp_dir}, "disk", ~w(-t tmpfs -o size=1m emmap_test)) do
      {:error, why} ->
        BadDay.skipped(context, why)

      {:ok, disk} ->
        path = Path.join(disk, "data")
        # Holes but for page 5, on a disk that is full by the time they are touched.
        {:ok, raw} = :file.open(path, [:raw, :write])
        :ok = :file.pwrite(raw, 5 * 4096, :binary.copy("f", 4096))
        :ok = :file.pwrite(raw, 20 * 4096 - 1, "e")
        mem = Emmap.open!(path, [:write, :private])
        :ok = Emmap.pwrite(mem, 5 * 4096, "private")
        fill = Path.join(disk, "fill")
        {:error, :enospc} = File.write(fill, :binary.copy("x", 2_000_000))
        assert {:error, :enospc} = Emmap.pread(mem, 2 * 4096, 1)
        assert {:error, :enospc} = Emmap.pread(mem, 8 * 4096, 1)
        assert {:ok, %{faults: 2}} = Emmap.info(mem)
        File.rm!(fill)
        # A map of a file whose name is not valid text.
        strange =
          Emmap.open!(Path.join(context.tmp_dir, "n") <> <<255>>, [:write, :create, size: 10])

        assert :ok = Emmap.reattach(mem)
        assert {:ok, "private"} = Emmap.pread(mem, 5 * 4096, 7)
        assert {:ok, <<0>>} = Emmap.pread(mem, 2 * 4096, 1)
        :ok = Emmap.pwrite(mem, 8 * 4096, "again")
        assert {:ok, "again"} = Emmap.pread(mem, 8 * 4096, 5)
        assert :ok = Emmap.close(strange)
    end
  end

  test "allocate does not return :ok for a truncated file", %{path: path} do
    mem = Emmap.open!(path, [:write])
    File.write!(path, "")
    assert {:error, :estale} = Emmap.allocate(mem, 0, 4096)
    assert {:error, :estale} = Emmap.pread(mem, 0, 1)
  end

  test "prefetch without the guard returns an error, and does not access the page", %{path: path} do
    assert {:ok, {:off, {:error, :estale}}} =
             ChildVM.run("""
             Application.put_env(:emmap, :guard, false)
             {:ok, mem} = Emmap.open(#{inspect(path)})
             File.write!(#{inspect(path)}, "")
             {Emmap.guard(), Emmap.prefetch(mem, 0, 4096)}
             """)
  end
end
