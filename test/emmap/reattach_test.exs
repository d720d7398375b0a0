defmodule Emmap.ReattachTest do
  # What must be there after a map was reattached, and what looks at its file before it answers.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

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
      %File.Stat{size: size} = File.stat!(path)
      assert {:ok, %{size: ^size, address_ranges: 1}} = Emmap.info(mem)
      assert {:ok, "private"} = Emmap.pread(mem, 0, 7)
      assert {:ok, "1"} = Emmap.pread(mem, size - 1, 1)
      :ok = Emmap.pwrite(mem, 1, "RIVATE")
      assert <<"pRIVATE", _::binary>> = live
      :ok = Emmap.pwrite(mem, 1, "rivate")
    end

    assert <<"0000000", _::binary>> = File.read!(path)
  end

  test "allocate does not say :ok of a file that was cut", %{path: path} do
    mem = Emmap.open!(path, [:write])
    File.write!(path, "")
    assert {:error, :estale} = Emmap.allocate(mem, 0, 4096)
    assert {:error, :estale} = Emmap.pread(mem, 0, 1)
  end

  test "prefetch without the guard answers, and does not touch", %{path: path} do
    assert {:ok, {:off, {:error, :estale}}} =
             ChildVM.run("""
             Application.put_env(:emmap, :guard, false)
             {:ok, mem} = Emmap.open(#{inspect(path)})
             File.write!(#{inspect(path)}, "")
             {Emmap.guard(), Emmap.prefetch(mem, 0, 4096)}
             """)
  end
end
