defmodule Emmap.CursorTest do
  # Where the cursor is after a reattach.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  # logrotate with copytruncate, under a program that writes through a map.
  for lines <- [20, 2000] do
    test "a writer of #{lines} lines goes on at the end of a file that was truncated", %{
      tmp_dir: directory
    } do
      path = Path.join(directory, "log")
      File.write!(path, "")
      {:ok, mem} = Emmap.open(path, [:write])
      for n <- 1..unquote(lines), do: :ok = Emmap.write(mem, "before #{n}\n")
      File.write!(path, "")
      assert {:error, :estale} = Emmap.sync(mem)
      assert :ok = Emmap.reattach(mem)
      assert {:ok, 0} = Emmap.position(mem, :cur)
      assert :ok = Emmap.write(mem, "later\n")
      assert File.read!(path) == "later\n"
    end
  end

  test "it stays where the file has not become shorter", %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "0123456789")
    {:ok, mem} = Emmap.open(path, [:write])
    {:ok, 4} = Emmap.position(mem, 4)
    assert :ok = Emmap.reattach(mem)
    assert {:ok, 4} = Emmap.position(mem, :cur)
    File.write!(path, "more", [:append])
    assert :ok = Emmap.reattach(mem)
    assert {:ok, "456"} = Emmap.read(mem, 3)
    File.write!(path, "0123456")
    _ = Emmap.sync(mem)
    assert :ok = Emmap.reattach(mem)
    assert {:ok, 7} = Emmap.position(mem, :cur)
    File.write!(path, "01")
    _ = Emmap.sync(mem)
    assert :ok = Emmap.reattach(mem)
    assert {:ok, 2} = Emmap.position(mem, :cur)
  end
end
