# Whether every link in a folder of pages leads somewhere: elixir tools/links.exs doc
[folder] = System.argv()
pages = folder |> Path.join("*.html") |> Path.wildcard()

text = Map.new(pages, &{Path.basename(&1), File.read!(&1)})

anchors =
  Map.new(text, fn {page, html} ->
    {page, for([_, id] <- Regex.scan(~r/\sid="([^"]*)"/, html), into: MapSet.new(), do: id)}
  end)

links =
  for {page, html} <- text,
      [_, link] <- Regex.scan(~r/\s(?:href|src)="([^"]*)"/, html),
      not (link =~ ~r/^([a-z]+:|\/\/)/) and link != "#",
      # Put there by HexDocs: the versions of the package.
      link != "docs_config.js",
      uniq: true,
      do: {page, link |> String.replace("&amp;", "&") |> URI.decode()}

broken =
  for {page, link} <- links,
      [file | anchor] = String.split(link, "#", parts: 2),
      target = if(file == "", do: page, else: file |> String.split("?") |> hd()),
      not File.exists?(Path.join(folder, target)) or
        (anchor not in [[], [""]] and
           not MapSet.member?(Map.get(anchors, target, MapSet.new(anchor)), hd(anchor))),
      do: "#{page}: #{link}"

IO.puts(Enum.join(broken, "\n"))
IO.puts("#{length(pages)} pages, #{length(links)} links in them, #{length(broken)} of them broken")
if broken != [] or length(pages) < 10, do: System.halt(1)
