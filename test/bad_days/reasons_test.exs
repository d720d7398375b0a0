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

        assert {[^enospc], ^enospc, ^enospc, message, [:ok], [^enospc], [:ok], @sound} =
                 on_disk(context, disk, """
                 # A backup shares the blocks.
                 for file <- files, do: {_, 0} = System.cmd("cp", ["--reflink=always", file, file <> ".copy"])
                 fill.(disk)
                 full = Enum.uniq(changes.())
                 message = try do Counters.add(counters, :hits, 1) rescue e -> Exception.message(e) end
                 seen = {full, fault.(), Emmap.sync(mem), message, Enum.uniq(reattach.()), Enum.uniq(changes.())}
                 free.(disk)
                 seen |> Tuple.append(Enum.uniq(reattach.())) |> Tuple.append(contents.())
                 """)

        assert message =~ ~r/^could not add to a counter of .*: no space left on device$/
      end)
    end
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

  test "73: chattr +a after open, and logs that were so before", context do
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

  test "74: a file system that has made itself read-only", context do
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
end
