defmodule ReadmeTest do
  # Every block of code in the README runs as it stands.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @readme File.read!("README.md")

  defp blocks(language) do
    for [_, code] <- Regex.scan(~r/^```#{language}\n(.*?)^```/ms, @readme), do: code
  end

  test "Elixir", %{tmp_dir: directory} do
    assert [_ | _] = blocks = blocks("elixir")

    # Matches in the text are the assertions; a file of each block's own is made below the directory.
    for code <- blocks do
      assert ChildVM.run!(
               "File.cd!(#{inspect(directory)})\ndefmodule Block do\n#{wrapped(code)}\nend\nBlock.run()\n:ran"
             ) == :ran
    end
  end

  # The block of mix.exs is a function already.
  defp wrapped("def " <> _ = code),
    do: code <> "\ndef run, do: :ok = Emmap.Test.Guide.installable!(deps())"

  defp wrapped(code), do: "def run do\n#{code}\n:ok\nend"

  test "Erlang", %{tmp_dir: directory} do
    assert [code] = blocks("erlang")

    assert ChildVM.run!("""
           File.cd!(#{inspect(directory)})
           {:ok, tokens, _} = :erl_scan.string(#{inspect(String.to_charlist(code), limit: :infinity, charlists: :as_lists)})
           {:ok, expressions} = :erl_parse.parse_exprs(tokens)
           {:value, :ok, _} = :erl_eval.exprs(expressions, [])
           :ran
           """) == :ran
  end

  test "the commands are targets of the Makefile" do
    makefile = File.read!("Makefile")
    assert [code] = blocks("sh")

    for command <- String.split(code, "\n", trim: true) do
      assert ["make", target] = String.split(command)
      assert makefile =~ ~r/^#{target}:/m
    end
  end

  test "is short" do
    assert @readme |> String.split("\n") |> length() <= 200
  end
end
