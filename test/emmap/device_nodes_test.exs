defmodule Emmap.DeviceNodesTest do
  # Devices and clients on real nodes. The nodes are in VMs of their own: some are killed.
  use ExUnit.Case, async: true
  alias Emmap.Test.{Cluster, DeviceNodes}

  @moduletag :tmp_dir
  @moduletag timeout: 180_000
  unless Cluster.possible?(), do: @moduletag(skip: "epmd is missing, so nodes cannot be started")

  test "two nodes read and write one map", %{tmp_dir: directory} do
    seen = Cluster.run!(DeviceNodes, :share, [Path.join(directory, "shared")])

    assert seen.lines ==
             Enum.sort(for n <- 1..500, node <- ~w(one two), do: "ż #{n} #{node}@127.0.0.1")

    assert seen.pread == {:ok, "from one"}
    assert seen.view == {:ok, "from one"}
    assert seen.whole
    assert seen.read =~ ~r/^27\.0\.0\.1\n$/
    assert {:ok, [_, _]} = seen.fread
    assert seen.leader == :"two@127.0.0.1"
    assert seen.last == "led\n"
  end

  test "a client's, an owner's and a device's node die", %{tmp_dir: directory} do
    seen = Cluster.run!(DeviceNodes, :deaths, [Path.join(directory, "shared")])
    assert seen.client == {[{:ok, "0123"}], {:ok, "0123"}, false}
    # It is no more than what was asked before that is waited for.
    assert seen.waited_beside_the_stopped < 5_000
    assert seen.owner == {{:ok, "0123"}, :normal, {:error, :terminated}}
    assert seen.near == {{:ok, "0123"}, :ok, {:ok, "0123"}}
    terminated = {:error, :terminated}

    assert [^terminated, ^terminated, :ok, ^terminated, ^terminated, message] = seen.gone
    assert message =~ "terminated"
    assert seen.waiting == terminated
    assert seen.waited < 5_000
    assert seen.mine == {:ok, "0123"}
  end
end
