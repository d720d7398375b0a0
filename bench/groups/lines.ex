defmodule Bench.Groups.Lines do
  @moduledoc false
  # A gigabyte of text, line by line.
  import Bench

  def title, do: "Lines"

  def run(folder) do
    path = text(folder)
    size = File.stat!(path).size
    lines = Enum.count(Emmap.stream!(path))
    all = "#{bytes(size)}, #{thousands(lines)} lines"

    counted =
      compare(
        "#{all}, counted",
        [
          once(:emmap, "Enum.count(Emmap.stream!)", fn ->
            ^lines = Enum.count(Emmap.stream!(path))
          end),
          once(:wc, "wc -l", fn -> {_, 0} = System.cmd("wc", ["-l", path]) end),
          once(:grep, "grep -c ''", fn ->
            {_, 0} = System.cmd("grep", ["-c", "", path], env: [{"LC_ALL", "C"}])
          end)
        ],
        seconds: 4
      )

    visited = visited(text(folder, 134_217_728))
    {rows, options} = rows(folder)

    [
      {:note,
       "A live line is a binary of 6 to 10 words that points into the file. A copied line also needs its own bytes, which must be written and garbage-collected. The lower bound is to read the memory once, as `wc -l` does. `Enum.count/1` on a stream calls `Emmap.count/2`, which does the same with wider instructions."},
      counted,
      visited,
      headline(
        counted,
        :wc,
        "wc -l, compared with the count of a stream's lines",
        {:at_least, 1}
      ),
      headline(
        visited,
        :file,
        "File.stream! with read_ahead, compared with live lines, each visited",
        {:at_least, 8}
      ),
      headline(
        visited,
        :read_line,
        ":file.read_line with read_ahead, compared with live lines",
        {:at_least, 8}
      ),
      memory(text(folder, 268_435_456)),
      {:note,
       "**With the work of the README's example**: each line is split, its number is converted, and the numbers are summed by station. This work takes most of the time."},
      compare(
        "#{bytes(amount(16_777_216))} of rows, split, converted, summed",
        rows,
        options
      )
    ]
  end

  # Of an eighth of it, so that the slowest side gets its rounds.
  defp visited(path) do
    size = File.stat!(path).size
    compare("#{bytes(size)}, each line visited", visits(path, size), seconds: 15)
  end

  defp visits(path, size) do
    visit = fn stream -> Enum.reduce(stream, 0, &(byte_size(&1) + &2)) end
    all = fn stream -> ^size = visit.(stream) end

    [
      once(:emmap, "Emmap.stream!, live: true", fn -> all.(Emmap.stream!(path, live: true)) end),
      once(:trim, "the same, trim: true", fn ->
        visit.(Emmap.stream!(path, live: true, trim: true))
      end),
      once(:copies, "Emmap.stream!", fn -> all.(Emmap.stream!(path)) end),
      once(:file, "File.stream!, read_ahead", fn -> all.(file_lines(path)) end),
      once(:read_line, ":file.read_line, read_ahead", fn -> ^size = read_lines(path) end),
      once(:split, "File.read! and :binary.split", fn -> path |> File.read!() |> split() end)
    ]
  end

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
  defp split(text),
    do: text |> :binary.split("\n", [:global]) |> Enum.reduce(0, &(byte_size(&1) + &2))

  defp rows(folder) do
    path = Path.join(folder, "rows")
    Bench.Text.write_rows!(path, amount(16_777_216))
    lines = Enum.count(Emmap.stream!(path))
    parts = 4 * System.schedulers_online()

    streamed = fn live ->
      fn -> ^lines = path |> Emmap.stream!(trim: true, live: live) |> measure(0) |> measured() end
    end

    chunks = fn ->
      ^lines =
        path
        |> Emmap.chunks!(parts, trim: true, live: true)
        |> Task.async_stream(&measure(&1, 0), ordered: false, timeout: :infinity)
        |> Enum.reduce(0, fn {:ok, part}, sum -> sum + measured(part) end)
    end

    sides = [
      once(:emmap, "Emmap.stream!, live: true", streamed.(true)),
      once(:copies, "Emmap.stream!", streamed.(false)),
      once(:chunks, "Emmap.chunks!, #{parts} of them, live: true", chunks),
      # Its lines have a newline, which is in the way of the number.
      once(:file, "File.stream!, read_ahead", fn ->
        ^lines = path |> file_lines() |> measure(1) |> measured()
      end)
    ]

    {sides, seconds: 5}
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

  defp memory(path) do
    rows =
      for {how, live} <- [{"live", true}, {"copies", false}],
          {name, keep} <- [
            {"each line of 256 MB visited", 0},
            {"one line in a thousand kept", 1000}
          ] do
        lines = Emmap.stream!(path, live: live)
        {vm, rss} = Task.await(Task.async(fn -> grown(lines, keep) end), :infinity)
        ["#{name}, #{how}", "#{vm} MB", "#{rss} MB"]
      end

    {:table,
     [
       "additional peak memory",
       ">VM",
       ">OS process, without file pages"
     ], rows}
  end

  # Looked at every 100,000 lines, and at the end, while what was kept is still there.
  defp grown(lines, keep) do
    :erlang.garbage_collect()
    {vm, rss} = {:erlang.memory(:total), anonymous()}

    {kept, _, most_vm, most_rss} =
      Enum.reduce(lines, {[], 1, vm, rss}, fn line, {kept, n, most_vm, most_rss} ->
        kept = if keep > 0 and rem(n, keep) == 0, do: [line | kept], else: kept

        if rem(n, 100_000) == 0,
          do: {kept, n + 1, max(most_vm, :erlang.memory(:total)), max(most_rss, anonymous())},
          else: {kept, n + 1, most_vm, most_rss}
      end)

    most = {million(most_vm - vm), million(most_rss - rss)}
    true = is_list(kept)
    most
  end

  defp million(bytes), do: decimals(bytes / 1_000_000, 1)
  defp anonymous, do: Bench.Groups.Whole.anonymous()
end
