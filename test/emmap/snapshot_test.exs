defmodule Emmap.SnapshotTest do
  # Versions of data that many processes read.
  use ExUnit.Case, async: true

  alias Emmap.Snapshot
  alias Emmap.Test.{OtherVM, Resources}

  @moduletag :tmp_dir
  @soon 10_000

  setup %{tmp_dir: directory} do
    directory = Path.join(directory, "data")
    %{directory: directory, snapshot: Snapshot.open!(directory)}
  end

  defp contents(snapshot) do
    with {:ok, mem} <- Snapshot.current(snapshot), do: Emmap.view(mem)
  end

  defp files(directory), do: directory |> File.ls!() |> Enum.sort()

  test "each source", %{snapshot: snapshot, directory: directory, tmp_dir: tmp} do
    assert {:error, :enoent} = Snapshot.current(snapshot)
    assert Snapshot.generation(snapshot) == 0
    assert {:ok, 1} = Snapshot.publish(snapshot, "binary")
    assert {:ok, "binary"} = contents(snapshot)
    assert {:ok, 2} = Snapshot.publish(snapshot, ["io", [?l, "i" | "st"]])
    assert {:ok, "iolist"} = contents(snapshot)
    assert {:ok, 3} = Snapshot.publish(snapshot, &File.write!(&1, "function"))
    assert {:ok, "function"} = contents(snapshot)
    file = Path.join(tmp, "file")
    File.write!(file, "copied")
    assert {:ok, 4} = Snapshot.publish(snapshot, {:file, file})
    assert {:ok, "copied"} = contents(snapshot)
    assert File.read!(file) == "copied"
    assert {:ok, 5} = Snapshot.publish(snapshot, "", sync: false)
    assert {:ok, ""} = contents(snapshot)
    assert files(directory) == ["control", "version-5"]
    assert Snapshot.generation(snapshot) == 5

    assert {:ok, %{generation: 5, size: 0, synced: false, lost: false, publishing: false}} =
             Snapshot.info(snapshot)
  end

  test "what a process has stays as it is", %{snapshot: snapshot, directory: directory} do
    {:ok, 1} = Snapshot.publish(snapshot, String.duplicate("1", 100_000))
    {:ok, mem} = Snapshot.current(snapshot)
    {:ok, view} = Emmap.view(mem)

    for n <- 2..5 do
      {:ok, ^n} = Snapshot.publish(snapshot, String.duplicate("#{n}", 100_000))
      assert {:ok, <<digit, _::binary>>} = contents(snapshot)
      assert <<digit>> == "#{n}"
    end

    assert view == String.duplicate("1", 100_000)
    assert Emmap.pread(mem, 99_999, 1) == {:ok, "1"}
    assert files(directory) == ["control", "version-5"]
  end

  test "a failed publication leaves the previous version and no file", context do
    %{snapshot: snapshot, directory: directory, tmp_dir: tmp} = context
    {:ok, 1} = Snapshot.publish(snapshot, "good")

    assert_raise RuntimeError, "halfway", fn ->
      Snapshot.publish(snapshot, fn path ->
        File.write!(path, "half")
        raise "halfway"
      end)
    end

    assert catch_exit(Snapshot.publish(snapshot, fn _ -> exit(:now) end)) == :now
    assert {:error, :why} = Snapshot.publish(snapshot, fn _ -> {:error, :why} end)
    assert {:error, :error} = Snapshot.publish(snapshot, fn _ -> :error end)
    assert {:error, :enoent} = Snapshot.publish(snapshot, fn _ -> :nothing end)

    assert {:error, :enodev} =
             Snapshot.publish(snapshot, fn path -> File.ln_s!("control", path) end)

    assert {:error, :enoent} = Snapshot.publish(snapshot, {:file, Path.join(tmp, "none")})
    assert {:error, :eisdir} = Snapshot.publish(snapshot, {:file, tmp})
    assert_raise ArgumentError, ~r/not iodata/, fn -> Snapshot.publish(snapshot, [:a]) end
    assert_raise ArgumentError, ~r/a version is/, fn -> Snapshot.publish(snapshot, 1) end

    assert_raise ArgumentError, ~r/timeout: must be/, fn ->
      Snapshot.publish(snapshot, "", timeout: -1)
    end

    assert files(directory) == ["control", "version-1"]
    assert {:ok, "good"} = contents(snapshot)
    assert {:ok, 2} = Snapshot.publish(snapshot, "better")
  end

  test "the function open: is called once for each version", %{directory: directory} do
    test = self()

    open = fn path ->
      send(test, {:opened, Path.basename(path)})
      Process.sleep(50)
      {:ok, %{path: path, data: File.read!(path)}}
    end

    snapshot = Snapshot.open!(directory, open: open)
    {:ok, 1} = Snapshot.publish(snapshot, "one")

    currents = fn ->
      1..200
      |> Enum.map(fn _ -> Task.async(fn -> Snapshot.current(snapshot) end) end)
      |> Task.await_many()
    end

    assert [{:ok, %{data: "one"}}] = Enum.uniq(currents.())
    {:ok, 2} = Snapshot.publish(snapshot, "two")
    assert [{:ok, %{data: "two"}}] = Enum.uniq(currents.())
    assert_received {:opened, "version-1"}
    assert_received {:opened, "version-2"}
    refute_received {:opened, _}
  end

  test "a function open: that fails or dies is called again", %{directory: directory} do
    {:ok, calls} = Agent.start_link(fn -> 0 end)

    open = fn _path ->
      case Agent.get_and_update(calls, &{&1, &1 + 1}) do
        0 -> {:error, :first}
        1 -> raise "second"
        2 -> :neither
        3 -> Process.sleep(:infinity)
        n -> {:ok, n}
      end
    end

    snapshot = Snapshot.open!(directory, open: open)
    {:ok, 1} = Snapshot.publish(snapshot, "")
    assert {:error, :first} = Snapshot.current(snapshot)
    assert_raise RuntimeError, "second", fn -> Snapshot.current(snapshot) end
    assert_raise ArgumentError, ~r/open: must return/, fn -> Snapshot.current(snapshot) end
    opener = spawn(fn -> Snapshot.current(snapshot) end)
    assert Resources.eventually(fn -> Agent.get(calls, & &1) == 4 end)
    waiting = Task.async(fn -> Snapshot.current(snapshot) end)
    Process.sleep(50)
    Process.exit(opener, :kill)
    assert {:ok, 4} = Task.await(waiting)
    assert {:ok, 4} = Snapshot.current(snapshot)
    assert Snapshot.current!(snapshot) == 4
  end

  test "the memory of a version is released with its last reader", context do
    %{snapshot: snapshot, directory: directory} = context
    control = Resources.held(directory)
    {:ok, 1} = Snapshot.publish(snapshot, String.duplicate("x", 100_000))
    test = self()

    reader =
      spawn(fn ->
        {:ok, mem} = Snapshot.current(snapshot)
        send(test, :has)
        # What it has read is live, and must not stay in this process.
        receive do: (:end -> send(test, {:read, Emmap.pread(mem, 0, 1) == {:ok, "x"}}))
      end)

    assert_receive :has, @soon
    {fds, maps} = control
    assert Resources.held(directory) == {fds + 1, maps + 1}
    # Nobody calls current/1 any more: this VM lets go of it by itself.
    {:ok, 2} = Snapshot.publish(snapshot, "y")
    Process.sleep(100)
    assert Resources.held(directory) == {fds + 1, maps + 1}
    send(reader, :end)
    assert_receive {:read, true}, @soon
    assert Resources.eventually(fn -> Resources.held(directory) == control end)
    # Still in use: otherwise, a newer OTP collects it before this line.
    assert Snapshot.generation(snapshot) == 2
  end

  test "a snapshot that is not referred to any more, and a closed one", context do
    %{directory: directory, tmp_dir: tmp, snapshot: snapshot} = context

    Task.await(
      Task.async(fn ->
        snapshot = Snapshot.open!(directory)
        {:ok, 1} = Snapshot.publish(snapshot, "1")
        {:ok, "1"} = contents(snapshot)
        :ok
      end)
    )

    {:ok, mem} = Snapshot.current(snapshot)
    assert :ok = Snapshot.close(snapshot)
    assert {:error, :closed} = Snapshot.close(snapshot)
    assert {:error, :closed} = Snapshot.current(snapshot)
    assert {:error, :closed} = Snapshot.publish(snapshot, "2")
    assert {:error, :closed} = Snapshot.wait(snapshot, 0)
    assert {:error, :closed} = Snapshot.subscribe(snapshot)
    assert {:error, :closed} = Snapshot.info(snapshot)
    assert_raise Emmap.Error, ~r/it is closed/, fn -> Snapshot.generation(snapshot) end
    assert {:ok, "1"} = Emmap.pread(mem, 0, 1)
    :ok = Emmap.close(mem)
    assert Resources.eventually(fn -> Resources.held(tmp) == {0, 0} end)
  end

  test "waiting and subscriptions", %{snapshot: snapshot, directory: directory} do
    assert {:error, :etimedout} = Snapshot.wait(snapshot, 0, 10)
    task = Task.async(fn -> Snapshot.wait(snapshot, 0) end)
    other = Snapshot.open!(directory)
    {:ok, subscription} = Snapshot.subscribe(other)
    {:ok, 1} = Snapshot.publish(snapshot, "1")
    assert {:ok, 1} = Task.await(task)
    assert {:ok, 1} = Snapshot.wait(snapshot, 0)
    assert_receive {:emmap_snapshot, ^subscription, 1}, @soon
    {:ok, 2} = Snapshot.publish(other, "2")
    assert_receive {:emmap_snapshot, ^subscription, 2}, @soon
    :ok = Snapshot.unsubscribe(subscription)
    {:ok, 3} = Snapshot.publish(other, "3")
    refute_receive {:emmap_snapshot, _, _}, 50
    {:ok, subscription} = Snapshot.subscribe(other)
    waiting = Task.async(fn -> Snapshot.wait(other, 3) end)
    Process.sleep(50)
    :ok = Snapshot.close(other)
    assert_receive {:emmap_snapshot, ^subscription, {:error, :closed}}, @soon
    assert {:error, :closed} = Task.await(waiting)
    assert_raise ArgumentError, ~r/reference/, fn -> Snapshot.unsubscribe(:none) end
  end

  test "publishers of several processes take turns, and every version is complete", context do
    %{snapshot: snapshot, directory: directory} = context
    readers = for _ <- 1..2, do: Task.async(fn -> read_until(snapshot, 200, 0) end)

    1..10
    |> Task.async_stream(
      fn n ->
        for _ <- 1..20 do
          {:ok, _} = Snapshot.publish(snapshot, &build(&1, n), sync: false)
        end
      end,
      timeout: 60_000
    )
    |> Stream.run()

    assert Snapshot.generation(snapshot) == 200
    for reader <- readers, do: assert(Task.await(reader, 60_000) > 0)
    assert files(directory) == ["control", "version-200"]
  end

  # In pieces, so that an incomplete version would be seen.
  defp build(path, n) do
    {:ok, file} = :file.open(path, [:write, :raw])
    for _ <- 1..10, do: :ok = :file.write(file, String.duplicate(<<n>>, 1000))
    :ok = :file.close(file)
  end

  defp read_until(snapshot, last, count) do
    case contents(snapshot) do
      {:error, :enoent} ->
        read_until(snapshot, last, count)

      {:ok, <<n, _::binary>> = data} ->
        assert data == String.duplicate(<<n>>, 10_000)

        if Snapshot.generation(snapshot) == last,
          do: count + 1,
          else: read_until(snapshot, last, count + 1)
    end
  end

  test "a publisher that is killed delays nobody and leaves nothing", context do
    %{snapshot: snapshot, directory: directory} = context
    {:ok, 1} = Snapshot.publish(snapshot, "1")
    test = self()

    publisher =
      spawn(fn ->
        Snapshot.publish(snapshot, fn path ->
          File.write!(path, "half")
          send(test, :writes)
          Process.sleep(:infinity)
        end)
      end)

    assert_receive :writes, @soon
    assert {:error, :etimedout} = Snapshot.publish(snapshot, "2", timeout: 20)
    assert {:ok, %{publishing: true}} = Snapshot.info(snapshot)
    Process.exit(publisher, :kill)
    assert {:ok, 2} = Snapshot.publish(snapshot, "2")
    assert files(directory) == ["control", "version-2"]
    assert {:ok, "2"} = contents(snapshot)
  end

  test "VMs that publish and read are killed", %{snapshot: snapshot, directory: directory} do
    code = """
    snapshot = Emmap.Snapshot.open!(#{inspect(directory)})
    IO.puts("begins")
    for _ <- Stream.cycle([1]) do
      {:ok, n} = Emmap.Snapshot.publish(snapshot, fn path ->
        File.write!(path, "")
        File.write!(path, String.duplicate(<<:rand.uniform(255)>>, 20_000))
      end)
      IO.puts("published \#{n}.")
      {:ok, mem} = Emmap.Snapshot.current(snapshot)
      <<byte, _::binary>> = data = Emmap.view!(mem)
      true = data == String.duplicate(<<byte>>, 20_000)
    end
    """

    {:ok, 1} = Snapshot.publish(snapshot, String.duplicate("x", 20_000))

    for _ <- 1..6 do
      vms = for _ <- 1..2, do: OtherVM.start(code)
      noted = for vm <- vms, do: OtherVM.await(vm, "published")
      assert length(noted) == 2

      for vm <- vms do
        Process.sleep(:rand.uniform(30))
        OtherVM.kill(vm)
        # What was acknowledged is there, and what is there is complete.
        assert {:ok, <<byte, _::binary>> = data} = contents(snapshot)
        assert data == String.duplicate(<<byte>>, 20_000)
        before = Snapshot.generation(snapshot)
        {:ok, number} = Snapshot.publish(snapshot, String.duplicate("y", 20_000), timeout: 20_000)
        assert number > before
      end
    end

    assert ["control", "version-" <> _] = files(directory)
  end

  test "a VM that is killed while it reads delays no publisher", context do
    %{snapshot: snapshot, directory: directory} = context
    {:ok, 1} = Snapshot.publish(snapshot, String.duplicate("1", 10_000))

    vm =
      OtherVM.start("""
      snapshot = Emmap.Snapshot.open!(#{inspect(directory)})
      for _ <- 1..1000, do: spawn(fn -> {:ok, mem} = Emmap.Snapshot.current(snapshot); Process.sleep(:infinity); Emmap.view!(mem) end)
      {:ok, _} = Emmap.Snapshot.current(snapshot)
      IO.puts("reads")
      Process.sleep(:infinity)
      """)

    OtherVM.await(vm, "reads")
    assert {:ok, 2} = Snapshot.publish(snapshot, "2")
    OtherVM.kill(vm)

    {time, _} =
      :timer.tc(fn ->
        for n <- 3..12, do: {:ok, ^n} = Snapshot.publish(snapshot, "#{n}", sync: false)
      end)

    assert time < 2_000_000
    assert {:ok, "12"} = contents(snapshot)
  end

  test "a version that was not on the disk, after a reboot", context do
    %{snapshot: snapshot, directory: directory} = context
    {:ok, 1} = Snapshot.publish(snapshot, "1", sync: false)
    :ok = Snapshot.close(snapshot)
    control = Path.join(directory, "control")
    # The boot of the version, and that of the words, become others.
    change(control, fn header -> binary_part(header, 0, 40) <> String.duplicate("b", 16) end)
    snapshot = Snapshot.open!(directory)
    assert {:ok, %{lost: true, generation: 1}} = Snapshot.info(snapshot)
    assert {:error, :enoent} = Snapshot.current(snapshot)
    assert {:ok, 2} = Snapshot.publish(snapshot, "2")
    assert {:ok, "2"} = contents(snapshot)
    assert files(directory) == ["control", "version-2"]
  end

  # Changes both headers, with a new checksum.
  defp change(control, fun) do
    bytes = File.read!(control)

    changed =
      for at <- [0, 4096] do
        header = fun.(binary_part(bytes, at, 56))
        {:ok, file} = :file.open(control, [:raw, :read, :write])

        if binary_part(bytes, at, 8) == "EMMAPSNP",
          do: :ok = :file.pwrite(file, at, [header, <<:erlang.crc32(header)::little-32>>])

        :file.close(file)
      end

    assert [:ok, :ok] = changed
  end

  test "damage", %{snapshot: snapshot, directory: directory} do
    {:ok, 1} = Snapshot.publish(snapshot, "1234")
    version = Path.join(directory, "version-1")
    File.write!(version, "12")
    assert {:error, {:bad_format, :length}} = Snapshot.current(snapshot)
    File.rm!(version)
    assert {:error, :enoent} = Snapshot.current(snapshot)
    {:ok, 2} = Snapshot.publish(snapshot, "1234")
    assert {:ok, "1234"} = contents(snapshot)
    control = Path.join(directory, "control")
    File.write!(control, "")
    assert {:error, :estale} = Snapshot.current(snapshot)
    assert {:error, :estale} = Snapshot.publish(snapshot, "3")
    assert ["control", "version-2"] = files(directory)
    :ok = Snapshot.close(snapshot)
    File.write!(control, String.duplicate("?", 16_384))
    assert {:error, {:bad_format, :kind}} = Snapshot.open(directory)
    assert {:error, :enoent} = Snapshot.open(directory <> "-none", create: false)
    assert {:error, :enoent} = Snapshot.open(Path.join(directory, "none/none"))
    assert {:error, :enotdir} = Snapshot.open(control <> "/x")

    assert_raise ArgumentError, ~r/open: must be a function/, fn ->
      Snapshot.open(directory, open: 1)
    end

    assert_raise ArgumentError, ~r/not a snapshot/, fn -> Snapshot.current(1) end
  end

  test "a name", %{directory: directory} do
    start_supervised!({Snapshot, path: directory, name: __MODULE__.Named, sync: false})
    assert {:ok, 1} = Snapshot.publish(__MODULE__.Named, "named")
    assert {:ok, "named"} = contents(__MODULE__.Named)
    assert Snapshot.generation(__MODULE__.Named) == 1
    assert {:ok, 1} = Snapshot.wait(__MODULE__.Named, 0)
  end
end
