defmodule Emmap.BadDaysTest do
  # The rows of the bad-day table that concern open, read, write, resize and close, each in a VM of
  # its own: the VM must live and the answer be exact.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag timeout: 120_000

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "0123456789")
    %{path: path, dir: directory}
  end

  # Code for a child, which finds `path` and `dir` bound.
  defp child(%{path: path, dir: directory}, code, options \\ []) do
    ChildVM.run!(
      "path = #{inspect(path)}; dir = #{inspect(directory)}; _ = {path, dir}\n" <> code,
      options
    )
  end

  test "5: deleted, and another renamed over it", context do
    assert {"0123456789", :ok, "other", "0123changed"} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, :direct])
             {:ok, live} = Emmap.view(mem, 0, 10)
             before = :binary.copy(live)
             File.write!(path <> ".new", "other")
             File.rename!(path <> ".new", path)
             wrote = Emmap.pwrite(mem, 4, "changed")
             {:ok, new} = Emmap.open(path)
             {:ok, other} = Emmap.pread(new, 0, 100)
             File.rm!(path)
             {:ok, _} = Emmap.pread(new, 0, 1)
             {:ok, data} = Emmap.pread(mem, 0, 100)
             {before, wrote, other, data}
             """)
  end

  test "6, 7: closed while 16 processes work; closed again", context do
    assert {true, {:error, :closed}, "0123456789"} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write])
             {:ok, live} = Emmap.view(mem, 0, 10)
             work = fn work, seen ->
               answers = [Emmap.pread(mem, 0, 4), Emmap.pwrite(mem, 0, "0123"), Emmap.view(mem, 2, 2)]
               seen = Enum.uniq(answers ++ seen)
               if {:error, :closed} in answers, do: seen, else: work.(work, seen)
             end
             tasks = for _ <- 1..16, do: Task.async(fn -> work.(work, []) end)
             Process.sleep(100)
             :ok = Emmap.close(mem)
             allowed = [{:ok, "0123"}, :ok, {:ok, "23"}, {:error, :closed}]
             seen = tasks |> Task.await_many() |> Enum.concat() |> Enum.uniq()
             {seen -- allowed == [] and length(seen) == 4, Emmap.close(mem), live}
             """)
  end

  test "8, 9: grown a thousand times under live binaries, then shrunk", context do
    assert {true, "0123456789", <<"0123", 0::48>>, :eof, {:error, :einval}} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, :direct, :sparse])
             {:ok, live} = Emmap.view(mem, 0, 10)
             reader = Task.async(fn -> for _ <- 1..20_000, do: {:ok, "0123456789"} = Emmap.pread(mem, 0, 10) end)
             views = for n <- 1..1000 do
               size = 10 + n * 5_000_000
               :ok = Emmap.resize(mem, size)
               :ok = Emmap.pwrite(mem, size - 8, <<n::64>>)
               {:ok, view} = Emmap.view(mem, size - 8, 8)
               {n, view}
             end
             Task.await(reader, :infinity)
             kept = Enum.all?(views, fn {n, view} -> view == <<n::64>> end)
             before = :binary.copy(live)
             :ok = Emmap.resize(mem, 4)
             zeros = Enum.all?(views, fn {_, view} -> view == <<0::64>> end)
             fixed = Emmap.open!(path, [:write, :fixed_size])
             {kept and zeros, before, :binary.copy(live), Emmap.pread(mem, 4, 1), Emmap.resize(fixed, 3)}
             """)
  end

  test "10: the opener is killed, also in the middle of a call", context do
    assert {:ok, true} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write])
             :ok = Emmap.resize(mem, 50_000_000)
             data = :binary.copy("x", 50_000_000)
             for _ <- 1..20 do
               pid = spawn(fn -> Emmap.open(path); Emmap.pwrite(mem, 0, data); Emmap.pwrite(mem, 0, data) end)
               Process.sleep(:rand.uniform(20))
               Process.exit(pid, :kill)
             end
             wrote = Emmap.pwrite(mem, 0, "free")
             fds = fn -> Enum.count(File.ls!("/proc/self/fd"), &(File.read_link("/proc/self/fd/" <> &1) == {:ok, path})) end
             # A killed process ends when its call does.
             back = Enum.any?(1..1000, fn _ -> fds.() == 1 or (Process.sleep(10) && false) end)
             {:ok, _} = Emmap.pread(mem, 0, 1)
             {wrote, back}
             """)
  end

  describe "11: a full disk" do
    setup context do
      disk = Path.join(context.dir, "disk")
      File.mkdir_p!(disk)

      case System.cmd("mount", ~w(-t tmpfs -o size=1m emmap_test) ++ [disk],
             stderr_to_stdout: true
           ) do
        {_, 0} ->
          on_exit(fn -> System.cmd("umount", ["-l", disk]) end)
          %{disk: disk}

        {why, _} ->
          IO.puts("skipped, for this machine mounts no tmpfs: #{String.trim(why)}")
          %{disk: nil}
      end
    end

    test "at create and at grow: the file as it was", %{disk: disk} = context do
      if disk do
        assert {{:error, :enospc}, false, {:error, :enospc}, {:error, :enospc}, 1000,
                {:ok, "start"},
                :ok} =
                 child(%{context | path: Path.join(disk, "data")}, """
                 created = Emmap.open(path <> ".new", [:write, :create, size: 5_000_000])
                 exists = File.exists?(path <> ".new")
                 {:ok, mem} = Emmap.open(path, [:write, :create, size: 1000])
                 :ok = Emmap.pwrite(mem, 0, "start")
                 grown = Emmap.resize(mem, 5_000_000)
                 wrote = Emmap.pwrite(mem, 4_000_000, "x")
                 {created, exists, grown, wrote, File.stat!(path).size, Emmap.pread(mem, 0, 5), Emmap.resize(mem, 100_000)}
                 """)
      end
    end
  end

  test "13: ulimit -f", context do
    # Set from inside: OTP's JIT has a file in memory that is longer than this itself.
    assert {{:error, :efbig}, {:error, :efbig}, 10, :ok} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write])
             {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--fsize=500000"])
             grown = Emmap.resize(mem, 5_000_000)
             wrote = Emmap.pwrite(mem, 4_000_000, "x")
             {grown, wrote, File.stat!(path).size, Emmap.pwrite(mem, 10, "more")}
             """)
  end

  test "15: offsets and lengths that are none", context do
    assert :lives =
             child(context, """
             import Bitwise
             {:ok, mem} = Emmap.open(path, [:write])
             {:ok, live} = Emmap.open(path, [:direct])
             odd = [-1, 1 <<< 31, 1 <<< 32, 1 <<< 63, (1 <<< 64) - 1, 1 <<< 80, -(1 <<< 80), -(1 <<< 63), (1 <<< 63) - 1]
             attempt = fn f -> try do f.() rescue e in ArgumentError -> e end end
             for a <- [0, 5 | odd], b <- odd, m <- [mem, live] do
               answers = [
                 attempt.(fn -> Emmap.pread(m, a, b) end), attempt.(fn -> Emmap.view(m, a, b) end),
                 attempt.(fn -> Emmap.pread(m, b, 1) end), attempt.(fn -> Emmap.position(m, {:cur, b}) end),
                 attempt.(fn -> Emmap.advise(m, a, b, :will_need) end), attempt.(fn -> Emmap.prefetch(m, a, b) end),
                 attempt.(fn -> Emmap.sync(m, {a, b}) end), attempt.(fn -> Emmap.open(path, offset: a, length: b) end),
                 attempt.(fn -> Emmap.open(path, address: a, offset: b) end)
               ]
               for answer <- answers do
                 true = match?({:ok, _}, answer) or answer in [:ok, :eof] or match?(%ArgumentError{}, answer) or
                   match?({:error, reason} when reason in [:einval, :enomem, :efbig, :eperm, :enotsup], answer) or raise inspect({a, b, answer})
               end
             end
             {:ok, "0123456789"} = Emmap.pread(mem, 0, 100)
             10 = File.stat!(path).size
             :lives
             """)
  end

  test "20: what is no regular file, and nothing hangs", context do
    assert %{
             directory: {:error, :eisdir},
             directory_write: {:error, :eisdir},
             fifo: {:error, :enodev},
             fifo_write: {:error, :enodev},
             socket: {:error, :enodev},
             null: {:error, :enodev},
             zero: {:error, :enodev},
             proc: {:error, :enodev}
           } =
             child(
               context,
               """
               {_, 0} = System.cmd("mkfifo", [dir <> "/fifo"])
               # Socket names are short; the current directory makes this one so.
               File.cd!(dir)
               {:ok, _} = :gen_tcp.listen(0, ifaddr: {:local, "socket"})
               %{
                 directory: Emmap.open(dir), directory_write: Emmap.open(dir, [:write]),
                 fifo: Emmap.open(dir <> "/fifo"), fifo_write: Emmap.open(dir <> "/fifo", [:write, :create]),
                 socket: Emmap.open("socket"), null: Emmap.open("/dev/null"),
                 zero: Emmap.open("/dev/zero", [:private, :write]), proc: Emmap.open("/proc/self/status")
               }
               """,
               timeout: 30
             )
  end

  test "21: odd paths", context do
    assert {{:error, :einval}, {:error, :enoent}, {:error, :enoent}, {:ok, "x"},
            {:error, :enametoolong},
            {:error, :enametoolong}} =
             child(context, ~S"""
             {:ok, raw} = Emmap.open(dir <> "/\xFF\xFE", [:write, :create])
             :ok = Emmap.write(raw, "x")
             {:ok, again} = Emmap.open(dir <> "/\xFF\xFE")
             {Emmap.open("a\0b"), Emmap.open(""), Emmap.open(~c""), Emmap.read(again, 5),
              Emmap.open(String.duplicate("a", 300)), Emmap.open(String.duplicate("/a", 3000))}
             """)
  end

  test "22: no permission, no such file, read-only file system", context do
    assert {{:error, :enoent}, {:error, :enotdir}} =
             child(
               context,
               "{Emmap.open(dir <> \"/none\", [:write]), Emmap.open(path <> \"/below\")}"
             )

    File.chmod!(context.path, 0o000)
    # Root may open anything, so a VM of another user tries.
    {_, user} = System.cmd("id", ["-u", "nobody"], stderr_to_stdout: true)

    if user == 0 and System.cmd("id", ["-u"]) == {"0\n", 0} and reachable_by_nobody?(context.path) do
      code = "IO.inspect(Emmap.open(#{inspect(context.path)}))"
      command = "elixir -pa '#{Application.app_dir(:emmap, "ebin")}' -e '#{code}'"

      {output, 0} =
        System.cmd("su", ["nobody", "-s", "/bin/sh", "-c", command], stderr_to_stdout: true)

      assert output =~ "{:error, :eacces}"
    end

    if System.cmd("id", ["-u"]) == {"0\n", 0} do
      read_only = Path.join(context.dir, "ro")
      File.mkdir_p!(read_only)

      case System.cmd("mount", ~w(-t tmpfs -o ro emmap_test) ++ [read_only],
             stderr_to_stdout: true
           ) do
        {_, 0} ->
          on_exit(fn -> System.cmd("umount", ["-l", read_only]) end)

          assert {:error, :erofs} =
                   child(context, "Emmap.open(dir <> \"/ro/new\", [:write, :create])")

        {why, _} ->
          IO.puts("skipped, for this machine mounts no tmpfs: #{String.trim(why)}")
      end
    end
  end

  defp reachable_by_nobody?(path) do
    script =
      "ls -d '#{Path.dirname(path)}' && ls '#{Application.app_dir(:emmap, "ebin")}' && command -v elixir"

    match?(
      {_, 0},
      System.cmd("su", ["nobody", "-s", "/bin/sh", "-c", script], stderr_to_stdout: true)
    )
  end

  test "23: options that are wrong", context do
    assert [":raed", ":shared and :private", ":read stands twice"] =
             child(context, """
             for options <- [[:raed], [:shared, :private], [:read, :read]] do
               try do Emmap.open(path, options) rescue e in ArgumentError ->
                 true = e.message =~ "valid are :read, :write"
                 Regex.run(~r/:raed|:shared and :private|:read stands twice/, e.message) |> hd()
               end
             end
             """)
  end

  test "24: no more descriptors", context do
    assert {:error, :emfile} =
             child(
               context,
               """
               Enum.reduce_while(1..1000, [], fn _, kept ->
                 case Emmap.open(path) do
                   {:ok, mem} -> {:cont, [mem | kept]}
                   error -> for(mem <- kept, do: {:ok, "0123456789"} = Emmap.pread(mem, 0, 10)); {:halt, error}
                 end
               end)
               """,
               limits: "ulimit -n 100"
             )
  end

  test "25: no more address space: a smaller reservation, then enomem", context do
    assert {{:ok, "0123456789"}, {:error, :enomem}, {:ok, "0123456789"}, :ok} =
             child(
               context,
               """
               # What the VM itself has taken is below the limit set now.
               {:ok, _} = Emmap.open(path)
               [_, kilobytes] = Regex.run(~r/VmSize:\\s+(\\d+) kB/, File.read!("/proc/self/status"))
               limit = (String.to_integer(kilobytes) + 300_000) * 1024
               {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=\#{limit}"])
               {:ok, mem} = Emmap.open(path, [:write, :sparse])
               grown = Emmap.resize(mem, 5_000_000_000)
               10 = File.stat!(path).size
               {Emmap.pread(mem, 0, 10), grown, Emmap.pread(mem, 0, 10), Emmap.resize(mem, 1_000_000)}
               """
             )
  end

  test "25: max_map_count", context do
    most = "/proc/sys/vm/max_map_count" |> File.read!() |> String.trim() |> String.to_integer()

    if most <= 100_000 do
      assert {:error, :enomem} =
               child(
                 context,
                 """
                 Enum.reduce_while(1..#{most}, [], fn _, kept ->
                   case Emmap.open([:anon, size: 4096]) do
                     {:ok, mem} -> {:cont, [mem | kept]}
                     error -> {:ok, <<0>>} = Emmap.pread(hd(kept), 0, 1); {:halt, error}
                   end
                 end)
                 """,
                 timeout: 100
               )
    end
  end

  test "26: mlock over the limit, no huge pages", context do
    # Root is above the limit, unless it gives up the right to be.
    prefix = "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock"

    assert {{:error, :enomem}, :ok, {:error, :enomem}} =
             child(
               context,
               """
               {:ok, mem} = Emmap.open([:anon, size: 10_000_000])
               {:ok, small} = Emmap.open([:anon, size: 10_000])
               {Emmap.lock(mem), Emmap.lock(small), Emmap.open([:anon, :hugetlb, size: 0x100_0000_0000])}
               """,
               limits: "ulimit -l 1024",
               prefix: prefix
             )
  end

  test "27: a fixed address inside the VM's own memory", context do
    assert {{:error, :eexist}, {:ok, "0123456789"}} =
             child(context, """
             line = File.read!("/proc/self/maps") |> String.split("\\n") |> Enum.find(&(&1 =~ "[heap]" or &1 =~ "beam"))
             address = line |> String.split("-") |> hd() |> String.to_integer(16)
             {Emmap.open(path, [:fixed, address: address]), Emmap.open!(path, address: address) |> Emmap.pread(0, 100)}
             """)
  end

  test "28 (handles): stale and foreign references", context do
    assert {true, true} =
             child(context, """
             {:ok, {_, _, %{ref: ref}} = mem} = Emmap.open(path)
             stale = fn ref -> try do Emmap.pread({:file_descriptor, Emmap.File, %Emmap{ref: ref}}, 0, 1) rescue e in ArgumentError -> e.message =~ "of this node" end end
             # What comes back from another VM, or from a file, is no reference of this one.
             bytes = :erlang.term_to_binary(ref)
             true = is_binary(bytes)
             {:ok, peer} = System.cmd("elixir", ["-e", "IO.write(Base.encode64(:erlang.term_to_binary(make_ref())))"]) |> then(fn {out, 0} -> {:ok, out} end)
             {:ok, "0"} = Emmap.pread(mem, 0, 1)
             {stale.(make_ref()), stale.(:erlang.binary_to_term(Base.decode64!(peer)))}
             """)
  end

  test "16, 17: atomics at no place, and of no value", context do
    assert {[{:error, :einval}], {:error, :eacces}, 2, {:ok, -0x8000_0000_0000_0000}} ==
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, size: 4096])
             odd = for p <- [1, 4, 4089, 4092, 4096, -8, 0x8000_0000_0000_0000],
                       call <- [&Emmap.patomic(mem, &1, :add, 1), &Emmap.patomic_read(mem, &1), &Emmap.patomic_cas(mem, &1, 0, 1)],
                       uniq: true, do: call.(p)
             read_only = Emmap.patomic(Emmap.open!(path), 0, :add, 1)
             raised = for value <- [0x1_0000_0000_0000_0000, 1.5] do
               try do Emmap.patomic(mem, 8, :add, value) rescue ArgumentError -> :raised end
             end
             :ok = Emmap.patomic_write(mem, 8, 0x7FFF_FFFF_FFFF_FFFF)
             {:ok, _} = Emmap.patomic(mem, 8, :add, 1)
             {odd, read_only, Enum.count(raised, &(&1 == :raised)), Emmap.patomic_read(mem, 8)}
             """)
  end

  test "28 (counters): a stale reference, and one of another VM", context do
    assert [:raised, :raised, :raised] ==
             child(context, """
             c = Emmap.Counters.open!(dir <> "/c", 2)
             {out, 0} = System.cmd("elixir", ["-e", "IO.write(Base.encode64(:erlang.term_to_binary(make_ref())))"])
             foreign = :erlang.binary_to_term(Base.decode64!(out))
             for call <- [&Emmap.Counters.add(&1, 0, 1), &Emmap.Counters.get(&1, 0), &Emmap.Counters.to_list/1] do
               for ref <- [make_ref(), foreign], uniq: true do
                 try do call.(%{c | ref: ref}) rescue e in ArgumentError -> true = e.message =~ "of this node"; :raised end
               end |> hd()
             end
             """)
  end

  test "29 (counters): files that lie, bit by bit and at random", context do
    assert {:untouched, kinds} =
             child(context, """
             import Bitwise
             file = dir <> "/c"
             Emmap.Counters.close(Emmap.Counters.open!(file, [:a, :b]))
             good = File.read!(file)
             attempt = fn bytes ->
               File.write!(file, bytes)
               answer = Emmap.Counters.open(file, [:a, :b])
               case answer do
                 {:ok, c} -> Emmap.Counters.close(c); :ok
                 {:error, {:bad_format, why}} -> true = File.read!(file) == bytes; why
                 {:error, {:other_names, _}} -> true = File.read!(file) == bytes; :other_names
               end
             end
             flip = fn bytes, at, bit ->
               <<head::binary-size(at), byte, tail::binary>> = bytes
               <<head::binary, bxor(byte, 1 <<< bit), tail::binary>>
             end
             headers = for at <- 0..79, bit <- 0..7, do: good |> flip.(at, bit) |> flip.(4096 + at, bit) |> attempt.()
             names = for at <- 8192..8197, do: good |> flip.(at, 3) |> attempt.()
             cut = for size <- [1, 40, 80, 4100, 8193, byte_size(good) - 1], do: attempt.(binary_part(good, 0, size))
             random = for _ <- 1..50, do: attempt.(:crypto.strong_rand_bytes(20_000))
             {:untouched, Enum.uniq(headers ++ names ++ cut ++ random) |> Enum.sort()}
             """)

    assert kinds == [:checksum, :kind, :length, :names]
  end
end
