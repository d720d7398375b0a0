defmodule Emmap.BadDays.FilesTest do
  # What is opened, and how.
  use Emmap.Test.BadDay

  test "20: opening something that is not a regular file does not hang", context do
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

  test "20: not a regular file, opened as a structure", context do
    assert [{:error, :enodev}, {:error, :eisdir}] =
             child(context, """
             opens = [&Emmap.Counters.open(&1, 1), &Emmap.Queue.open/1, &Emmap.Blocks.open(&1, block_size: 8), &Emmap.Inspection.file/1]
             devices = for file <- ["/dev/null", "/proc/self/maps", "/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled"],
                         File.exists?(file), open <- opens, uniq: true, do: open.(file)
             directories = for open <- opens, uniq: true, do: open.(dir)
             devices ++ directories
             """)

    # What helps on a file system without shared maps.
    message = &Exception.message(%Emmap.Error{op: :open, path: "f", reason: :enodev, kind: &1})
    assert message.(nil) =~ "open it with :private, or mount it without direct_io"

    assert message.(:queue) =~
             "FUSE and direct I/O: mount it without direct_io, or with direct_io_allow_mmap"

    refute message.(:queue) =~ ":private"
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

    case mount(context, "ro", ~w(-t tmpfs -o ro emmap_test)) do
      {:ok, _} ->
        assert {:error, :erofs} =
                 child(context, "Emmap.open(dir <> \"/ro/new\", [:write, :create])")

      {:error, why} ->
        skipped(context, why)
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

  test "23: invalid options", context do
    assert [":raed", ":shared and :private", ":read is given twice"] =
             child(context, """
             for options <- [[:raed], [:shared, :private], [:read, :read]] do
               try do Emmap.open(path, options) rescue e in ArgumentError ->
                 true = e.message =~ "valid are :read, :write"
                 Regex.run(~r/:raed|:shared and :private|:read is given twice/, e.message) |> hd()
               end
             end
             """)
  end

  test "29 (counters): corrupted files, bit by bit and at random", context do
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

  # A counter file of 8 KB and a hole. Its header says that the hole contains this many empty names.
  @helpers """
  names = fn file, count ->
    length = count * 2
    room = div(length + 4095, 4096) * 4096
    zeros = :binary.copy(<<0>>, 1_048_576)
    crc = Enum.reduce(1..div(length, 1_048_576), 0, fn _, crc -> :erlang.crc32(crc, zeros) end)
    body = <<"EMMAPCNT", 1::little-32, 0x01020304::native-32, 1::little-64, count::little-64, 1::little-32, 0::32,
      8192 + room::little-64, 8192::little-64, room::little-64, length::little-64, crc::little-32>>
    {:ok, raw} = :file.open(file, [:raw, :write])
    for at <- [0, 4096], do: :ok = :file.pwrite(raw, at, body <> <<:erlang.crc32(body)::little-32>>)
    :ok = :file.pwrite(raw, 8192 + room + count * 8 - 1, <<0>>)
    :ok = :file.close(raw)
  end
  _ = names
  peak = fn ->
    case File.read("/proc/self/status") do
      {:ok, status} -> status |> then(&Regex.run(~r/VmHWM:\\s+(\\d+)/, &1)) |> Enum.at(1) |> String.to_integer() |> div(1024)
      _ -> 0
    end
  end
  """

  test "29 (names): a file of 8 KB whose header claims 2^23 (or 2^29) names",
       context do
    assert [{:names, :names, less}, {:checksum, :checksum, less2}] =
             child(
               context,
               @helpers <>
                 """
                 for count <- [0x80_0000, 0x2000_0000] do
                   file = dir <> "/names"
                   names.(file, count)
                   before = peak.()
                   {:error, {:bad_format, why}} = Emmap.Counters.open(file, 0)
                   {:error, {:bad_format, ^why}} = Emmap.Counters.open(file, [:a])
                   opened = peak.() - before
                   {:ok, %{bad_format: said}} = Emmap.Inspection.file(file)
                   {why, said, opened}
                 end
                 """,
               # The maps take 5 GB of addresses; the names would take 13 GB and more.
               limits: "ulimit -v 16777216"
             )

    # MB.
    assert less < 16 and less2 < 16
  end

  test "29 (hole): a hole of 8 TB whose header claims 2^40 counters", context do
    assert {:ok, used} =
             child(
               context,
               @helpers <>
                 """
                 file = dir <> "/hole"
                 File.write!(file, "EMMAP01\\n" <> <<0x100_0000_0000::little-64>>)
                 {:ok, raw} = :file.open(file, [:raw, :read, :write])
                 {:ok, _} = :file.position(raw, 16 + 0x800_0000_0000)
                 :ok = :file.truncate(raw)
                 before = peak.()
                 {:ok, %{status: :intact, contents: %{count: 0x100_0000_0000, sum: 0}} = report} = Emmap.Inspection.file(file)
                 true = byte_size(Emmap.Inspection.text(report)) + byte_size(Emmap.Inspection.json(report)) < 10_000
                 c = Emmap.Counters.open!(file, 0)
                 true = inspect(c, limit: 3) =~ "[0, 0, 0, ...]"
                 {[0, 0], 0, true} = {Enum.take(c, 2), Enum.at(c, 0xFF_FFFF_FFFF), 0 in c}
                 for all <- [&Emmap.Counters.to_list/1, &Emmap.Counters.to_map/1] do
                   :enomem = try do all.(c) rescue error in Emmap.Error -> error.reason end
                 end
                 {:ok, peak.() - before}
                 """,
               # Maps take 24 TB of addresses while they are made; a list would take 24 TB more.
               limits: "ulimit -v 32212254720"
             )

    assert used < 64
  end

  test "29 (hole): a hole on a disk of 1 MB, where reading the hole would allocate blocks",
       context do
    case disk(context, :tmpfs) do
      {:ok, folder} ->
        for start <- [~S("EMMAP01\n" <> <<0x1000_0000::little-64>>), ~S("no counters")] do
          assert {:ok, used} =
                   child(context, """
                   file = #{inspect(folder)} <> "/hole"
                   File.write!(file, #{start})
                   {:ok, raw} = :file.open(file, [:raw, :read, :write])
                   {:ok, _} = :file.position(raw, 16 + 0x8000_0000)
                   :ok = :file.truncate(raw)
                   {:ok, %{allocated: before, status: :intact}} = Emmap.Inspection.file(file)
                   {:ok, %{allocated: later}} = Emmap.Inspection.file(file)
                   {:ok, later - before}
                   """)

          assert used == 0
        end

      {:error, why} ->
        skipped(context, why)
    end
  end
end
