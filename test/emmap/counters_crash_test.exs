defmodule Emmap.CountersCrashTest do
  # kill -9, other VMs, another language.
  use ExUnit.Case, async: false
  alias Emmap.Counters
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "c.cnt")}

  # A few rounds by default, 200 with `make test-all`; EMMAP_ROUNDS says another number.
  for {rounds, tags} <- [{10, []}, {200, [:slow]}] do
    for tag <- tags, do: @tag(tag)

    test "kill -9, #{rounds} times: what was acknowledged is there, and at most the adds in flight besides",
         %{path: path} do
      rounds = String.to_integer(System.get_env("EMMAP_ROUNDS") || "#{unquote(rounds)}")
      for round <- 1..rounds, do: kill_round(path, round)
      assert Enum.sum(Counters.open!(path, 4)) > 0
    end
  end

  @adders 4

  # Each of four processes adds to a counter of its own and writes the new value to a pipe. At the
  # kill each may have one add that is not acknowledged yet.
  defp kill_round(path, round) do
    before = Counters.to_list(Counters.open!(path, @adders))

    code = """
    c = Emmap.Counters.open!(#{inspect(path)}, #{@adders})
    # A raw file: its write returns when the bytes are in the pipe.
    adder = fn index ->
      {:ok, pipe} = :file.open("/dev/fd/1", [:write, :raw, :binary])
      loop = fn loop ->
        :ok = :file.write(pipe, <<index, Emmap.Counters.add_get(c, index, 1)::64>>)
        loop.(loop)
      end
      loop.(loop)
    end
    for index <- 0..#{@adders - 1}, do: spawn_link(fn -> adder.(index) end)
    Process.sleep(:infinity)
    """

    script = path <> ".exs"
    File.write!(script, code)
    elixir = System.find_executable("elixir")
    ebin = Application.app_dir(:emmap, "ebin")

    port =
      Port.open({:spawn_executable, elixir}, [
        :binary,
        :exit_status,
        args: ["-pa", ebin, script]
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    # The first acknowledgement says that it runs; then it gets up to 60 ms.
    first = receive do: ({^port, {:data, data}} -> data)
    Process.sleep(:rand.uniform(60))
    {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
    acknowledged = drain(port, first)
    now = Counters.to_list(Counters.open!(path, @adders))
    seen = for(<<index, value::64 <- acknowledged>>, do: {index, value}) |> Map.new()

    for index <- 0..(@adders - 1) do
      least = Map.get(seen, index, Enum.at(before, index))
      actual = Enum.at(now, index)

      assert actual in least..(least + 1),
             "round #{round}, counter #{index}: acknowledged #{least}, in the file #{actual}"
    end
  end

  defp drain(port, data) do
    receive do
      {^port, {:data, more}} -> drain(port, data <> more)
      {^port, {:exit_status, status}} -> assert(status == 137) && data
    after
      10_000 -> flunk("the killed VM did not end")
    end
  end

  @adds 100_000

  test "two VMs and a Python program add to the same counters", %{path: path} do
    python = System.find_executable("python3")

    if python do
      Counters.close(Counters.open!(path, [:vm, :python]))

      vm = fn ->
        ChildVM.run!("""
        c = Emmap.Counters.open!(#{inspect(path)}, [:vm, :python])
        for _ <- 1..#{@adds}, do: Emmap.Counters.add(c, :vm, 1)
        Emmap.Counters.close(c)
        """)
      end

      # Python has no atomic instructions, so its counter is its own; what it reads is everyone's.
      program = """
      import mmap, struct, sys
      with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as map:
          magic, version = struct.unpack_from("<8sI", map, 0)
          assert magic == b"EMMAPCNT" and version == 1
          headers = [struct.unpack_from("<8sIIQQIIQ", map, at) for at in (0, 4096)]
          data = max((h for h in headers if h[0] == magic), key=lambda h: h[3])[7]
          for _ in range(#{@adds}):
              value, = struct.unpack_from("=q", map, data + 8)
              struct.pack_into("=q", map, data + 8, value + 1)
          sys.stdout.write("ready\\n"); sys.stdout.flush()
          sys.stdin.readline()
          print(struct.unpack_from("=qq", map, data))
      """

      script = path <> ".py"
      File.write!(script, program)
      port = Port.open({:spawn_executable, python}, [:binary, :exit_status, args: [script, path]])
      tasks = [Task.async(vm), Task.async(vm)]
      assert Task.await_many(tasks, 60_000) == [:ok, :ok]
      assert_receive {^port, {:data, "ready\n"}}, 60_000
      # Everybody is done; now Python reads the sum.
      Port.command(port, "\n")
      assert said(port, "") == "(#{2 * @adds}, #{@adds})\n"

      assert Counters.to_map(Counters.open!(path, [:vm, :python])) == %{
               vm: 2 * @adds,
               python: @adds
             }
    else
      IO.puts("skipped, for this machine has no python3")
    end
  end

  defp said(port, text) do
    receive do
      {^port, {:data, more}} -> said(port, text <> more)
      {^port, {:exit_status, 0}} -> text
    after
      10_000 -> flunk("python said #{inspect(text)} and did not end")
    end
  end

  test "striped counters of two VMs", %{path: path} do
    Counters.close(Counters.open!(path, 20, write_concurrency: true))

    vm = fn ->
      ChildVM.run!("""
      c = Emmap.Counters.open!(#{inspect(path)}, 20)
      1..4
      |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..50_000, do: Emmap.Counters.add(c, 17, 1) end) end)
      |> Task.await_many(:infinity)
      :ok
      """)
    end

    assert [:ok, :ok] = [Task.async(vm), Task.async(vm)] |> Task.await_many(60_000)
    assert Counters.get(Counters.open!(path, 20), 17) == 400_000
  end

  test "kill -9 in the middle of creating leaves nothing except the files", %{tmp_dir: directory} do
    for round <- 1..5 do
      code = """
      IO.puts("go")
      Stream.iterate(0, &(&1 + 1))
      |> Enum.each(&Emmap.Counters.open!(#{inspect(directory)} <> "/#{round}-\#{&1}", 1000))
      """

      args = ["-pa", Application.app_dir(:emmap, "ebin"), "-e", code]

      port =
        Port.open({:spawn_executable, System.find_executable("elixir")}, [
          :binary,
          :exit_status,
          args: args
        ])

      {:os_pid, pid} = Port.info(port, :os_pid)
      assert_receive {^port, {:data, _}}, 20_000
      Process.sleep(30 + :rand.uniform(40))
      {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
      assert_receive {^port, {:exit_status, 137}}, 20_000
    end

    names = File.ls!(directory)
    assert names != []
    assert Enum.filter(names, &String.starts_with?(&1, ".")) == []

    for name <- names,
        do:
          assert(
            Counters.to_list(Counters.open!(Path.join(directory, name), 1)) |> Enum.sum() == 0
          )
  end

  test "two VMs that want other names: one of them is told", %{path: path} do
    vm = fn name ->
      Task.async(fn ->
        ChildVM.run!("""
        names = fn n -> [:shared | for(i <- 1..n//1, do: :"#{name}\#{i}")] end
        for n <- 0..50, do: elem(Emmap.Counters.open(#{inspect(path)}, names.(n)), 0)
        """)
      end)
    end

    [one, two] = Task.await_many([vm.("one"), vm.("two")], 60_000)
    names = Counters.open!(path, 0).names

    # The file has the names of one of them, in order, and the other was refused each time it grew.
    assert ["shared" | rest] = names

    assert rest == for(i <- 1..length(rest)//1, do: "one#{i}") or
             rest == for(i <- 1..length(rest)//1, do: "two#{i}")

    assert Enum.count(one ++ two, &(&1 == :error)) == 50
  end

  test "many VMs create and grow one file at the same time", %{path: path} do
    1..4
    |> Enum.map(fn n ->
      Task.async(fn ->
        ChildVM.run!("""
        for count <- 1..60 do
          c = Emmap.Counters.open!(#{inspect(path)}, count * #{n})
          Emmap.Counters.add(c, 0, 1)
        end
        :ok
        """)
      end)
    end)
    |> Task.await_many(60_000)

    c = Counters.open!(path, 0)
    assert Enum.count(c) == 240
    assert Enum.sum(c) == 240
    # No file that was on its way is left behind.
    assert path |> Path.dirname() |> File.ls!() == ["c.cnt"]
  end
end
