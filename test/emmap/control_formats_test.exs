defmodule Emmap.ControlFormatsTest do
  # Files of mutexes and snapshots that an earlier version wrote, and their inspection.
  use ExUnit.Case, async: true

  alias Emmap.{Inspection, Mutex, Snapshot}

  @moduletag :tmp_dir
  @formats "test/fixtures/formats"

  setup %{tmp_dir: directory} do
    control = Path.join(directory, "control")
    File.cp!(Path.join(@formats, "snapshot-v1.bin"), control)
    File.write!(Path.join(directory, "version-3"), "version 3")
    mutex = Path.join(directory, "mutex")
    File.cp!(Path.join(@formats, "mutex-v1.bin"), mutex)
    %{control: control, mutex: mutex}
  end

  test "version 1 of a snapshot", %{tmp_dir: directory} do
    snapshot = Snapshot.open!(directory)
    assert Snapshot.generation(snapshot) == 3
    assert Emmap.view!(Snapshot.current!(snapshot)) == "version 3"
    assert {:ok, %{size: 9, synced: true, lost: false}} = Snapshot.info(snapshot)
    assert {:ok, 4} = Snapshot.publish(snapshot, "version 4")
    assert Emmap.view!(Snapshot.current!(snapshot)) == "version 4"
  end

  test "version 1 of a mutex, which its holder has abandoned", %{mutex: path} do
    mutex = Mutex.open!(path)
    assert :abandoned = Mutex.lock(mutex)
    assert :ok = Mutex.unlock(mutex)
    assert :ok = Mutex.lock(mutex)
  end

  test "what mix emmap.inspect shows", %{control: control, mutex: mutex} do
    assert {:ok, report} = Inspection.file(control)
    assert %{format: :snapshot, status: :intact, problems: []} = report
    assert %{generation: 3, bytes: 9, synced: true, lock: 0, abandoned: false} = report.contents
    assert Inspection.text(report) =~ "version   3, 9 bytes, on the disk"
    assert {:ok, report} = Inspection.file(mutex)
    assert %{format: :mutex, status: :intact, contents: %{lock: 0, abandoned: true}} = report
    assert Inspection.text(report) =~ "abandoned by the last holder"
  end

  test "the file of the version is missing, or has another size", %{control: control} do
    version = Path.join(Path.dirname(control), "version-3")
    File.write!(version, "version")
    assert {:ok, %{status: :damaged, problems: [%{message: message}]}} = Inspection.file(control)
    assert message =~ "version-3 has 7 bytes instead of 9"
    File.rm!(version)
    assert {:ok, %{status: :damaged, problems: [%{message: message}]}} = Inspection.file(control)
    assert message =~ "version-3 does not exist"
  end

  test "every bit of the headers", %{control: control, mutex: mutex} do
    for {path, size} <- [{control, 60}, {mutex, 36}] do
      bytes = File.read!(path)

      for at <- 0..(size - 1), bit <- 0..7 do
        <<before::binary-size(at), byte, behind::binary>> = bytes
        # One header is damaged: the other one is used.
        File.write!(path, [before, Bitwise.bxor(byte, Bitwise.bsl(1, bit)), behind])
        # An inspection looks for the bit in the headers of every format, which takes long.
        if rem(at, 16) == 8 and bit == 3,
          do: assert({:ok, %{status: :damaged}} = Inspection.file(path))

        opened = if path == mutex, do: Mutex.open(path), else: Snapshot.open(Path.dirname(path))
        assert {:ok, structure} = opened
        structure.__struct__.close(structure)
      end

      # Both are.
      other = binary_part(bytes, 0, 30) <> "?" <> binary_part(bytes, 31, 4065)
      File.write!(path, [other, other, binary_part(bytes, 8192, 8192)])
      opened = if path == mutex, do: Mutex.open(path), else: Snapshot.open(Path.dirname(path))
      assert {:error, {:bad_format, :checksum}} = opened
      File.write!(path, binary_part(bytes, 0, 10_000))
      opened = if path == mutex, do: Mutex.open(path), else: Snapshot.open(Path.dirname(path))
      assert {:error, {:bad_format, :length}} = opened
      assert {:ok, %{bad_format: :length}} = Inspection.file(path)
    end
  end
end
