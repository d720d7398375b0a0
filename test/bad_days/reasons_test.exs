defmodule Emmap.BadDays.ReasonsTest do
  # The reason that a call returns is the one that is true, and when it has gone, nothing that was acknowledged is lost.
  use Emmap.Test.BadDay
  alias Emmap.Test.Disks

  # One of each on a disk, with something acknowledged in it; what each says of a change, and what is in it.
  @all """
  alias Emmap.{Blocks, Counters, Queue}
  block = :binary.copy("b", 100)
  raised = fn act -> try do act.() rescue e in Emmap.Error -> {:error, e.reason} end end
  {:ok, mem} = Emmap.open(disk <> "/data", [:create, size: 4_000_000])
  :ok = Emmap.fill(mem, 0, 4_000_000, ?1)
  :ok = Emmap.sync(mem)
  counters = Counters.open!(disk <> "/counters", [:hits])
  :ok = Counters.put(counters, :hits, 41)
  queue = Queue.open!(disk <> "/queue")
  :ok = Queue.push(queue, "one")
  blocks = Blocks.open!(disk <> "/blocks", block_size: 100)
  {:ok, address} = Blocks.store(blocks, block)
  for sync <- [fn -> Counters.sync(counters) end, fn -> Queue.sync(queue) end, fn -> Blocks.sync(blocks) end], do: :ok = sync.()
  files = for file <- ["data", "counters", "queue", "blocks"], do: disk <> "/" <> file
  System.cmd("sync", [])
  write_all = fn -> Enum.find_value(0..976, :ok, fn n -> answer = Emmap.pwrite(mem, n * 4096, "2"); answer != :ok && answer end) end
  changes = fn -> [
    write_all.(), raised.(fn -> Counters.add(counters, :hits, 1) end), Queue.push(queue, "two"), Blocks.store(blocks, block)
  ] end
  fault = fn -> with {_, reason} <- elem(Emmap.info(mem), 1).fault, do: reason end
  reattach = fn -> [Emmap.reattach(mem), Counters.reattach(counters), Queue.reattach(queue), Blocks.reattach(blocks)] end
  contents = fn -> {
    Emmap.pread(mem, 3_999_000, 1), Counters.get(counters, :hits), Queue.pop(queue), Blocks.read(blocks, address) == {:ok, block},
    Enum.uniq(changes.()), Enum.uniq([Emmap.sync(mem), Counters.sync(counters), Queue.sync(queue), Blocks.sync(blocks)])
  } end
  _ = {files, changes, fault, reattach, contents}
  """

  defp on_disk(context, disk, code),
    do: child(context, "disk = #{inspect(disk)}\n" <> Disks.filler() <> @all <> code)

  defp with_disk(context, kind, options \\ [], act) do
    case Disks.mount_new(context, kind, options[:make] || [], options[:mount] || []) do
      {:ok, disk} -> act.(disk)
      {:error, why} -> skipped(context, why)
    end
  end

  # What is in all of them when the reason has gone.
  @sound {{:ok, "1"}, 41, {:ok, "one"}, true, [:ok, {:ok, 1}], [:ok]}

  for kind <- [:xfs, :btrfs] do
    test "70: pages with blocks on a full copy-on-write disk (#{kind})", context do
      with_disk(context, unquote(kind), fn disk ->
        enospc = {:error, :enospc}

        assert {[^enospc], ^enospc, ^enospc, "no space left on device", [:ok], [^enospc], [:ok],
                @sound} =
                 on_disk(context, disk, """
                 # A backup shares the blocks.
                 for file <- files, do: {_, 0} = System.cmd("cp", ["--reflink=always", file, file <> ".copy"])
                 fill.(disk)
                 full = Enum.uniq(changes.())
                 message = try do Counters.add(counters, :hits, 1) rescue e -> e |> Exception.message() |> String.split(": ") |> List.last() end
                 seen = {full, fault.(), Emmap.sync(mem), message, Enum.uniq(reattach.()), Enum.uniq(changes.())}
                 free.(disk)
                 seen |> Tuple.append(Enum.uniq(reattach.())) |> Tuple.append(contents.())
                 """)
      end)
    end
  end

  test "70: a queue, counters and blocks in use, whose disk is repeatedly full", context do
    with_disk(context, :btrfs, fn disk ->
      assert {:ok, true, times} =
               on_disk(context, disk, """
               {:ok, "one"} = Queue.pop(queue)
               # What was acknowledged, and what has been taken out again, in order.
               round = fn round, {pushed, hits, stored} ->
                 for file <- files, do: System.cmd("cp", ["--reflink=always", file, file <> ".copy"])
                 fill.(disk)
                 work = fn work, {pushed, hits, stored}, n ->
                   item = {round, n, :binary.copy("x", rem(n * 7919, 9000))}
                   push = Queue.push(queue, item)
                   count = raised.(fn -> Counters.add(counters, :hits, 1) end)
                   bytes = :binary.copy(<<round, n::16, 0>>, 25)
                   store = Blocks.store(blocks, bytes)
                   pushed = if push == :ok, do: [item | pushed], else: pushed
                   hits = if count == :ok, do: hits + 1, else: hits
                   stored = with {:ok, at} <- store, do: Map.put(stored, at, bytes), else: (_ -> stored)
                   failed = Enum.count([push, count, store], &match?({:error, _}, &1))
                   if failed == 3 or n == 1000, do: {{pushed, hits, stored}, failed}, else: work.(work, {pushed, hits, stored}, n + 1)
                 end
                 {acknowledged, failed} = work.(work, {pushed, hits, stored}, 0)
                 true = reattach.() |> Enum.all?(&(&1 == :ok))
                 free.(disk)
                 # Some of them may have met the full disk once more.
                 [:ok] = Enum.uniq(reattach.())
                 {acknowledged, failed}
               end
               {{pushed, hits, stored}, times} = Enum.reduce(1..4, {{[], 41, %{address => block}}, 0}, fn n, {acknowledged, times} ->
                 {acknowledged, failed} = round.(n, acknowledged)
                 {acknowledged, times + failed}
               end)
               pop = fn pop, got -> case Queue.pop(queue) do {:ok, item} -> pop.(pop, [item | got]); :empty -> got end end
               popped = pop.(pop, [])
               # A push that failed may be there all the same; one that was acknowledged is, in order.
               acknowledged = MapSet.new(pushed)
               true = pushed == Enum.filter(popped, &(&1 in acknowledged))
               true = Counters.get(counters, :hits) >= hits
               {:ok, Enum.all?(stored, fn {at, bytes} -> Blocks.read(blocks, at) == {:ok, bytes} end), times}
               """)

      assert times > 0
    end)
  end

  test "71: pages with blocks above a quota (btrfs)", context do
    with_disk(context, :btrfs, fn disk ->
      edquot = {:error, :edquot}

      assert {[^edquot], ^edquot, {^edquot, false}, [:ok], @sound} =
               on_disk(context, disk, """
               for file <- files, do: {_, 0} = System.cmd("cp", ["--reflink=always", file, file <> ".copy"])
               quota = "cd '" <> disk <> "'; btrfs quota enable . && sync && btrfs quota rescan -w . && btrfs qgroup limit 5M 0/5 ."
               {_, 0} = System.cmd("sh", ["-c", quota], stderr_to_stdout: true)
               above = Enum.uniq(changes.())
               new = {Emmap.open(disk <> "/new", [:create, size: 2_000_000]), File.exists?(disk <> "/new")}
               seen = {above, fault.(), new}
               {_, 0} = System.cmd("btrfs", ["quota", "disable", disk])
               seen |> Tuple.append(Enum.uniq(reattach.())) |> Tuple.append(contents.())
               """)
    end)
  end

  test "72: chattr +i after open", context do
    with_disk(context, :ext4, fn disk ->
      eperm = {:error, :eperm}

      assert {[^eperm], ^eperm, [^eperm], [^eperm], [:ok], @sound} =
               on_disk(context, disk, """
               {:ok, log} = Emmap.open(disk <> "/log", [:create, :append])
               {:ok, other} = Emmap.open(disk <> "/data", [:write])
               {_, 0} = System.cmd("chattr", ["+i", disk <> "/log" | files])
               sizes = Enum.uniq([Emmap.resize(other, 10), Emmap.resize(other, 5_000_000), Emmap.pwrite(other, 4_000_000, "x"),
                 Emmap.allocate(other, 4_000_000, 10), Emmap.write(log, "x")])
               {:ok, <<"1">>} = Emmap.pread(other, 0, 1)
               written = changes.()
               opened = Enum.uniq([Emmap.open(disk <> "/data", [:write]), Counters.open(disk <> "/counters", [:hits]),
                 Queue.open(disk <> "/queue"), Blocks.open(disk <> "/blocks", block_size: 100)])
               seen = {sizes, fault.(), Enum.uniq(written), opened}
               {_, 0} = System.cmd("chattr", ["-i" | files])
               seen |> Tuple.append(Enum.uniq(reattach.())) |> Tuple.append(contents.())
               """)
    end)
  end

  test "73: chattr +a after open, and logs that had it before", context do
    with_disk(context, :ext4, fn disk ->
      eperm = {:error, :eperm}

      assert {[^eperm], 4_000_000, [:ok, {:ok, 1}], {:error, :eperm}, {:ok, "line\nmore\n"}, :ok} =
               on_disk(context, disk, """
               File.write!(disk <> "/log", "line\\n")
               {_, 0} = System.cmd("chattr", ["+a", disk <> "/log" | files])
               sizes = Enum.uniq([Emmap.resize(mem, 10), Emmap.resize(mem, 5_000_000), Emmap.pwrite(mem, 5_001_000, "x"),
                 Queue.push(queue, :binary.copy("x", 3_000_000))])
               # Pages that it has may be written.
               written = Enum.uniq(changes.())
               {:ok, log} = Emmap.open(disk <> "/log", [:append])
               :ok = Emmap.write(log, "more\\n")
               refused = Emmap.open(disk <> "/log", [:write])
               {sizes, File.stat!(disk <> "/data").size, written, refused, Emmap.pread(log, 0, 100), Emmap.sync(log)}
               """)

      System.cmd("sh", ["-c", "chattr -a '#{disk}'/*"], stderr_to_stdout: true)
    end)
  end

  test "74: a file system that has become read-only", context do
    if File.dir?("/sys/fs/ext4"),
      do: read_only(context),
      else: skipped(context, "no /sys here")
  end

  defp read_only(context) do
    with_disk(context, :ext4, [mount: ["errors=remount-ro"]], fn disk ->
      erofs = {:error, :erofs}

      assert {[^erofs], {:ok, "1"}, {nil, ^erofs}, [^erofs]} =
               on_disk(context, disk, """
               {source, 0} = System.cmd("findmnt", ["-no", "SOURCE", disk])
               device = source |> String.trim() |> Path.basename()
               :ok = File.write("/sys/fs/ext4/" <> device <> "/trigger_fs_error", "tried")
               sizes = Enum.uniq([Emmap.resize(mem, 10), Emmap.resize(mem, 5_000_000), Emmap.pwrite(mem, 4_000_000, "x"), Emmap.sync(mem)])
               {:ok, info} = Emmap.info(mem)
               opened = Enum.uniq([Emmap.open(disk <> "/data", [:write]), Emmap.open(disk <> "/new", [:create]),
                 Counters.open(disk <> "/counters", [:hits]), Counters.open(disk <> "/new", 1), Queue.open(disk <> "/new"),
                 Counters.sync(counters), Queue.sync(queue), Blocks.sync(blocks)])
               {sizes, Emmap.pread(mem, 0, 1), {info.fault, info.failed_sync}, opened}
               """)
    end)
  end

  # Holds a lease on the file, and gives it up so many seconds after it was asked to, or never.
  @leasing """
  import fcntl, signal, sys, time
  path, seconds = sys.argv[1], sys.argv[2]
  file = open(path, "r")
  def asked(signal, frame):
      if seconds != "never":
          time.sleep(float(seconds))
          fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
  signal.signal(signal.SIGIO, asked)
  fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
  print("held", flush=True)
  end = time.time() + 30
  while time.time() < end: time.sleep(0.05)
  """

  @holder """
  holder = fn path, seconds ->
    arguments = ["-c", #{inspect(@leasing)}, path, to_string(seconds)]
    port = Port.open({:spawn_executable, System.find_executable("python3")}, [:binary, args: arguments])
    receive do: ({^port, {:data, "held" <> _}} -> port)
  end
  release = fn port ->
    {:os_pid, pid} = Port.info(port, :os_pid)
    System.cmd("kill", ["-9", to_string(pid)])
  end
  took = fn act -> {us, answer} = :timer.tc(act); {div(us, 1000), answer} end
  _ = {holder, release, took}
  """

  describe "a lease of another program" do
    test "75: an open waits for a lease, and no other call waits", context do
      if System.find_executable("python3") do
        assert {[:ok, :ok, :ok, :ok, :ok], longest} =
                 child(
                   context,
                   @holder <>
                     """
                     alias Emmap.{Blocks, Counters, Queue}
                     files = for file <- ["map", "new", "counters", "queue", "blocks"], do: dir <> "/" <> file
                     [map, new, counters, queue, blocks] = files
                     for file <- [map, new], do: File.write!(file, "leased")
                     Counters.close(Counters.open!(counters, 1))
                     Queue.close(Queue.open!(queue))
                     Blocks.close(Blocks.open!(blocks, block_size: 8))
                     :erlang.garbage_collect()
                     holders = for file <- files, do: holder.(file, 1)
                     opens = [
                       fn -> Emmap.open(map, [:write]) end, fn -> Emmap.open(new, [:create, size: 100]) end,
                       fn -> Counters.open(counters, 1) end, fn -> Queue.open(queue) end, fn -> Blocks.open(blocks, block_size: 8) end
                     ]
                     # More than there are dirty I/O schedulers.
                     tasks = for open <- opens, do: Task.async(fn -> for _ <- 1..20 do Task.async(open) end |> Task.await_many(20_000) end)
                     Process.sleep(100)
                     waits = for _ <- 1..20, do: elem(took.(fn -> Emmap.close(Emmap.open!(path, [:write])) end), 0)
                     answers = for task <- tasks, do: task |> Task.await(20_000) |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
                     Enum.each(holders, release)
                     {Enum.concat(answers), Enum.max(waits)}
                     """,
                   timeout: 60
                 )

        assert longest < 500
      else
        skipped(context, "no python3 here")
      end
    end

    test "75: a lease that is never released", context do
      if System.find_executable("python3") do
        assert {{ms, {:error, :ebusy}}, {:ok, "0123456789"}} =
                 child(
                   context,
                   @holder <>
                     """
                     port = holder.(path, "never")
                     answer = took.(fn -> Emmap.open(path, [:write]) end)
                     # Reading is not in its way.
                     read = Emmap.pread(Emmap.open!(path), 0, 10)
                     release.(port)
                     {answer, read}
                     """,
                   timeout: 60
                 )

        assert ms in 9_000..15_000
      else
        skipped(context, "no python3 here")
      end
    end
  end

  describe "an overlay, as every container has" do
    test "76: a file of an overlay is written for the first time while it is read", context do
      with_overlay(context, fn overlay ->
        assert {{"old ", "old "}, {:ok, "new!", "new!", {:ok, 5000}}, {:ok, "ore", true, true},
                {"W R I", :ok}, {"mine", "old "},
                {:ok, 0}} =
                 child(context, """
                 overlay = #{inspect(overlay)}
                 file = overlay <> "/f"
                 read = fn mem, at, count -> {:ok, bytes} = Emmap.pread(mem, at, count); bytes end
                 {:ok, mem} = Emmap.open(file)
                 {:ok, live} = Emmap.view(mem, 0, 4)
                 {:ok, private} = Emmap.open(overlay <> "/h", [:private, :write])
                 :ok = Emmap.pwrite(private, 8, "mine")
                 {:ok, raw} = :file.open(file, [:read, :write, :raw])
                 before = {read.(mem, 0, 4), :binary.copy(live)}
                 :ok = :file.pwrite(raw, 0, "new!")
                 after_write = {Emmap.reattach(mem), read.(mem, 0, 4), :binary.copy(live), Emmap.size(mem)}
                 # It grows, over the end of the map's last page and more.
                 File.write!(file, String.duplicate("more", 2000), [:append])
                 grown = {Emmap.reattach(mem), read.(mem, 9001, 3), read.(mem, 0, 100_000) == File.read!(file), read.(mem, 4096, 1000) != :binary.copy(<<0>>, 1000)}
                 # In place again, after it was copied.
                 :ok = :file.pwrite(raw, 0, "last")
                 "last" = read.(mem, 0, 4)
                 :ok = Emmap.reattach(mem)
                 {:ok, nil} = {:ok, elem(Emmap.info(mem), 1).fault}
                 {:ok, reader} = Emmap.open(overlay <> "/h")
                 {:ok, writer} = Emmap.open(overlay <> "/h", [:write])
                 :ok = Emmap.pwrite(writer, 0, "W R I T T E N")
                 :ok = Emmap.reattach(reader)
                 written = {read.(reader, 0, 5), Emmap.reattach(private)}
                 kept = {read.(private, 8, 4), read.(private, 0, 4)}
                 {:ok, shorter} = Emmap.open(overlay <> "/g")
                 File.write!(overlay <> "/g", "")
                 {before, after_write, grown, written, kept, {Emmap.reattach(shorter), elem(Emmap.size(shorter), 1)}}
                 """)
      end)
    end

    defp with_overlay(%{dir: dir} = context, act) do
      for folder <- ["lower", "upper", "work", "merged"],
          do: File.mkdir_p!(Path.join(dir, folder))

      for file <- ["f", "g", "h"],
          do: File.write!(Path.join([dir, "lower", file]), String.duplicate("old ", 1250))

      options = "lowerdir=lower,upperdir=upper,workdir=work"
      arguments = ["-t", "overlay", "overlay", "-o", options, "merged"]

      case System.cmd("mount", arguments, cd: dir, stderr_to_stdout: true) do
        {_, 0} ->
          on_exit(fn -> System.cmd("umount", ["-l", Path.join(dir, "merged")]) end)
          act.(Path.join(dir, "merged"))

        {why, _} ->
          skipped(context, "no overlay here: #{String.trim(why)}")
      end
    end
  end

  describe "an empty file that cannot be replaced" do
    test "77: an empty file that is bind-mounted becomes a structure", context do
      folder = Path.join(context.dir, "mounted")
      File.mkdir_p!(folder)

      mounted =
        for file <- ["counters", "queue", "blocks"] do
          File.write!(Path.join(context.dir, file), "")
          File.write!(Path.join(folder, file), "")

          System.cmd("mount", ["--bind", file, Path.join("mounted", file)],
            cd: context.dir,
            stderr_to_stdout: true
          )
        end

      on_exit(fn ->
        for file <- ["counters", "queue", "blocks"],
            do: System.cmd("umount", [Path.join(folder, file)], stderr_to_stdout: true)
      end)

      case Enum.find(mounted, &(elem(&1, 1) != 0)) do
        nil ->
          assert {[1, 2], ["one"], ["12345678"], ["blocks", "counters", "queue"]} =
                   child(context, in_place("dir <> \"/mounted/\"", ""))

          # It is the file that was there.
          assert File.stat!(Path.join(context.dir, "counters")).size > 8192

        {why, _} ->
          skipped(context, "no bind mount here: #{String.trim(why)}")
      end
    end

    test "77: an empty file in another user's directory becomes a structure", context do
      ebin = Application.app_dir(:emmap, "ebin")
      reachable = "ls -d '#{context.dir}' '#{ebin}' && command -v elixir"

      case System.cmd("su", ["nobody", "-s", "/bin/sh", "-c", reachable], stderr_to_stdout: true) do
        {_, 0} ->
          for file <- ["counters", "queue", "blocks"] do
            File.write!(Path.join(context.dir, file), "")
            File.chmod!(Path.join(context.dir, file), 0o666)
          end

          File.chmod!(context.dir, 0o755)
          code = "dir = #{inspect(context.dir)}\n" <> in_place("dir <> \"/\"", "|> IO.inspect()")
          File.write!(Path.join(context.dir, "code.exs"), code)
          command = "elixir -pa '#{ebin}' '#{context.dir}/code.exs'"

          {output, _} =
            System.cmd("su", ["nobody", "-s", "/bin/sh", "-c", command], stderr_to_stdout: true)

          assert output =~ ~s({[1, 2], ["one"], ["12345678"],)

        _ ->
          skipped(context, "no user nobody who may read this directory")
      end
    end

    test "77: an empty file that was being made a structure when all programs crashed", context do
      assert [{[1, 2], ["one"], ["12345678"], _}, {:error, {:bad_format, :kind}}, _] =
               child(context, """
               mark = "EMMAPNEW" <> <<0::64>>
               names = ["counters", "queue", "blocks"]
               for file <- names, do: File.write!(dir <> "/" <> file, [mark, :crypto.strong_rand_bytes(50_000)])
               refused = Emmap.Counters.open(dir <> "/counters", 1, create: false)
               used = (#{in_place("dir <> \"/\"", "")})
               # Nothing else is taken for one.
               others = for bytes <- ["EMMAPNEW", binary_part(mark, 0, 15), <<0::size(17)-unit(8)>>, "E", "\n"] do
                 File.write!(path, bytes)
                 {:error, {:bad_format, :kind}} = Emmap.Counters.open(path, 1)
                 ^bytes = File.read!(path)
               end
               [used, refused, length(others)]
               """)
    end

    # Opens all three, uses them, and opens them again.
    defp in_place(folder, print) do
      """
      folder = #{folder}
      c = Emmap.Counters.open!(folder <> "counters", [:a, :b])
      :ok = Emmap.Counters.put(c, :a, 1)
      :ok = Emmap.Counters.put(c, :b, 2)
      q = Emmap.Queue.open!(folder <> "queue")
      :ok = Emmap.Queue.push(q, "one")
      b = Emmap.Blocks.open!(folder <> "blocks", block_size: 8)
      {:ok, address} = Emmap.Blocks.store(b, "12345678")
      :ok = Emmap.Counters.close(c)
      :ok = Emmap.Queue.close(q)
      :ok = Emmap.Blocks.close(b)
      c = Emmap.Counters.open!(folder <> "counters", [:a, :b])
      q = Emmap.Queue.open!(folder <> "queue")
      b = Emmap.Blocks.open!(folder <> "blocks", block_size: 8)
      {:ok, item} = Emmap.Queue.pop(q)
      {:ok, block} = Emmap.Blocks.read(b, address)
      files = folder |> File.ls!() |> Enum.sort()
      {Emmap.Counters.to_list(c), [item], [block], files} #{print}
      """
    end
  end

  describe "a file that may not be changed" do
    @sealed """
    import fcntl, os, sys, time
    add_seals, seals = 1033, {"shrink": 2, "grow": 4, "write": 8, "none": 0}
    for name, seal in seals.items():
        fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        if name != "none": os.write(fd, b"0123456789" * 1000)
        fcntl.fcntl(fd, add_seals, seal)
        print("%s /proc/%d/fd/%d" % (name, os.getpid(), fd), flush=True)
    print("done", flush=True)
    time.sleep(30)
    """

    test "79: sealed memory is mapped", context do
      if System.find_executable("python3") do
        eperm = {:error, :eperm}

        assert {{^eperm, :ok, ^eperm, {:ok, "x"}}, {^eperm, :ok, {:ok, "x"}}, {^eperm, ^eperm}, 3} =
                 child(context, """
                 port = Port.open({:spawn_executable, System.find_executable("python3")}, [:binary, args: ["-c", #{inspect(@sealed)}]])
                 {:os_pid, pid} = Port.info(port, :os_pid)
                 read = fn read, said -> if said =~ "done", do: said, else: (receive do: ({^port, {:data, more}} -> read.(read, said <> more))) end
                 files = for line <- read.(read, "") |> String.split("\n", trim: true), [name, path] <- [String.split(line)], into: %{}, do: {name, path}
                 {:ok, shrink} = Emmap.open(files["shrink"], [:write])
                 {:ok, grow} = Emmap.open(files["grow"], [:write])
                 :ok = Emmap.pwrite(shrink, 0, "x")
                 :ok = Emmap.pwrite(grow, 0, "x")
                 not_shorter = {Emmap.resize(shrink, 10), Emmap.resize(shrink, 20_000), Emmap.open(files["shrink"], [:write, :truncate]), Emmap.pread(shrink, 0, 1)}
                 not_longer = {Emmap.pwrite(grow, 10_000, "x"), Emmap.resize(grow, 9_000), Emmap.pread(grow, 0, 1)}
                 not_written = {Emmap.open(files["write"], [:write]), Emmap.open(files["write"], [:append]) |> then(fn {:ok, m} -> Emmap.write(m, "x"); e -> e end)}
                 # Empty, and without a name.
                 counters = Emmap.Counters.open!(files["none"], 1)
                 counted = Emmap.Counters.add_get(counters, 0, 3)
                 System.cmd("kill", [to_string(pid)])
                 {not_shorter, not_longer, not_written, counted}
                 """)
      else
        skipped(context, "no python3 here")
      end
    end

    test "79: a mapped file is used as swap space", context do
      file = Path.join(context.dir, "swap")

      make =
        "fallocate -l 4M '#{file}' && chmod 600 '#{file}' && PATH=$PATH:/sbin mkswap '#{file}'"

      with {_, 0} <- System.cmd("sh", ["-c", make], stderr_to_stdout: true),
           # Tried before the map is there, as it must not be on a file with holes.
           {_, 0} <- System.cmd("swapon", [file], stderr_to_stdout: true),
           {_, 0} <- System.cmd("swapoff", [file], stderr_to_stdout: true) do
        etxtbsy = {:error, :etxtbsy}

        assert {[^etxtbsy], {100_000, ^etxtbsy}, :ok, :ok} =
                 child(context, """
                 file = dir <> "/swap"
                 {:ok, mem} = Emmap.open(file, [:write])
                 {:ok, other} = Emmap.open(file, [:write])
                 {_, 0} = System.cmd("swapon", [file])
                 refused = Enum.uniq([Emmap.pwrite(mem, 100_000, "x"), Emmap.resize(other, 10), Emmap.resize(other, 10_000_000), Emmap.open(file, [:write, :truncate])])
                 {:ok, info} = Emmap.info(mem)
                 {_, 0} = System.cmd("swapoff", [file])
                 {refused, info.fault, Emmap.reattach(mem), Emmap.pwrite(mem, 100_000, "x")}
                 """)
      else
        {why, _} -> skipped(context, "no swapping to a file here: #{String.trim(why)}")
      end
    end
  end
end
