defmodule Emmap.WaitingTest do
  # Times are measured.
  use ExUnit.Case, async: false

  alias Emmap.Test.{Python, Ticker}

  @moduletag :tmp_dir
  # On a busy machine. A scheduler that waits is lost for seconds.
  @late 1_000

  # Locks all of the file, for reading, as a user may who can only read it.
  @locker """
  import fcntl, struct, sys
  file = open(sys.argv[1], "rb")
  fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, int(sys.argv[2]), 0, 0))
  print("locked", flush=True)
  sys.stdin.read()
  """

  defp lock_whole(path, from \\ 0) do
    options = [:binary, args: ["-c", @locker, path, "#{from}"]]
    port = Port.open({:spawn_executable, Python.executable!()}, options)

    assert_receive {^port, {:data, "locked" <> _}}, 10_000
    port
  end

  defp unlock(port), do: Port.close(port)

  defp timed(fun) do
    start = System.monotonic_time(:millisecond)
    result = fun.()
    {System.monotonic_time(:millisecond) - start, result}
  end

  # Runs `calls` at once, each in a process, and returns how long each took, and its result.
  defp at_once(calls) do
    calls |> Enum.map(&Task.async(fn -> timed(&1) end)) |> Task.await_many(60_000)
  end

  defp map!(directory, options \\ [:write]) do
    path = Path.join(directory, "map")
    File.write!(path, "0123456789")
    {:ok, mem} = Emmap.open(path, options)
    {path, mem}
  end

  describe "while another program has locked the whole file" do
    @describetag skip: !System.find_executable("python3") && "python3 is missing"

    test "writers end after two seconds, and nobody else waits", %{tmp_dir: directory} do
      {path, mem} = map!(directory)
      locker = lock_whole(path)

      calls =
        for n <- 1..30 do
          case rem(n, 5) do
            0 -> fn -> Emmap.pwrite(mem, 10 + n, "x") end
            1 -> fn -> Emmap.resize(mem, 4096 + n) end
            2 -> fn -> :file.pwrite(mem, 5000, ["x", "y"]) end
            3 -> fn -> Emmap.grow(mem) end
            4 -> fn -> Emmap.allocate(mem, 0, 100_000) end
          end
        end

      {answers, tick, stat} = Ticker.next_to(fn -> at_once(calls) end)

      for {took, answer} <- answers do
        assert answer == {:error, :ebusy}
        assert took in 1_900..3_500
      end

      assert tick < @late
      assert stat < @late
      assert Emmap.size(mem) == {:ok, 10}
      unlock(locker)
      assert Emmap.pwrite(mem, 10, "x") == :ok
    end

    test "what looks at the map does not wait", %{tmp_dir: directory} do
      {path, mem} = map!(directory)
      _locker = lock_whole(path)
      tasks = for _ <- 1..20, do: Task.async(fn -> Emmap.pwrite(mem, 10, "x") end)
      Process.sleep(100)

      for look <- [
            fn -> inspect(mem) end,
            fn -> Emmap.info(mem) end,
            fn -> Emmap.size(mem) end,
            fn -> :file.position(mem, :eof) end,
            fn -> :file.read_file_info(mem) end,
            fn -> Enum.to_list(Emmap.stream!(mem)) end,
            fn -> Emmap.pread(mem, 0, 10) end,
            fn -> Emmap.pwrite(mem, 0, "0") end,
            fn -> Emmap.sync(mem) end
          ] do
        {took, _} = timed(look)
        assert took < @late
      end

      assert Enum.uniq(Task.await_many(tasks, 10_000)) == [{:error, :ebusy}]
    end

    test "an open that sizes the file waits in its process", %{tmp_dir: directory} do
      {path, _mem} = map!(directory)
      _locker = lock_whole(path)
      open = fn -> Emmap.open(path, [:write, size: 8192]) end
      {answers, tick, stat} = Ticker.next_to(fn -> at_once(List.duplicate(open, 20)) end)

      for {took, answer} <- answers,
          do: assert({true, {:error, :ebusy}} == {took < 4_000, answer})

      assert tick < @late
      assert stat < @late
      assert File.stat!(path).size == 10
    end

    test "a process that is killed leaves nothing behind", %{tmp_dir: directory} do
      {path, mem} = map!(directory)
      {:ok, other} = Emmap.open(path, [:write])
      locker = lock_whole(path)
      waiting = for n <- 1..10, do: spawn(fn -> Emmap.pwrite(mem, 9 + n, "killed") end)
      Process.sleep(200)
      Enum.each(waiting, &Process.exit(&1, :kill))
      {took, _} = timed(fn -> File.stat!("/") end)
      assert took < @late
      Process.sleep(100)
      unlock(locker)
      assert {took, :ok} = timed(fn -> Emmap.resize(other, 20) end)
      assert took < @late
      assert {took, :ok} = timed(fn -> Emmap.pwrite(mem, 20, "x") end)
      assert took < @late
      # The writes of the killed processes were not needed.
      assert Emmap.pread(mem, 0, 100) == {:ok, "0123456789" <> <<0::80>> <> "x"}
    end

    test "what waits is done when the lock is free, and leaves no message", %{tmp_dir: directory} do
      {path, mem} = map!(directory, [:append])
      locker = lock_whole(path)

      tasks =
        for n <- 1..20 do
          Task.async(fn ->
            :ok = Emmap.write(mem, <<?a + n>>)
            Process.info(self(), :messages)
          end)
        end

      Process.sleep(300)
      unlock(locker)
      assert Enum.uniq(Task.await_many(tasks)) == [{:messages, []}]
      {:ok, "0123456789" <> written} = Emmap.pread(mem, 0, 100)
      assert Enum.sort(to_charlist(written)) == Enum.to_list(?b..?u)
    end

    test "a queue that has to grow waits in the process, too", %{tmp_dir: directory} do
      path = Path.join(directory, "queue")
      {:ok, queue} = Emmap.Queue.open(path, segment_size: 65_536)
      # Those who use a queue have locked a byte each.
      locker = lock_whole(path, 0x7FFF_FFFF_FFFF_FFFE)
      item = :binary.copy("x", 60_000)
      push = fn -> for _ <- 1..20, do: Emmap.Queue.push(queue, item) end
      {answers, tick, stat} = Ticker.next_to(fn -> at_once(List.duplicate(push, 10)) end)
      assert Enum.any?(answers, fn {_, answers} -> {:error, :ebusy} in answers end)
      assert tick < @late
      assert stat < @late
      unlock(locker)
      assert Emmap.Queue.push(queue, item) == :ok
      pushed = Enum.count(Enum.concat(Enum.map(answers, &elem(&1, 1))), &(&1 == :ok))
      assert Enum.count(queue) == pushed + 1
    end
  end

  test "many processes that grow one map are served in order", %{tmp_dir: directory} do
    {_path, mem} = map!(directory, [:append])
    grow = fn -> for _ <- 1..5, do: Emmap.write(mem, "x") end
    {answers, tick, stat} = Ticker.next_to(fn -> at_once(List.duplicate(grow, 500)) end)
    assert Enum.all?(answers, fn {_, answers} -> Enum.uniq(answers) == [:ok] end)
    assert Emmap.size(mem) == {:ok, 10 + 2500}
    assert tick < @late
    assert stat < @late
  end

  describe "next to a copy that takes long" do
    @size 64 * 1024 * 1024

    setup do
      {:ok, mem} = Emmap.open([:anon, size: @size])
      stop = :atomics.new(1, [])

      filling =
        for byte <- [1, 2] do
          Task.async(fn ->
            Stream.repeatedly(fn -> Emmap.fill(mem, 0, @size, byte) end)
            |> Enum.find(fn :ok -> :atomics.get(stop, 1) == 1 end)
          end)
        end

      %{
        mem: mem,
        end_fills: fn ->
          :atomics.put(stop, 1, 1)
          Task.await_many(filling, 60_000)
        end
      }
    end

    test "short reads and writes wait in their processes", %{mem: mem, end_fills: end_fills} do
      call = fn ->
        for n <- 1..10 do
          case rem(n, 2) do
            0 -> {:ok, <<_, _>>} = Emmap.pread(mem, 4096 * n - 1, 2)
            1 -> :ok = Emmap.pwrite(mem, 4096 * n, "xx")
          end
        end
      end

      {_, tick, stat} = Ticker.next_to(fn -> at_once(List.duplicate(call, 100)) end)
      end_fills.()
      assert tick < @late
      assert stat < @late
    end

    test "a fill is atomic as before", %{mem: mem, end_fills: end_fills} do
      reads =
        for _ <- 1..20 do
          {:ok, bytes} = Emmap.pread(mem, 0, @size)
          {:binary.first(bytes), :binary.last(bytes)}
        end

      end_fills.()
      assert Enum.all?(reads, fn {first, last} -> first == last end)
    end

    test "each byte at the cursor is read once", %{mem: mem, end_fills: end_fills} do
      read = fn -> read_all(mem, 0) end
      counts = at_once(List.duplicate(read, 16))
      end_fills.()
      assert Enum.sum(Enum.map(counts, &elem(&1, 1))) == @size
    end

    defp read_all(mem, count) do
      case Emmap.read(mem, 50_000) do
        {:ok, bytes} -> read_all(mem, count + byte_size(bytes))
        :eof -> count
      end
    end

    test "a number and a line wait, too", %{mem: mem, end_fills: end_fills} do
      for _ <- 1..20 do
        assert {:ok, number} = Emmap.get(mem, 4092, :u64)
        assert is_integer(number)
        assert Emmap.put(mem, 4092, :u64, 0x0101010101010101) == :ok
        assert Emmap.copy(mem, 0, 8192, 100) == :ok
      end

      end_fills.()
    end
  end

  test "what goes through memory ends when its process is killed, or the map is closed",
       context do
    path = Path.join(context.tmp_dir, "large")
    File.write!(path, "")
    # Holes, which are zeros in memory once they were read.
    {:ok, mem} = Emmap.open(path, [:write, :sparse, size: 256 * 1024 * 1024])

    for advice <- [:will_need, :dont_need, :populate_read, :cold, :pageout] do
      assert Emmap.advise(mem, 0, 0, advice) in [:ok, {:error, :enotsup}]
      assert Emmap.advise(mem, 12_345, 20_000_000, advice) in [:ok, {:error, :enotsup}]
      assert Emmap.advise(mem, 300 * 1024 * 1024, 0, advice) in [:ok, {:error, :enotsup}]
    end

    assert Emmap.prefetch(mem, 0, 256 * 1024 * 1024) == :ok
    assert {:ok, %{resident_pages: resident, page_size: page}} = Emmap.info(mem)
    assert resident * page == 256 * 1024 * 1024
    task = Task.async(fn -> for _ <- 1..1000, do: Emmap.prefetch(mem, 0, 256 * 1024 * 1024) end)
    Process.sleep(20)
    :ok = Emmap.close(mem)
    assert List.last(Task.await(task)) == {:error, :closed}
  end

  test "growing waits for a copy, and others for both", %{tmp_dir: directory} do
    {_path, mem} = map!(directory)
    size = 64 * 1024 * 1024
    :ok = Emmap.resize(mem, size)
    fill = fn -> for byte <- 1..10, do: :ok = Emmap.fill(mem, 0, size, byte) end
    grow = fn -> for n <- 1..10, do: Emmap.pwrite(mem, size + n * 4096, "x") end
    calls = [fill | List.duplicate(grow, 20)]
    {answers, tick, stat} = Ticker.next_to(fn -> at_once(calls) end)
    assert Enum.all?(answers, fn {_, answers} -> Enum.uniq(answers) == [:ok] end)
    assert tick < @late
    assert stat < @late
  end

  describe "while another program has the lock of a structure" do
    # The owner of the lock is a participant that lives: this program's own slot never is, so another VM's.
    setup %{tmp_dir: directory} do
      path = Path.join(directory, "queue")
      {:ok, queue} = Emmap.Queue.open(path)

      code = """
      {:ok, queue} = Emmap.Queue.open(hd(System.argv()))
      IO.puts(:opened)
      IO.gets("")
      Emmap.Queue.close(queue)
      """

      ebin = Application.app_dir(:emmap, "ebin")
      elixir = System.find_executable("elixir")
      arguments = ["-pa", ebin, "-e", code, path]
      port = Port.open({:spawn_executable, elixir}, [:binary, args: arguments])
      assert_receive {^port, {:data, "opened" <> _}}, 30_000
      %{path: path, queue: queue}
    end

    test "calls end after two seconds, and nobody else waits", %{path: path, queue: queue} do
      # Slot 1 belongs to the other program: see docs/formats.md.
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      {:ok, <<epoch::64-native>>} = :file.pread(file, 20_480 + 64, 8)
      assert epoch > 0
      :ok = :file.pwrite(file, 8192, <<Bitwise.bor(Bitwise.bsl(epoch, 8), 2)::64-native>>)

      calls =
        for n <- 1..30 do
          case rem(n, 3) do
            0 -> fn -> Emmap.Queue.push(queue, "x") end
            1 -> fn -> Emmap.Queue.clear(queue) end
            2 -> fn -> Emmap.Queue.push_many(queue, ["x", "y"]) end
          end
        end

      {answers, tick, stat} = Ticker.next_to(fn -> at_once(calls) end)

      for {took, answer} <- answers do
        assert answer in [{:error, :ebusy}, {:error, :ebusy, 0}]
        assert took < 4_000
      end

      assert tick < @late
      assert stat < @late
      :ok = :file.pwrite(file, 8192, <<0::64>>)
      assert Emmap.Queue.push(queue, "x") == :ok
    end
  end
end
