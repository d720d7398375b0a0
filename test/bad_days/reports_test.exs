defmodule Emmap.BadDays.ReportsTest do
  # Situations from public bug reports of other libraries, and from attacks on this one.
  use Emmap.Test.BadDay
  alias Emmap.Test.CLibrary

  describe "stopping" do
    test "38: the VM is stopped during large reads of a file that is being truncated", context do
      for stop <- ["System.stop(0)", "System.halt(0)"] do
        statuses =
          for _ <- 1..3 do
            code = """
            path = #{inspect(context.path)}
            File.write!(path, :binary.copy("x", 50_000_000))
            {:ok, mem} = Emmap.open(path, [:write])
            forever = fn act -> spawn(fn -> Stream.repeatedly(act) |> Stream.run() end) end
            for _ <- 1..3, do: forever.(fn -> Emmap.pread(mem, 0, 40_000_000) end)
            cut = fn size ->
              {:ok, raw} = :file.open(path, [:raw, :read, :write])
              {:ok, _} = :file.position(raw, size)
              _ = :file.truncate(raw)
              :file.close(raw)
            end
            forever.(fn -> cut.(0); cut.(50_000_000); Emmap.reattach(mem) end)
            Process.sleep(300)
            #{stop}
            Process.sleep(:infinity)
            """

            ebin = Application.app_dir(:emmap, "ebin")
            env = [{"ERL_CRASH_DUMP", "/dev/null"}]
            options = [stderr_to_stdout: true, env: env]

            {_, status} =
              System.cmd("timeout", ["60", "elixir", "-pa", ebin, "-e", code], options)

            status
          end

        assert noted(context, statuses) == [0, 0, 0], stop
      end
    end
  end

  describe "the guard" do
    test "39: a large writable map is truncated where memory is not overcommitted", context do
      # The limit is set 40 GB above what is in use, and put back after three seconds whatever happens to the VM.
      with_root(context, fn ->
        assert {0, {:error, :estale}, :lives} =
                 child(context, """
                 set = fn name, value -> File.write!("/proc/sys/vm/" <> name, to_string(value)) end
                 get = fn name -> String.trim(File.read!("/proc/sys/vm/" <> name)) end
                 [_, used] = Regex.run(~r/Committed_AS:\\s+(\\d+)/, File.read!("/proc/meminfo"))
                 {_, 0} = System.cmd("truncate", ["-s", "200000000000", path])
                 {:ok, mem} = Emmap.open(path, [:write])
                 {:ok, live} = Emmap.view(mem, 0, 200_000_000_000)
                 before = {get.("overcommit_memory"), get.("overcommit_ratio")}
                 {memory, ratio} = before
                 restore = "echo \#{memory} >/proc/sys/vm/overcommit_memory; echo \#{ratio} >/proc/sys/vm/overcommit_ratio"
                 System.cmd("sh", ["-c", "(sleep 3; \#{restore}) >/dev/null 2>&1 &"])
                 set.("overcommit_kbytes", String.to_integer(used) + 40_000_000)
                 set.("overcommit_memory", 2)
                 File.write!(path, "truncated")
                 answer = {:binary.at(live, 100_000_000_000), Emmap.pread(mem, 0, 1), :lives}
                 System.cmd("sh", ["-c", restore])
                 answer
                 """)
      end)
    end

    test "40: every other page of a sparse map is lost on a full disk", context do
      case disk(context, :tmpfs) do
        {:ok, disk} ->
          # Each lost page was a map of its own, up to the most that the VM may have.
          assert {maps, {:error, :enospc}, :ok, {:ok, "kept"}} =
                   child(context, """
                   path = #{inspect(Path.join(disk, "sparse"))}
                   {:ok, mem} = Emmap.open(path, [:create, :sparse, size: 1_000_000_000])
                   :ok = Emmap.pwrite(mem, 999_000_000, "kept")
                   {:ok, live} = Emmap.view(mem, 0, 900_000_000)
                   File.write(#{inspect(Path.join(disk, "filler"))}, :binary.copy("x", 2_000_000))
                   for i <- 0..32_500, do: 0 = :binary.at(live, i * 8192)
                   maps = "/proc/self/maps" |> File.read!() |> String.split("\\n") |> length()
                   answer = Emmap.pread(mem, 0, 1)
                   File.rm!(#{inspect(Path.join(disk, "filler"))})
                   {maps, answer, Emmap.reattach(mem), Emmap.pread(mem, 999_000_000, 4)}
                   """)

          assert maps < 3000

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "41: an empty file on hugetlbfs", context do
      with_huge_pages(context, 2, fn ->
        case mount(context, "huge", ~w(-t hugetlbfs -o pagesize=2M none)) do
          {:ok, huge} ->
            # The probe of 4 KB was rounded up to 2 MB, and replaced what lay behind.
            # A map makes its file longer there; so one that does not fit must be known as the one that was made.
            assert {{:ok, "somebody else's"}, {:error, :eexist}, 0, {:ok, 0}, {:ok, "hi"},
                    {{:error, :enospc}, false}} =
                     child(context, """
                     File.write!(#{inspect(huge)} <> "/empty", "")
                     at = 0x2000_0000_0000
                     {:ok, other} = Emmap.open([:anon, :fixed_size, :fixed, size: 65_536, address: at + 1_048_576])
                     :ok = Emmap.pwrite(other, 0, "somebody else's")
                     refused = Emmap.open(#{inspect(huge)} <> "/empty", [:read, :fixed, address: at])
                     left = "/proc/self/maps" |> File.read!() |> String.split("\\n") |> Enum.count(&(&1 =~ "/empty"))
                     {:ok, empty} = Emmap.open(#{inspect(huge)} <> "/empty")
                     {:ok, file} = Emmap.open(#{inspect(huge)} <> "/file", [:create, size: 5000])
                     :ok = Emmap.pwrite(file, 0, "hi")
                     large = #{inspect(huge)} <> "/large"
                     refusal = {Emmap.open(large, [:create, size: 32_000_000]), File.exists?(large)}
                     {Emmap.pread(other, 0, 15), refused, left, Emmap.size(empty), Emmap.pread(file, 0, 2), refusal}
                     """)

          {:error, why} ->
            skipped(context, why)
        end
      end)
    end

    test "78: sizes on hugetlbfs that are not a multiple of its pages", context do
      with_huge_pages(context, 8, fn ->
        case mount(context, "huge", ~w(-t hugetlbfs -o pagesize=2M none)) do
          {:ok, huge} ->
            enotsup = {:error, :enotsup}

            assert {{:ok, 100, 2_097_152, {:ok, "hi"}}, {3, 2}, {5000, 5, <<0, 0>>},
                    [{1000, 2_097_152, <<0>>}, {10, 2_097_152, "w"}, {0, 0, nil}],
                    [^enotsup, ^enotsup, ^enotsup, ^enotsup],
                    ["cut", "data", "odd"]} =
                     child(context, """
                     huge = #{inspect(huge)}
                     page = 2_097_152
                     size = fn mem -> elem(Emmap.size(mem), 1) end
                     {:ok, mem} = Emmap.open(huge <> "/data", [:create, size: 2 * page + 5])
                     :ok = Emmap.pwrite(mem, 0, "hi")
                     :ok = Emmap.pwrite(mem, page, "there")
                     {:ok, %{resident_pages: resident, page_size: ^page}} = Emmap.info(mem)
                     {:ok, %{pages: pages}} = Emmap.Inspection.file(huge <> "/data")
                     counted = {pages.count, resident}
                     shrunk = {Emmap.resize(mem, 100), size.(mem), File.stat!(huge <> "/data").size, Emmap.pread(mem, 0, 2)}
                     # As fallocate leaves it.
                     {_, 0} = System.cmd("fallocate", ["-l", "5000", huge <> "/odd"])
                     {:ok, odd} = Emmap.open(huge <> "/odd")
                     {:ok, bytes} = Emmap.pread(odd, 4998, 10)
                     odd = {size.(odd), Enum.count(Emmap.stream!(huge <> "/odd", 1000)), bytes}
                     cut = for options <- [[:truncate, size: 1000], [:fit, size: 10], [:fit, size: 0]] do
                       {:ok, mem} = Emmap.open(huge <> "/cut", [:create, size: 2 * page])
                       :ok = Emmap.fill(mem, 0, 2 * page, ?w)
                       Emmap.close(mem)
                       {:ok, mem} = Emmap.open(huge <> "/cut", [:write | options])
                       first = with {:ok, byte} <- Emmap.pread(mem, 0, 1), do: byte
                       first = if first == :eof, do: nil, else: first
                       {size.(mem), File.stat!(huge <> "/cut").size, first}
                     end
                     # Writes are not supported.
                     refused = [Emmap.open(huge <> "/data", [:append]), Emmap.Counters.open(huge <> "/c", 1),
                       Emmap.Queue.open(huge <> "/q"), Emmap.Blocks.open(huge <> "/b", block_size: 8)]
                     {shrunk, counted, odd, cut, refused, Enum.sort(File.ls!(huge))}
                     """)

          {:error, why} ->
            skipped(context, why)
        end
      end)
    end

    test "42: anonymous huge pages, one of them lost, are reattached", context do
      with_huge_pages(context, 1, fn ->
        assert {:ok, {:error, :enomem}, :ok, {:ok, "acknowledged"}} =
                 child(context, """
                 huge = 2 * 1024 * 1024
                 {:ok, mem} = Emmap.open([:anon, :huge_2mb, :noreserve, size: 5 * huge])
                 {:ok, live} = Emmap.view(mem, 0, 5 * huge)
                 written = Emmap.pwrite(mem, 2 * huge + 100, "acknowledged")
                 0 = :binary.at(live, 0) + :binary.at(live, 4 * huge)
                 lost = Emmap.pread(mem, 0, 1)
                 File.write!("/proc/sys/vm/nr_hugepages", "16")
                 {written, lost, Emmap.reattach(mem), Emmap.pread(mem, 2 * huge + 100, 12)}
                 """)
      end)
    end

    test "57: opening maps until none are left leaves room for the VM", context do
      assert {{:error, :enomem}, true, 1000} =
               child(
                 context,
                 """
                 [_, kilobytes] = Regex.run(~r/VmSize:\\s+(\\d+) kB/, File.read!("/proc/self/status"))
                 limit = (String.to_integer(kilobytes) + 2_000_000) * 1024
                 {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=\#{limit}"])
                 {error, kept} = Enum.reduce_while(1..100_000, {nil, []}, fn _, {_, kept} ->
                   case Emmap.open([:anon, size: 10_000_000]) do
                     {:ok, mem} -> {:cont, {nil, [mem | kept]}}
                     error -> {:halt, {error, kept}}
                   end
                 end)
                 # The VM's own memory.
                 binaries = for n <- 1..1000, do: :binary.copy(<<n>>, 100_000)
                 {error, length(kept) > 50, length(binaries)}
                 """
               )
    end
  end

  describe "zero copy" do
    test "43: sorted lines are written to the file that they came from", context do
      assert [true, true, true, true] =
               child(context, """
               lines = for n <- 20_000..1//-1, do: "line \#{String.pad_leading("\#{n}", 6, "0")} and some more text to make it long\\n"
               sorted = IO.iodata_to_binary(Enum.sort(lines))
               for write <- [
                 fn lines -> File.open!(path, [:write], &IO.binwrite(&1, lines)) end,
                 fn lines -> File.open!(path, [:write, :raw, :delayed_write], fn f -> Enum.each(lines, &:file.write(f, &1)) end) end,
                 fn lines -> Enum.into(lines, File.stream!(path)) end,
                 fn lines -> m = Emmap.open!(path, [:create, :truncate]); Enum.each(lines, &(:ok = Emmap.write(m, &1))); Emmap.close(m) end
               ] do
                 File.write!(path, lines)
                 lines = path |> Emmap.stream!() |> Enum.sort()
                 write.(lines)
                 File.read!(path) == sorted
               end
               """)
    end

    test "44: a log is truncated while its lines are collected", context do
      # What was collected before is in the other file, and no zeros.
      for options <- ["", "live: true"] do
        assert {{:raised, :estale}, true, 0} =
                 child(context, """
                 File.write!(path, for(n <- 1..5_000, do: "line \#{n} \#{String.duplicate("text ", 10)}\\n"))
                 out = dir <> "/out"
                 result =
                   try do
                     Emmap.stream!(path, [#{options}])
                     |> Stream.with_index()
                     |> Stream.map(fn {line, n} -> (if n == 800, do: File.write!(path, "")); line end)
                     |> Enum.into(Emmap.stream!(out))
                   rescue
                     e in Emmap.Error -> {:raised, e.reason}
                   end
                 written = File.read!(out)
                 {result, String.starts_with?(written, "line 1 text") and byte_size(written) > 40_000,
                  length(:binary.matches(written, <<0>>))}
                 """)
      end
    end

    test "45: the source of a write is a map that lost its pages", context do
      estale = {:error, :estale}

      assert {[{^estale, ^estale, ^estale, ^estale, ^estale, {:error, {0, :estale}}}, _], "",
              ^estale,
              ^estale} =
               child(context, """
               bytes = :binary.copy("0123456789abcdef", 4096)
               tried = for size <- [65_536, 100] do
                 File.write!(path, bytes)
                 {:ok, source} = Emmap.open(path)
                 {:ok, other} = Emmap.open(dir <> "/other", [:create])
                 {:ok, fixed} = Emmap.open([:anon, size: 100_000])
                 {:ok, appended} = Emmap.open(dir <> "/appended", [:create, :append])
                 {:ok, live} = Emmap.view(source, 60_000 - min(size, 60_000), size)
                 File.write!(path, "")
                 r = {Emmap.pwrite(fixed, 0, live), Emmap.pwrite(other, 0, live), Emmap.write(other, [live, "x"]),
                      Emmap.write(other, live), Emmap.write(appended, live), Emmap.pwrite(fixed, [{0, [live]}])}
                 {:ok, <<0>>} = Emmap.pread(fixed, 0, 1)
                 r
               end
               [first, second] = tried
               ^first = second
               File.write!(path, bytes)
               {:ok, direct} = Emmap.open(path, [:direct])
               {:ok, other} = Emmap.open(dir <> "/other", [:write])
               File.write!(path, "")
               copied = :file.copy(direct, other)
               # Touched by the copy that was refused, so its bytes are zeros now.
               {:ok, live} = {:ok, elem(elem(direct, 2), 1).()}
               collected = try do Enum.into([live], Emmap.stream!(dir <> "/collected")); :ok rescue e in Emmap.Error -> {:error, e.reason} end
               {tried, File.read!(dir <> "/other"), copied, collected}
               """)
    end

    test "56: a file is truncated by the VM that holds live binaries of it", context do
      assert {{:error, :ebusy}, {:error, :ebusy}, "0123456789", :ok, {:ok, ""}} =
               child(context, """
               {:ok, mem} = Emmap.open(path)
               {:ok, live} = Emmap.view(mem, 0, 10)
               open = fn options -> with {:ok, m} <- Emmap.open(path, options), do: Emmap.close(m) end
               refused = {open.([:write, :truncate]), open.([:write, :fit, size: 5])}
               :ok = open.([:write, :fit, size: 10])
               seen = :binary.copy(live)
               Emmap.close(mem)
               me = self()
               # In a process of its own, for garbage of this one is the compiler's to tell.
               spawn(fn ->
                 {:ok, mem} = Emmap.open(path)
                 {:ok, _} = Emmap.view(mem, 0, 10)
                 Emmap.close(mem)
                 send(me, :done)
               end)
               receive do: (:done -> :ok)
               {mem, live} = {nil, nil}
               _ = {mem, live}
               :erlang.garbage_collect()
               Process.sleep(100)
               {elem(refused, 0), elem(refused, 1), seen, open.([:write, :truncate]), File.read(path)}
               """)
    end
  end

  describe "acknowledged writes" do
    test "46: maps are opened with a size, and grow, without fallocate", context do
      case mount(context, "ramfs", ~w(-t ramfs ramfs)) do
        {:ok, ramfs} ->
          assert {[], [20], :ok, :ok, {:ok, 100_000}} =
                   child(context, """
                   dir = #{inspect(ramfs)}
                   block = :binary.copy("R", 4096)
                   lost = for round <- 1..20, sparse <- [[], [:sparse]] do
                     path = dir <> "/log"
                     File.rm(path)
                     {:ok, mem} = Emmap.open(path, [:create | sparse])
                     writer = Task.async(fn -> for n <- 0..99, do: :ok = Emmap.pwrite(mem, n * 4096, block) end)
                     for k <- 1..40, do: ({:ok, other} = Emmap.open(path, [:write, {:size, k * 10_240} | sparse]); Emmap.close(other))
                     Task.await(writer)
                     {round, File.read!(path) |> :binary.split(<<0>>) |> hd() |> byte_size()}
                   end
                   found = for round <- 1..10 do
                     path = dir <> "/appended\#{round}"
                     File.write!(path, "start\\n")
                     {:ok, mem} = Emmap.open(path, [:write])
                     task = Task.async(fn -> Emmap.resize(mem, 5_000_000) end)
                     {:ok, raw} = :file.open(path, [:append, :raw])
                     for n <- 1..20, do: (:ok = :file.write(raw, "entry \#{n} of another program\\n"); Process.sleep(1))
                     :ok = Task.await(task)
                     File.read!(path) |> :binary.matches("of another program") |> length()
                   end
                   File.write!(dir <> "/allocated", "x")
                   {:ok, mem} = Emmap.open(dir <> "/allocated", [:write])
                   {Enum.filter(lost, fn {_, good} -> good < 409_600 end), Enum.uniq(found),
                    Emmap.allocate(mem, 0, 100_000), :file.allocate(mem, 0, 50_000), Emmap.size(mem)}
                   """)

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "47: a program follows a file that a map appends to", context do
      assert {0, true, 0, true} =
               child(context, """
               follow = fn write ->
                 File.write!(path, "")
                 follower = Task.async(fn ->
                   {:ok, raw} = :file.open(path, [:raw, :read, :binary])
                   read = fn read, got ->
                     case :file.read(raw, 65_536) do
                       {:ok, more} -> read.(read, [got | more])
                       :eof -> receive do: (:stop -> got), after: (0 -> read.(read, got))
                     end
                   end
                   IO.iodata_to_binary(read.(read, []))
                 end)
                 write.()
                 Process.sleep(50)
                 send(follower.pid, :stop)
                 got = Task.await(follower)
                 {length(:binary.matches(got, <<0>>)), got == File.read!(path)}
               end
               {:ok, mem} = Emmap.open(path, [:write])
               {zeros, same} = follow.(fn ->
                 {:ok, _} = Emmap.position(mem, 0)
                 :ok = Emmap.reattach(mem)
                 for n <- 1..20_000, do: :ok = Emmap.write(mem, "line \#{n} of the log, long enough to be seen\\n")
               end)
               {zeros2, same2} = follow.(fn ->
                 {:ok, mem} = Emmap.open(path, [:write])
                 1..20_000 |> Stream.map(&"line \#{&1} of the log, long enough to be seen\\n") |> Enum.into(Emmap.stream!(mem))
               end)
               {zeros, same, zeros2, same2}
               """)
    end

    test "55: many processes append to one file", context do
      assert {true, 4000, {:ok, 0}, [error: :eacces], :ok} =
               child(context, """
               File.write!(path, "")
               line = fn who, n -> "\#{who} \#{n} \#{String.duplicate("x", rem(n * 7, 200))}\\n" end
               {:ok, one} = Emmap.open(path, [:append])
               {:ok, two} = Emmap.open(path, [:append, :direct])
               writers = [
                 fn n -> :ok = Emmap.write(one, line.("one", n)) end,
                 fn n -> :ok = Emmap.pwrite(one, 0, line.("pwrite", n)) end,
                 fn n -> :ok = :file.write(two, [line.("two", n)]) end
               ]
               tasks = for write <- writers, do: Task.async(fn -> Enum.each(1..1000, write) end)
               {:ok, raw} = :file.open(path, [:append, :raw])
               for n <- 1..1000, do: :ok = :file.write(raw, line.("raw", n))
               Enum.each(tasks, &Task.await(&1, 60_000))
               :ok = Emmap.reattach(one)
               {:ok, all} = Emmap.pread(one, 0, 10_000_000)
               lines = String.split(all, "\\n", trim: true)
               whole = Enum.all?(lines, fn text ->
                 [who, n | _] = String.split(text, " ")
                 text <> "\\n" == line.(who, String.to_integer(n))
               end)
               {:ok, empty} = Emmap.open(dir <> "/new", [:create, :append])
               refused = for call <- [&Emmap.patomic(&1, 0, :add, 1), &Emmap.fill(&1, 0, 1, 0), &Emmap.put(&1, 0, :u8, 1),
                                      &Emmap.resize(&1, 5), &Emmap.allocate(&1, 0, 5)], uniq: true, do: call.(one)
               {whole and all == File.read!(path), length(Enum.uniq(lines)), Emmap.size(empty), refused, Emmap.sync(one)}
               """)
    end
  end

  describe "close" do
    test "48: a process closes one file after the other, and keeps the handles", context do
      assert {[ok: :ok, ok: :ok, ok: :ok], 0, 0, true} =
               child(
                 context,
                 """
                 Code.ensure_loaded(Emmap.Error)
                 held = fn -> for fd <- File.ls!("/proc/self/fd"), {:ok, ^path} <- [File.read_link("/proc/self/fd/" <> fd)], do: fd end
                 one = fn options -> with {:ok, m} <- Emmap.open(path, options), do: {Emmap.close(m), m} end
                 me = self()
                 {_, monitor} = :erlang.spawn_opt(fn ->
                   plain = for _ <- 1..300, do: one.([:write])
                   direct = for _ <- 1..300, do: one.([:direct])
                   streams = for _ <- 1..300, do: (["0123456789"] = Enum.to_list(Emmap.stream!(path)); {:ok, nil})
                   handles = length(held.())
                   send(me, {:held, handles, for(all <- [plain, direct, streams], do: {hd(all) |> elem(0), List.last(all) |> elem(0)})})
                 end, [:monitor, min_heap_size: 20_000_000])
                 {handles, answers} = receive do: ({:held, n, answers} -> {n, answers})
                 receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
                 # The disk space of a file that is deleted, in a handle that is kept.
                 big = dir <> "/big"
                 {:ok, kept} = Emmap.open(big, [:create, size: 100_000_000])
                 :ok = Emmap.close(kept)
                 File.rm!(big)
                 deleted = "/proc/self/maps" |> File.read!() |> String.split("\\n") |> Enum.count(&(&1 =~ "big"))
                 {for({a, b} <- answers, do: {a, b}), handles, deleted, is_tuple(kept)}
                 """,
                 limits: "ulimit -n 200"
               )
    end

    test "48: a file system is unmounted after the last close", context do
      case disk(context, :tmpfs) do
        {:ok, disk} ->
          assert {{"", 0}, {:error, :closed}} =
                   child(context, """
                   {:ok, kept} = Emmap.open(#{inspect(disk)} <> "/f", [:create, size: 10_000])
                   :ok = Emmap.close(kept)
                   {System.cmd("umount", [#{inspect(disk)}], stderr_to_stdout: true), Emmap.close(kept)}
                   """)

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "48: calls that are running when the last handle is closed", context do
      # The file's bytes or :closed, never zeros; and a write that returned :ok is in the file.
      assert {[], true} =
               child(context, """
               size = 200_000
               strange = for round <- 1..150 do
                 File.write!(path, :binary.copy("x", size))
                 {:ok, mem} = Emmap.open(path, [:write])
                 readers = for _ <- 1..2, do: Task.async(fn ->
                   Enum.reduce_while(1..100_000, [], fn _, strange ->
                     case Emmap.pread(mem, 0, 50_000) do
                       {:ok, bytes} -> if :binary.match(bytes, <<0>>) == :nomatch, do: {:cont, strange}, else: {:halt, [:zeros]}
                       {:error, :closed} -> {:halt, strange}
                       other -> {:halt, [other]}
                     end
                   end)
                 end)
                 writer = Task.async(fn ->
                   Enum.reduce_while(1..100_000, 0, fn n, last ->
                     case Emmap.patomic_write(mem, 100_000, n) do
                       :ok -> {:cont, n}
                       {:error, :closed} -> {:halt, last}
                     end
                   end)
                 end)
                 Process.sleep(rem(round, 4))
                 :ok = Emmap.close(mem)
                 strange = Enum.flat_map(readers, &Task.await/1)
                 last = Task.await(writer)
                 {:ok, raw} = :file.open(path, [:raw, :read, :binary])
                 {:ok, <<written::signed-native-64>>} = :file.pread(raw, 100_000, 8)
                 :file.close(raw)
                 before = :binary.copy("x", 8) |> :binary.decode_unsigned()
                 if written == last or (last == 0 and written == before) or written == last + 1,
                   do: strange, else: [{:lost, last, written} | strange]
               end
               {List.flatten(strange), true}
               """)
    end
  end

  describe "what fails is undone" do
    test "49: a refused growth leaves the disk unchanged", context do
      with_root(context, fn ->
        case disk(context, :ext4, 30) do
          {:ok, disk} ->
            # Root in a user namespace may not have the blocks that the file system keeps for root, though they are
            # free.
            file = Path.join(disk, "table")
            File.write!(file, "data")
            File.chmod!(disk, 0o777)
            File.chmod!(file, 0o666)

            user =
              "setpriv --reuid 65534 --regid 65534 --clear-groups unshare -U -r env HOME=/tmp"

            if match?({_, 0}, System.cmd("sh", ["-c", "#{user} true"], stderr_to_stdout: true)) do
              assert {{:error, :enospc}, 4, true} =
                       child(
                         context,
                         """
                         file = #{inspect(file)}
                         free = fn -> {out, 0} = System.cmd("df", ["--output=avail", "-k", #{inspect(disk)}]); out |> String.split() |> List.last() |> String.to_integer() end
                         before = free.()
                         {:ok, mem} = Emmap.open(file, [:write])
                         grown = Emmap.resize(mem, (before + 1000) * 1024)
                         {grown, File.stat!(file).size, abs(free.() - before) < 100}
                         """,
                         prefix: user
                       )
            else
              skipped(context, "no user namespaces here")
            end

          {:error, why} ->
            skipped(context, why)
        end
      end)
    end

    test "49: a refused allocation keeps no blocks", context do
      case disk(context, :ext4) do
        {:ok, disk} ->
          assert {{:error, :enospc}, {:error, :enospc}, true, {:error, :enospc}, true} =
                   child(context, """
                   file = #{inspect(Path.join(disk, "table"))}
                   used = fn -> {out, 0} = System.cmd("stat", ["-c", "%b", file]); out |> String.trim() |> String.to_integer() end
                   {:ok, mem} = Emmap.open(file, [:create, :sparse, size: 20_000_000])
                   :ok = Emmap.pwrite(mem, 0, "data")
                   :ok = Emmap.sync(mem)
                   before = used.()
                   first = {Emmap.allocate(mem, 0, 19_000_000), Emmap.allocate(mem, 10_000_000, 20_000_000)}
                   same = used.() - before < 16
                   {:ok, fixed} = Emmap.open(file, [:write, max_size: 20_000_000])
                   refused = Emmap.allocate(fixed, 19_999_000, 1_000_000)
                   {elem(first, 0), elem(first, 1), same, refused, used.() - before < 16}
                   """)

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "50: a directory cannot be synced", context do
      case CLibrary.build("no_directory_fsync", context.dir) do
        {:ok, library} ->
          # Of a device that failed it is an error, and stays one.
          errors = [einval: 22, enotsup: 95, enosys: 38, erofs: 30, ebadf: 9, eperm: 1, eio: 5]

          for {name, number} <- errors do
            wanted =
              if name == :eio,
                do: {{:error, :eio}, {:error, :eio}, {:error, :eio}, {:error, :eio}},
                else: {:ok, :ok, nil, :ok}

            assert {name, wanted} ==
                     {name,
                      child(
                        context,
                        """
                        File.rm(dir <> "/new")
                        File.rm(dir <> "/counters")
                        {:ok, mem} = Emmap.open(dir <> "/new", [:create, size: 100])
                        :ok = Emmap.pwrite(mem, 0, "hello")
                        synced = {Emmap.sync(mem), Emmap.datasync(mem)}
                        {:ok, info} = Emmap.info(mem)
                        counters =
                          with {:ok, c} <- Emmap.Counters.open(dir <> "/counters", [:a]) do
                            :ok = Emmap.Counters.add(c, :a, 1)
                            [a: 1] = Enum.to_list(c)
                            Emmap.Counters.sync(c)
                          end
                        {elem(synced, 0), elem(synced, 1), info.failed_sync, counters}
                        """,
                        env: [
                          {"LD_PRELOAD", library <> ".so"},
                          {"EMMAP_DIRECTORY_ERROR", "#{number}"}
                        ]
                      )}
          end

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "51: a read that fails does not move the cursor", context do
      assert {{:ok, "0123"}, [{:error, :estale}, {:error, :estale}, {:error, :estale}], {:ok, 4},
              {:ok, "4567"}} =
               child(context, """
               bytes = :binary.copy("0123456789", 10_000)
               File.write!(path, bytes)
               {:ok, mem} = Emmap.open(path)
               first = Emmap.read(mem, 4)
               File.write!(path, "")
               failed = [Emmap.read(mem, 4), Emmap.read(mem, 90_000), Emmap.read_line(mem)]
               File.write!(path, bytes)
               :ok = Emmap.reattach(mem)
               {first, failed, Emmap.position(mem, :cur), Emmap.read(mem, 4)}
               """)
    end

    test "52: an open through a dangling link fails after another program made the file",
         context do
      # An open that failed removed what it had not made.
      assert {[], {:ok, "target"}, {:error, :enospc}, false} =
               child(context, """
               link = dir <> "/link"
               target = dir <> "/target"
               File.ln_s!("target", link)
               me = self()
               other = spawn(fn ->
                 Stream.repeatedly(fn ->
                   receive do: ({:make, spin} -> Enum.each(1..spin//1, &Function.identity/1))
                   send(me, {:made, File.write(target, "another program's", [:exclusive])})
                 end) |> Stream.run()
               end)
               lost = for round <- 1..3000, reduce: [] do
                 lost ->
                   File.rm(target)
                   send(other, {:make, rem(round * 37, 3000)})
                   {:error, :enospc} = Emmap.open(link, [:create, size: 4_000_000_000_000])
                   made = receive do: ({:made, made} -> made)
                   if made == :ok and File.read(target) != {:ok, "another program's"}, do: [round | lost], else: lost
               end
               File.rm(target)
               again = Emmap.open(link, [:create, size: 4_000_000_000_000])
               {lost, File.read_link(link), again, File.exists?(target)}
               """)
    end

    test "53: :truncate with a size that does not fit keeps the file", context do
      case disk(context, :ext4) do
        {:ok, disk} ->
          assert {[{:error, :enospc}], true, :ok, {:ok, 5000}} =
                   child(context, """
                   file = #{inspect(Path.join(disk, "table"))}
                   # Holes, whose blocks do not fit.
                   {:ok, raw} = :file.open(file, [:raw, :write])
                   :ok = :file.pwrite(raw, 0, "head")
                   :ok = :file.pwrite(raw, 20_000_000, "tail")
                   :ok = :file.close(raw)
                   open = fn size -> with {:ok, m} <- Emmap.open(file, [:write, :truncate, size: size]), do: Emmap.close(m) end
                   refused = Enum.uniq([open.(19_000_000), open.(30_000_000)])
                   {:ok, raw} = :file.open(file, [:raw, :read, :binary])
                   kept = {:file.pread(raw, 0, 4), :file.pread(raw, 20_000_000, 4)} == {{:ok, "head"}, {:ok, "tail"}}
                   truncated = open.(5000)
                   true = File.read!(file) == :binary.copy(<<0>>, 5000)
                   {refused, kept, truncated, {:ok, File.stat!(file).size}}
                   """)

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "54: :auto_unlink through a link", context do
      assert {{:ok, "0123456789"}, {:error, :enoent}} =
               child(context, """
               File.ln_s!("data", dir <> "/link")
               {:ok, mem} = Emmap.open(dir <> "/link", [:write, :auto_unlink])
               :ok = Emmap.close(mem)
               {File.read(path), File.read_link(dir <> "/link")}
               """)
    end
  end

  defp with_root(context, act) do
    case System.cmd("id", ["-u"]) do
      {"0\n", 0} -> act.()
      _ -> skipped(context, "root only")
    end
  end

  # So many free huge pages for the time of the test.
  defp with_huge_pages(context, count, act) do
    pool = "/proc/sys/vm/nr_hugepages"

    with {:ok, before} <- File.read(pool),
         _ = File.write("/proc/sys/vm/compact_memory", "1"),
         [taken] =
           Regex.run(~r/HugePages_Rsvd:\s+(\d+)/, File.read!("/proc/meminfo"),
             capture: :all_but_first
           ),
         wanted = count + String.to_integer(taken),
         :ok <- File.write(pool, "#{wanted}"),
         {:ok, got} <- File.read(pool) do
      try do
        if String.trim(got) == "#{wanted}",
          do: act.(),
          else: skipped(context, "#{String.trim(got)} huge pages of #{wanted}")
      after
        File.write(pool, String.trim(before))
      end
    else
      {:error, why} -> skipped(context, "no huge pages here: #{why}")
    end
  end

  describe "files of others" do
    test "58: a new file has the name and inode of an unlinked file", context do
      path = context.path

      there =
        for n <- 1..20 do
          _ = File.rm(path)

          Task.await(
            Task.async(fn ->
              mem = Emmap.open!(path, [:write, :create, :auto_unlink, size: 4096])
              :ok = Emmap.close(mem)
              false = File.exists?(path)
              File.write!(path, "of another program #{n}")
            end)
          )

          Process.sleep(5)
          File.exists?(path)
        end

      assert noted(context, Enum.uniq(there)) == [true]
    end

    test "59: a program writes to a file while an open of it fails", context do
      path = context.path
      File.rm!(path)

      opener =
        spawn_link(fn ->
          Stream.repeatedly(fn -> Emmap.open(path, [:create, size: 1_000_000_000_000_000]) end)
          |> Stream.run()
        end)

      lost =
        for n <- 1..1000 do
          {:ok, raw} = :file.open(path, [:append, :raw])
          :ok = :file.write(raw, "entry #{n}")
          :ok = :file.close(raw)
          kept = File.read(path)
          _ = File.rm(path)
          if kept != {:ok, "entry #{n}"}, do: kept
        end

      Process.unlink(opener)
      Process.exit(opener, :kill)
      assert noted(context, Enum.reject(lost, &is_nil/1)) == []
    end

    test "59: a program that holds the lock extends the file as far as an open would", context do
      case System.find_executable("python3") do
        nil ->
          skipped(context, "no python3")

        python ->
          path = context.path
          File.write!(path, "")

          program = """
          import fcntl, os, sys
          f = open(#{inspect(path)}, "r+b", buffering=0)
          fcntl.lockf(f, fcntl.LOCK_EX)
          f.write(b"D" * 4096)
          print("ready", flush=True)
          sys.stdin.readline()
          """

          port =
            Port.open({:spawn_executable, python}, [:binary, line: 80, args: ["-c", program]])

          assert_receive {^port, {:data, {:eol, "ready"}}}, 10_000
          # Refused at the lock, or let in: either way what is there stays.
          _ = Emmap.open(path, [:write, :lock, size: 4096])
          _ = Emmap.open(path, [:write, size: 4096])
          assert noted(context, File.read!(path) == :binary.copy("D", 4096))
          Port.close(port)
      end
    end

    test "60: allocations are refused while a program appends", context do
      case mount(context, "small", ~w(-t tmpfs -o size=64m none)) do
        {:ok, small} ->
          path = Path.join(small, "log")
          File.write!(path, "")
          File.write!(Path.join(small, "most"), :binary.copy("m", 40_000_000))
          mem = Emmap.open!(path, [:write])

          grower = Task.async(fn -> for _ <- 1..2000, do: Emmap.allocate(mem, 0, 60_000_000) end)

          {:ok, raw} = :file.open(path, [:append, :raw])
          for n <- 1..2000, do: :ok = :file.write(raw, "entry #{n}\n")
          assert noted(context, Enum.uniq(Task.await(grower, 60_000))) == [{:error, :enospc}]
          assert File.read!(path) == Enum.map_join(1..2000, &"entry #{&1}\n")

          # What has its blocks already needs no room.
          big = Path.join(small, "big")
          mem = Emmap.open!(big, [:create])
          assert Emmap.allocate(mem, 0, 15_000_000) == :ok
          assert Emmap.allocate(mem, 0, 15_000_000) == :ok
          assert Emmap.pwrite(mem, 0, :binary.copy("w", 15_000_000)) == :ok
          :ok = Emmap.close(mem)

        {:error, why} ->
          skipped(context, why)
      end
    end
  end

  describe "what is lost is told" do
    test "61: a live binary is written while other maps constantly lose pages", context do
      assert {:ok, {:ok, {:ok, "ssss"}, :ok}} =
               attempt(context, """
               n = 50_000_000
               File.write!(dir <> "/source", :binary.copy("s", n))
               {:ok, source} = Emmap.open(dir <> "/source", [:direct])
               {:ok, to} = Emmap.open(dir <> "/to", [:create, size: n])
               {:ok, live} = Emmap.pread(source, 0, n)
               for k <- 1..2 do
                 other = dir <> "/other\#{k}"
                 spawn(fn ->
                   File.write!(other, :binary.copy("o", 65_536))
                   {:ok, mem} = Emmap.open(other)
                   {:ok, raw} = :file.open(other, [:read, :write, :raw])
                   Stream.repeatedly(fn ->
                     {:ok, 0} = :file.position(raw, 0)
                     :ok = :file.truncate(raw)
                     Emmap.pread(mem, 60_000, 4)
                     :ok = :file.pwrite(raw, 0, :binary.copy("o", 65_536))
                     Emmap.reattach(mem)
                   end) |> Stream.run()
                 end)
               end
               Process.sleep(50)
               written = for _ <- 1..5, do: Emmap.pwrite(to, 0, live)
               [same] = Enum.uniq(written)
               {same, Emmap.pread(to, n - 4, 4), Emmap.close(to)}
               """)
    end

    test "62: a private map loses more pages than can be replaced one by one", context do
      case mount(context, "full", ~w(-t tmpfs -o size=32m none)) do
        {:ok, full} ->
          assert {:ok, {{:error, :enospc}, {:error, :enomem}, {:error, :enospc}}} =
                   attempt(context, """
                   path = #{inspect(full)} <> "/private"
                   {_, 0} = System.cmd("truncate", ["-s", "100000000", path])
                   {:ok, mem} = Emmap.open(path, [:write, :private])
                   :ok = Emmap.pwrite(mem, 0, "MINE")
                   System.cmd("sh", ["-c", "dd if=/dev/zero of=#{full}/fill bs=1M 2>/dev/null"])
                   {:ok, live} = Emmap.view(mem, 0, 100_000_000)
                   for page <- 1..20_000, do: 0 = :binary.at(live, page * 4096)
                   read = Emmap.pread(mem, 0, 4)
                   File.rm!(#{inspect(full)} <> "/fill")
                   {read, Emmap.reattach(mem), Emmap.pread(mem, 0, 4)}
                   """)

        {:error, why} ->
          skipped(context, why)
      end
    end

    test "63: a map is made shorter while it is streamed", context do
      path = context.path
      content = String.duplicate("abcdefg\n", 250_000)

      strange =
        for size <- [:line, 100_000], n <- 1..30 do
          File.write!(path, content)
          mem = Emmap.open!(path, [:write])

          counter =
            Task.async(fn ->
              Enum.count(Emmap.stream!(mem, size), &(:binary.match(&1, <<0>>) != :nomatch))
            end)

          Process.sleep(rem(n, 6))
          :ok = Emmap.resize(mem, 4096)
          zeros = Task.await(counter)
          :ok = Emmap.close(mem)
          zeros
        end

      assert noted(context, Enum.sum(strange)) == 0
    end

    test "64: a closed file is truncated under its live binaries", context do
      assert {:ok, {{:error, :estale}, 0}} =
               attempt(context, """
               File.write!(path, :binary.copy("a", 1_000_000))
               {:ok, mem} = Emmap.open(path, [:direct])
               {:ok, live} = Emmap.pread(mem, 0, 1_000_000)
               :ok = Emmap.close(mem)
               {:ok, raw} = :file.open(path, [:read, :write, :raw])
               {:ok, _} = :file.position(raw, 500_000)
               :ok = :file.truncate(raw)
               {:ok, other} = Emmap.open(dir <> "/other", [:create, size: 1_000_000])
               written = Emmap.pwrite(other, 0, live)
               for i <- 999_000..0//-4096, do: :binary.at(live, i)
               {written, Enum.count(0..499_999, &(:binary.at(live, &1) != ?a))}
               """)
    end
  end
end
