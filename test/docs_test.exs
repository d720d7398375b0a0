defmodule DocsTest do
  # Every block of Elixir in the guides runs as it stands.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir

  test "docs/nx.md, up to where Nx takes over", %{tmp_dir: directory} do
    blocks = Regex.scan(~r/^```elixir\n(.*?)^```/ms, File.read!("docs/nx.md"))
    assert length(blocks) == 6
    code = Enum.map_join(blocks, "\n", &List.last/1)

    # What Nx would be given: the bytes, the type and the shape are those of the file.
    assert ChildVM.run!("""
           File.cd!(#{inspect(directory)})
           #{code}
           numbers = for <<x::float-32-native <- binary>>, do: x
           {Enum.chunk_every(numbers, columns), rows, :erlang.byte_size(binary) == File.stat!(path).size}
           """) ==
             {[[0.0, 0.5, 1.0, 1.5], [2.0, 2.5, 3.0, 3.5], [4.0, 4.5, 5.0, 5.5]], 3, true}
  end
end
