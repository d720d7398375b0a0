defmodule Emmap.BadDays.FilesTest do
  # What is opened, and how.
  use Emmap.Test.BadDay

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
