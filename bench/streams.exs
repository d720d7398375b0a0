# A gigabyte of text, line by line: Emmap.stream!/3 beside `wc -l`, File.stream!/3, raw
# :file.read_line/1 and :binary.split/3. The sides take turns and the best round of each counts.
# BENCH_MB and BENCH_ROUNDS change the size and the rounds. Run by `make bench`.

defmodule Bench.Streams do
  @megabytes String.to_integer(System.get_env("BENCH_MB") || "1024")
  @rounds String.to_integer(System.get_env("BENCH_ROUNDS") || "3")

  def run do
    directory = Path.join(System.tmp_dir!(), "emmap_bench_#{System.pid()}")
    File.mkdir_p!(directory)
    path = Path.join(directory, "text")

    try do
      Bench.Streams.Text.write!(path, @megabytes * 1024 * 1024)
      size = File.stat!(path).size
      # Also brings it into the page cache.
      count = Enum.count(Emmap.stream!(path))
      IO.puts("#{size} bytes, #{count} lines of #{Float.round(size / count, 1)} bytes")
      # First, before the others leave their garbage.
      memory(path)
      counts(path, count)
      visits(path, size, count)
      aggregates(Path.join(directory, "rows"))
    after
      File.rm_rf!(directory)
    end
  end

  defp counts(path, lines) do
    best =
      best(
        wc: fn -> {_, 0} = System.cmd("wc", ["-l", path]) end,
        emmap: fn -> ^lines = Enum.count(Emmap.stream!(path)) end,
        file: fn -> ^lines = Enum.count(File.stream!(path)) end
      )

    header("count of the lines", "limit")
    row("Enum.count(Emmap.stream!)", best.emmap, lines, "")
    row("wc -l", best.wc, lines, "#{ratio(best.emmap, best.wc)} (1.5)")
    row("Enum.count(File.stream!)", best.file, lines, "#{ratio(best.file, best.emmap)} times (2)")
  end

  defp visits(path, size, lines) do
    sum = fn stream -> ^size = Enum.reduce(stream, 0, &(byte_size(&1) + &2)) end

    best =
      best(
        emmap: fn -> sum.(Emmap.stream!(path)) end,
        handle: fn -> sum.(Emmap.stream!(Emmap.open!(path, [:direct]))) end,
        trim: fn ->
          Enum.reduce(Emmap.stream!(path, :line, trim: true), 0, &(byte_size(&1) + &2))
        end,
        copy: fn -> sum.(Emmap.stream!(path, :line, copy: true)) end,
        file: fn -> sum.(file_lines(path)) end,
        read_line: fn -> ^size = read_lines(path) end,
        split: {fn -> File.read!(path) end, &split/1}
      )

    header("each line visited", "times (wanted)")
    row("Emmap.stream!(path)", best.emmap, lines, "")
    row("Emmap.stream!(direct handle)", best.handle, lines, "")
    row("Emmap.stream!(path, trim: true)", best.trim, lines, "")
    row("Emmap.stream!(path, copy: true)", best.copy, lines, "")
    row("File.stream!, read_ahead", best.file, lines, "#{ratio(best.file, best.emmap)} (6)")

    row(
      ":file.read_line, read_ahead",
      best.read_line,
      lines,
      "#{ratio(best.read_line, best.emmap)} (8)"
    )

    row(
      ":binary.split of it in memory",
      best.split,
      lines,
      "#{ratio(best.split, best.emmap)} (3.5)"
    )
  end

  # What the README does with each line: split, convert, and sum by a key.
  defp aggregates(path) do
    Bench.Streams.Text.write_rows!(path, @megabytes * 1024 * 256)
    lines = Enum.count(Emmap.stream!(path))
    parts = 4 * System.schedulers_online()
    options = [trim: true, copy: true]

    best =
      best(
        # Its lines have a newline, which is in the way of the number.
        file: fn -> ^lines = path |> file_lines() |> measure(1) |> measured() end,
        emmap: fn -> ^lines = path |> Emmap.stream!(options) |> measure(0) |> measured() end,
        chunks: fn ->
          ^lines =
            path
            |> Emmap.chunks(parts, options)
            |> Task.async_stream(&measure(&1, 0), ordered: false, timeout: :infinity)
            |> Enum.reduce(0, fn {:ok, part}, sum -> sum + measured(part) end)
        end
      )

    header("each line split, converted, summed", "times")
    row("File.stream!, read_ahead", best.file, lines, "")
    row("Emmap.stream!", best.emmap, lines, "#{ratio(best.file, best.emmap)}")
    row("Emmap.chunks, #{parts} of them", best.chunks, lines, "#{ratio(best.file, best.chunks)}")
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

    for {name, keep} <- [{"each line visited", 0}, {"one line in a thousand kept", 1000}] do
      {vm, rss} = Task.await(Task.async(fn -> grown(path, keep) end), :infinity)
      IO.puts("#{String.pad_trailing(name, 36)} VM #{vm}, resident #{rss}")
    end
  end

  # Looked at every 100,000 lines, and at the end, while what was kept is still there.
  defp grown(path, keep) do
    :erlang.garbage_collect()
    {vm, rss} = {:erlang.memory(:total), resident()}

    {kept, _, most_vm, most_rss} =
      Enum.reduce(Emmap.stream!(path), {[], 1, vm, rss}, fn line, {kept, n, most_vm, most_rss} ->
        kept = if keep > 0 and rem(n, keep) == 0, do: [line | kept], else: kept

        if rem(n, 100_000) == 0,
          do: {kept, n + 1, max(most_vm, :erlang.memory(:total)), max(most_rss, resident())},
          else: {kept, n + 1, most_vm, most_rss}
      end)

    most = {megabytes(most_vm - vm), megabytes(most_rss - rss)}
    true = is_list(kept)
    most
  end

  defp megabytes(bytes), do: Float.round(bytes / 1_000_000, 1)

  defp resident do
    [_, pages | _] = "/proc/self/statm" |> File.read!() |> String.split()
    String.to_integer(pages) * 4096
  end

  # Nanoseconds of each side's best round, each in a process of its own.
  defp best(sides) do
    for _ <- 1..@rounds, {name, side} <- sides do
      {name, time(side)}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Map.new(fn {name, times} -> {name, Enum.min(times)} end)
  end

  defp time({prepare, act}) do
    in_process(fn ->
      prepared = prepare.()
      :timer.tc(act, [prepared]) |> elem(0)
    end)
  end

  defp time(act), do: in_process(fn -> :timer.tc(act) |> elem(0) end)

  defp in_process(act), do: Task.await(Task.async(act), :infinity) * 1000

  defp header(name, last),
    do: IO.puts("\n#{String.pad_trailing(name, 36)}     ms  ns a line   #{last}")

  defp row(name, ns, lines, last) do
    ms = String.pad_leading("#{div(ns, 1_000_000)}", 7)
    each = String.pad_leading("#{Float.round(ns / lines, 1)}", 10)
    IO.puts([String.pad_trailing(name, 36), ms, each, "   ", last])
  end

  defp ratio(one, other), do: Float.round(one / other, 2)
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

Bench.Streams.run()
