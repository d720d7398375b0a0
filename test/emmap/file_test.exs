defmodule Emmap.FileTest do
  # What OTP and Elixir do with a handle.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "first line\nsecond\r\nthird")
    %{path: path, mem: Emmap.open!(path, [:write])}
  end

  test "exports the 19 callbacks" do
    callbacks = [
      close: 1,
      advise: 4,
      allocate: 3,
      read: 2,
      read_line: 1,
      pread: 2,
      pread: 3,
      write: 2,
      pwrite: 2,
      pwrite: 3,
      datasync: 1,
      sync: 1,
      position: 2,
      truncate: 1,
      copy: 3,
      ipread_s32bu_p32bu: 3,
      read_handle_info: 2,
      sendfile: 8,
      internal_get_nif_resource: 1
    ]

    assert length(callbacks) == 19
    Code.ensure_loaded!(Emmap.File)
    for {name, arity} <- callbacks, do: assert(function_exported?(Emmap.File, name, arity))
  end

  test "IO.binread", %{mem: mem} do
    assert IO.binread(mem, 5) == "first"
    assert IO.binread(mem, :line) == " line\n"
    assert IO.binread(mem, :line) == "second\n"
    assert IO.binread(mem, :eof) == "third"
    assert IO.binread(mem, 5) == :eof
  end

  test "IO.binwrite and IO.binstream", %{mem: mem, path: path} do
    :ok = IO.binwrite(mem, ["F", "IRST"])
    {:ok, _} = :file.position(mem, :bof)
    assert Enum.to_list(IO.binstream(mem, :line)) == ["FIRST line\n", "second\n", "third"]
    Enum.into(["x", "y"], IO.binstream(mem, :line))
    assert File.read!(path) =~ ~r/thirdxy$/
  end

  test "File.copy in every direction", %{mem: mem, path: path, tmp_dir: directory} do
    target = Path.join(directory, "target")
    assert {:ok, 24} = File.copy(mem, target)
    assert File.read!(target) == File.read!(path)
    other = Emmap.open!(Path.join(directory, "map"), [:write, :create])
    {:ok, 0} = :file.position(mem, 0)
    # Both ends are maps: our own copy.
    assert {:ok, 10} = :file.copy(mem, other, 10)
    assert {:ok, 14} = :file.copy(mem, other)
    assert {:ok, "first line\nsecond\r\nthird"} = Emmap.pread(other, 0, 100)
    {:ok, 0} = :file.position(other, 0)
    assert {:ok, 24} = File.copy(target, other)
  end

  test "erl_tar reads and writes a handle", %{tmp_dir: directory} do
    archive = Path.join(directory, "a.tar")
    mem = Emmap.open!(archive, [:write, :create])

    writer = fn
      :write, {fd, data} -> :file.write(fd, data)
      :position, {fd, place} -> :file.position(fd, place)
      :close, fd -> :file.close(fd)
    end

    {:ok, tar} = :erl_tar.init(mem, :write, writer)
    big = :crypto.strong_rand_bytes(200_000)
    :ok = :erl_tar.add(tar, "hello", ~c"hello.txt", [])
    :ok = :erl_tar.add(tar, big, ~c"big.bin", [])
    :ok = :erl_tar.close(tar)
    mem = Emmap.open!(archive)
    assert {:ok, files} = :erl_tar.extract({:file, mem}, [:memory])
    assert {~c"hello.txt", "hello"} in files
    assert {~c"big.bin", big} in files
  end

  describe "sendfile" do
    setup %{tmp_dir: directory} do
      path = Path.join(directory, "sent")
      data = :crypto.strong_rand_bytes(3_000_000)
      File.write!(path, data)
      %{sent: path, data: data}
    end

    # Each kind of map, each kind of socket.
    for kind <- [:port, :inet_backend, :socket, :function] do
      test "over #{kind}", %{sent: path, data: data} do
        maps = [
          {Emmap.open!(path), 0},
          {Emmap.open!(path, [:direct]), 0},
          {Emmap.open!(path, offset: 1001), 1001},
          {Emmap.open!(path, [:private, :write]), 0}
        ]

        for {mem, shift} <- maps, {from, count} <- [{0, 0}, {10, 2_000_000}, {5, 7}] do
          {:ok, 3} = Emmap.position(mem, 3)
          size = byte_size(data) - shift
          expected = binary_part(data, shift + from, if(count == 0, do: size - from, else: count))

          assert {{:ok, n}, ^expected} =
                   through(unquote(kind), &:file.sendfile(mem, &1, from, count, []))

          assert n == byte_size(expected)
          assert {:ok, 3} = Emmap.position(mem, :cur)
        end
      end
    end

    test "what was written to a private map is what is sent", %{sent: path, data: data} do
      mem = Emmap.open!(path, [:private, :write])
      :ok = Emmap.pwrite(mem, 0, "private")
      expected = "private" <> binary_part(data, 7, 93)
      assert {{:ok, 100}, ^expected} = through(:port, &:file.sendfile(mem, &1, 0, 100, []))
      memory = Emmap.open!([:anon, size: 100])
      :ok = Emmap.pwrite(memory, 0, expected)
      assert {{:ok, 100}, ^expected} = through(:port, &:file.sendfile(memory, &1, 0, 0, []))
    end

    test "of a deleted file", %{sent: path, data: data} do
      mem = Emmap.open!(path)
      File.rm!(path)
      assert {{:ok, 3_000_000}, ^data} = through(:port, &:file.sendfile(mem, &1, 0, 0, []))
    end

    # Runs `send` on one end of a TCP connection and returns its result and the bytes that the other end received.
    defp through(kind, send) do
      {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
      {:ok, port} = :inet.port(listener)

      receiver =
        Task.async(fn ->
          {:ok, socket} = :gen_tcp.accept(listener)
          receive_all(socket, [])
        end)

      {socket, target, close} = connect(kind, port)
      answer = send.(target)
      close.(socket)
      data = Task.await(receiver)
      :gen_tcp.close(listener)
      {answer, data}
    end

    defp connect(kind, port) when kind in [:port, :function, :inet_backend] do
      backend = if kind == :inet_backend, do: [inet_backend: :socket], else: []
      {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, backend ++ [:binary, active: false])
      target = if kind == :function, do: &:gen_tcp.send(socket, &1), else: socket
      {socket, target, &:gen_tcp.close/1}
    end

    defp connect(:socket, port) do
      {:ok, socket} = :socket.open(:inet, :stream, :tcp)
      :ok = :socket.connect(socket, %{family: :inet, addr: {127, 0, 0, 1}, port: port})
      {socket, socket, &:socket.close/1}
    end

    defp receive_all(socket, got) do
      case :gen_tcp.recv(socket, 0) do
        {:ok, data} -> receive_all(socket, [got | data])
        {:error, :closed} -> IO.iodata_to_binary(got)
      end
    end
  end

  describe "read_file_info" do
    @times [[], [time: :local], [time: :universal], [time: :posix]]
    @odd [[:raw], [nothing: 1, time: :posix], [time: :posix, time: :local], [time: :x], [time: 1]]

    test "is that of a raw file, field by field", %{mem: mem, path: path} do
      File.ln!(path, path <> ".link")

      # The access, too, which a raw file computes from the mode.
      for mode <- [0o644, 0o444, 0o200, 0o604, 0o000], options <- @times ++ @odd do
        File.chmod!(path, 0o644)
        {:ok, raw} = :file.open(path, [:raw, :read])
        File.chmod!(path, mode)
        expected = :file.read_file_info(raw, options)
        assert :file.read_file_info(mem, options) == expected, inspect({mode, options})
        :file.close(raw)
      end

      assert_raise FunctionClauseError, fn -> :file.read_file_info(mem, :posix) end
    end

    test "of times before 1970 and far ahead", %{mem: mem, path: path} do
      for time <- [-86_400, 0, 4_102_444_800] do
        File.touch!(path, time)
        {:ok, raw} = :file.open(path, [:raw, :read])

        for options <- @times,
            do: assert(:file.read_file_info(mem, options) == :file.read_file_info(raw, options))

        :file.close(raw)
      end
    end

    test "of a part, of a file that was renamed, deleted or grew", %{path: path} do
      mem = Emmap.open!(path, offset: 3, length: 5)
      File.rename!(path, path <> "2")
      assert {:ok, info} = :file.read_file_info(mem)
      assert {:ok, ^info} = :file.read_file_info(path <> "2")
      File.write!(path <> "2", "more", [:append])
      assert {:ok, info} = :file.read_file_info(mem, time: :posix)
      assert elem(info, 1) == 28
      File.rm!(path <> "2")
      assert {:ok, info} = :file.read_file_info(mem)
      # The field `links`.
      assert elem(info, 8) == 0
    end

    test "of a map without a file, and of a closed one", %{mem: mem} do
      assert {:error, :enotsup} = :file.read_file_info(Emmap.open!([:anon, size: 10]))
      :ok = Emmap.close(mem)
      assert {:error, :closed} = :file.read_file_info(mem)
      assert {:error, :closed} = :file.read_file_info(mem, time: :posix)
    end
  end

  test "internal_get_nif_resource raises notsup", %{mem: mem} do
    assert_raise ErlangError, ~r/notsup/, fn -> Emmap.File.internal_get_nif_resource(mem) end
  end

  test "one cursor for all processes, each byte to one of them", %{tmp_dir: directory} do
    path = Path.join(directory, "shared")
    File.write!(path, for(n <- 0..99_999, into: "", do: <<n::32>>))
    mem = Emmap.open!(path)

    taken =
      1..8
      |> Enum.map(fn _ -> Task.async(fn -> take(mem, []) end) end)
      |> Task.await_many()
      |> Enum.concat()

    assert Enum.sort(taken) == Enum.to_list(0..99_999)
  end

  defp take(mem, got) do
    case :file.read(mem, 4) do
      {:ok, <<n::32>>} -> take(mem, [n | got])
      :eof -> got
    end
  end

  test "appending processes never overwrite each other", %{tmp_dir: directory} do
    path = Path.join(directory, "log")
    mem = Emmap.open!(path, [:write, :create])

    1..8
    |> Enum.map(fn n ->
      Task.async(fn -> for i <- 1..500, do: :ok = :file.write(mem, "#{n}:#{i}\n") end)
    end)
    |> Task.await_many()

    lines = path |> File.read!() |> String.split("\n", trim: true)
    assert Enum.sort(lines) == Enum.sort(for n <- 1..8, i <- 1..500, do: "#{n}:#{i}")
  end
end
