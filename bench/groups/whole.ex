defmodule Bench.Groups.Whole do
  @moduledoc false
  # Opening a file of a gigabyte and going through it: by a live binary, and as File.read! gives it.
  import Bench

  # Of a row, behind its number.
  @rest 4092

  def title, do: "A whole file"

  def run(folder) do
    path = text(folder)
    size = File.stat!(path).size
    # Into the page cache, for all sides.
    sum(File.read!(path))

    read = fn act -> fn -> path |> File.read!() |> act.() end end
    live = fn act -> fn -> opened(path, act) end end

    sides = fn act, seconds ->
      [
        {:emmap, "Emmap.open, Emmap.pread", live.(act)},
        {:read, "File.read!", read.(act)},
        {:raw, "raw :file.read of 64 KB each", fn -> by_parts(path, act) end}
      ]
      |> Enum.map(fn {key, label, fun} -> once(key, label, fun) end)
      |> then(&{&1, seconds: seconds})
    end

    {rows, options} = sides.(&rows/1, 6)
    rows = compare("#{bytes(size)}: open, sum a number of each row of 4 KB", rows, options)
    {all, options} = sides.(&sum/1, 6)
    all = compare("#{bytes(size)}: open, sum all bytes (:erlang.adler32)", all, options)

    numbers =
      compare(
        "#{bytes(size)}: open, sum all numbers (:u32)",
        [
          once(:array, "Emmap.Array.sum", fn -> array(path) end),
          once(:emmap, "Emmap.open, Emmap.pread, a function", live.(&numbers/1)),
          once(:read, "File.read!, a function", read.(&numbers/1))
        ],
        seconds: 10
      )

    opens =
      compare(
        "#{bytes(size)}: open, and nothing else",
        [
          once(:emmap, "Emmap.open, Emmap.pread", live.(fn _ -> :ok end)),
          once(:read, "File.read!", read.(fn _ -> :ok end)),
          once(:cat, "cat >/dev/null", fn ->
            {_, 0} = System.cmd("sh", ["-c", "cat \"$1\" >/dev/null", "sh", path])
          end)
        ],
        seconds: 3
      )

    copies = copies(text(folder, 268_435_456), folder)

    [
      {:note,
       "The file is in the page cache. With a live binary, the time is that of the reader alone: opening takes about 0.1 ms at any size, and nothing is copied. The page cache holds this file in large pages, so there are few page faults: see [Cost of the parts of a call](#cost-of-the-parts-of-a-call). `File.read!/1` copies the whole file into memory that the system has to clear first. The lower bound of the sums is the time of the sum itself. Summing all bytes takes longer than the copy that a live binary saves, so no way to read the file could be three times as fast. `Emmap.Array.sum/1` adds the numbers in native code; the other rows add them one by one in Elixir."},
      rows,
      all,
      numbers,
      opens,
      headline(
        rows,
        :read,
        "File.read! of 1 GB and a sum of one number of each 4 KB, compared with a live binary",
        {:at_least, 3}
      ),
      headline(
        all,
        :read,
        "File.read! of 1 GB and a sum of all bytes, compared with a live binary",
        {:at_least, 3}
      ),
      headline(
        numbers,
        :read,
        "File.read! of 1 GB and a sum of all numbers, compared with Emmap.Array.sum",
        {:at_least, 3}
      ),
      memory(path),
      copies
    ]
  end

  defp opened(path, act) do
    mem = Emmap.open!(path, [:direct])
    {:ok, data} = Emmap.pread(mem, 0, Emmap.size(mem) |> elem(1))
    result = act.(data)
    Emmap.close(mem)
    result
  end

  defp rows(data), do: rows(data, 0)

  defp rows(<<n::native-32, _::binary-size(@rest), rest::binary>>, sum), do: rows(rest, sum + n)
  defp rows(_, sum), do: sum

  defp sum(data), do: :erlang.adler32(data)

  defp numbers(data), do: numbers(data, 0)

  defp numbers(<<n::native-32, rest::binary>>, sum), do: numbers(rest, sum + n)
  defp numbers(_, sum), do: sum

  defp array(path) do
    array = Emmap.Array.open!(path, :u32)
    sum = Emmap.Array.sum(array)
    Emmap.Array.close(array)
    sum
  end

  defp by_parts(path, act) do
    {:ok, file} = :file.open(path, [:read, :raw, :binary])
    parts(file, act)
    :file.close(file)
  end

  defp parts(file, act) do
    with {:ok, data} <- :file.read(file, 65_536) do
      act.(data)
      parts(file, act)
    end
  end

  # At its most, beyond what there was before: the VM's own memory, and that of the system for this program without the pages of files.
  defp memory(path) do
    rows =
      for {label, act} <- [
            {"Emmap.open, Emmap.pread, a sum of all bytes", fn -> opened(path, &sum/1) end},
            {"File.read!, a sum of all bytes", fn -> path |> File.read!() |> sum() end}
          ] do
        [label | for(n <- most(act), do: "#{decimals(n / 1_000_000, 1)} MB")]
      end

    {:table,
     [
       "additional peak memory",
       ">VM",
       ">OS process, without file pages"
     ], rows}
  end

  defp most(act) do
    :erlang.garbage_collect()
    parent = self()
    before = [:erlang.memory(:total), anonymous()]
    watcher = spawn_link(fn -> watch(parent, before) end)
    together([fn -> act.() && :ok end])
    send(watcher, :stop)
    most = receive do: ({:most, most} -> most)
    for {most, before} <- Enum.zip(most, before), do: max(most - before, 0)
  end

  defp watch(parent, most) do
    now = [:erlang.memory(:total), anonymous()]
    most = for {a, b} <- Enum.zip(most, now), do: max(a, b)

    receive do
      :stop -> send(parent, {:most, most})
    after
      2 -> watch(parent, most)
    end
  end

  @doc "Bytes of memory of this program that are not pages of a file; 0 if the system does not report them."
  def anonymous do
    with {:ok, text} <- File.read("/proc/self/status"),
         [_, kilobytes] <- Regex.run(~r/^RssAnon:\s*(\d+) kB$/m, text),
         do: String.to_integer(kilobytes) * 1024,
         else: (_ -> 0)
  end

  # A copy of the file by a map, and by others.
  defp copies(path, folder) do
    to = Path.join(folder, "copy")
    fresh = fn -> File.rm(to) end

    compare(
      "copy of #{bytes(File.stat!(path).size)}",
      [
        once(
          :emmap,
          ":file.write of a live binary",
          fn _ -> opened(path, &File.write!(to, &1, [:raw])) end,
          setup: fresh
        ),
        once(:cp, "cp", fn _ -> {_, 0} = System.cmd("cp", [path, to]) end, setup: fresh),
        once(:file_cp, "File.cp!", fn _ -> File.cp!(path, to) end, setup: fresh)
      ],
      seconds: 3
    )
  end
end
