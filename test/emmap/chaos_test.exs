defmodule Emmap.ChaosTest do
  # A few seconds of what `make chaos` does for ten minutes.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag timeout: 200_000

  @tag :slow
  test("a minute of chaos", context, do: chaos(context, 60))

  test("five seconds of chaos", context, do: chaos(context, 5))

  defp chaos(%{tmp_dir: directory}, seconds) do
    seed = :rand.uniform(1_000_000)

    result =
      ChildVM.run!("Emmap.Test.Chaos.run(#{inspect(directory)}, #{seconds}, #{seed})",
        timeout: seconds + 60
      )

    assert result.strange == [], "seed #{seed}: #{inspect(result.strange)}"
    assert %{live: {0, 0}, ours: 0} = result.left, "seed #{seed}"
    assert result.left.descriptors <= result.before.descriptors, "seed #{seed}"
    assert result.left.maps <= result.before.maps + 50, "seed #{seed}"
    assert result.left.kilobytes <= result.before.kilobytes + 200_000, "seed #{seed}"
    assert length(result.usual) > 20
  end
end
