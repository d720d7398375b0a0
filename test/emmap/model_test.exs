defmodule Emmap.ModelTest do
  # A map and a raw file get the same random operations and must return the same results and leave
  # the same bytes. Only what `Emmap.File` documents may differ, and each difference is named here.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @moduletag timeout: 120_000
  @page 4096
  @operations 4000

  for {name, options} <- [copying: [], direct: [:direct], unlocked: [:nolock], sparse: [:sparse]] do
    test "answers as a raw file does (#{name})", %{tmp_dir: directory} do
      seed = String.to_integer(System.get_env("EMMAP_SEED") || "#{:rand.uniform(1_000_000)}")
      :rand.seed(:exsss, {seed, 1, 2})

      try do
        run(directory, unquote(options), seed)
      rescue
        error -> reraise("seed #{seed} (EMMAP_SEED): #{Exception.message(error)}", __STACKTRACE__)
      end
    end
  end

  defp run(directory, options, _seed) do
    [ours, theirs, copied] = for name <- ~w(ours theirs copied), do: Path.join(directory, name)
    start = bytes(:rand.uniform(3 * @page))
    File.write!(ours, start)
    File.write!(theirs, start)
    {:ok, mem} = Emmap.open(ours, [:write | options])
    {:ok, raw} = :file.open(theirs, [:read, :write, :raw, :binary])
    state = %{mem: mem, raw: raw, ours: ours, theirs: theirs, copied: copied}

    for step <- 1..@operations do
      operation = operation(size(ours))
      # The map first: a live result must be compared before the next change.
      mine = perform(operation, mem, state)
      other = perform(operation, raw, state)

      unless same?(operation, mine, other) do
        flunk("step #{step}: #{show(operation)}\n  map  #{show(mine)}\n  file #{show(other)}")
      end

      if rem(step, 20) == 0 or elem(operation, 0) in [:truncate, :write, :pwrite] do
        assert size(ours) == size(theirs), "step #{step}: sizes after #{show(operation)}"
      end

      if rem(step, 50) == 0,
        do: assert(File.read!(ours) == File.read!(theirs), "step #{step}: bytes")
    end

    assert File.read!(ours) == File.read!(theirs)
    assert :ok = :file.close(mem)
    assert :ok = :file.close(raw)
    # Documented: a raw file says :einval.
    assert {:error, :closed} = :file.read(mem, 1)
    assert {:error, :einval} = :file.read(raw, 1)
  end

  defp size(path), do: File.stat!(path).size

  # Operations

  defp operation(size) do
    case :rand.uniform(100) do
      n when n <= 18 ->
        {:pread, place(size), count()}

      n when n <= 22 ->
        {:pread_list, for(_ <- 1..:rand.uniform(4), do: {place(size), count()})}

      n when n <= 32 ->
        {:read, count()}

      n when n <= 42 ->
        {:read_line}

      n when n <= 54 ->
        {:pwrite, place(size), data()}

      n when n <= 58 ->
        {:pwrite_list, for(_ <- 1..:rand.uniform(4), do: {place(size), data()})}

      n when n <= 66 ->
        {:write, data()}

      n when n <= 82 ->
        {:position, location(size)}

      n when n <= 86 ->
        {:truncate}

      n when n <= 88 ->
        {:advise, place(size), count(),
         pick([:normal, :sequential, :random, :no_reuse, :will_need, :dont_need, :unheard])}

      n when n <= 90 ->
        {:allocate, place(size), :rand.uniform(@page)}

      n when n <= 91 ->
        {:datasync}

      n when n <= 92 ->
        {:sync}

      n when n <= 94 ->
        {:ipread, place(size), pick([0, 100, @page, :infinity])}

      n when n <= 96 ->
        {:info, pick([:local, :universal, :posix])}

      n when n <= 98 ->
        {:copy, pick([0, 1, @page, 100_000, :infinity])}

      99 ->
        {:bad_data, pick([[:atom], [1, 256], :atom, <<1::7>>])}

      100 ->
        {:copy_in, count()}
    end
  end

  defp place(size) do
    case :rand.uniform(12) do
      1 -> -:rand.uniform(10)
      2 -> size
      3 -> size + :rand.uniform(2 * @page)
      4 -> max(size - :rand.uniform(20), 0)
      n when n <= 8 -> near_page(size)
      _ -> :rand.uniform(size + 1) - 1
    end
  end

  defp near_page(size),
    do: max(@page * (:rand.uniform(div(size, @page) + 2) - 1) + :rand.uniform(5) - 3, 0)

  defp location(size) do
    case :rand.uniform(8) do
      1 -> pick([:bof, :cur, :eof])
      2 -> {:cur, :rand.uniform(201) - 101}
      3 -> {:eof, -:rand.uniform(@page)}
      4 -> {:eof, :rand.uniform(100)}
      5 -> {:bof, place(size)}
      _ -> place(size)
    end
  end

  defp count,
    do: pick([0, 1, 2, 7, 63, 64, 65, @page - 1, @page, @page + 1, 70_000, :rand.uniform(300)])

  # Newlines of both kinds, so that lines are short.
  defp data do
    case :rand.uniform(6) do
      1 -> ""
      2 -> [?a, ["line\r\n" | "more\n"], []]
      3 -> bytes(pick([64, 65, @page, @page + 1]))
      4 -> :binary.copy("abc\n", :rand.uniform(100))
      5 -> "\r\n"
      6 -> bytes(:rand.uniform(40))
    end
  end

  defp bytes(count), do: for(_ <- 1..count, into: "", do: <<pick(~c"abcdefghijklmnop\r\n\0")>>)
  defp pick(list), do: Enum.random(list)

  # Both sides go through :file, as a user's code does.

  defp perform({:pread, at, count}, io, _), do: :file.pread(io, at, count)
  defp perform({:pread_list, ranges}, io, _), do: :file.pread(io, ranges)
  defp perform({:read, count}, io, _), do: :file.read(io, count)
  defp perform({:pwrite, at, data}, io, _), do: :file.pwrite(io, at, data)
  defp perform({:pwrite_list, writes}, io, _), do: :file.pwrite(io, writes)
  defp perform({:write, data}, io, _), do: :file.write(io, data)
  defp perform({:position, location}, io, _), do: :file.position(io, location)
  defp perform({:truncate}, io, _), do: bounded(io, fn -> :file.truncate(io) end)
  defp perform({:advise, at, count, advice}, io, _), do: :file.advise(io, at, count, advice)
  defp perform({:allocate, at, count}, io, _), do: :file.allocate(io, at, count)
  defp perform({:datasync}, io, _), do: :file.datasync(io)
  defp perform({:sync}, io, _), do: :file.sync(io)
  defp perform({:ipread, at, max}, io, _), do: :file.ipread_s32bu_p32bu(io, at, max)
  defp perform({:bad_data, data}, io, _), do: {:file.write(io, data), :file.pwrite(io, 0, data)}

  # A raw file has read ahead of its line and forgets where it was at the next pwrite; asking for
  # its position first is how one works around that.
  defp perform({:read_line}, io, _) do
    line = :file.read_line(io)
    {line, :file.position(io, :cur)}
  end

  defp perform({:info, time}, io, _) do
    with {:ok, info} <- :file.read_file_info(io, time: time) do
      info = File.Stat.from_record(info)
      {info.size, info.type, info.access, info.mode, info.links, info.uid, shape(info.mtime)}
    end
  end

  defp perform({:copy, count}, io, state) do
    result = :file.copy(io, state.copied, count)
    {result, File.read!(state.copied)}
  end

  defp perform({:copy_in, count}, io, state) do
    File.write!(state.copied, :binary.copy("0123456789\n", 200))
    {:file.copy(state.copied, io, count), :file.position(io, :cur)}
  end

  # Cutting or lengthening at the cursor; far ones would make the files grow without end.
  defp bounded(io, act) do
    {:ok, at} = :file.position(io, :cur)
    if at > 20 * @page, do: :file.position(io, 20 * @page)
    act.()
  end

  defp shape({{_, _, _}, {_, _, _}}), do: :calendar
  defp shape(n) when is_integer(n), do: :posix

  # A list of reads stops the same way on both; everything else is equal, or a documented difference.
  defp same?(_, same, same), do: true
  defp same?(_, _, _), do: false

  defp show(term), do: inspect(term, limit: 12, printable_limit: 80)
end
