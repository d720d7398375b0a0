defmodule Emmap.BadDays.HandlesTest do
  # What is done to a handle, its size and its integers.
  use Emmap.Test.BadDay

  test "5: deleted, and another file renamed over it", context do
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

  test "10: the process that opened it is killed, even during a call", context do
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

  test "15: invalid offsets and lengths", context do
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
                   match?({:error, reason} when reason in [:badarg, :einval, :enomem, :efbig, :eperm, :enotsup], answer) or raise inspect({a, b, answer})
               end
             end
             {:ok, "0123456789"} = Emmap.pread(mem, 0, 100)
             10 = File.stat!(path).size
             :lives
             """)
  end

  test "28 (handles): stale and foreign references", context do
    assert {true, true} =
             child(context, """
             {:ok, {_, _, {ref, _, _}} = mem} = Emmap.open(path)
             stale = fn ref -> try do Emmap.pread(Emmap.Handle.new(ref, nil), 0, 1) rescue e in ArgumentError -> e.message =~ "of this node" end end
             # A reference that was sent to another VM and back, or read from a file, is not valid in this one.
             bytes = :erlang.term_to_binary(ref)
             true = is_binary(bytes)
             {:ok, peer} = System.cmd("elixir", ["-e", "IO.write(Base.encode64(:erlang.term_to_binary(make_ref())))"]) |> then(fn {out, 0} -> {:ok, out} end)
             {:ok, "0"} = Emmap.pread(mem, 0, 1)
             {stale.(make_ref()), stale.(:erlang.binary_to_term(Base.decode64!(peer)))}
             """)
  end

  test "16, 17: atomics at invalid positions and with invalid values", context do
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
end
