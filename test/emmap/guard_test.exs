defmodule Emmap.GuardTest do
  # Lost pages touched from wherever a VM touches memory.
  use Emmap.Test.BadDay
  alias Emmap.Test.ChildVM

  # What each touch gives must be what it gives for the bytes that are left: `kept` bytes, then zeros.
  @touches ~S"""
  match = fn <<_::binary-30_000, a, b::16, _::4, c::12, "\0\0", _::binary>> -> {a, b, c}; _ -> :other end
  search = fn search, bytes -> case bytes do <<1, _::binary>> -> :found; <<_, rest::binary>> -> search.(search, rest); <<>> -> :none end end
  {:ok, regex} = :re.compile("[a-z]+1")
  touches = [
    match: match,
    match_to_the_end: &search.(search, &1),
    comprehension: &(for <<x::32 <- &1>>, reduce: 0 do sum -> sum + x end),
    compare: &(binary_part(&1, 40_000, 20_000) == <<0::160_000>>),
    at: &:binary.at(&1, 30_000),
    last: &:binary.last/1,
    crc32: &:erlang.crc32/1,
    adler32: &:erlang.adler32/1,
    md5: &:erlang.md5/1,
    phash2: &:erlang.phash2/1,
    binary_match: &:binary.match(&1, "1\0\0"),
    binary_matches: &length(:binary.matches(&1, "\0\0")),
    split: &length(:binary.split(&1, <<0, 0, 0>>, [:global])),
    longest_common_prefix: &:binary.longest_common_prefix([&1, :binary.copy(&1)]),
    term_to_binary: &:erlang.term_to_binary(&1, [:compressed]),
    copy: &:binary.copy/1,
    to_list: &:erlang.binary_to_list/1,
    append: &(<<&1::binary, 1>>),
    iolist: &:erlang.iolist_to_binary([&1, "x", &1]),
    decode_unsigned: &:binary.decode_unsigned(binary_part(&1, 30_000, 100)),
    unicode: &:unicode.characters_to_list/1,
    regex: &:re.run(&1, regex),
    ets_key: fn bytes -> t = :ets.new(:t, [:ordered_set]); :ets.insert(t, [{bytes}, {"1"}]); :ets.member(t, :binary.copy(bytes)) end,
    ets_match: fn bytes -> t = :ets.new(:t, []); :ets.insert(t, {bytes, 1}); :ets.lookup(t, :binary.copy(bytes)) == [{bytes, 1}] end,
    hash: &:crypto.hash(:sha256, &1),
    dirty_cpu: &:crypto.pbkdf2_hmac(:sha256, &1, "salt", 2, 32),
    message: fn bytes -> me = self(); spawn(fn -> send(me, {:crc, :erlang.crc32(bytes)}) end); receive do {:crc, crc} -> crc end end,
    dirty_io: fn bytes ->
      {:ok, other} = Emmap.open([:anon, size: 400_000])
      # A write of Emmap detects that its source was lost.
      written = [Emmap.pwrite(other, 0, List.duplicate(bytes, 5)), Emmap.pwrite(other, 100, bytes)]
      lost = {:error, :estale}
      true = written in [[:ok, :ok], [lost, lost]] or raise inspect(written)
    end
  ]
  """

  test "1: lost pages touched by compiled code, BIFs and NIFs, on every kind of scheduler",
       context do
    assert {:ok, tried} =
             ChildVM.run(
               """
               path = #{inspect(context.path)}
               bytes = :binary.copy("0123456789abcdef", 5000)
               #{@touches}
               for {name, touch} <- touches, kept <- [0, 100, 4096, 20_003] do
                 File.write!(path, bytes)
                 {:ok, mem} = Emmap.open(path, [:read, :direct])
                 {:ok, live} = Emmap.view(mem, 0, 80_000)
                 {:ok, raw} = :file.open(path, [:raw, :read, :write])
                 {:ok, _} = :file.position(raw, kept)
                 :ok = :file.truncate(raw)
                 expected = touch.(binary_part(bytes, 0, kept) <> :binary.copy(<<0>>, 80_000 - kept))
                 ^expected = touch.(live)
                 answer = Emmap.pread(mem, 0, 1)
                 true = answer == {:error, :estale} or raise inspect({name, kept, answer})
                 {:ok, %{faults: n}} = Emmap.info(mem)
                 # Each thread that meets the lost tail at the same moment takes a signal of its own.
                 true = n in 1..4 or raise inspect({name, n})
                 name
               end
               |> Enum.uniq() |> length()
               """,
               timeout: 120
             )

    assert tried == 28
  end

  test "1: lost pages under garbage collection, and in system calls", context do
    assert {true, {:error, :efault}, {:error, :estale}} =
             child(context, """
             File.write!(path, :binary.copy("0123456789abcdef", 5000))
             {:ok, mem} = Emmap.open(path, [:read, :direct])
             {:ok, live} = Emmap.view(mem, 0, 80_000)
             # Short ones, which a collection may copy; and parts of parts, from a heap that is old.
             short = for n <- 0..4999, do: elem(Emmap.view(mem, n * 16, 10), 1)
             parts = for n <- 0..499, do: binary_part(live, n * 160, 100)
             :erlang.garbage_collect()
             cut.(path, 0)
             :erlang.garbage_collect()
             # A heap of this size is collected on a dirty scheduler.
             ballast = Enum.to_list(1..2_000_000)
             :erlang.garbage_collect()
             zeros = Enum.all?(short, &(&1 == <<0::80>>)) and Enum.all?(parts, &(&1 == <<0::800>>)) and length(ballast) > 0
             # The kernel does not wait for lost pages: what a system call is given must be there.
             {:ok, fresh} = Emmap.open(path <> ".2", [:write, :create, :direct, size: 80_000])
             {:ok, lost} = Emmap.view(fresh, 0, 80_000)
             cut.(path <> ".2", 0)
             {:ok, raw} = :file.open(path <> ".3", [:raw, :write])
             {zeros, :file.write(raw, lost), Emmap.pread(mem, 0, 1)}
             """)
  end

  test "1: 16 processes at once on one lost page, a hundred times", context do
    assert {:ok, {true, {:error, :estale}}} =
             ChildVM.run("""
             path = #{inspect(context.path)}
             answers = for _ <- 1..100 do
               File.write!(path, :binary.copy(<<1>>, 80_000))
               {:ok, mem} = Emmap.open(path, [:read, :direct])
               {:ok, live} = Emmap.view(mem, 40_000, 10)
               parent = self()
               tasks = for _ <- 1..16 do
                 Task.async(fn ->
                   send(parent, :ready)
                   receive do :go -> {:binary.copy(live), Emmap.pread(mem, 0, 1)} end
                 end)
               end
               for _ <- tasks, do: (receive do :ready -> :ok end)
               File.write!(path, "")
               for task <- tasks, do: send(task.pid, :go)
               Task.await_many(tasks)
             end
             all = List.flatten(answers)
             {Enum.all?(all, &(elem(&1, 0) == <<0::80>>)), all |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> hd()}
             """)
  end

  test "100,000 faults in one VM, each repaired; nothing is left behind", context do
    assert {:ok, {100_000, :ok, true}} =
             ChildVM.run(
               """
               path = #{inspect(context.path)}
               File.write!(path, :binary.copy(<<7>>, 20_000))
               {:ok, mem} = Emmap.open(path, [:read, :fixed_size])
               {:ok, live} = Emmap.view(mem, 0, 20_000)
               {:ok, raw} = :file.open(path, [:raw, :read, :write])
               maps = fn -> length(String.split(File.read!("/proc/self/maps"), "\\n")) end
               before = maps.()
               for n <- 1..100_000 do
                 # At a different page each time.
                 {:ok, _} = :file.position(raw, rem(n, 5) * 4096)
                 :ok = :file.truncate(raw)
                 0 = :binary.last(live)
                 {:error, :estale} = Emmap.pread(mem, 0, 1)
                 :ok = :file.pwrite(raw, 19_999, <<7>>)
                 :ok = Emmap.reattach(mem)
                 {:ok, <<7>>} = Emmap.pread(mem, 19_999, 1)
                 7 = :binary.last(live)
               end
               {:ok, %{faults: faults}} = Emmap.info(mem)
               {faults, Emmap.guard(), maps.() <= before + 20}
               """,
               timeout: 170
             )
  end

  describe "switched off before it is loaded" do
    @off "Application.put_env(:emmap, :guard, false)\n"

    test "it leaves the signal alone", context do
      assert {:ok, {:off, {:error, :estale}}} =
               attempt(
                 context,
                 @off <>
                   """
                   {:ok, mem} = Emmap.open(path, [:write])
                   guard = Emmap.guard()
                   cut.(path, 5)
                   {guard, Emmap.sync(mem)}
                   """
               )

      assert {:died, 135, _} =
               attempt(
                 context,
                 @off <>
                   """
                   {:ok, mem} = Emmap.open(path)
                   cut.(path, 0)
                   Emmap.pread(mem, 0, 1)
                   """
               )
    end

    test "by the command line of an Erlang node" do
      ebin = Application.app_dir(:emmap, "ebin")
      script = "application:load(emmap), io:format(\"~p\", ['Elixir.Emmap':guard()]), halt()."
      elixir = Path.join(Application.app_dir(:elixir), "ebin")
      arguments = ~w(-noshell -emmap guard false -pa #{ebin} -pa #{elixir} -eval) ++ [script]
      assert {"off", 0} = System.cmd("erl", arguments)
    end

    test "by anything but a boolean: it says so", context do
      assert {:died, 1, output} =
               attempt(context, """
               Application.put_env(:emmap, :guard, :maybe)

               try do
                 Emmap.open(path)
               after
                 # Another process writes why the module could not be loaded.
                 Process.sleep(1000)
               end
               """)

      assert output =~ "guard: is true or false, got :maybe"
    end
  end
end
