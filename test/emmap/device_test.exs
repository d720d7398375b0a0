defmodule Emmap.DeviceTest do
  # The life of a device: who owns it, who asks it, what it leaves behind.
  use ExUnit.Case, async: true
  alias Emmap.Test.{ChildVM, DeviceScript, Quiet, Resources}

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "first line\nsecond\nthird")
    %{path: path, mem: Emmap.open!(path, [:write])}
  end

  defp device!(mem, options \\ []) do
    {:ok, device} = Emmap.device(mem, options)
    device
  end

  defp ended?(device), do: Resources.eventually(fn -> not Process.alive?(device) end)

  describe "starting" do
    test "says what is wrong with an option", %{mem: mem} do
      for {options, message} <- [
            {[colour: :red],
             ~r/unknown keys \[:colour\].*the allowed keys are: \[:mem, :encoding/},
            {[encoding: :ebcdic], ~r/encoding: must be :latin1 \| :unicode.*got :ebcdic/},
            {[binary: true, binary: false], ~r/binary: is given twice/},
            {[mem: 1], ~r/mem: is given twice/},
            {[binary: 1], ~r/binary: must be true \| false, got 1/},
            {[owner: :me], ~r/owner: must be a pid, got :me/},
            {[:binary], ~r/a keyword list/}
          ] do
        assert_raise ArgumentError, message, fn -> Emmap.device(mem, options) end
      end

      assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Emmap.device(self()) end

      assert_raise ArgumentError, ~r/not an open Emmap handle/, fn ->
        Emmap.Device.start_link([])
      end
    end

    test "of a closed handle returns an error, also when linked", %{mem: mem} do
      Emmap.close(mem)
      assert {:error, :closed} = Emmap.device(mem)
      assert {:error, :closed} = Emmap.Device.start_link(mem: mem)
    end

    test "a name", %{mem: mem} do
      device = device!(mem, name: :emmap_named_device)
      assert Process.whereis(:emmap_named_device) == device
      assert IO.read(:emmap_named_device, 5) == "first"
      assert {:error, {:already_started, ^device}} = Emmap.device(mem, name: :emmap_named_device)
    end

    test "from Erlang clients get lists, unless they say otherwise", %{mem: mem} do
      {:ok, lists} = :emmap.device(mem)
      assert :io.get_line(lists, "") == ~c"first line\n"
      {:ok, binaries} = :emmap.device(mem, [:binary, {:encoding, :unicode}])
      assert :io.get_line(binaries, "") == "first line\n"
      assert [binary: true, encoding: :unicode] = :io.getopts(binaries)
    end
  end

  describe "the cursor and the handle" do
    test "are its own", %{mem: mem} do
      {:ok, 6} = Emmap.position(mem, 6)
      device = device!(mem)
      other = device!(mem)
      assert IO.read(device, 5) == "first"
      assert {:ok, 6} = Emmap.position(mem, :cur)
      assert IO.read(other, 3) == "fir"
      assert :ok = File.close(device)
      assert IO.read(other, 2) == "st"
      assert {:ok, "line"} = Emmap.read(mem, 4)
      # Nor does it mind that the handle is closed.
      assert :ok = Emmap.close(mem)
      assert IO.read(other, :line) == " line\n"
    end

    test "what others write is seen by the next read", %{mem: mem} do
      device = device!(mem)
      assert IO.read(device, 3) == "fir"
      Emmap.pwrite(mem, 3, "ST")
      assert IO.read(device, 2) == "ST"
    end

    test "a request that fails moves nothing", %{tmp_dir: directory} do
      path = Path.join(directory, "text")
      File.write!(path, "good\nb\xFFad\n" <> "no number")
      device = device!(Emmap.open!(path, [:write]), encoding: :unicode)
      assert IO.read(device, :line) == "good\n"

      for request <- [
            {:get_line, :unicode, ""},
            {:get_chars, :unicode, "", 3},
            {:get_until, :unicode, "", :io_lib, :collect_chars, [5]},
            {:get_until, :unicode, "", :no_module, :function, []},
            {:put_chars, :unicode, "\xFF"},
            {:get_chars, :unicode, "", -1}
          ] do
        assert {:error, _} = DeviceScript.io(device, request)
        assert {:ok, 5} = :file.position(device, :cur)
      end

      for request <- [{:pread, 6, 1}, {:pwrite, 1, :none}, {:position, -1}] do
        _ = DeviceScript.file(device, request)
        assert {:ok, _} = :file.position(device, :cur)
      end

      assert {:error, _} = DeviceScript.file(device, {:pwrite, 1, :none})
      assert {:ok, at} = :file.position(device, 5)
      assert {:error, :badarg} = DeviceScript.file(device, {:pwrite, 1, :none})
      assert {:ok, ^at} = :file.position(device, :cur)
    end

    test "what it read from a direct handle is a copy", %{path: path, mem: mem} do
      for encoding <- [:latin1, :unicode] do
        device = device!(Emmap.open!(path, [:direct]), encoding: encoding)
        {:ok, live} = Emmap.view(mem, 0, 11)
        line = IO.read(device, :line)
        :file.position(device, 0)
        word = IO.read(device, 5)
        Emmap.pwrite(mem, 0, "FIRST")
        assert {live, line, word} == {"FIRST line\n", "first line\n", "first"}
        Emmap.pwrite(mem, 0, "first")
      end
    end

    test "a full map is an answer", %{path: path} do
      device = device!(Emmap.open!(path, [:write, :fixed_size]))
      :file.position(device, 20)
      assert {:error, :enospc} = :file.write(device, "too long")
      assert {:ok, 20} = :file.position(device, :cur)
      assert :ok = :file.write(device, "ok")
    end

    test "a count that no map has", %{mem: mem} do
      for encoding <- [:latin1, :unicode] do
        device = device!(mem, encoding: encoding)
        assert "first" <> _ = IO.read(device, 0x1_0000_0000_0000_0000_0000)
        assert {:error, :badarg} = :file.position(device, 0x1_0000_0000_0000_0000_0000)
      end
    end
  end

  describe "the owner" do
    test "is the process that starts it: everything is released when it dies", %{
      path: path,
      tmp_dir: directory
    } do
      test = self()
      held = Resources.held(directory)

      for reason <- [:normal, :shutdown, :kill] do
        owner =
          spawn(fn ->
            device = device!(Emmap.open!(path, [:write]))
            IO.read(device, 5)
            send(test, {:device, device})
            receive do: (:go -> exit(reason))
          end)

        assert_receive {:device, device}
        assert Resources.held(directory) != held
        if reason == :kill, do: Process.exit(owner, :kill), else: send(owner, :go)
        assert ended?(device)
        assert Resources.eventually(fn -> Resources.held(directory) == held end)
        assert {:error, :terminated} = :file.read(device, 1)
        assert {:error, :terminated} = IO.binread(device, 1)
        assert_raise ErlangError, ~r/terminated/, fn -> IO.puts(device, "x") end
      end
    end

    test "may be another one, and may be gone already", %{mem: mem} do
      owner = spawn(fn -> receive do: (:go -> :ok) end)
      device = device!(mem, owner: owner)
      assert IO.read(device, 5) == "first"
      send(owner, :go)
      assert ended?(device)
      assert ended?(device!(mem, owner: owner))
    end

    test "is not taken along by a device that is killed, unless it is linked", %{mem: mem} do
      device = device!(mem)
      Process.exit(device, :kill)
      assert ended?(device)
      Process.flag(:trap_exit, true)
      {:ok, linked} = Emmap.Device.start_link(mem: mem)
      Process.exit(linked, :kill)
      assert_receive {:EXIT, ^linked, :killed}
    end

    test "closing it ends it normally, and closes no other", %{mem: mem} do
      {:ok, linked} = Emmap.Device.start_link(mem: mem)
      monitor = Process.monitor(linked)
      assert :ok = File.close(linked)
      assert_receive {:DOWN, ^monitor, _, _, :normal}
      assert {:ok, _} = Emmap.pread(mem, 0, 1)
    end
  end

  describe "under a supervisor" do
    test "it is started again, and is not when it was closed", %{mem: mem} do
      Quiet.logs("emmap_supervised_device")
      children = [{Emmap.Device, mem: mem, name: :emmap_supervised_device, encoding: :unicode}]

      supervisor =
        start_supervised!(%{
          id: :top,
          type: :supervisor,
          start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]}
        })

      device = Process.whereis(:emmap_supervised_device)
      assert IO.read(device, 5) == "first"
      Process.exit(device, :kill)

      assert Resources.eventually(fn ->
               Process.whereis(:emmap_supervised_device) not in [nil, device]
             end)

      # From the beginning, with the same settings.
      assert IO.read(:emmap_supervised_device, 5) == "first"
      assert [binary: true, encoding: :unicode] = :io.getopts(:emmap_supervised_device)
      assert %{active: 1} = Supervisor.count_children(supervisor)
      :ok = File.close(Process.whereis(:emmap_supervised_device))

      assert Resources.eventually(fn ->
               match?([{_, :undefined, _, _}], Supervisor.which_children(supervisor))
             end)

      assert Process.alive?(supervisor)
    end

    test "it ends with it", %{mem: mem} do
      {:ok, supervisor} =
        Supervisor.start_link([{Emmap.Device, mem: mem}], strategy: :one_for_one)

      [{_, device, _, _}] = Supervisor.which_children(supervisor)
      assert IO.read(device, 5) == "first"
      :ok = Supervisor.stop(supervisor)
      refute Process.alive?(device)
    end
  end

  describe "clients" do
    test "16 at once: what each writes stays whole, what they read is each byte once", %{
      tmp_dir: directory
    } do
      path = Path.join(directory, "log")
      mem = Emmap.open!(path, [:write, :create])
      device = device!(mem, encoding: :unicode)

      1..16
      |> Enum.map(fn n ->
        Task.async(fn -> for i <- 1..200, do: IO.puts(device, "ż#{n}:#{i}") end)
      end)
      |> Task.await_many(60_000)

      expected = Enum.sort(for n <- 1..16, i <- 1..200, do: "ż#{n}:#{i}\n")
      assert path |> File.stream!() |> Enum.sort() == expected
      {:ok, 0} = :file.position(device, 0)

      read =
        1..16
        |> Enum.map(fn _ -> Task.async(fn -> Enum.to_list(IO.stream(device, :line)) end) end)
        |> Task.await_many(60_000)
        |> Enum.concat()

      assert Enum.sort(read) == expected
    end

    test "one that dies in the middle harms no other", %{tmp_dir: directory} do
      path = Path.join(directory, "large")
      File.write!(path, :binary.copy("0123456789abcde\n", 500_000))
      device = device!(Emmap.open!(path, [:write]))

      for n <- 1..20 do
        client =
          spawn(fn ->
            :file.position(device, 0)
            for _ <- Stream.cycle([1]), do: :file.read(device, 4_000_000)
          end)

        Process.sleep(rem(n, 5))
        Process.exit(client, :kill)
        assert {:ok, "0123456789"} = :file.pread(device, 16 * n, 10)
      end
    end

    test "what was read for clients is released when they send no more requests", %{
      tmp_dir: directory
    } do
      path = Path.join(directory, "large")
      File.write!(path, :binary.copy("0123456789abcde\n", 500_000))
      device = device!(Emmap.open!(path))
      assert {:ok, <<_::8_000_000-bytes>>} = :file.read(device, 9_000_000)
      assert held_by(device) >= 8_000_000
      assert Resources.eventually(fn -> held_by(device) < 1_000_000 end)
    end

    defp held_by(process) do
      {:binary, binaries} = Process.info(process, :binary)
      binaries |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    end

    test "whatever they send, it goes on", %{path: path} do
      device = device!(Emmap.open!(path), encoding: :unicode)
      :rand.seed(:exsss, {1, 2, 3})

      terms = [
        :a,
        -1,
        0,
        3,
        1.5,
        "bin",
        "",
        [],
        [1 | 2],
        [[]],
        {},
        {:a},
        %{},
        self(),
        make_ref(),
        <<1::3>>,
        0x8000_0000_0000_0000,
        0x1_0000_0000_0000_0000_0000,
        nil,
        :unicode,
        :latin1,
        :cur,
        {:cur, :a},
        {:eof, -1},
        [{:encoding, :a}],
        [{:binary, 1}],
        [:binary | :list],
        fn -> 1 end
      ]

      tags =
        [:put_chars, :get_chars, :get_line, :get_until, :setopts, :getopts, :requests] ++
          [:pread, :pwrite, :position, :advise, :allocate, :read_handle_info, :sync, :truncate]

      for _ <- 1..5_000 do
        arguments = for _ <- 1..Enum.random(0..6)//1, do: Enum.random(terms)
        request = List.to_tuple([Enum.random(tags) | arguments])
        tag = Enum.random([:io_request, :file_request])
        reference = make_ref()
        send(device, {tag, self(), reference, request})
        assert_receive {_reply, ^reference, _answer}, 5_000, inspect(request)
        send(device, Enum.random([{tag, :nobody, 1, request}, request, {tag, request}]))
      end

      assert {:error, :request} = GenServer.call(device, :unheard)
      GenServer.cast(device, :unheard)
      :ok = DeviceScript.io(device, {:setopts, [:binary, :unicode]})
      assert {:ok, "first"} = :file.pread(device, 0, 5)
    end

    test "a function that wants more after the end, and one that never gets there", %{mem: mem} do
      device = device!(mem)
      more = {:get_until, :unicode, "", __MODULE__, :more, []}
      assert {:error, :more} = DeviceScript.io(device, more)
      # Gives back what it was never given.
      assert :ok = DeviceScript.io(device, {:get_until, :unicode, "", __MODULE__, :back, []})
      assert {:ok, 0} = :file.position(device, :cur)
      assert IO.read(device, 5) == "first"
    end

    def more(_continuation, _characters), do: {:more, []}
    def back(_continuation, _characters), do: {:done, :ok, Enum.to_list(1..100)}
  end

  test "lost pages return errors, and the device lives", %{path: path} do
    assert ChildVM.run!("""
           path = #{inspect(path)}
           File.write!(path, :binary.copy("line\\n", 10_000))
           {:ok, mem} = Emmap.open(path, [:write])
           {:ok, device} = Emmap.device(mem, encoding: :unicode)
           "line\\n" = IO.read(device, :line)
           {:ok, file} = :file.open(path, [:read, :write, :raw])
           :ok = :file.truncate(file)
           answers = [IO.read(device, :line), IO.read(device, 9), :file.pread(device, 30_000, 5),
             :file.sync(device), :io.fread(device, "", ~c"~s")]
           {:ok, file} = :file.open(path, [:read, :write, :raw])
           :ok = :file.pwrite(file, 0, :binary.copy("back\\n", 10_000))
           :ok = Emmap.reattach(mem)
           {answers, :file.position(device, :cur), IO.read(device, :line)}
           """) == {List.duplicate({:error, :estale}, 5), {:ok, 5}, "back\n"}
  end
end
