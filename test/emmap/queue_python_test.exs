defmodule Emmap.QueuePythonTest do
  # A queue that a VM and a Python program share, by the module that the guide shows.
  use ExUnit.Case, async: true
  alias Emmap.Queue
  alias Emmap.Test.Python

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @missing Python.missing()

  if @missing != [], do: @moduletag(skip: "no #{Enum.join(@missing, " and no ")} here")

  @items 10_000

  setup_all do
    if @missing == [], do: %{library: Python.library!()}, else: :ok
  end

  setup %{tmp_dir: directory} = context do
    path = Path.join(directory, "queue")
    queue = Queue.open!(path, format: :binary)
    on_exit(fn -> Queue.close(queue) end)
    %{path: path, queue: queue, python: &start(&1, path, context)}
  end

  # A Python program whose `q` is the queue. Its lines are messages: `{port, {:data, {:eol, line}}}`.
  defp start(code, path, context) do
    script = Path.join(context.tmp_dir, "program#{System.unique_integer([:positive])}.py")

    File.write!(script, """
    import errno, os, signal, sys, time
    from emmap_queue import Queue
    def say(*words): print(*words, flush=True)
    q = Queue(sys.argv[1])
    #{code}
    """)

    # Not through a shell: a signal must reach the program itself.
    port =
      Port.open({:spawn_executable, System.find_executable("python3")}, [
        :binary,
        :exit_status,
        line: 10_000,
        args: [script, path],
        env: Python.environment(context.library)
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    on_exit(fn -> System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true) end)
    port
  end

  defp line!(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, status}} -> flunk("Python ended with #{status}")
    after
      120_000 -> flunk("Python says nothing")
    end
  end

  defp ended!(port, expected \\ 0) do
    receive do
      {^port, {:exit_status, status}} -> assert status == expected
      {^port, {:data, {:eol, line}}} -> flunk("Python says #{line}")
    after
      120_000 -> flunk("Python does not end")
    end
  end

  # Python may have been started through a script (pyenv), so that it is asked for its number.
  defp kill!(port, pid) do
    {_, 0} = System.cmd("kill", ["-9", pid])
    # 128 + 9; that of a script that started it, too.
    ended!(port, 137)
  end

  test "Python pushes, the VM takes: all of it, in order", %{queue: q, python: python} do
    port =
      python.("""
      for n in range(#{@items}):
          q.push(b"%d" % n)
      q.close()
      """)

    for n <- 0..(@items - 1), do: assert(Queue.pop(q, 60_000) == {:ok, "#{n}"})
    assert Queue.pop(q) == :empty
    ended!(port)
  end

  test "the VM pushes, Python takes: all of it, in order", %{queue: q, python: python} do
    port =
      python.("""
      for n in range(#{@items}):
          item, receipt = q.checkout(timeout=60)
          if item != b"%d" % n:
              sys.exit(f"{item} instead of {n}")
          q.ack(receipt)
      say(len(q))
      """)

    for n <- 0..(@items - 1), do: assert(Queue.push(q, "#{n}") == :ok)
    assert line!(port) == "0"
    ended!(port)
    assert Queue.pop(q) == :empty
    assert {:ok, %{length: 0, checked_out: 0}} = Queue.info(q)
  end

  test "both push and take at once, through a queue of a limited size", context do
    %{python: python, path: path} = context

    # Back comes what Python gets, by another queue.
    back = Queue.open!(path <> ".back", format: :binary)

    port =
      python.("""
      back = Queue(sys.argv[1] + ".back")
      for n in range(#{@items}):
          back.push(q.pop(timeout=60), max_bytes=10_000, timeout=60)
      """)

    full = Queue.open!(path, format: :binary, max_size: 10_000, full: :block)
    pushing = Task.async(fn -> for n <- 1..@items, do: :ok = Queue.push(full, "#{n}") end)
    for n <- 1..@items, do: assert(Queue.pop(back, 60_000) == {:ok, "#{n}"})
    Task.await(pushing)
    ended!(port)
    assert elem(Queue.info(back), 1).size < 1_000_000
    Enum.each([back, full], &Queue.close/1)
  end

  test "what Python had checked out when it was killed is there at once, in its place", context do
    %{queue: q, python: python} = context
    for n <- 1..100, do: Queue.push(q, "#{n}")

    for round <- 1..5 do
      port =
        python.("""
        for n in range(20):
            item, receipt = q.checkout(timeout=60)
            if n < 10:
                q.ack(receipt)
        say(os.getpid())
        time.sleep(600)
        """)

      pid = line!(port)
      assert {:ok, %{checked_out: 10}} = Queue.info(q)
      # This VM waits for items while Python is killed: it has taken all of the others.
      others = for _ <- 1..Queue.length(q)//1, do: Queue.checkout(q)
      task = Task.async(fn -> wait_and_give_back(q) end)
      Process.sleep(50)
      kill!(port, pid)
      killed = System.monotonic_time(:microsecond)
      {items, at} = Task.await(task)
      # Some time for a machine that is busy; `kill` has ended before the clock was read.
      assert at - killed < 1_000_000
      first = (round - 1) * 20 + 11
      # With what this VM has checked out in each round before.
      assert items == for(n <- first..(first + 9), do: {"#{n}", round + 1})

      for {:ok, _, receipt} <- others, do: Queue.nack(q, receipt)
      for n <- first..(first + 9), do: assert({:ok, "#{n}"} == Queue.pop(q))
    end
  end

  defp wait_and_give_back(q) do
    {:ok, batch} = Queue.checkout(q, max_items: 1, timeout: 60_000)
    at = System.monotonic_time(:microsecond)
    rest = Stream.repeatedly(fn -> Queue.checkout(q) end) |> Enum.take_while(&(&1 != :empty))
    all = batch ++ for {:ok, item, receipt} <- rest, do: {item, receipt}
    for {_, receipt} <- all, do: Queue.nack(q, receipt)
    {for({item, receipt} <- all, do: {item, Queue.attempts(receipt)}), at}
  end

  test "Python is killed at random: what it has acknowledged stays away, all else comes back",
       context do
    %{queue: q, python: python} = context
    {rounds, each} = {10, 2_000}

    told =
      for round <- 1..rounds do
        for n <- 1..each, do: Queue.push(q, "#{round} #{n}")

        port =
          python.("""
          say(os.getpid())
          while found := q.checkout(timeout=60):
              item, receipt = found
              q.ack(receipt)
              os.write(1, item + b"\\n")
          """)

        pid = line!(port)
        first = for _ <- 1..(round * 50), do: line!(port)
        {_, 0} = System.cmd("kill", ["-9", pid])
        first ++ lines(port)
      end

    told = Enum.concat(told)
    rest = Stream.repeatedly(fn -> Queue.pop(q) end) |> Enum.take_while(&(&1 != :empty))
    rest = for {:ok, item} <- rest, do: item
    all = told ++ rest
    assert all == Enum.uniq(all)
    # Those that were acknowledged and not told: no more than one for each death.
    assert (20_000 - length(all)) in 0..rounds
    assert {:ok, %{length: 0, checked_out: 0}} = Queue.info(q)
  end

  # All that a program has said until it ended.
  defp lines(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> [line | lines(port)]
      {^port, {:data, {:noeol, _}}} -> lines(port)
      {^port, {:exit_status, 137}} -> []
    after
      120_000 -> flunk("Python does not end")
    end
  end

  test "Python drops what it has pushed before, and makes items available again", context do
    %{queue: q, python: python} = context

    port =
      python.("""
      say(q.push(b"1", producer="import", number=1))
      say(q.push(b"1", producer="import", number=1))
      say(q.push(b"2", producer="import", number=2))
      item, receipt = q.checkout(timeout=60)
      say(item.decode(), receipt.attempts)
      q.nack(receipt)
      try:
          q.ack(receipt)
      except OSError as error:
          say(error.errno == errno.ENOENT)
      say(q.pop(), q.pop(), q.pop())
      """)

    assert line!(port) == "True"
    assert line!(port) == "False"
    assert line!(port) == "True"
    assert line!(port) == "1 1"
    assert line!(port) == "True"
    assert line!(port) == "b'1' b'2' None"
    ended!(port)
    # The same producer, by its name.
    assert Queue.push(q, "2", id: {"import", 2}) == :duplicate
    assert Queue.push(q, "3", id: {"import", 3}) == :ok
  end
end
