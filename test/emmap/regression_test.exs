defmodule Emmap.RegressionTest do
  # Named after the failure that each keeps from coming back.
  use Emmap.Test.BadDay

  describe "the guard" do
    test "loses no race with a map that grows and shrinks", context do
      assert {:ok, answers} =
               attempt(context, """
               for _ <- 1..60 do
                 {:ok, m} = Emmap.open(path, [:write, :sparse, :nolock])
                 :ok = Emmap.resize(m, 4_000_000)
                 views = for i <- 0..19, do: elem(Emmap.view(m, i * 200_000, 100_000), 1)
                 forever = fn act -> spawn(fn -> Stream.repeatedly(act) |> Stream.run() end) end
                 reader = forever.(fn -> for v <- views, do: :erlang.crc32(v) end)
                 cutter = spawn(fn ->
                   {:ok, raw} = :file.open(path, [:raw, :read, :write])
                   Stream.repeatedly(fn -> :file.position(raw, 4096); :file.truncate(raw) end) |> Stream.run()
                 end)
                 answers = for _ <- 1..20, do: (Emmap.resize(m, 4096); Emmap.resize(m, 4_000_000))
                 Process.exit(reader, :kill)
                 Process.exit(cutter, :kill)
                 answers
               end
               |> List.flatten() |> Enum.uniq()
               """)

      assert Enum.all?(answers, &(&1 in [:ok, {:error, :estale}]))
    end

    test "is not for a signal that somebody sent: it kills, as it does any VM", context do
      assert {:died, status, _} =
               attempt(context, """
               {:ok, _} = Emmap.open(path)
               System.cmd("kill", ["-BUS", System.pid()])
               Process.sleep(2000)
               :lives
               """)

      # 128 + SIGBUS
      assert status == 135
    end

    test "patches a page at the limit of maps", context do
      most = "/proc/sys/vm/max_map_count" |> File.read!() |> String.trim() |> String.to_integer()

      if most <= 100_000 do
        assert {:ok, {:error, :estale}} =
                 attempt(context, """
                 File.write!(path, :binary.copy("x", 1_000_000))
                 {:ok, m} = Emmap.open(path)
                 kept = Enum.reduce_while(1..#{most}, [], fn _, kept ->
                   case Emmap.open([:anon, size: 4096]) do
                     {:ok, h} -> {:cont, [h | kept]}
                     _ -> {:halt, kept}
                   end
                 end)
                 {:ok, raw} = :file.open(path, [:raw, :read, :write])
                 :file.position(raw, 500_000)
                 :ok = :file.truncate(raw)
                 answer = Emmap.pread(m, 900_000, 10)
                 {:ok, _} = Emmap.pread(hd(kept), 0, 1)
                 answer
                 """)
      end
    end
  end

  describe "addresses" do
    test "set aside for growth leave the VM its own", context do
      assert {:ok, :lives} =
               attempt(context, """
               maps = for _ <- 1..60, do: Emmap.open!(path, [:write, max_size: 0x4000_0000_0000_0000])
               _ = :binary.copy("x", 50_000_000)
               {:ok, "0123456789"} = Emmap.pread(hd(maps), 0, 10)
               :lives
               """)
    end

    test "are not hoarded under a limit", context do
      assert {:ok, :lives} =
               attempt(context, """
               {:ok, _} = Emmap.open(path)
               [_, kilobytes] = Regex.run(~r/VmSize:\\s+(\\d+) kB/, File.read!("/proc/self/status"))
               limit = (String.to_integer(kilobytes) + 1_500_000) * 1024
               {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=\#{limit}"])
               maps = for _ <- 1..12, do: Emmap.open!(path, [:write])
               _ = :binary.copy("x", 300_000_000)
               :ok = Emmap.resize(hd(maps), 1_000_000)
               :lives
               """)
    end
  end

  test "a CRLF line that is truncated while it is read shows no other memory", %{path: path} do
    {:ok, mem} = Emmap.open(path, [:write, :truncate, :sparse])
    line = :binary.copy("A", 50_000) <> "\r\n"

    cutter =
      Task.async(fn ->
        for _ <- 1..3000,
            do:
              (
                :ok = Emmap.pwrite(mem, 0, line)
                :ok = Emmap.resize(mem, 100)
              )
      end)

    lines = read_lines(mem, cutter, MapSet.new())
    # Growing comes before writing, so zeros may be seen between; nothing else may.
    strange =
      for line <- lines,
          :binary.replace(line, ["A", "\0", "\r", "\n"], "", [:global]) != "",
          do: byte_size(line)

    assert strange == []
  end

  defp read_lines(mem, cutter, seen) do
    {:ok, 0} = Emmap.position(mem, 0)

    seen =
      case Emmap.read_line(mem) do
        {:ok, line} -> MapSet.put(seen, line)
        :eof -> seen
      end

    if Task.yield(cutter, 0), do: seen, else: read_lines(mem, cutter, seen)
  end

  describe "two maps of one file" do
    test "resize to more than one has, and less than the other made it, cuts nothing", %{
      path: path
    } do
      File.write!(path, :binary.copy("a", 100))
      {:ok, one} = Emmap.open(path, [:write])
      {:ok, other} = Emmap.open(path, [:write])
      :ok = Emmap.pwrite(other, 900, "written by the other")
      assert :ok = Emmap.resize(one, 500)
      assert {:ok, 500} = Emmap.size(one)
      assert {:ok, "written by the other"} = Emmap.pread(other, 900, 100)
      assert File.stat!(path).size == 920

      # To cut is truncate's, whoever made it longer; and resize's below its own size.
      {:ok, 700} = Emmap.position(one, 700)
      assert :ok = Emmap.truncate(one)
      assert File.stat!(path).size == 700
      assert :ok = Emmap.resize(one, 50)
      assert File.stat!(path).size == 50
      assert {:error, :estale} = Emmap.sync(other)
    end

    test "truncate at the end of one cuts what others appended", %{path: path} do
      File.write!(path, :binary.copy("a", 100))
      {:ok, mem} = Emmap.open(path, [:write])
      File.write!(path, :binary.copy("b", 50), [:append])
      {:ok, 100} = Emmap.position(mem, :eof)
      assert :ok = Emmap.truncate(mem)
      assert File.stat!(path).size == 100
      File.write!(path, "b", [:append])
      assert :ok = :file.truncate(mem)
      assert File.stat!(path).size == 100
    end

    test "truncate that is refused cuts nothing", %{path: path} do
      File.write!(path, :binary.copy("a", 100))
      {:ok, mem} = Emmap.open(path, [:write, max_size: 120])
      File.write!(path, :binary.copy("b", 1000), [:append])
      {:ok, 500} = Emmap.position(mem, 500)
      assert {:error, :enospc} = Emmap.truncate(mem)
      assert File.stat!(path).size == 1100
    end

    test "sync while another process appends finds no truncation", %{path: path} do
      File.write!(path, "")
      {:ok, mem} = Emmap.open(path, [:write, :sparse])

      calls =
        for call <- [
              &Emmap.sync(&1, :async),
              &Emmap.allocate(&1, 0, 1),
              &Emmap.prefetch(&1, 0, 1),
              &Emmap.info/1
            ] do
          Task.async(fn ->
            for _ <- 1..2000,
                answer = call.(mem),
                elem(List.wrap(answer) |> List.to_tuple(), 0) == :error,
                do: answer
          end)
        end

      writer = Task.async(fn -> for n <- 0..20_000, do: :ok = Emmap.pwrite(mem, n, "x") end)
      _ = Task.await_many([writer | calls], 120_000)
      assert {:ok, %{faults: 0, fault: nil, size: 20_001}} = Emmap.info(mem)
    end

    test "a private one is of a file opened for reading only", %{path: path} do
      File.write!(path, "0123456789")

      for {options, mode} <- [
            {[:private, :create], "0"},
            {[:private, :write], "0"},
            {[:create], "2"}
          ] do
        {:ok, mem} = Emmap.open(path, options)
        {:ok, %{fd: fd}} = Emmap.info(mem)
        [_, flags] = Regex.run(~r/^flags:\s+(\d+)$/m, File.read!("/proc/self/fdinfo/#{fd}"))
        assert String.ends_with?(flags, mode)
        assert :ok = Emmap.pwrite(mem, 0, "mine")
      end
    end

    test "a private one never makes the file longer", %{path: path} do
      File.write!(path, "0123456789")

      for {options, size} <- [
            {[length: 100], 10},
            {[offset: 5, length: 100], 5},
            {[:create, length: 100], 10}
          ] do
        {:ok, mem} = Emmap.open(path, [:private, :write | options])
        assert {:ok, ^size} = Emmap.size(mem)
        assert File.read!(path) == "0123456789"
      end

      for more <- [[], [:create]] do
        assert_raise ArgumentError, ~r/a private map never changes its file/, fn ->
          Emmap.open(path, [:private, :write, size: 100] ++ more)
        end
      end

      # A new one is made as it was asked for.
      {:ok, mem} = Emmap.open(path <> "2", [:private, :create, length: 100])
      assert {:ok, 100} = Emmap.size(mem)
    end

    for {name, options} <- [sparse: [:sparse], allocated: []] do
      test "that both grow lose nothing (#{name})", %{path: path} do
        File.write!(path, "")

        lost =
          0..1
          |> Enum.map(fn n ->
            Task.async(fn ->
              {:ok, mem} = Emmap.open(path, [:write | unquote(options)])

              for i <- 1..3000, position = (2 * i + n) * 10, reduce: 0 do
                lost ->
                  :ok = Emmap.pwrite(mem, position, "#{n}#{n}#{n}#{n}#{n}data#{n}")
                  if Emmap.pread(mem, position, 1) == {:ok, "#{n}"}, do: lost, else: lost + 1
              end
            end)
          end)
          |> Task.await_many(120_000)

        assert lost == [0, 0]
        data = File.read!(path)

        for n <- 0..1, i <- 1..3000 do
          assert binary_part(data, (2 * i + n) * 10, 10) == "#{n}#{n}#{n}#{n}#{n}data#{n}"
        end
      end
    end

    test "grow/1 of one does not cut the other's", %{path: path} do
      {:ok, a} = Emmap.open(path, [:write])
      {:ok, b} = Emmap.open(path, [:write])
      :ok = Emmap.pwrite(a, 0, :binary.copy("a", 1_000_000))
      assert {:ok, 1_000_000} = Emmap.grow(b)
      assert {:ok, "aaa"} = Emmap.pread(b, 999_997, 5)
      assert File.stat!(path).size == 1_000_000
    end

    test "writes of the one's live binary to the other do not tear", %{path: path} do
      File.write!(path, for(n <- 1..20_000, into: "", do: <<n::32>>))
      data = File.read!(path)
      {:ok, one} = Emmap.open(path, [:write, :direct, :sparse])
      {:ok, two} = Emmap.open(path, [:write])
      {:ok, live} = Emmap.pread(one, 0, 60_000)
      :ok = Emmap.pwrite(two, 1, live)
      assert binary_part(File.read!(path), 1, 60_000) == binary_part(data, 0, 60_000)
      # And across the ranges of a map that outgrew its addresses.
      File.write!(path, data)
      {:ok, live} = Emmap.view(one, 0, 60_000)
      :ok = Emmap.resize(one, 3_000_000_000)
      :ok = Emmap.pwrite(one, 1, live)
      assert {:ok, moved} = Emmap.pread(one, 1, 60_000)
      assert moved == binary_part(data, 0, 60_000)
    end
  end

  test "a grow that fails cuts nothing that others appended", %{dir: directory} do
    disk = Path.join(directory, "disk")
    File.mkdir_p!(disk)

    case System.cmd("mount", ~w(-t tmpfs -o size=64m emmap_test) ++ [disk], stderr_to_stdout: true) do
      {_, 0} ->
        on_exit(fn -> System.cmd("umount", ["-l", disk]) end)
        path = Path.join(disk, "data")
        {:ok, mem} = Emmap.open(path, [:create, size: 10])
        grower = Task.async(fn -> for _ <- 1..200, do: Emmap.resize(mem, 60_000_000_000) end)
        {:ok, raw} = :file.open(path, [:raw, :append])
        for _ <- 1..5000, do: :ok = :file.write(raw, "appended\n!")
        assert Enum.uniq(Task.await(grower, 60_000)) == [{:error, :enospc}]
        assert File.stat!(path).size == 10 + 50_000
        assert File.read!(path) == <<0::80>> <> :binary.copy("appended\n!", 5000)

      {why, _} ->
        IO.puts("skipped, for this machine mounts no tmpfs: #{String.trim(why)}")
    end
  end

  test "an open that fails leaves what it would have cut", %{path: path} do
    for {options, reason} <- [
          {[:write, :truncate, size: 0x0080_0000_0000_0000], [:efbig, :enomem, :enospc]},
          {[:write, :truncate, size: 4096, max_size: 10], [:enospc]},
          {[:write, :fit, :fixed, size: 3, address: 4097], [:einval]},
          {[:write, :truncate, :shared_validate, :sync], [:enotsup]},
          {[:write, :truncate, :hugetlb], [:enotsup]}
        ] do
      assert {:error, got} = Emmap.open(path, options)
      assert got in reason
      assert File.read!(path) == "0123456789"
    end
  end

  # What `Emmap.Collected.retry/1` returns for a call that is refused for these reasons, one after the other, and `:ok` then.
  defp refused(reasons) do
    {:ok, left} = Agent.start_link(fn -> reasons end)

    answer =
      Emmap.Collected.retry(fn ->
        case Agent.get_and_update(left, &{Enum.take(&1, 1), Enum.drop(&1, 1)}) do
          [reason] -> {:error, reason}
          [] -> :ok
        end
      end)

    {answer, length(reasons) - length(Agent.get(left, & &1))}
  end

  defp many(reason), do: List.duplicate(reason, 100)

  test "an open is tried again for what is collected or given up, for a while" do
    assert refused(many(:ebusy)) == {{:error, :ebusy}, 1}

    for reason <- [:emfile, :enfile, :enomem, :lent] do
      assert refused([reason]) == {:ok, 1}
      # Destructors run some time after the collection.
      assert refused(List.duplicate(reason, 5)) == {:ok, 5}
      assert refused([:eagain, reason, reason, reason]) == {:ok, 4}
      assert refused([reason, :eagain, reason]) == {:ok, 3}
      assert refused([reason, reason, :enoent, reason]) == {{:error, :enoent}, 3}
    end

    # After a collection, a lease is waited for just as long.
    assert refused([:emfile | List.duplicate(:eagain, 10)]) == {:ok, 11}
    assert {{:error, :emfile}, tries} = refused(many(:emfile))
    assert tries in 3..20
    assert {{:error, :ebusy}, ^tries} = refused(many(:lent))
  end

  test "unused live binaries of a large map do not prevent an open that truncates the file", %{
    path: path
  } do
    size = 64_000_000

    # Unmapping them takes a while, so it is done on another thread.
    for _ <- 1..10 do
      {:ok, mem} = Emmap.open(path, [:write, :truncate, :direct, size: size])
      for position <- 0..(size - 1)//4096, do: :ok = Emmap.pwrite(mem, position, "x")
      assert {:ok, <<"x", _::binary>>} = Emmap.view(mem, 0, 100)
      assert {:ok, _} = Emmap.open(path, [:write, :truncate])
    end
  end

  test "maps that are never closed leave descriptors and addresses for new ones", context do
    opened = """
    {:ok, _} = Emmap.open(path)
    [_, kilobytes] = Regex.run(~r/VmSize:\\s+(\\d+) kB/, File.read!("/proc/self/status"))
    limit = (String.to_integer(kilobytes) + 4_000_000) * 1024
    {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=\#{limit}", "--nofile=100"])
    for options <- [[:anon, size: 1_000_000_000], [:direct, path: path], [:sparse, :write, size: 500_000_000, path: path]] do
      Enum.frequencies(for _ <- 1..200 do
        {:ok, mem} = if options[:path], do: Emmap.open(path, List.keydelete(options, :path, 0)), else: Emmap.open(options)
        elem(Emmap.view(mem, 0, 1), 0)
      end)
    end
    """

    assert {:ok, [%{ok: 200}, %{ok: 200}, %{ok: 200}]} = attempt(context, opened)
  end

  for {name, size} <- [{"small", 1_000_000}, {"large", 64_000_000}] do
    test "a #{name} file whose name is removed with its last live binary is not truncated in its place",
         %{path: path} do
      options = [:create, :write, :sparse, size: unquote(size)]

      for _ <- 1..20 do
        File.rm(path)
        {:ok, mem} = Emmap.open(path, [:auto_unlink | options])
        assert {:ok, _} = Emmap.view(mem, 0, 4096)
        # Collects the live binary. Whatever this opens has the name.
        {:ok, mem} = Emmap.open(path, [:truncate | options])
        Process.sleep(10)
        :ok = Emmap.pwrite(mem, 0, "new")
        assert {:ok, "new"} = File.open!(path, [:read], &:file.read(&1, 3))
        :ok = Emmap.close(mem)
      end
    end
  end

  test "a fixed address is free again once its map was closed", %{path: path} do
    for _ <- 1..20 do
      assert {:ok, mem} = Emmap.open(path, [:fixed, address: 0x3000_0000_0000])
      assert :ok = Emmap.close(mem)
    end
  end

  test "windows, tables and raw files get the descriptors of maps that are collected", context do
    code = """
    {:ok, mem} = Emmap.open(path)
    table = Path.join(Path.dirname(path), "table")
    calls = [
      fn -> {:ok, part} = Emmap.window(mem, 0, 5); Emmap.pread(part, 0, 5) end,
      fn -> elem(Emmap.Table.build(table, [{"key", "value"}]), 0) end,
      fn -> {:ok, other} = Emmap.open(mem); Emmap.pread(other, 0, 5) end
    ]
    # Their modules are loaded.
    Enum.each(calls, & &1.())
    fill = fn fill -> with {:ok, _, _} <- Emmap.Native.open(Emmap.Options.request!(path, [])), do: fill.(fill) end
    run = fn call -> {fill.(fill), call.()} end
    {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--nofile=100"])
    for call <- calls do
      # Room for the handles, so that they are not collected before.
      {_, monitor} = :erlang.spawn_opt(fn -> exit(run.(call)) end, [:monitor, min_heap_size: 1_000_000])
      receive do: ({:DOWN, ^monitor, _, _, result} -> result)
    end
    """

    assert {:ok, results} = attempt(context, code)
    full = {:error, :emfile}
    assert results == [{full, {:ok, "01234"}}, {full, :ok}, {full, {:ok, "01234"}}]
  end

  test "live binaries that are in use prevent it", %{path: path} do
    {:ok, mem} = Emmap.open(path, [:write, :direct])
    {:ok, live} = Emmap.view(mem, 0, 10)
    assert {:error, :ebusy} = Emmap.open(path, [:write, :truncate])
    assert live == "0123456789"
  end

  test "a private map needs no right to write its file", context do
    File.chmod!(context.path, 0o444)
    assert {:ok, mem} = Emmap.open(context.path, [:private, :write, length: 5])
    assert {:ok, %{fd: fd}} = Emmap.info(mem)
    # O_ACCMODE 0: opened for reading alone.
    assert [_, flags] = Regex.run(~r/flags:\s+([0-7]+)/, File.read!("/proc/self/fdinfo/#{fd}"))
    assert Bitwise.band(String.to_integer(flags, 8), 3) == 0
    # O_CLOEXEC: programs that we start do not get it.
    assert Bitwise.band(String.to_integer(flags, 8), 0o2000000) != 0
    assert {:ok, "01234"} = Emmap.pread(mem, 0, 10)
  end

  test "a new file behind a dangling link has its mode, and goes when the open fails", %{
    dir: directory
  } do
    [link, target] = for name <- ~w(link target), do: Path.join(directory, name)
    File.ln_s!(target, link)
    assert {:error, :einval} = Emmap.open(link, [:create, :fixed, size: 5, address: 4097])
    refute File.exists?(target)
    File.rm(link)
    File.ln_s!(target, link)
    assert {:ok, _} = Emmap.open(link, [:create, size: 5, chmod: 0o600])
    assert %{mode: 0o100600, size: 5} = File.stat!(target)
  end

  test "reads of a direct handle are live, though its file was empty when it was opened", %{
    path: path
  } do
    {:ok, mem} = Emmap.open(path, [:write, :truncate, :direct])
    :ok = Emmap.write(mem, :binary.copy("a", 100))
    {:ok, pread} = Emmap.pread(mem, 0, 70)
    {:ok, 0} = Emmap.position(mem, 0)
    {:ok, read} = Emmap.read(mem, 70)
    :ok = Emmap.pwrite(mem, 0, "ZZZ")
    assert "ZZZ" <> _ = pread
    assert "ZZZ" <> _ = read
  end

  test "no access to the directory does not fail a sync", context do
    directory = Path.join(context.dir, "unlisted")
    File.mkdir_p!(directory)
    {:ok, mem} = Emmap.open(Path.join(directory, "new"), [:create, size: 5])
    File.chmod!(directory, 0o333)
    assert :ok = Emmap.sync(mem)
    File.chmod!(directory, 0o755)
  end

  describe "a call does what it says" do
    # What the kernel shows of a map: the lines of its part of smaps, as kilobytes.
    defp smaps(path, field) do
      File.read!("/proc/self/smaps")
      |> String.split(~r/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
      |> Enum.filter(&(&1 =~ path))
      |> Enum.map(fn map ->
        [_, kilobytes] = Regex.run(~r/^#{field}:\s+(\d+) kB/m, map)
        String.to_integer(kilobytes)
      end)
      |> Enum.sum()
    end

    test "sync, datasync and prefetch reach the kernel", context do
      if System.find_executable("strace") do
        script = Path.join(context.dir, "sync.exs")
        log = Path.join(context.dir, "strace.log")

        File.write!(script, """
        {:ok, mem} = Emmap.open(#{inspect(context.dir <> "/synced")}, [:create])
        mark = fn text -> File.write(#{inspect(context.dir)} <> "/mark-" <> text, "") end
        mark.("empty"); :ok = Emmap.sync(mem)
        :ok = Emmap.pwrite(mem, 0, :binary.copy("x", 100_000))
        mark.("sync"); :ok = Emmap.sync(mem)
        mark.("datasync"); :ok = Emmap.datasync(mem)
        mark.("range"); :ok = Emmap.sync(mem, {5000, 10})
        mark.("async"); :ok = Emmap.sync(mem, :async)
        mark.("prefetch"); :ok = Emmap.prefetch(mem, 0, 100_000)
        mark.("end")
        """)

        {_, 0} =
          System.cmd("strace", [
            "-f",
            "-o",
            log,
            "-e",
            "trace=openat,open,fsync,fdatasync,msync,madvise,sync_file_range",
            System.find_executable("elixir"),
            "-pa",
            Application.app_dir(:emmap, "ebin"),
            script
          ])

        calls = fn from, to ->
          [_, rest] = String.split(File.read!(log), "mark-#{from}\"", parts: 2)
          rest |> String.split("mark-#{to}\"", parts: 2) |> hd()
        end

        # The first sync of a new file: the file and its directory.
        assert length(Regex.scan(~r/fsync\(/, calls.("empty", "sync"))) == 2
        assert calls.("sync", "datasync") =~ ~r/msync\(0x[0-9a-f]+, 100000, MS_SYNC.*fsync\(/s
        assert calls.("datasync", "range") =~ "fdatasync("
        assert calls.("range", "async") =~ ~r/msync\(0x[0-9a-f]+, \d+, MS_SYNC/
        refute calls.("range", "async") =~ "fsync("
        assert calls.("async", "prefetch") =~ "sync_file_range("
        assert calls.("prefetch", "end") =~ "MADV_POPULATE_READ"
      else
        IO.puts("skipped, for this machine has no strace")
      end
    end

    test "populate brings the pages in, dont_need gives them back", %{path: path} do
      File.write!(path, :binary.copy("p", 4_000_000))
      cold = Emmap.open!(path)
      assert smaps(path, "Rss") == 0
      {:ok, _} = Emmap.pread(cold, 0, 4_000_000)
      assert smaps(path, "Rss") >= 3900
      :ok = Emmap.advise(cold, 0, 0, :dont_need)
      assert smaps(path, "Rss") < 500
      :ok = Emmap.prefetch(cold, 0, 2_000_000)
      assert smaps(path, "Rss") in 1900..2500
      :ok = Emmap.close(cold)

      # Written at once, and so in pages of 2 MB, where the kernel has them: it lets go of those when they are moved.
      fresh = path <> "2"
      File.write!(fresh, :binary.copy("p", 4_000_000))

      # The kernel may take pages back at any time, also while other tests fill its memory: of several maps one is
      # seen whole.
      assert Enum.any?(1..20, fn _ ->
               # The one before goes now, and not in between.
               :erlang.garbage_collect()
               before = smaps(fresh, "Rss")
               populated = Emmap.open!(fresh, [:populate])
               more = smaps(fresh, "Rss") - before
               assert {:ok, "p"} = Emmap.pread(populated, 0, 1)
               more >= 3900
             end)

      assert {:error, :closed} = Emmap.pread(cold, 0, 1)
    end

    test "lock and unlock pin and free", %{path: path} do
      File.write!(path, :binary.copy("p", 1_000_000))
      mem = Emmap.open!(path)
      :ok = Emmap.lock_memory(mem)
      assert smaps(path, "Locked") >= 900
      :ok = Emmap.unlock_memory(mem)
      assert smaps(path, "Locked") == 0
      assert {:ok, "p"} = Emmap.pread(mem, 0, 1)
    end

    test "allocate has blocks, and an address is where the map is", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, :sparse])
      :ok = Emmap.resize(mem, 4_000_000)

      blocks = fn ->
        elem(System.cmd("stat", ["-c", "%b", path]), 0) |> String.trim() |> String.to_integer()
      end

      assert blocks.() < 100
      :ok = Emmap.allocate(mem, 0, 4_000_000)
      assert blocks.() >= 4_000_000 / 512
      address = 0x2000_0000_0000 + System.unique_integer([:positive]) * 0x100_0000
      hinted = Emmap.open!(path, address: address)

      assert File.read!("/proc/self/maps") =~
               "#{Integer.to_string(address, 16) |> String.downcase()}-"

      assert {:ok, _} = Emmap.pread(hinted, 0, 1)
      # MAP_NORESERVE: "nr" among the flags of the map.
      reserved = Emmap.open!(path, [:private, :noreserve])

      flags =
        for [_, flags] <- Regex.scan(~r/VmFlags: (.*)/, File.read!("/proc/self/smaps")), do: flags

      assert Enum.any?(flags, &(&1 =~ "nr"))
      assert {:ok, _} = Emmap.pread(reserved, 0, 1)
    end
  end

  test "a close in the middle of a view is :closed, and no binary", %{path: path} do
    for _ <- 1..300, options <- [[], [:direct]] do
      {:ok, mem} = Emmap.open(path, options)

      viewers = for _ <- 1..2, do: Task.async(fn -> view_until_closed(mem, MapSet.new()) end)

      for _ <- 1..:rand.uniform(300), do: :ok
      :ok = Emmap.close(mem)

      for seen <- Task.await_many(viewers),
          do: assert(MapSet.subset?(seen, MapSet.new([{:ok, "01234"}, {:error, :closed}])))
    end
  end

  defp view_until_closed(mem, seen) do
    case Emmap.view(mem, 0, 5) do
      {:error, :closed} = closed -> MapSet.put(seen, closed)
      answer -> view_until_closed(mem, MapSet.put(seen, answer))
    end
  end

  test "anonymous memory by its Erlang name, wherever the option stands" do
    assert {:ok, mem} = :emmap.open("", 0, 4096, [:read, :write, :anon])
    assert {:ok, <<0>>} = :emmap.pread(mem, 4095, 5)
  end

  test "what prints or sends a large map does not walk it", %{path: path} do
    {:ok, mem} = Emmap.open(path, [:write, :sparse, length: 2_000_000_000_000])
    # Two terabytes: walking the pages would take a minute.
    {microseconds, _} = :timer.tc(fn -> {inspect(mem), :file.read_file_info(mem)} end)
    assert microseconds < 1_000_000
  end
end
