defmodule GuidesTest do
  # Every block of code of every guide runs, and prints what the guide says that it prints.
  use ExUnit.Case, async: true
  alias Emmap.Test.{ChildVM, Guide}

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  pages = Path.wildcard("guides/*.{md,cheatmd}")

  for page <- pages do
    test Path.basename(page), %{tmp_dir: directory} do
      page = unquote(page)

      if Enum.any?(Guide.blocks(page), &match?({"sh", _, _}, &1)),
        do: Guide.project!(directory)

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
    # The page and its problem, or nil.
    pages = [
      {"```elixir\nIO.puts(1 + 1)\n```\n\n```text\n2\n```\n", nil},
      {"```sh\nprintf 'a\\nb\\nc\\n'\n```\n\n```text\n…\nc\n```\n", nil},
      {"```sh\nprintf 'a\\nb\\nc\\n'\n```\n\n```text\n…c\n```\n", "prints"},
      {"```elixir\nIO.puts(3)\n```\n\n```text\n2\n```\n", "page.md:2: it prints"},
      {"```elixir\na = 1\n```\n\n```elixir\n2 = a\n```\n", "no match"},
      {"```erlang\nA = 1.\n```\n\n```erlang\n2 = A.\n```\n", "no match"},
      {"```sh\nexit 3\n```\n", "exits with 3"},
      {"```ruby\n1\n```\n", "nothing runs"},
      {"```\n1\n```\n", "nothing runs"},
      {"```elixir\ndef deps, do: []\n```\n", "key :emmap not found"},
      {"```elixir\nMix.install([{:emmap, \"~> 0.1\"}])\n```\n", "emmap"},
      {"```elixir\ndef deps, do: [{:emmap, \"~> 0.1\"}]\n```\n", "emmap"},
      {"```erlang\n% rebar.config\n{deps, [{emmap, \"0.1.0\"}]}.\n```\n", "emmap"},
      {"~~~elixir\n1 = 2\n~~~\n", "2 fences, and 0 blocks"},
      {"- item\n\n  ```elixir\n  1 = 2\n  ```\n", "2 fences, and 0 blocks"},
      {"```elixir\n1 = 2\n", "1 fences"},
      {"```elixir\n:ok\n```\n\nIt prints:\n\n```text\n2\n```\n", "nothing prints"},
      {"```elixir\n# lib/a.ex\n:ok\n```\n\n```text\n2\n```\n", "nothing prints"},
      {"```elixir\n# lib/b.ex\ndefmodule B do\n```\n", "missing terminator"}
    ]

    code = """
    for {text, n} <- #{inspect(Enum.with_index(Enum.map(pages, &elem(&1, 0))), limit: :infinity, printable_limit: :infinity)} do
      folder = Path.join(#{inspect(directory)}, "\#{n}")
      File.mkdir_p!(folder)
      page = Path.join(folder, "page.md")
      File.write!(page, text)
      try do
        %{ran: 1, missing: []} = Emmap.Test.Guide.run(page, folder)
        nil
      rescue
        error -> Exception.message(error)
      end
    end
    """

    for {{page, wrong}, found} <- Enum.zip(pages, ChildVM.run!(code)) do
      case wrong do
        nil -> assert {page, found} == {page, nil}
        _ -> assert is_binary(found) and found =~ wrong, "#{page}\n#{inspect(found)}"
      end
    end
  end

  test "a checkout is installed while no package is named, and the package after that" do
    version = Mix.Project.config()[:version]
    checkouts = [[path: "../emmap"], [git: "the address you cloned from"]]
    packages = [version, "~> " <> version]

    for {package, right, wrong} <- [{nil, checkouts, packages}, {"emmap", packages, checkouts}] do
      for dependency <- right,
          do: assert(Guide.installable!([emmap: dependency], package) == :ok)

      for dependency <- wrong do
        assert_raise RuntimeError, ~r/cannot be installed/, fn ->
          Guide.installable!([emmap: dependency], package)
        end
      end
    end

    assert_raise RuntimeError, ~r/not this version/, fn ->
      Guide.installable!([emmap: "~> 0.1"], "emmap")
    end
  end
end
