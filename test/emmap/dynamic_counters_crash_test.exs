defmodule Emmap.DynamicCountersCrashTest do
  # Several VMs that add the same names at once, and kill -9.
  use ExUnit.Case, async: false
  alias Emmap.Counters
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "c.cnt")}

  @names 100_000

  for options <- [[], [write_concurrency: true]] do
    test "8 processes in 2 VMs add 100,000 names at once #{inspect(options)}", %{path: path} do
      options = [dynamic: true, max_names: 100_001] ++ unquote(options)

      vm = fn number ->
        ChildVM.run!("""
        c = Emmap.Counters.open!(#{inspect(path)}, #{inspect(options)})

        # Both VMs begin at the same time, and the processes of both add the same names.
        Emmap.Counters.add(c, "ready", 1)
        Stream.repeatedly(fn -> c["ready"] end) |> Enum.find(& &1 == 2)

        for process <- 0..3 do
          Task.async(fn ->
            first = div(process * 2 + #{number}, 4) * 50_000
            for n <- first..(first + #{@names - 1}),
                do: :ok = Emmap.Counters.add(c, "GET /users/\#{rem(n, #{@names})}", 1)
          end)
        end
        |> Task.await_many(:infinity)
        """)
      end

      Task.await_many(for(n <- 0..1, do: Task.async(fn -> vm.(n) end)), :infinity)
      c = Counters.open!(path, options)
      assert Enum.count(c) == @names + 1
      pairs = Enum.to_list(c) -- [{"ready", 2}]
      assert Enum.frequencies_by(pairs, &elem(&1, 1)) == %{8 => @names}
      assert pairs |> Enum.map(&elem(&1, 0)) |> Enum.sort() == Enum.sort(names())
    end
  end

  defp names, do: for(n <- 0..(@names - 1), do: "GET /users/#{n}")

  # A few rounds by default, 100 with `make test-all`; EMMAP_ROUNDS says another number.
  for {rounds, tags} <- [{8, []}, {100, [:slow]}] do
    for tag <- tags, do: @tag(tag)

    test "kill -9 of one of two VMs, #{rounds} times: each name exists once, and sums are exact",
         %{
           path: path
         } do
      rounds = String.to_integer(System.get_env("EMMAP_ROUNDS") || "#{unquote(rounds)}")
      for round <- 1..rounds, do: kill_round(path, round)
      c = Counters.open!(path, dynamic: true)
      names = Enum.map(c, &elem(&1, 0))
      assert length(names) > 100 and names == Enum.uniq(names) and length(names) == Enum.count(c)
    end
  end

  @processes 4

  # The processes of both VMs add the same new names in the same order. Those of the VM that is killed write to a pipe what
  # they have added.
  defp kill_round(path, round) do
    code = """
    c = Emmap.Counters.open!(#{inspect(path)}, [], dynamic: true, max_names: 10_000_000)
    adder = fn process ->
      {:ok, pipe} = :file.open("/dev/fd/1", [:write, :raw, :binary])
      Enum.each(Stream.iterate(0, & &1 + 1), fn n ->
        :ok = Emmap.Counters.add(c, "#{round}/\#{n}", 1)
        :ok = :file.write(pipe, <<process, n::56>>)
      end)
    end
    for process <- 1..#{@processes}, do: spawn_link(fn -> adder.(process) end)
    Process.sleep(:infinity)
    """

    script = path <> ".exs"
    File.write!(script, code)
    elixir = System.find_executable("elixir")
    ebin = Application.app_dir(:emmap, "ebin")
    arguments = [:binary, :exit_status, args: ["-pa", ebin, script]]
    port = Port.open({:spawn_executable, elixir}, arguments)
    {:os_pid, pid} = Port.info(port, :os_pid)
    first = receive do: ({^port, {:data, data}} -> data)
    c = Counters.open!(path, [], dynamic: true, max_names: 10_000_000)
    test = self()
    survivors = for _ <- 1..@processes, do: Task.async(fn -> survive(c, round, test, 0) end)
    Process.sleep(:rand.uniform(60))
    {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
    acknowledged = drain(port, first)
    # They go on after the death, in the middle of which the lock may have been held.
    Process.sleep(20)
    for task <- survivors, do: send(task.pid, :stop)
    own = Task.await_many(survivors)
    seen = for <<_process, n::56 <- acknowledged>>, do: n
    by_name = Enum.frequencies(seen)
    last = Enum.max([Enum.max(seen) | own])

    extra =
      for n <- 0..(last + 1) do
        least = Map.get(by_name, n, 0) + Enum.count(own, &(n < &1))
        actual = c["#{round}/#{n}"] || 0

        assert actual in least..(least + @processes),
               "round #{round}: #{n} has #{actual}, not #{least}"

        actual - least
      end

    # Each process that was killed may have one add that is not acknowledged.
    assert Enum.sum(extra) in 0..@processes
    assert last > 0
  end

  defp survive(c, round, test, n) do
    receive do
      :stop -> n
    after
      0 ->
        :ok = Counters.add(c, "#{round}/#{n}", 1)
        survive(c, round, test, n + 1)
    end
  end

  defp drain(port, data) do
    receive do
      {^port, {:data, more}} ->
        drain(port, data <> more)

      {^port, {:exit_status, status}} ->
        assert status == 137
        data
    after
      10_000 -> flunk("the killed VM did not end")
    end
  end

  test "names that a killed VM had added and synced, or only added, are there", %{path: path} do
    code = """
    c = Emmap.Counters.open!(#{inspect(path)}, dynamic: true)
    for n <- 1..3000, do: Emmap.Counters.add(c, "n\#{n}", n)
    System.cmd("kill", ["-9", System.pid()])
    """

    assert {:died, 137, _} = ChildVM.run(code)
    assert {:ok, c} = Counters.open(path, dynamic: true)
    assert Enum.to_list(c) == for(n <- 1..3000, do: {"n#{n}", n})
    # Nothing had to be recovered.
    assert {:ok, %{recoveries: 1}} = Counters.info(c)
  end
end
