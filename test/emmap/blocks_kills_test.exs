defmodule Emmap.BlocksKillsTest do
  # A few of the kills that `make blocks-kills` makes 500 of.
  use ExUnit.Case, async: true
  alias Emmap.Test.BlocksKills

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  if System.find_executable("cargo") == nil, do: @moduletag(skip: "no cargo here")

  test "20 kills of participants lose nothing", %{tmp_dir: directory} do
    assert %{operations: operations} = BlocksKills.run(directory, 20, :rand.uniform(1_000_000))
    assert operations > 1000
  end

  @tag :slow
  test "200 kills of participants lose nothing", %{tmp_dir: directory} do
    assert %{operations: operations} = BlocksKills.run(directory, 200, :rand.uniform(1_000_000))
    assert operations > 10_000
  end
end
