defmodule GuidesTest do
  # Every block of code of every guide runs, and prints what the guide says that it prints.
  use ExUnit.Case, async: true
  alias Emmap.Test.{ChildVM, Guide}

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  pages = Path.wildcard("guides/*.md")

  for page <- pages do
    test Path.basename(page), %{tmp_dir: directory} do
      page = unquote(page)

      assert %{ran: ran, missing: missing} =
               ChildVM.run!(
                 "Emmap.Test.Guide.run(#{inspect(page)}, #{inspect(directory)})",
                 timeout: 280
               )

      assert ran == length(Guide.blocks(page)) and ran > 0
      for language <- missing, do: IO.puts("\nskipped in #{page}: no #{language} here")
    end
  end

  test "a guide that does not do what it says is found", %{tmp_dir: directory} do
    run = fn text ->
      page = Path.join(directory, "page.md")
      File.write!(page, text)
      Guide.run(page, directory)
    end

    assert run.("```elixir\nIO.puts(1 + 1)\n```\n\n```text\n2\n```\n") == %{ran: 1, missing: []}

    assert_raise RuntimeError, ~r/page.md:2:.*prints/s, fn ->
      run.("```elixir\nIO.puts(3)\n```\n\n```text\n2\n```\n")
    end

    assert_raise RuntimeError, ~r/no match/, fn ->
      run.("```elixir\na = 1\n```\n\n```elixir\n2 = a\n```\n")
    end

    assert_raise RuntimeError, ~r/no match/, fn ->
      run.("```erlang\nA = 1.\n```\n\n```erlang\n2 = A.\n```\n")
    end

    assert_raise RuntimeError, ~r/exits with 3/, fn -> run.("```sh\nexit 3\n```\n") end
    assert_raise RuntimeError, ~r/nothing runs/, fn -> run.("```ruby\n1\n```\n") end
    assert_raise RuntimeError, ~r/nothing runs/, fn -> run.("```\n1\n```\n") end
  end
end
