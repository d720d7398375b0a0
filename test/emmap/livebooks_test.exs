defmodule Emmap.LivebooksTest do
  # Every code cell runs, one after the other as in Livebook; those that need a Hex package are left out.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @hex ~r/Mix\.install|VegaLite|Kino/

  for path <- Path.wildcard("livebooks/*.livemd") do
    test "#{Path.basename(path)} installs what there is" do
      [_, cell] = Regex.run(~r/^```elixir\n(.*?)^```/ms, File.read!(unquote(path)))
      {_, _, [deps | _]} = Code.string_to_quoted!(cell)
      {deps, _} = Code.eval_quoted(deps, [], file: Path.expand(unquote(path)))
      assert Emmap.Test.Guide.installable!(deps) == :ok

      # A checkout is this one, wherever it is.
      with [path: checkout] <- deps[:emmap],
           do: assert(Path.expand(checkout) == File.cwd!())
    end

    test Path.basename(path) do
      cells =
        for [_, code] <- Regex.scan(~r/^```elixir\n(.*?)^```/ms, File.read!(unquote(path))),
            not (code =~ @hex),
            do: code

      assert length(cells) > 5

      # A cell that is left out must not be one that others need, so the rest runs with bindings alone.
      assert {ran, last} =
               ChildVM.run!("""
               Enum.reduce(#{inspect(cells, limit: :infinity, printable_limit: :infinity)}, {0, [], nil}, fn cell, {n, binding, _} ->
                 {value, binding} = Code.eval_string(cell, binding)
                 {n + 1, binding, value}
               end)
               |> then(fn {n, _binding, last} -> {n, last} end)
               """)

      assert {ran, last} == {length(cells), :done}
    end
  end
end
