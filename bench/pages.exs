# Puts the results into the pages: mix run bench/pages.exs. Between `<!-- bench:NAME -->` and `<!-- /bench -->` a page has what
# bench/results/NAME.md has; docs/images has the plots. test/bench_test.exs fails where a page is behind.
defmodule Bench.Pages do
  @results Path.expand("results", __DIR__)
  @root Path.expand("..", __DIR__)
  @pages ~w(README.md docs/performance.md docs/what-survives.md)

  def run do
    for page <- @pages, path = Path.join(@root, page), File.exists?(path) do
      File.write!(path, path |> File.read!() |> filled())
    end

    for plot <- @results |> Path.join("*.svg") |> Path.wildcard() do
      File.cp!(plot, Path.join([@root, "docs/images", Path.basename(plot)]))
    end
  end

  defp filled(page) do
    Regex.replace(~r/(<!-- bench:([\w-]+) -->\n).*?(<!-- \/bench -->)/s, page, fn _,
                                                                                  start,
                                                                                  name,
                                                                                  ending ->
      text = File.read!(Path.join(@results, "#{name}.md"))
      "#{start}\n#{text}\n#{ending}"
    end)
  end
end

Bench.Pages.run()
