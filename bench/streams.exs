# A gigabyte of text, line by line: Emmap.stream!/3, live and as copies (the default), compared with `wc -l`,
# File.stream!/3, raw :file.read_line/1 and :binary.split/3. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Streams do
  import Bench, except: [header: 2, row: 4]

  @size 1024 * 1024 * 1024
  @rounds 3

  def run(folder) do
    path = Path.join(folder, "text")
    Bench.Streams.Text.write!(path, amount(@size))
    size = File.stat!(path).size
    # Also brings it into the page cache.
    count = Enum.count(Emmap.stream!(path))
    IO.puts("\n#{size} bytes, #{count} lines of #{decimals(size / count, 1)} bytes")
    # First, before the others leave their garbage.
    memory(path)
    counts(path, count)
    visits(path, size, count)
    aggregates(Path.join(folder, "rows"))
  end

  defp counts(path, lines) do
    best =
      best_ns(
        wc: fn -> {_, 0} = System.cmd("wc", ["-l", path]) end,
        emmap: fn -> ^lines = Enum.count(Emmap.stream!(path)) end,
        file: fn -> ^lines = Enum.count(File.stream!(path)) end
      )

    header("count of the lines", "times")
    row("Enum.count(Emmap.stream!)", best.emmap, lines, "")
    row("wc -l", best.wc, lines, "#{ratio(best.wc, best.emmap)} (at least 0.67)")

    row(
      "Enum.count(File.stream!)",
      best.file,
      lines,
      "#{ratio(best.file, best.emmap)} (at least 2)"
    )
  end

  defp visits(path, size, lines) do
    bytes = fn stream -> Enum.reduce(stream, 0, &(byte_size(&1) + &2)) end
    all = fn stream -> ^size = bytes.(stream) end

    best =
      best_ns(
        live: fn -> all.(Emmap.stream!(path, live: true)) end,
        live_handle: fn -> all.(Emmap.stream!(Emmap.open!(path, [:direct]), live: true)) end,
        live_trim: fn -> bytes.(Emmap.stream!(path, live: true, trim: true)) end,
        copies: fn -> all.(Emmap.stream!(path)) end,
        copies_trim: fn -> bytes.(Emmap.stream!(path, trim: true)) end,
        file: fn -> all.(file_lines(path)) end,
        read_line: fn -> ^size = read_lines(path) end,
        split: {fn -> File.read!(path) end, &split/1}
      )

    header("each line visited", "times live (at least), times copies")

    for {side, name, wanted} <- [
          {:live, "Emmap.stream!, live: true", ""},
          {:live_handle, "the same of a direct handle", ""},
          {:live_trim, "live: true, trim: true", ""},
          {:copies, "Emmap.stream!", ""},
          {:copies_trim, "trim: true", ""},
          {:file, "File.stream!, read_ahead", " (6)"},
          {:read_line, ":file.read_line, read_ahead", " (8)"},
          {:split, ":binary.split of it in memory", " (3.5)"}
        ] do
      ratios = "#{ratio(best[side], best.live)}#{wanted}, #{ratio(best[side], best.copies)}"
      row(name, best[side], lines, ratios)
    end
  end

  # What the README does with each line: split, convert, and sum by a key.
  defp aggregates(path) do
    Bench.Streams.Text.write_rows!(path, div(amount(@size), 4))
    lines = Enum.count(Emmap.stream!(path))
    parts = 4 * System.schedulers_online()

    sides =
      for {name, live} <- [live: true, copies: false] do
        options = [trim: true, live: live]

        chunks = fn ->
          path
          |> Emmap.chunks!(parts, options)
          |> Task.async_stream(&measure(&1, 0), ordered: false, timeout: :infinity)
          |> Enum.reduce(0, fn {:ok, part}, sum -> sum + measured(part) end)
        end

        [
          {{name, :stream},
           fn -> ^lines = path |> Emmap.stream!(options) |> measure(0) |> measured() end},
          {{name, :chunks}, fn -> ^lines = chunks.() end}
        ]
      end

    # Its lines have a newline, which is in the way of the number.
    file = {:file, fn -> ^lines = path |> file_lines() |> measure(1) |> measured() end}
    best = best_ns([file | Enum.concat(sides)])

    header("each line split, converted, summed", "File.stream! takes times as long")
    row("File.stream!, read_ahead", best.file, lines, "")

    for name <- [:live, :copies],
        {how, title} <- [stream: "stream!", chunks: "chunks, #{parts} of them"] do
      ns = best[{name, how}]
      row("Emmap.#{title}, #{name}", ns, lines, "#{ratio(best.file, ns)}")
    end
  end

  defp measure(lines, newline) do
    Enum.reduce(lines, %{}, fn line, all ->
      [station, number] = :binary.split(line, ";")
      t = number |> binary_part(0, byte_size(number) - newline) |> :erlang.binary_to_float()

      Map.update(all, station, {t, t, t, 1}, fn {l, h, s, n} ->
        {min(l, t), max(h, t), s + t, n + 1}
      end)
    end)
  end

  defp measured(stations),
    do: Enum.reduce(stations, 0, fn {_station, {_, _, _, n}}, sum -> sum + n end)

  # Its arguments changed their places in Elixir 1.16.
  defp file_lines(path) do
    ahead = [read_ahead: 64 * 1024]

    if Version.match?(System.version(), ">= 1.16.0"),
      do: apply(File, :stream!, [path, :line, ahead]),
      else: apply(File, :stream!, [path, ahead, :line])
  end

  defp read_lines(path) do
    {:ok, file} = :file.open(path, [:read, :raw, :binary, read_ahead: 64 * 1024])
    sum = read_lines(file, 0)
    :ok = :file.close(file)
    sum
  end

  defp read_lines(file, sum) do
    case :file.read_line(file) do
      {:ok, line} -> read_lines(file, sum + byte_size(line))
      :eof -> sum
    end
  end

  # The list of them is what costs, and is what it gives; visiting it is no more than a sum.
  defp split(text) do
    text |> :binary.split("\n", [:global]) |> Enum.reduce(0, &(byte_size(&1) + &2))
  end

  defp memory(path) do
    IO.puts("\nat its most, MB more than before")

    for {how, live} <- [{"live", true}, {"copies", false}],
        {name, keep} <- [{"each line visited", 0}, {"one line in a thousand kept", 1000}] do
      lines = Emmap.stream!(path, live: live)
      {vm, rss} = Task.await(Task.async(fn -> grown(lines, keep) end), :infinity)
      IO.puts("#{pad("#{name}, #{how}", 40)} VM #{vm}, resident #{rss}")
    end
  end

  # Looked at every 100,000 lines, and at the end, while what was kept is still there.
  defp grown(lines, keep) do
    :erlang.garbage_collect()
    {vm, rss} = {:erlang.memory(:total), resident()}

    {kept, _, most_vm, most_rss} =
      Enum.reduce(lines, {[], 1, vm, rss}, fn line, {kept, n, most_vm, most_rss} ->
        kept = if keep > 0 and rem(n, keep) == 0, do: [line | kept], else: kept

        if rem(n, 100_000) == 0,
          do: {kept, n + 1, max(most_vm, :erlang.memory(:total)), max(most_rss, resident())},
          else: {kept, n + 1, most_vm, most_rss}
      end)

    most = {million(most_vm - vm), million(most_rss - rss)}
    true = is_list(kept)
    most
  end

  defp million(bytes), do: decimals(bytes / 1_000_000, 1)

  defp resident do
    [_, pages | _] = "/proc/self/statm" |> File.read!() |> String.split()
    String.to_integer(pages) * 4096
  end

  # Nanoseconds of each side's best round, each in a process of its own.
  defp best_ns(sides),
    do: best(@rounds, for({name, side} <- sides, do: {name, fn -> ns(side) end}))

  defp ns({prepare, act}) do
    in_process(fn ->
      prepared = prepare.()
      :timer.tc(act, [prepared]) |> elem(0)
    end)
  end

  defp ns(act), do: in_process(fn -> :timer.tc(act) |> elem(0) end)

  defp in_process(act), do: Task.await(Task.async(act), :infinity) * 1000

  defp header(name, last), do: IO.puts("\n#{pad(name, 36)}     ms  ns a line   #{last}")

  defp row(name, ns, lines, last) do
    IO.puts([
      pad(name, 36),
      left("#{div(ns, 1_000_000)}", 7),
      left(decimals(ns / lines, 1), 10),
      "   ",
      last
    ])
  end

  defp ratio(one, other), do: decimals(one / other, 2)
end

defmodule Bench.Streams.Text do
  # Words of the texts that this machine has, in lines of 10 to some 130 bytes.
  @sources [
    "/usr/share/{doc,common-licenses,perl}/**/*",
    "/usr/lib/{erlang,elixir,python3}/**/*.{erl,ex,hrl,py,txt,md}"
  ]
  @pool 24 * 1024 * 1024

  def write!(path, size) do
    :rand.seed(:exsss, 20)
    lines = lines(words())
    {:ok, file} = :file.open(path, [:write, :raw, :binary])
    fill(file, size, lines)
    :ok = :file.close(file)
  end

  # `Station;12.3`, of 400 stations; so many blocks of them as fit in `size`.
  def write_rows!(path, size) do
    :rand.seed(:exsss, 20)

    rows =
      for _ <- 1..50_000 do
        t = :erlang.float_to_binary(:rand.uniform() * 80 - 30, decimals: 1)
        "Station #{:rand.uniform(400)};#{t}\n"
      end

    block = IO.iodata_to_binary(rows)
    {:ok, file} = :file.open(path, [:write, :raw, :binary])
    for _ <- 1..max(div(size, byte_size(block)), 1), do: :ok = :file.write(file, block)
    :ok = :file.close(file)
  end

  # The same lines in another order each time.
  defp fill(_file, left, _lines) when left <= 0, do: :ok

  defp fill(file, left, lines) do
    block = lines |> Enum.shuffle() |> IO.iodata_to_binary()
    block = if byte_size(block) > left, do: binary_part(block, 0, left - 1) <> "\n", else: block
    :ok = :file.write(file, block)
    fill(file, left - byte_size(block), lines)
  end

  defp words do
    @sources
    |> Stream.flat_map(&Path.wildcard/1)
    |> Stream.filter(&File.regular?/1)
    |> Stream.flat_map(fn file ->
      with {:ok, text} <- File.read(file),
           true <- String.valid?(text),
           do: [String.split(text)],
           else: (_ -> [])
    end)
    |> Enum.reduce_while({[], 0}, fn words, {all, size} ->
      size = size + Enum.reduce(words, 0, &(byte_size(&1) + 1 + &2))
      if size > @pool, do: {:halt, {all, size}}, else: {:cont, {[words | all], size}}
    end)
    |> elem(0)
    |> Enum.concat()
  end

  defp lines([]), do: []

  defp lines(words) do
    {line, rest} = line(words, 10 + :rand.uniform(110), [])
    [[line, ?\n] | lines(rest)]
  end

  defp line([word | rest], room, line) when room > 0,
    do: line(rest, room - byte_size(word) - 1, [line, word, ?\s])

  defp line(rest, _room, line), do: {line, rest}
end

Bench.main(&Bench.Streams.run/1)
