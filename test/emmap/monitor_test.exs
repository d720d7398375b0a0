defmodule Emmap.MonitorTest do
  # Which processes are told that a map has met a fault, and when.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  # A fault is told within 100 milliseconds; a machine that runs many tests has longer.
  @soon 2_000
  @never 150

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, :binary.copy("0", 4 * 4096))
    %{path: path}
  end

  defp cut(path), do: File.write!(path, "cut")

  defp fault(mem), do: assert({:error, :estale} = Emmap.pread(mem, 8192, 1))

  test "each monitor of each process gets one message of a fault", %{path: path} do
    mem = Emmap.open!(path)
    test = self()
    {:ok, one} = Emmap.monitor(mem)
    {:ok, two} = Emmap.monitor(mem)

    other =
      spawn_link(fn ->
        {:ok, monitor} = Emmap.monitor(mem)
        send(test, :monitors)
        receive do: ({:emmap, ^monitor, :fault, reason} -> send(test, {:other, reason}))
        refute_receive {:emmap, _, _, _}, @never
        send(test, :once)
      end)

    assert is_reference(one) and one != two and is_pid(other)
    assert_receive :monitors
    refute_receive {:emmap, _, _, _}, @never
    cut(path)
    fault(mem)
    assert_receive {:emmap, ^one, :fault, :estale}, @soon
    assert_receive {:emmap, ^two, :fault, :estale}, @soon
    assert_receive {:other, :estale}, @soon
    fault(mem)
    assert {:error, :estale} = Emmap.pread(mem, 4096, 1)
    refute_receive {:emmap, _, _, _}, @never
    assert_receive :once, @soon
  end

  test "a live binary that is read without a call is noticed, too", %{path: path} do
    mem = Emmap.open!(path)
    {:ok, monitor} = Emmap.monitor(mem)
    {:ok, live} = Emmap.view(mem, 8192, 1000)
    cut(path)
    refute_receive {:emmap, _, _, _}, @never
    assert :binary.last(live) == 0
    {time, _} = :timer.tc(fn -> assert_receive {:emmap, ^monitor, :fault, :estale}, @soon end)
    assert time < 1_000_000
    # Both were there until now.
    assert byte_size(live) == 1000
    assert {:error, :estale} = Emmap.pread(mem, 0, 1)
  end

  test "a fault that the map has already is told at once, and the next one after a repair", %{
    path: path
  } do
    mem = Emmap.open!(path)
    cut(path)
    fault(mem)
    Process.sleep(50)
    {:ok, monitor} = Emmap.monitor(mem)
    assert_received {:emmap, ^monitor, :fault, :estale}

    for _ <- 1..3 do
      :ok = Emmap.reattach(mem)
      refute_receive {:emmap, _, _, _}, @never
      File.write!(path, :binary.copy("0", 4 * 4096))
      :ok = Emmap.reattach(mem)
      cut(path)
      fault(mem)
      assert_receive {:emmap, ^monitor, :fault, :estale}, @soon
    end

    refute_receive {:emmap, _, _, _}, @never
  end

  test "a fault that was repaired at once is told all the same", %{path: path} do
    mem = Emmap.open!(path)
    {:ok, monitor} = Emmap.monitor(mem)

    for _ <- 1..20 do
      File.write!(path, :binary.copy("0", 4 * 4096))
      :ok = Emmap.reattach(mem)
      cut(path)
      fault(mem)
      :ok = Emmap.reattach(mem)
      assert_receive {:emmap, ^monitor, :fault, :estale}, @soon
    end
  end

  test "demonitor", %{path: path} do
    mem = Emmap.open!(path)
    {:ok, one} = Emmap.monitor(mem)
    {:ok, two} = Emmap.monitor(mem)
    assert Emmap.demonitor(one)
    assert Emmap.demonitor(one)
    assert Emmap.demonitor(make_ref(), [:flush])
    cut(path)
    fault(mem)
    assert_receive {:emmap, ^two, :fault, :estale}, @soon
    refute_receive {:emmap, ^one, _, _}, @never
    {:ok, three} = Emmap.monitor(mem)
    {:ok, four} = Emmap.monitor(mem)
    assert Emmap.demonitor(three)
    assert Emmap.demonitor(four, [:flush])
    assert_received {:emmap, ^three, :fault, :estale}
    refute_received {:emmap, ^four, _, _}

    assert_raise ArgumentError, ~r/a monitor is a reference, got :monitor/, fn ->
      Emmap.demonitor(:monitor)
    end

    assert_raise ArgumentError, ~r/valid is :flush, got \[:info\]/, fn ->
      Emmap.demonitor(two, [:info])
    end
  end

  test "after demonitor has returned nothing comes", %{path: path} do
    for _ <- 1..50 do
      File.write!(path, :binary.copy("0", 4 * 4096))
      mem = Emmap.open!(path)
      {:ok, monitor} = Emmap.monitor(mem)
      cut(path)
      fault(mem)
      if rem(System.unique_integer([:positive]), 2) == 0, do: Process.sleep(1)
      Emmap.demonitor(monitor, [:flush])
      refute_receive {:emmap, ^monitor, _, _}, 10
      Emmap.close(mem)
    end
  end

  test "a closed handle, and what is none", %{path: path} do
    mem = Emmap.open!(path)
    {:ok, monitor} = Emmap.monitor(mem)
    :ok = Emmap.close(mem)
    assert {:error, :closed} = Emmap.monitor(mem)
    refute_receive {:emmap, ^monitor, _, _}, @never
    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Emmap.monitor(self()) end
  end

  test "structures", %{tmp_dir: directory} do
    {:ok, counters} = Emmap.Counters.open(Path.join(directory, "counters"), 4)
    {:ok, queue} = Emmap.Queue.open(Path.join(directory, "queue"))
    {:ok, blocks} = Emmap.Blocks.open(Path.join(directory, "blocks"), block_size: 64)

    for structure <- [counters, queue, blocks] do
      {:ok, monitor} = Emmap.monitor(structure)
      File.write!(structure.path, "")
      assert {:error, :estale} = structure.__struct__.sync(structure)
      assert_receive {:emmap, ^monitor, :fault, :estale}, @soon
    end
  end

  test "nothing stays of monitors whose process or map has ended", %{path: path} do
    mem = Emmap.open!(path)

    for _ <- 1..100,
        do: spawn_monitor(fn -> for _ <- 1..10, do: Emmap.monitor(mem) end)

    for _ <- 1..100, do: assert_receive({:DOWN, _, _, _, :normal}, @soon)
    cut(path)
    fault(mem)
    refute_receive {:emmap, _, _, _}, @never
  end

  describe "the log" do
    setup do
      test = self()
      id = :"monitor_test_#{System.unique_integer([:positive])}"

      :ok =
        :logger.add_handler(id, __MODULE__, %{
          config: test,
          filters: [domain: {&:logger_filters.domain/2, {:log, :equal, [:emmap]}}],
          filter_default: :stop
        })

      on_exit(fn -> :logger.remove_handler(id) end)
    end

    test "has one warning of each map and fault", %{path: path} do
      mem = Emmap.open!(path)
      cut(path)
      for _ <- 1..3, do: fault(mem)
      assert %{level: :warning, meta: %{emmap_fault: fault}} = event = logged(path)
      assert fault == %{path: path, position: 8192, reason: :estale}

      assert text(event) ==
               "Emmap: pages of #{path} were lost, the first at byte 8192: the file was truncated. " <>
                 "Calls on the map return the error estale until it is reattached."

      assert nil == logged(path, @never)
      File.write!(path, :binary.copy("0", 4 * 4096))
      :ok = Emmap.reattach(mem)
      cut(path)
      fault(mem)
      assert %{level: :warning} = logged(path)
      # Another map of the file.
      File.write!(path, :binary.copy("0", 4 * 4096))
      other = Emmap.open!(path)
      cut(path)
      fault(other)
      assert %{level: :warning} = logged(path)
      assert nil == logged(path, @never)
    end

    test "has nothing where that is turned off", %{path: path} do
      script = """
      :ok = Application.load(:emmap)
      {:ok, mem} = Emmap.open(#{inspect(path)})
      {:ok, monitor} = Emmap.monitor(mem)
      File.write!(#{inspect(path)}, "cut")
      {:error, :estale} = Emmap.pread(mem, 8192, 1)
      receive do: ({:emmap, ^monitor, :fault, :estale} -> IO.puts("told"))
      Process.sleep(100)
      """

      run = fn arguments ->
        ebin = Path.join(Application.app_dir(:emmap), "ebin")
        arguments = ["-pa", ebin] ++ arguments ++ ["-e", script]
        {output, 0} = System.cmd("elixir", arguments, stderr_to_stdout: true)
        output
      end

      assert run.(["--erl", "-emmap log_faults false"]) == "told\n"
      File.write!(path, :binary.copy("0", 4 * 4096))
      assert run.([]) =~ "[warning] Emmap: pages of #{path} were lost"
    end
  end

  defp logged(path, within \\ @soon) do
    receive do
      {:logged, %{meta: %{emmap_fault: %{path: ^path}}} = event} -> event
    after
      within -> nil
    end
  end

  defp text(%{msg: {format, arguments}}),
    do: format |> :io_lib.format(arguments) |> List.to_string()

  # A handler of `:logger`.
  def log(event, %{config: test}), do: send(test, {:logged, event})
end
