defmodule PagesTest do
  # README, guides and the rest of the pages: links lead somewhere, and what they name is there.
  use ExUnit.Case, async: true

  @pages ~w(README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md) ++
           Path.wildcard("{guides,docs}/*.{md,cheatmd}") ++ Path.wildcard("livebooks/*.livemd")

  defp prose(page) do
    # Without its blocks of code, in which brackets mean other things.
    page |> File.read!() |> String.replace(~r/^```.*?^```$/ms, "")
  end

  # As GitHub and ExDoc make them of a heading.
  defp anchors(page) do
    for [_, heading] <- Regex.scan(~r/^\#{1,6} (.*)$/m, prose(page)) do
      heading
      |> String.downcase()
      |> String.replace(~r/[^\w\- ]/u, "")
      |> String.replace(" ", "-")
    end
  end

  for page <- @pages do
    test "links of #{page}" do
      for [_, link] <- Regex.scan(~r/\]\(([^)\s]+)\)/, prose(unquote(page))),
          not (link =~ ~r/^[a-z]+:/) do
        [file | anchor] = String.split(link, "#", parts: 2)

        target =
          if file == "", do: unquote(page), else: Path.join(Path.dirname(unquote(page)), file)

        assert File.regular?(target), "no #{target}"
        for anchor <- anchor, do: assert(anchor in anchors(target), "no ##{anchor} in #{target}")
      end
    end
  end

  test "all pages and all public modules are in the documentation, each in a group" do
    {docs, _} = Code.eval_file("docs/ex_doc.exs")
    extras = for extra <- docs[:extras], do: if(is_tuple(extra), do: elem(extra, 0), else: extra)
    assert Enum.sort(extras) == Enum.sort(@pages)

    for extra <- extras -- ["README.md"] do
      assert Enum.any?(docs[:groups_for_extras], fn {_, pattern} -> extra =~ pattern end), extra
    end

    {:ok, modules} = :application.get_key(:emmap, :modules)

    public =
      for module <- modules,
          not (inspect(module) =~ ~r/^(Emmap\.Test|Inspect\.|Enumerable\.|Collectable\.|Mix\.)/),
          {:docs_v1, _, _, _, %{}, _, _} <- [Code.fetch_docs(module)],
          do: module

    grouped = docs[:groups_for_modules] |> Keyword.values() |> List.flatten()
    assert Enum.sort(grouped) == Enum.sort(public)
  end

  test "every group of functions has its place" do
    {docs, _} = Code.eval_file("docs/ex_doc.exs")
    {:ok, modules} = :application.get_key(:emmap, :modules)

    said =
      for module <- modules,
          {:docs_v1, _, _, _, %{}, _, entries} <- [Code.fetch_docs(module)],
          {_, _, _, _, %{group: group}} <- entries,
          uniq: true,
          do: group

    assert Enum.sort(said) == Enum.sort(for {group, _} <- docs[:groups_for_docs], do: group)
  end

  test "functions name what they take" do
    {:docs_v1, _, _, _, _, _, entries} = Code.fetch_docs(Emmap)

    for {{:function, name, arity}, _, [signature], %{}, _} <- entries, arity > 0 do
      assert signature =~ ~r/^\w+!?\((mem|path|source|options|pattern|monitor)\b/, signature
      refute signature =~ ~r/other|arg\d/, "#{name}/#{arity}: #{signature}"
    end
  end

  # The places where a page installs emmap, with all that is before them.
  defp installations(page) do
    # "Releasing" has what is to come.
    [text | _] = page |> File.read!() |> String.split("\n## Releasing\n")

    for [{at, length}] <- Regex.scan(~r/\{:?emmap, (?!monitor)[^}]*\}/, text, return: :index),
        do: {page, binary_part(text, at, length), binary_part(text, 0, at)}
  end

  test "every page installs what there is, and says what is not there before" do
    version = Mix.Project.config()[:version]
    installations = Enum.flat_map(@pages, &installations/1)
    assert length(installations) >= 5

    if Mix.Project.config()[:publishing][:package] do
      # Between two releases the pages ask for the last one.
      unless "dev" in Version.parse!(version).pre do
        for {page, wanted, _before} <- installations,
            do: assert(wanted =~ ~r/, "(~> )?#{Regex.escape(version)}"\}/, "#{page}: #{wanted}")
      end
    else
      for {page, wanted, before} <- installations do
        assert wanted =~ ~r/(path|git): |\{git, /, "#{page}: #{wanted}"
        assert before =~ "Emmap is not on Hex yet", page
      end
    end
  end

  test "the version is the same everywhere" do
    version = Mix.Project.config()[:version]
    assert File.read!("native/Cargo.toml") =~ ~s(\nversion = "#{version}"\n)
    assert File.read!("CHANGELOG.md") =~ "\n## #{version} - "
  end

  test "options that the pages name exist" do
    {:docs_v1, _, _, _, %{"en" => table}, _, _} = Code.fetch_docs(Emmap.Options)
    guide = prose("guides/choosing-options.md")
    lists = for [_, list] <- Regex.scan(~r/`\[([^\]`]*)\]`/, guide), do: list
    named = for list <- lists, [_, _, name] <- Regex.scan(~r/(?:^|, )(:?)(\w+)/, list), do: name
    assert length(named) > 20

    for name <- Enum.uniq(named),
        do: assert(table =~ "* `:#{name}`" or table =~ "* `{:#{name}, n}`", name)
  end
end
