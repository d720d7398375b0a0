# Maps a real file, reads it in every way, checks each byte, writes through a shared map, and counts
# in a VM that is killed.
#
#     make demo

defmodule Demo do
  @least 64 * 1024 * 1024
  @step 65_536

  def run do
    work = Path.join(System.tmp_dir!(), "emmap_demo_#{System.pid()}")
    File.mkdir_p!(work)

    try do
      source = find() || make(Path.join(work, "made"))
      path = Path.join(work, "data")
      # A copy, for the demo writes to it.
      File.cp!(source, path)
      IO.puts("#{source}: #{megabytes(File.stat!(path).size)} MB, copied to #{path}\n")
      read(path)
      write(path)
      count(Path.join(work, "hits.cnt"))
    after
      File.rm_rf!(work)
    end
  end

  # The first large file of the system; /usr holds programs, libraries, archives.
  defp find do
    find = ~w(/usr -xdev -type f -size +#{div(@least, 1024)}k -size -512M -readable -print -quit)

    case System.find_executable("find") && System.cmd("find", find, stderr_to_stdout: true) do
      {"/" <> _ = found, _} -> found |> String.split("\n") |> hd()
      _ -> nil
    end
  end

  # No large file: one made of many small ones, over and over until it is large.
  defp make(path) do
    files = Enum.filter(Path.wildcard("/usr/lib/**/*"), &File.regular?/1)

    File.open!(path, [:write, :raw, :binary], fn out ->
      files
      |> Stream.cycle()
      |> Enum.reduce_while(0, fn file, size ->
        data = case File.read(file), do: ({:ok, data} -> data; _ -> "")
        :ok = :file.write(out, data)
        size = size + byte_size(data)
        if size >= @least, do: {:halt, size}, else: {:cont, size}
      end)
    end)

    path
  end

  defp read(path) do
    crc = :erlang.crc32(File.read!(path))
    size = File.stat!(path).size
    IO.puts(row(["whole file, every byte checked (CRC)", "ms", "MB of VM memory"]))

    for {name, act} <- [
          {"File.read!", fn -> :erlang.crc32(File.read!(path)) end},
          {"raw :file.pread, 64 KB at a time", fn -> with_raw(path, &preads(&1, size)) end},
          {"Emmap: IO.binread, 64 KB at a time", fn -> with_map(path, [], &binreads(&1, :erlang.crc32(""))) end},
          {"Emmap: :file.pread, 64 KB at a time", fn -> with_map(path, [], &preads(&1, size)) end},
          {"Emmap: one live binary of all of it", fn -> with_map(path, [:direct], &whole(&1, size)) end}
        ] do
      {milliseconds, memory, ^crc} = measure(act)
      IO.puts(row([name, milliseconds, memory]))
    end

    IO.puts("\n" <> row(["100,000 reads of 64 bytes", "ms", "ns a read"]))
    positions = for _ <- 1..100_000, do: :rand.uniform(size - 64)

    for {name, act} <- [
          {"raw :file.pread", fn -> with_raw(path, &random(&1, positions)) end},
          {"Emmap: :file.pread, copies", fn -> with_map(path, [], &random(&1, positions)) end},
          {"Emmap: :file.pread, live", fn -> with_map(path, [:direct], &random(&1, positions)) end}
        ] do
      {milliseconds, _memory, sum} = measure(act)
      ^sum = Process.get(:sum) || sum
      Process.put(:sum, sum)
      IO.puts(row([name, milliseconds, round(milliseconds * 10)]))
    end
  end

  defp with_raw(path, act) do
    {:ok, raw} = :file.open(path, [:read, :raw, :binary])
    result = act.(raw)
    :ok = :file.close(raw)
    result
  end

  defp with_map(path, options, act) do
    {:ok, mem} = Emmap.open(path, options)
    result = act.(mem)
    :ok = File.close(mem)
    result
  end

  defp preads(io, size) do
    Enum.reduce(0..size//@step, :erlang.crc32(""), fn position, crc ->
      case :file.pread(io, position, @step) do
        {:ok, data} -> :erlang.crc32(crc, data)
        :eof -> crc
      end
    end)
  end

  defp binreads(mem, crc) do
    case IO.binread(mem, @step) do
      :eof -> crc
      data -> binreads(mem, :erlang.crc32(crc, data))
    end
  end

  defp whole(mem, size) do
    {:ok, live} = :file.pread(mem, 0, size)
    :erlang.crc32(live)
  end

  defp random(io, positions) do
    Enum.reduce(positions, 0, fn position, sum ->
      {:ok, <<first, _::binary>>} = :file.pread(io, position, 64)
      sum + first
    end)
  end

  # Milliseconds, and the most memory for binaries and heaps above the start; in a fresh process,
  # watched each millisecond.
  defp measure(act) do
    :erlang.garbage_collect()
    before = used()
    watcher = spawn_link(fn -> watch(before) end)
    task = Task.async(fn -> :timer.tc(act) end)
    {microseconds, result} = Task.await(task, :infinity)
    send(watcher, {:peak, self()})
    peak = receive do: ({:peak, peak} -> peak)
    {Float.round(microseconds / 1000, 1), megabytes(max(peak - before, 0)), result}
  end

  defp watch(peak) do
    receive do
      {:peak, to} -> send(to, {:peak, max(peak, used())})
    after
      1 -> watch(max(peak, used()))
    end
  end

  defp used, do: :erlang.memory(:binary) + :erlang.memory(:processes)

  defp write(path) do
    {:ok, mem} = Emmap.open(path, [:write])
    {:ok, live} = Emmap.view(mem, 0, 16)
    IO.puts("\nthe first 16 bytes        #{inspect(:binary.copy(live))}")
    :ok = :file.pwrite(mem, 0, "written by emmap")
    IO.puts("the same live binary now  #{inspect(live)}")
    {:ok, file} = File.open(path, [:read, :raw, :binary])
    {:ok, "written by emmap" = data} = :file.pread(file, 0, 16)
    IO.puts("and the file, by :file    #{inspect(data)}")
    :ok = Emmap.sync(mem)
    :ok = File.close(mem)
    IO.puts("synced, closed; the live binary is still there: #{inspect(live)}")
  end

  # A VM that counts and is killed; the next one goes on.
  defp count(path) do
    IO.puts("\ncounters in a file, and VMs that count until kill -9")

    for life <- 1..3 do
      code = """
      c = Emmap.Counters.open!(#{inspect(path)}, [:lives, :adds])
      Emmap.Counters.add(c, :lives, 1)
      IO.puts(inspect(c))
      Stream.repeatedly(fn -> Emmap.Counters.add(c, :adds, 1) end) |> Stream.run()
      """

      elixir = System.find_executable("elixir")
      args = ["-pa", Application.app_dir(:emmap, "ebin"), "-e", code]
      port = Port.open({:spawn_executable, elixir}, [:binary, :exit_status, args: args])
      {:os_pid, pid} = Port.info(port, :os_pid)
      found = receive do: ({^port, {:data, text}} -> text)
      Process.sleep(200)
      {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
      receive do: ({^port, {:exit_status, 137}} -> :killed)
      IO.puts("VM #{life} found #{String.trim(found)}, and was killed")
    end

    IO.puts("what is left: #{inspect(Emmap.Counters.open!(path, [:lives, :adds]))}")
  end

  defp megabytes(bytes), do: Float.round(bytes / 1_048_576, 1)

  defp row([name | cells]) do
    String.pad_trailing(name, 38) <> Enum.map_join(cells, &String.pad_leading("#{&1}", 17))
  end
end

Demo.run()
