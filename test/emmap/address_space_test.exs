defmodule Emmap.AddressSpaceTest do
  # What maps take of the address space and of memory, and release. In VMs of their own, for maps of a whole VM are counted.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag :linux

  # What a child needs: MiB of addresses, and the maps of shared memory without a file, with the MiB of pages that
  # they hold (`nil` where the system does not tell this user).
  @measures """
  addresses = fn ->
    [_, kib] = Regex.run(~r/VmSize:\\s+(\\d+)/, File.read!("/proc/self/status"))
    div(String.to_integer(kib), 1024)
  end

  memory = fn ->
    ranges =
      for line <- String.split(File.read!("/proc/self/maps"), "\\n"),
          line =~ "/dev/zero (deleted)",
          do: line |> String.split() |> hd()

    blocks =
      for range <- ranges,
          {blocks, 0} <- [System.cmd("stat", ["-Lc", "%i %b", "/proc/" <> System.pid() <> "/map_files/" <> range], stderr_to_stdout: true)],
          uniq: true,
          do: blocks |> String.split() |> List.last() |> String.to_integer()

    {length(ranges), if(length(blocks) == length(ranges), do: div(Enum.sum(blocks), 2048))}
  end

  _ = {addresses, memory}
  """

  defp child!(code, options \\ []), do: ChildVM.run!(@measures <> code, options)

  describe "under ulimit -v, a map that grows" do
    # 50 MB and 4 KiB at a time, 5,000 times.
    @grow """
    block = :binary.copy("y", 4096)
    start = 50_000_000
    grow = fn mem, n -> :ok = Emmap.pwrite(mem, start + n * 4096, block) end
    """

    test "stays in its range of addresses, and others can be opened", %{tmp_dir: dir} do
      assert {[1, 1, 1], grown, :ok} =
               child!(
                 @grow <>
                   """
                   mems =
                     for name <- ~w(a b c) do
                       path = Path.join(#{inspect(dir)}, name)
                       File.write!(path, :binary.copy("x", start))
                       {:ok, mem} = Emmap.open(path, [:write])
                       mem
                     end

                   before = addresses.()
                   for n <- 0..4999, mem <- mems, do: grow.(mem, n)
                   ranges = for mem <- mems, {:ok, info} <- [Emmap.info(mem)], do: info.address_ranges
                   {:ok, _other} = Emmap.open(Path.join(#{inspect(dir)}, "a"))
                   {ranges, addresses.() - before, :ok}
                   """,
                 limits: "ulimit -v #{16 * 1024 * 1024}"
               )

      # Three times 20 MB, a sixteenth ahead, and the other one.
      assert grown < 200
    end

    test "where something is in its way, takes few larger ranges", %{tmp_dir: dir} do
      assert {ranges, true} =
               child!(
                 @grow <>
                   """
                   path = Path.join(#{inspect(dir)}, "hint")
                   File.write!(path, :binary.copy("x", start))
                   at = 0x1234_0000_0000
                   {:ok, mem} = Emmap.open(path, [:write, address: at])
                   {:ok, _behind} = Emmap.open([:anon, size: 4096, address: at + 51 * 1024 * 1024])
                   for n <- 0..999, do: grow.(mem, n)
                   {:ok, info} = Emmap.info(mem)
                   {info.address_ranges, {:ok, block} == Emmap.pread(mem, start + 999 * 4096, 4096)}
                   """,
                 limits: "ulimit -v #{16 * 1024 * 1024}"
               )

      assert ranges in 1..2
    end

    test "is anonymous, and grows as well", _context do
      assert {[:ok, :ok, :ok], {:ok, 1_073_741_824}} =
               child!(
                 """
                 {:ok, mem} = Emmap.open([:anon, :write, size: 4096])
                 resized = for n <- [20, 25, 30], do: Emmap.resize(mem, Integer.pow(2, n))
                 {resized, Emmap.size(mem)}
                 """,
                 limits: "ulimit -v #{16 * 1024 * 1024}"
               )
    end
  end

  describe "anonymous memory that grows and shrinks" do
    # Cut elsewhere in each cycle, written before.
    @cycles """
    mib = 1024 * 1024

    cycles = fn mem ->
      for n <- 1..19 do
        :ok = Emmap.resize(mem, 24 * mib)
        {:ok, zeros} = Emmap.pread(mem, (4 + n) * mib, (20 - n) * mib)
        true = zeros == :binary.copy(<<0>>, (20 - n) * mib)
        :ok = Emmap.fill(mem, 0, 24 * mib, 1)
        :ok = Emmap.resize(mem, (4 + n) * mib)
      end
    end
    """

    test "gives its pages back", _context do
      for options <- ["[]", "[:direct]", "[:nolock]", "[:populate]", "[:noreserve]"] do
        assert {{maps, pages}, {0, freed}} =
                 child!(
                   @cycles <>
                     """
                     {:ok, mem} = Emmap.open([:anon, :write, size: 4 * mib] ++ #{options})
                     cycles.(mem)
                     after_cycles = memory.()
                     :ok = Emmap.resize(mem, mib)
                     Emmap.close(mem)
                     mem = nil
                     :erlang.garbage_collect()
                     Process.sleep(100)
                     {after_cycles, (_ = mem; memory.())}
                     """
                 )

        assert maps in 1..3, options
        assert pages == nil or pages <= 25, "#{options}: #{pages} MiB"
        assert freed in [nil, 0]
      end
    end

    test "also when it is locked", _context do
      assert {maps, pages} =
               child!(
                 @cycles <>
                   """
                   {:ok, mem} = Emmap.open([:anon, :write, size: 4 * mib])
                   :ok = Emmap.lock_memory(mem)
                   cycles.(mem)
                   memory.()
                   """,
                 limits: "ulimit -l 8192"
               )

      assert maps in 1..3
      assert pages == nil or pages <= 25
    end

    test "shows zeros in live binaries of a truncated tail, and the bytes that are written there later",
         _context do
      assert {1, 0, 0, 2, :ok} =
               child!("""
               {:ok, mem} = Emmap.open([:anon, :write, :direct, size: 1_000_000])
               :ok = Emmap.fill(mem, 0, 1_000_000, 1)
               {:ok, live} = Emmap.pread(mem, 500_000, 400_000)
               before = :binary.at(live, 300_000)
               :ok = Emmap.resize(mem, 600_000)
               cut = :binary.at(live, 300_000)
               :ok = Emmap.resize(mem, 1_000_000)
               again = :binary.at(live, 300_000)
               :ok = Emmap.fill(mem, 0, 1_000_000, 2)
               {before, cut, again, :binary.at(live, 300_000), Emmap.close(mem)}
               """)
    end
  end

  describe "80 TiB" do
    @size 80 * 1024 * 1024 * 1024 * 1024

    test "of memory without reserve are one map, next to others", _context do
      assert {{:ok, <<0, 0, 0>>}, {:ok, "end"}, :ok} =
               child!("""
               {:ok, _other} = Emmap.open([:anon, :write, size: 4096])
               {:ok, mem} = Emmap.open([:anon, :write, :noreserve, size: #{@size}])
               :ok = Emmap.pwrite(mem, #{@size} - 3, "end")
               {Emmap.pread(mem, 0, 3), Emmap.pread(mem, #{@size} - 3, 3), Emmap.close(mem)}
               """)
    end

    # ext4 has files of up to 16 TiB.
    test "of a sparse file are one map, and closed in no time", _context do
      path = "/dev/shm/emmap_80_tib_#{System.pid()}"
      on_exit(fn -> File.rm(path) end)
      {:ok, file} = :file.open(path, [:raw, :write])
      {:ok, _} = :file.position(file, @size - 3)
      :ok = :file.write(file, "end")
      :ok = :file.close(file)

      for options <- [
            "[]",
            "[:write]",
            "[:direct]",
            "[:write, max_size: #{@size + 1}]",
            "[:write, :fixed_size]"
          ] do
        assert {options, {:ok, "end"}, :ok, true} ==
                 child!("""
                 {:ok, _other} = Emmap.open([:anon, :write, size: 4096])
                 {:ok, mem} = Emmap.open(#{inspect(path)}, #{options})
                 read = Emmap.pread(mem, #{@size} - 3, 3)
                 begun = System.monotonic_time(:millisecond)
                 closed = Emmap.close(mem)
                 {#{inspect(options)}, read, closed, System.monotonic_time(:millisecond) - begun < 5_000}
                 """)
      end
    end

    test "as max_size, and more, are only room to grow", %{tmp_dir: dir} do
      path = Path.join(dir, "small")
      File.write!(path, "hello")
      large = Integer.pow(2, 47)

      for size <- [@size, large - 4096, large, large + 1, Integer.pow(2, 63) - 1] do
        {:ok, mem} = Emmap.open(path, [:write, max_size: size])
        :ok = Emmap.pwrite(mem, 5, "!")
        assert {:ok, "hello!"} = Emmap.pread(mem, 0, 100)
        assert {:error, _} = Emmap.resize(mem, size)
        assert {:ok, "hello!"} = Emmap.pread(mem, 0, 100)
        :ok = Emmap.resize(mem, 5)
        :ok = Emmap.close(mem)
        {:ok, mem} = Emmap.open([:anon, :write, size: 4096, max_size: size])
        # More than the 16 GiB that a file's map sets aside.
        assert :ok = Emmap.resize(mem, 4096 * 2)
        assert {:ok, %{growable_up_to: room}} = Emmap.info(mem)
        assert room > 17_179_869_184
        :ok = Emmap.close(mem)
      end
    end
  end
end
