defmodule Emmap.MutexTest do
  # A lock for processes of several VMs.
  use ExUnit.Case, async: true

  alias Emmap.Mutex
  alias Emmap.Test.{OtherVM, Resources}

  @moduletag :tmp_dir
  @soon 10_000

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "mutex")
    %{path: path, mutex: Mutex.open!(path)}
  end

  # A process that calls Mutex functions when it is told to.
  defp other do
    test = self()
    pid = spawn(fn -> obey(test) end)
    on_exit(fn -> Process.exit(pid, :kill) end)
    pid
  end

  defp obey(test) do
    receive do
      fun -> send(test, {self(), fun.()})
    end

    obey(test)
  end

  defp call(pid, fun) do
    begin(pid, fun)
    answer(pid)
  end

  defp begin(pid, fun), do: send(pid, fun)

  defp answer(pid) do
    receive do
      {^pid, answer} -> answer
    after
      @soon -> flunk("no answer")
    end
  end

  defp await_waiting(mutex, count) do
    assert Resources.eventually(fn -> match?({:ok, %{waiting: ^count}}, Mutex.info(mutex)) end)
  end

  test "one process at a time, in the order in which they asked", %{mutex: mutex} do
    [one, two, three] = for _ <- 1..3, do: other()
    assert :ok = call(one, fn -> Mutex.lock(mutex) end)
    assert {:error, :ebusy} = call(two, fn -> Mutex.try_lock(mutex) end)
    assert {:error, :etimedout} = call(two, fn -> Mutex.lock(mutex, 20) end)
    assert {:error, :etimedout} = call(two, fn -> Mutex.lock(mutex, 0) end)
    begin(two, fn -> Mutex.lock(mutex) end)
    await_waiting(mutex, 1)
    begin(three, fn -> Mutex.lock(mutex) end)
    await_waiting(mutex, 2)
    assert :ok = call(one, fn -> Mutex.unlock(mutex) end)
    assert :ok = answer(two)
    refute_received {^three, _}
    assert :ok = call(two, fn -> Mutex.unlock(mutex) end)
    assert :ok = answer(three)
    assert {:ok, %{taken: true, waiting: 0}} = Mutex.info(mutex)
    assert :ok = call(three, fn -> Mutex.unlock(mutex) end)
    assert {:ok, %{taken: false, waiting: 0}} = Mutex.info(mutex)
  end

  test "only the holder releases it, and it is not reentrant", %{mutex: mutex} do
    assert {:error, :eperm} = Mutex.unlock(mutex)
    assert :ok = Mutex.lock(mutex)
    assert {:error, :edeadlk} = Mutex.lock(mutex)
    assert {:error, :edeadlk} = Mutex.try_lock(mutex)
    assert {:error, :eperm} = call(other(), fn -> Mutex.unlock(mutex) end)
    assert :ok = Mutex.unlock(mutex)
    assert {:error, :eperm} = Mutex.unlock(mutex)
  end

  test "two handles of one VM are one lock", %{mutex: mutex, path: path} do
    second = Mutex.open!(path)
    assert :ok = Mutex.lock(mutex)
    assert {:error, :edeadlk} = Mutex.lock(second)
    assert {:error, :ebusy} = call(other(), fn -> Mutex.try_lock(second) end)
    :ok = Mutex.close(second)
    assert {:error, :ebusy} = call(other(), fn -> Mutex.try_lock(mutex) end)
    assert :ok = Mutex.unlock(mutex)
  end

  test "a holder that dies has abandoned it, until the next one releases it", %{mutex: mutex} do
    for reason <- [:kill, :shutdown] do
      one = other()
      assert :ok = call(one, fn -> Mutex.lock(mutex) end)
      two = other()
      begin(two, fn -> Mutex.lock(mutex) end)
      await_waiting(mutex, 1)
      Process.exit(one, reason)
      assert :abandoned = answer(two)
      # It dies, too.
      Process.exit(two, :kill)
      assert :abandoned = Mutex.lock(mutex)
      assert :ok = Mutex.unlock(mutex)
      assert :ok = Mutex.lock(mutex)
      assert :ok = Mutex.unlock(mutex)
    end
  end

  test "a waiter that dies is forgotten", %{mutex: mutex} do
    assert :ok = Mutex.lock(mutex)
    pids = for _ <- 1..100, do: other()
    for pid <- pids, do: begin(pid, fn -> Mutex.lock(mutex) end)
    await_waiting(mutex, 100)
    for pid <- pids, do: Process.exit(pid, :kill)
    await_waiting(mutex, 0)
    assert :ok = Mutex.unlock(mutex)
    assert :ok = Mutex.lock(mutex)
    assert :ok = Mutex.unlock(mutex)
  end

  test "with_lock", %{mutex: mutex} do
    assert {:ok, 7} = Mutex.with_lock(mutex, fn -> 7 end)
    assert {:ok, :ok} = Mutex.with_lock(mutex, fn received -> received end)
    assert catch_throw(Mutex.with_lock(mutex, fn -> throw(:ball) end)) == :ball
    assert {:ok, :abandoned} = Mutex.with_lock(mutex, 100, fn received -> received end)
    assert {:ok, :ok} = Mutex.with_lock(mutex, fn received -> received end)
    one = other()
    assert :ok = call(one, fn -> Mutex.lock(mutex) end)
    assert {:error, :etimedout} = Mutex.with_lock(mutex, 10, fn -> flunk("called") end)

    assert_raise ArgumentError, ~r/0 or 1 arguments/, fn ->
      Mutex.with_lock(mutex, fn _, _ -> 1 end)
    end

    assert_raise ArgumentError, ~r/timeout: must be/, fn -> Mutex.lock(mutex, -1) end
  end

  test "closing ends waits, and abandons the lock", %{mutex: mutex, path: path} do
    second = Mutex.open!(path)
    [one, two, three] = for _ <- 1..3, do: other()
    assert :ok = call(one, fn -> Mutex.lock(mutex) end)
    begin(two, fn -> Mutex.lock(mutex) end)
    await_waiting(mutex, 1)
    begin(three, fn -> Mutex.lock(second) end)
    await_waiting(mutex, 2)
    assert :ok = Mutex.close(mutex)
    assert {:error, :closed} = answer(two)
    assert :abandoned = answer(three)
    assert {:error, :closed} = Mutex.lock(mutex)
    assert {:error, :closed} = Mutex.unlock(mutex)
    assert {:error, :closed} = Mutex.close(mutex)
    assert {:error, :closed} = Mutex.info(mutex)
  end

  test "nothing is left of a closed mutex", %{mutex: mutex, path: path, tmp_dir: directory} do
    for _ <- 1..20 do
      mutex = Mutex.open!(path)
      assert :ok = Mutex.lock(mutex)
      assert :ok = Mutex.close(mutex)
      again = Mutex.open!(path)
      assert :abandoned = Mutex.lock(again)
      assert :ok = Mutex.unlock(again)
      assert :ok = Mutex.close(again)
    end

    :ok = Mutex.close(mutex)

    assert Resources.eventually(fn ->
             :erlang.garbage_collect() && Resources.held(directory) == {0, 0}
           end)
  end

  test "many processes add to a number that is not atomic", %{mutex: mutex, tmp_dir: directory} do
    data = Path.join(directory, "number")
    mem = Emmap.open!(data, [:create, size: 8])

    1..20
    |> Task.async_stream(fn _ -> for _ <- 1..200, do: add(mutex, mem) end, max_concurrency: 20)
    |> Stream.run()

    assert Emmap.get(mem, 0, :u64) == {:ok, 4_000}
  end

  defp add(mutex, mem) do
    {:ok, :ok} =
      Mutex.with_lock(mutex, fn ->
        {:ok, n} = Emmap.get(mem, 0, :u64)
        Emmap.put(mem, 0, :u64, n + 1)
      end)
  end

  test "a VM that is killed with the lock is noticed, without a timeout", %{
    mutex: mutex,
    path: path
  } do
    vm =
      OtherVM.start("""
      mutex = Emmap.Mutex.open!(#{inspect(path)})
      IO.puts("received " <> inspect(Emmap.Mutex.lock(mutex)))
      Process.sleep(:infinity)
      """)

    OtherVM.await(vm, "received :ok")
    assert {:error, :ebusy} = Mutex.try_lock(mutex)
    waiting = other()
    begin(waiting, fn -> Mutex.lock(mutex) end)
    await_waiting(mutex, 1)
    # The thread sleeps.
    Process.sleep(300)
    OtherVM.kill(vm)
    killed = System.monotonic_time(:millisecond)
    assert :abandoned = answer(waiting)
    assert System.monotonic_time(:millisecond) - killed < 900
    assert :ok = call(waiting, fn -> Mutex.unlock(mutex) end)
    assert :ok = Mutex.lock(mutex)
  end

  test "VMs take turns, and are killed", %{mutex: mutex, path: path, tmp_dir: directory} do
    data = Path.join(directory, "pair")
    mem = Emmap.open!(data, [:create, size: 16])

    code = """
    mutex = Emmap.Mutex.open!(#{inspect(path)})
    {:ok, mem} = Emmap.open(#{inspect(data)}, [:write])
    repair = fn
      :ok -> :ok
      :abandoned ->
        {:ok, n} = Emmap.get(mem, 0, :u64)
        Emmap.put(mem, 8, :u64, n)
    end
    IO.puts("begins")
    for _ <- Stream.cycle([1]) do
      {:ok, :ok} = Emmap.Mutex.with_lock(mutex, fn received ->
        repair.(received)
        {:ok, n} = Emmap.get(mem, 0, :u64)
        {:ok, ^n} = Emmap.get(mem, 8, :u64)
        Emmap.put(mem, 0, :u64, n + 1)
        Emmap.put(mem, 8, :u64, n + 1)
      end)
    end
    """

    for _ <- 1..5 do
      vms = for _ <- 1..2, do: OtherVM.start(code)
      for vm <- vms, do: OtherVM.await(vm, "begins")

      for vm <- vms do
        Process.sleep(:rand.uniform(50))
        OtherVM.kill(vm)
        received = Mutex.lock(mutex, 20_000)
        assert received in [:ok, :abandoned]
        {:ok, one} = Emmap.get(mem, 0, :u64)
        {:ok, two} = Emmap.get(mem, 8, :u64)
        if received == :ok, do: assert(one == two)
        :ok = Emmap.put(mem, 8, :u64, one)
        :ok = Mutex.unlock(mutex)
      end
    end

    assert {:ok, n} = Emmap.get(mem, 0, :u64)
    assert n > 10
  end

  test "files that are not mutexes, and truncated ones", %{
    mutex: mutex,
    path: path,
    tmp_dir: directory
  } do
    other = Path.join(directory, "other")
    File.write!(other, "not a mutex")
    assert {:error, {:bad_format, :kind}} = Mutex.open(other)
    assert {:error, :enoent} = Mutex.open(Path.join(directory, "none"), create: false)
    {:ok, counters} = Emmap.Counters.open(Path.join(directory, "counters"), 1)
    assert {:error, {:bad_format, :kind}} = Mutex.open(Path.join(directory, "counters"))
    :ok = Emmap.Counters.close(counters)
    File.write!(path, "")
    assert {:error, :estale} = Mutex.lock(mutex)
    assert_raise Emmap.Error, ~r/not a mutex file/, fn -> Mutex.open!(other) end
    assert_raise ArgumentError, ~r/no Emmap.Mutex is started/, fn -> Mutex.lock(:none) end
    assert_raise ArgumentError, ~r/not a mutex/, fn -> Mutex.lock(1) end
    assert_raise ArgumentError, ~r/unknown keys/, fn -> Mutex.open(path, creates: true) end
  end

  test "a name", %{path: path} do
    start_supervised!({Mutex, path: path, name: __MODULE__.Named})
    assert :ok = Mutex.lock(__MODULE__.Named)
    assert :ok = Mutex.unlock(__MODULE__.Named)
  end
end
