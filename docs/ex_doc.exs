# What the pages are made of, for `make docs` and for `mix docs`.
guides = ~w(
  getting-started live-binaries sharing crash-and-durability choosing-options streams-and-large-files
  counters from-erlang from-other-languages coming-from-saleyn-emmap limits
)

[
  main: "readme",
  formatters: ["html"],
  extras:
    [{"README.md", title: "Emmap"}] ++
      Enum.map(guides, &"guides/#{&1}.md") ++
      ["livebooks/tour.livemd"] ++
      ~w(docs/reliability.md docs/formats.md docs/device.md docs/nx.md) ++
      ~w(CHANGELOG.md CONTRIBUTING.md SECURITY.md),
  groups_for_extras: [
    Guides: ~r"^(guides|livebooks)/",
    Reference: ~r"^docs/",
    Project: ~r"^(CHANGELOG|CONTRIBUTING|SECURITY)"
  ],
  groups_for_modules: [
    Maps: [Emmap, Emmap.Options, Emmap.Typed, Emmap.Search, Emmap.File, Emmap.Error],
    "Streams and devices": [Emmap.Stream, Emmap.Device],
    Counters: [Emmap.Counters, Emmap.Counters.Cluster],
    Files: [Emmap.Inspection],
    Erlang: [:emmap]
  ],
  default_group_for_doc: fn metadata -> metadata[:group] end
]
