defmodule Emmap.WaitTest do
  # Waiting for an integer of a map to change.
  use ExUnit.Case, async: true

  alias Emmap.Test.{ChildVM, Resources}

  @moduletag :tmp_dir
  @soon 10_000

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "words")
    %{path: path, mem: Emmap.open!(path, [:create, size: 65_536])}
  end

  defp waiting(mem, position, expected, timeout \\ :infinity) do
    test = self()

    spawn_link(fn ->
      send(test, {self(), :begins})
      send(test, {self(), Emmap.wait(mem, position, expected, timeout)})
    end)
    |> tap(fn pid -> assert_receive {^pid, :begins}, @soon end)
    |> tap(&await_waiting/1)
  end

  defp await_waiting(pid),
    do: assert(Resources.eventually(fn -> Process.info(pid, :status) == {:status, :waiting} end))

  defp set(mem, position, value) do
    :ok = Emmap.patomic_write(mem, position, value)
    :ok = Emmap.notify(mem, position)
  end

  test "returns at once when the integer differs", %{mem: mem} do
    assert {:ok, 0} = Emmap.wait(mem, 0, 1)
    assert {:ok, 0} = Emmap.wait(mem, 0, 1, 0)
    assert {:error, :etimedout} = Emmap.wait(mem, 0, 0, 0)
    assert {:message_queue_len, 0} = Process.info(self(), :message_queue_len)
  end

  test "a change of any bit ends a wait, a notification alone does not", %{mem: mem} do
    for value <- [1, -1, 0x1_0000_0000, -0x8000_0000_0000_0000] do
      pid = waiting(mem, 8, 0)
      :ok = Emmap.notify(mem, 8)
      refute_receive {^pid, _}, 20
      set(mem, 8, value)
      assert_receive {^pid, {:ok, ^value}}, @soon
      set(mem, 8, 0)
    end
  end

  test "another map of the file, and a read-only one", %{mem: mem, path: path} do
    other = Emmap.open!(path)
    pid = waiting(other, 16, 0)
    set(mem, 16, 3)
    assert_receive {^pid, {:ok, 3}}, @soon
    pid = waiting(mem, 16, 3)
    :ok = Emmap.patomic_write(mem, 16, 4)
    :ok = Emmap.notify(other, 16)
    assert_receive {^pid, {:ok, 4}}, @soon
  end

  test "thousands of waiters for one integer and for thousands", %{mem: mem} do
    test = self()

    pids =
      for n <- 1..6_000 do
        position = if rem(n, 2) == 0, do: 0, else: n * 8
        spawn_link(fn -> send(test, {:changed, n, Emmap.wait(mem, position, 0)}) end)
      end

    Enum.each(pids, &await_waiting/1)
    set(mem, 0, 5)
    for n <- 2..6_000//2, do: assert_receive({:changed, ^n, {:ok, 5}}, @soon)
    for n <- 1..5_999//2, do: set(mem, n * 8, n)
    for n <- 1..5_999//2, do: assert_receive({:changed, ^n, {:ok, ^n}}, @soon)
    refute_received {:changed, _, _}
  end

  @tag :linux
  test "waiting uses no CPU time" do
    # In a VM of its own, because other tests wake the threads that wait for words.
    program = ~S"""
    # How often each of them was suspended.
    switches = fn ->
      for task <- Path.wildcard("/proc/self/task/*"),
          {:ok, "emmap_words\n"} <- [File.read(Path.join(task, "comm"))],
          {:ok, status} <- [File.read(Path.join(task, "status"))],
          [_, switches] <- [Regex.run(~r/\nvoluntary_ctxt_switches:\s+(\d+)/, status)],
          into: %{},
          do: {task, switches}
    end

    {:ok, mem} = Emmap.open([:anon, :write, size: 4096])
    waiter = Task.async(fn -> Emmap.wait(mem, 24, 0) end)
    Process.sleep(1000)
    before = switches.()
    Process.sleep(1000)
    quiet = map_size(before) > 0 and switches.() == before
    {:ok, 0} = Emmap.patomic(mem, 24, :add, 1)
    :ok = Emmap.notify(mem, 24)
    {quiet, Task.await(waiter)}
    """

    assert {true, {:ok, 1}} = ChildVM.run!(program)
  end

  test "a timeout leaves no message and no waiter", %{mem: mem, tmp_dir: directory} do
    for _ <- 1..50, do: assert({:error, :etimedout} = Emmap.wait(mem, 8, 0, 1))
    set(mem, 8, 1)
    refute_receive _, 50
    :ok = Emmap.close(mem)
    assert Resources.eventually(fn -> Resources.held(directory) == {0, 0} end)
  end

  test "a killed waiter leaves nothing behind", %{path: path, tmp_dir: directory, mem: mem} do
    :ok = Emmap.close(mem)

    pids =
      for _ <- 1..100 do
        spawn(fn ->
          mem = Emmap.open!(path)
          Emmap.wait(mem, 8, 0)
        end)
      end

    Enum.each(pids, &await_waiting/1)
    assert {100, _} = Resources.held(directory)
    for pid <- pids, do: Process.exit(pid, :kill)
    assert Resources.eventually(fn -> Resources.held(directory) == {0, 0} end)
  end

  test "closing the handle ends its waits, and not those of others", %{mem: mem} do
    {:ok, other} = Emmap.dup(mem)
    one = waiting(mem, 8, 0)
    two = waiting(other, 8, 0)
    :ok = Emmap.close(mem)
    assert_receive {^one, {:error, :closed}}, @soon
    refute_receive {^two, _}, 20
    set(other, 8, 1)
    assert_receive {^two, {:ok, 1}}, @soon
    three = waiting(other, 8, 1)
    :ok = Emmap.close(other)
    assert_receive {^three, {:error, :closed}}, @soon
    assert {:error, :closed} = Emmap.wait(other, 8, 1)
    assert {:error, :closed} = Emmap.notify(other, 8)
  end

  test "a truncated file ends a wait when it is noticed", %{mem: mem, path: path} do
    pid = waiting(mem, 40_960, 0)
    File.write!(path, "short")
    assert {:error, :estale} = Emmap.notify(mem, 40_960)
    assert_receive {^pid, {:error, :estale}}, @soon
    assert {:error, :estale} = Emmap.wait(mem, 40_960, 0)
    :ok = Emmap.reattach(mem)
    assert {:error, :einval} = Emmap.wait(mem, 40_960, 0)
  end

  test "a map that becomes shorter ends a wait", %{mem: mem} do
    pid = waiting(mem, 40_960, 0)
    :ok = Emmap.resize(mem, 4096)
    assert_receive {^pid, {:error, :einval}}, @soon
  end

  test "anonymous memory, and a private map", %{path: path} do
    for mem <- [Emmap.open!([:anon, size: 4096]), Emmap.open!(path, [:write, :private])] do
      pid = waiting(mem, 8, 0)
      set(mem, 8, 2)
      assert_receive {^pid, {:ok, 2}}, @soon
    end
  end

  test "wrong arguments", %{mem: mem} do
    assert {:error, :einval} = Emmap.wait(mem, 4, 0)
    assert {:error, :einval} = Emmap.wait(mem, -8, 0)
    assert {:error, :einval} = Emmap.wait(mem, 65_536, 0)
    assert {:error, :einval} = Emmap.notify(mem, 65_529)
    assert_raise ArgumentError, ~r/timeout: must be/, fn -> Emmap.wait(mem, 0, 0, -1) end
    assert_raise ArgumentError, ~r/64 bits/, fn -> Emmap.wait(mem, 0, 1.0) end
    assert_raise ArgumentError, ~r/64 bits/, fn -> Emmap.wait(mem, 0, 0x8000_0000_0000_0000) end

    assert_raise ArgumentError, ~r/timeout: must be/, fn ->
      Emmap.wait(mem, 0, 1, 0x1_0000_0000)
    end

    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Emmap.wait(:none, 0, 0) end
    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Emmap.notify(:none, 0) end
  end

  test "the same from Erlang", %{mem: mem} do
    assert {:ok, 0} = :emmap.wait(mem, 0, 1)
    assert {:error, :etimedout} = :emmap.wait(mem, 0, 0, 1)
    assert :ok = :emmap.notify(mem, 0)
  end

  test "another VM changes the integer, and waits for it", %{mem: mem, path: path} do
    task =
      Task.async(fn ->
        ChildVM.run!("""
        {:ok, mem} = Emmap.open(#{inspect(path)}, [:write])
        {:ok, 0} = Emmap.patomic(mem, 8, :add, 1)
        :ok = Emmap.notify(mem, 8)
        Emmap.wait(mem, 16, 0, 60_000)
        """)
      end)

    assert {:ok, 1} = Emmap.wait(mem, 8, 0, 60_000)
    Process.sleep(200)
    set(mem, 16, 77)
    assert {:ok, 77} = Task.await(task, 60_000)
  end

  @tag skip: !System.find_executable("python3") && "python3 is missing"
  test "a Python program, with system calls of its own", %{mem: mem, path: path} do
    task =
      Task.async(fn ->
        python!("""
        import ctypes, mmap, platform
        futex = {"x86_64": 202, "aarch64": 98}[platform.machine()]
        libc = ctypes.CDLL(None, use_errno=True)
        file = open("#{path}", "r+b")
        memory = mmap.mmap(file.fileno(), 0)
        one, two = (ctypes.c_int64.from_buffer(memory, at) for at in (8, 16))
        one.value = 1
        # FUTEX_WAKE
        libc.syscall(futex, ctypes.byref(one), 1, 2**31 - 1, None, None, 0)
        while two.value == 0:
            # FUTEX_WAIT
            libc.syscall(futex, ctypes.byref(two), 0, ctypes.c_uint32(0), None, None, 0)
        print(two.value)
        """)
      end)

    assert {:ok, 1} = Emmap.wait(mem, 8, 0, 60_000)
    Process.sleep(100)
    set(mem, 16, 78)
    assert Task.await(task, 60_000) =~ "78"
  end

  defp python!(program) do
    {printed, 0} = System.cmd("python3", ["-c", program], stderr_to_stdout: true)
    printed
  end
end
