defmodule Emmap.BadDays.LimitsTest do
  # Where the system has no more to give.
  use Emmap.Test.BadDay

  for kind <- [:tmpfs, :ext4] do
    test "11: disk full at create or grow (#{kind})", context do
      with {:error, why} <- disk(context, unquote(kind)) do
        skipped(context, why)
      else
        {:ok, disk} ->
          assert {{:error, :enospc}, false, {:error, :enospc}, {:error, :enospc}, 1000,
                  {:ok, "start"},
                  :ok} =
                   child(%{context | path: Path.join(disk, "data")}, """
                   created = Emmap.open(path <> ".new", [:write, :create, size: 50_000_000])
                   exists = File.exists?(path <> ".new")
                   {:ok, mem} = Emmap.open(path, [:write, :create, size: 1000])
                   :ok = Emmap.pwrite(mem, 0, "start")
                   grown = Emmap.resize(mem, 50_000_000)
                   wrote = Emmap.pwrite(mem, 40_000_000, "x")
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

  test "24: no file descriptors left", context do
    assert {:error, :emfile} =
             child(
               context,
               """
               Enum.reduce_while(1..1000, [], fn _, kept ->
                 case Emmap.open(path) do
                   {:ok, mem} -> {:cont, [mem | kept]}
                   error -> for(mem <- kept, do: {{:ok, "0123456789"}, :eof} = {Emmap.pread(mem, 0, 10), Emmap.pread(mem, 10, 1)}); {:halt, error}
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
               {Emmap.lock_memory(mem), Emmap.lock_memory(small), Emmap.open([:anon, :hugetlb, size: 0x100_0000_0000])}
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
end
