defmodule BenchTest do
  # What the pages say about speed and about what survives is what bench/results has.
  use ExUnit.Case, async: true

  @pages ~w(README.md docs/performance.md docs/what-survives.md)
  @results "bench/results"

  for page <- @pages do
    test "#{page} has the results, and none that is older" do
      page = File.read!(unquote(page))
      marks = Regex.scan(~r/<!-- bench:([\w-]+) -->\n(.*?)<!-- \/bench -->/s, page)
      assert marks != []

      for [_, name, text] <- marks do
        assert String.trim(text) == String.trim(File.read!(Path.join(@results, "#{name}.md"))),
               "#{name} is behind: mix run bench/pages.exs"
      end
    end
  end

  test "every group of the benchmark has results, and is in the page" do
    page = File.read!("docs/performance.md")
    groups = for file <- Path.wildcard("bench/groups/*.ex"), do: Path.basename(file, ".ex")
    assert length(groups) > 10

    for group <- groups do
      assert File.exists?(Path.join(@results, "#{group}.csv")), "#{group} has no results"
      assert page =~ "<!-- bench:#{group} -->", "#{group} is not in the page"
    end
  end

  test "the plots of the pages are those of the results" do
    plots = Path.wildcard(Path.join(@results, "*.svg"))
    assert length(plots) > 10

    for plot <- plots do
      assert File.read!(plot) == File.read!(Path.join("docs/images", Path.basename(plot))),
             "#{plot}: mix run bench/pages.exs"
    end
  end

  test "the headlines say what was measured, also where it is not what was wanted" do
    table = File.read!(Path.join(@results, "headlines.md"))

    for file <- Path.wildcard(Path.join(@results, "*.csv")),
        line <- file |> File.read!() |> String.split("\n", trim: true),
        ["headline", text, _sense, _ratio, _wanted] <- [String.split(line, ";")] do
      assert table =~ "| #{text} |", "#{text} is not in the table"
    end
  end
end
