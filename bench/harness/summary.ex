defmodule Bench.Summary do
  @moduledoc false
  # What is made of the results of all groups: the table of the headlines, that of the limits, and the table and the plot of the README.

  alias Bench.{Plot, Results}

  # Group, comparison (how its name begins), our side, the one that it is compared with, and what both do.
  @shown [
    {"reads", "pread of 64 B", "Emmap.pread", "raw :file.pread", "`pread` of 64 B"},
    {"reads", "a live binary of 4 KB", "Emmap.pread, :direct", "raw :file.pread, a copy",
     "4 KB, live"},
    {"writes", "pwrite of 64 B", "Emmap.pwrite", "raw :file.pwrite", "`pwrite` of 64 B"},
    {"integers", "add 1", "Emmap.Counters.add by index", ":ets.update_counter",
     "add 1 to a counter"},
    {"queue", "push and pop 75 B", "Emmap.Queue", ":disk_log.log, no pop",
     "push and pop of 75 B"},
    {"blocks", "store 64 B", "Blocks.store", ":dets.insert", "store 64 B"},
    {"lines", "128 MB, each line", "Emmap.stream!, live: true", "File.stream!, read_ahead",
     "visit each line of 128 MB"},
    {"whole", "1 GB: open, sum a number", "Emmap.open, Emmap.pread", "File.read!",
     "open 1 GB, sum a column"}
  ]

  # The same, where the other is the least that it can cost, and why.
  @limits [
    {"reads", "pread of 64 B", "Emmap.pread", "the floor", "a NIF call, and a binary"},
    {"reads", "pread of 64 KB", "Emmap.pread", "the floor", "`memcpy`"},
    {"reads", "pread of 1 GB", "Emmap.pread", "the floor (memcpy)",
     "`memcpy`, and clearing new pages"},
    {"reads", "a live binary of 4 KB", "Emmap.view", "the floor's view",
     "a NIF call, and a term"},
    {"writes", "pwrite of 64 B", "Emmap.pwrite", "the floor", "a NIF call"},
    {"writes", "pwrite of 64 KB", "Emmap.pwrite", "the floor", "`memcpy`"},
    {"writes", "pwrite of 64 B and a sync", "Emmap.pwrite, Emmap.datasync",
     "raw :file.pwrite, :file.datasync", "the disk"},
    {"integers", "add 1", "Emmap.patomic :add", "the floor",
     "a NIF call, a locked instruction, a tuple"},
    {"integers", "add 1", "Emmap.Counters.add by index", ":atomics.add",
     "a locked instruction, called inside the VM"},
    {"lines", "1 GB", "Enum.count(Emmap.stream!)", "wc -l", "reading the memory once"},
    {"search", "count absent", "Emmap.count", "grep -cF",
     "reading the memory once and comparing"},
    {"whole", "copy of", ":file.write of a live binary", "cp", "the system's copy"},
    {"open", "open and close []", "Emmap.open, Emmap.close", "the bare system calls",
     "the system calls, from a dirty scheduler"},
    {"queue", "push and pop a term", "Emmap.Queue", "term_to_binary and back, nothing else",
     "encoding and decoding the term"}
  ]

  @doc "Writes them. Returns the headlines."
  def write(folder, machine) do
    headlines = Results.headlines(folder)
    write(folder, "headlines.md", table(headlines))

    if machine,
      do:
        write(
          folder,
          "machine.md",
          Results.table(["measured on", ""], Enum.map(machine, &Tuple.to_list/1))
        )

    times = Results.times(folder)
    shown = shown(@shown, times)
    write(folder, "limits.md", @limits |> shown(times) |> limits())
    write(folder, "readme.md", readme(shown))
    if shown != [], do: File.write!(Path.join(folder, "headlines.svg"), plot(shown))
    headlines
  end

  def met?(ratio, "at_least", wanted), do: ratio >= wanted
  def met?(ratio, "at_most", wanted), do: ratio <= wanted

  defp write(folder, name, text), do: File.write!(Path.join(folder, name), text <> "\n")

  defp table(headlines) do
    rows =
      for {group, text, ratio, sense, wanted} <- headlines do
        met = if met?(ratio, sense, wanted), do: "yes", else: "**no**"

        [
          text,
          exact(ratio, wanted),
          "#{String.replace(sense, "_", " ")} #{Bench.digits(wanted)}",
          met,
          group
        ]
      end

    Results.table(["comparison", ">measured", ">target", "met", "group"], rows)
  end

  # More digits where the rounded figures would be the same.
  defp exact(ratio, wanted) do
    if ratio != wanted and Bench.digits(ratio) == Bench.digits(wanted),
      do: Bench.decimals(ratio, 3),
      else: Bench.digits(ratio)
  end

  # Those that were measured.
  defp shown(wanted, times) do
    for {group, name, ours, theirs, what} <- wanted,
        {^group, full, ^ours, least} <- times,
        String.starts_with?(full, name),
        {^group, ^full, ^theirs, other} <- times do
      {full, what, {ours, least}, {theirs, other}}
    end
  end

  defp limits(shown) do
    rows =
      for {name, why, {ours, least}, {theirs, other}} <- shown do
        [
          "#{name}: `#{ours}`",
          Bench.time(least),
          why,
          "`#{theirs}`: #{Bench.time(other)}",
          "#{Bench.digits(least / other)} ×"
        ]
      end

    Results.table(["", ">takes", "lower bound", ">time of the bound", ">distance"], rows)
  end

  defp readme(shown) do
    rows =
      for {_, what, {ours, least}, {theirs, other}} <- shown do
        [
          what,
          "`#{ours}`: #{Bench.time(least)}",
          "`#{theirs}`: #{Bench.time(other)}",
          "#{Bench.digits(other / least)} ×"
        ]
      end

    Results.table(["", "Emmap", "alternative", ">the alternative takes"], rows)
  end

  defp plot(shown) do
    groups =
      for {_, what, {ours, least}, {theirs, other}} <- shown,
          do: {String.replace(what, "`", ""), [{ours, least, :ours}, {theirs, other, :other}]}

    Plot.bars("Time, least of the rounds", groups)
  end
end
