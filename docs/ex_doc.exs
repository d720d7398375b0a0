# What the pages are made of, for `make docs` and for `mix docs`.
guides = ~w(
  getting-started live-binaries sharing crash-and-durability choosing-options streams-and-large-files
  counters queues blocks records-and-lookup-tables replacing-data from-erlang from-other-languages coming-from-saleyn-emmap compared-with limits
)

groups = [
  "Opening and closing",
  "Reading",
  "Writing",
  "Streams and devices",
  "Searching",
  "Bytes and numbers",
  "Atomic integers",
  "Size",
  "Durability",
  "Memory",
  "Starting",
  "Joining",
  "Counting",
  "Summing",
  "Locking",
  "Publishing",
  "Pushing",
  "Popping",
  "At-least-once delivery",
  "Readers",
  "Blocks",
  "The whole file",
  "State and maintenance",
  "Building",
  "Lookups",
  "Many records",
  "Tensors",
  "Supervision",
  "Reading all",
  "Inspecting"
]

[
  main: "readme",
  logo: "guides/images/logo.svg",
  # The README is a page of the root, and shows plots where they are.
  assets: %{
    "guides/images" => "images",
    "docs/images" => "images",
    "bench/results" => "bench/results"
  },
  formatters: ["html"],
  extras:
    [{"README.md", title: "Emmap"}] ++
      Enum.map(guides, &"guides/#{&1}.md") ++
      [
        "guides/cheatsheet.cheatmd",
        "guides/python.cheatmd",
        {"livebooks/tour.livemd", title: "A tour in Livebook"},
        "docs/performance.md",
        "docs/what-survives.md",
        "docs/reliability.md",
        "docs/formats.md",
        {"docs/device.md", title: "Requests to a device"},
        {"docs/nx.md", title: "Tensors"}
      ] ++
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
    "Queues and blocks": [Emmap.Queue, Emmap.Blocks],
    Tables: [Emmap.Table],
    "Replacing and locking": [Emmap.Snapshot, Emmap.Mutex],
    "Arrays and tensors": [Emmap.Array, Emmap.Safetensors],
    Files: [Emmap.Inspection],
    Erlang: [:emmap, :emmap_queue]
  ],
  # In the order in which one needs them; functions say their own by `@doc group:`.
  groups_for_docs: for(group <- groups, do: {group, &(&1[:group] == group)}),
  # Our own, which CONTRIBUTING names.
  skip_code_autolink_to: ["Emmap.Native"],
  # On a phone a wide table scrolls by itself, and not the page with it; long addresses break.
  before_closing_head_tag: fn
    :html ->
      "<style>.content-inner table { display: block; max-width: 100%; overflow-x: auto } " <>
        ".content-inner :is(p, li) a { overflow-wrap: anywhere }</style>"

    _ ->
      ""
  end
]
