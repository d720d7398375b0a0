defmodule Emmap.DocTest do
  use ExUnit.Case, async: true
  doctest Emmap
  doctest Emmap.Array
  doctest Emmap.Blocks
  doctest Emmap.Counters
  doctest Emmap.Counters.Cluster
  doctest Emmap.Device
  doctest Emmap.Error
  doctest Emmap.Mutex
  doctest Emmap.Queue
  doctest Emmap.Snapshot
  doctest Emmap.Stream
  doctest Emmap.Table

  test "every NIF says its scheduler, and every stub has a NIF" do
    sources = Path.wildcard("native/emmap_nif/src/**/*.rs") -- ["native/emmap_nif/src/panics.rs"]
    all = Enum.map_join(sources, &File.read!/1)
    cold = Regex.scan(~r/#\[rustler::nif(.*?)\]\n(?:pub )?fn (\w+)/, all)
    hot = Regex.scan(~r/^hot_nif!\("(\w+)"/m, all)
    waiting = Regex.scan(~r/^cold_nif!\(\s*[\w:]+,(?:\s*\w+,)?\s*"(\w+)"/m, all)

    for [_, attributes, name] <- cold,
        do: assert(attributes =~ ~r/schedule = "\w+"/, "#{name} has no scheduler")

    nifs = Enum.map(cold ++ hot ++ waiting, &List.last/1)

    stubs =
      Emmap.Native.__info__(:functions) |> Keyword.keys() |> Enum.uniq() |> List.delete(:load)

    assert Enum.sort(nifs) == stubs |> Enum.map(&to_string/1) |> Enum.sort()
  end
end
