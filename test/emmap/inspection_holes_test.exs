defmodule Emmap.InspectionHolesTest do
  use ExUnit.Case, async: true
  alias Emmap.Inspection
  alias Emmap.Inspection.Crc32c

  @moduletag :tmp_dir

  test "the checksum of zeros is that of as many bytes" do
    for count <- [0, 1, 2, 3, 31, 64, 255, 4096, 100_001],
        crc <- [0, 1, 0xFFFFFFFF, 0xE3069283] do
      assert Crc32c.append_zeros(crc, count) == Crc32c.append(crc, :binary.copy(<<0>>, count))
    end

    begun = System.monotonic_time(:millisecond)
    assert Crc32c.append_zeros(0, 1_000_000_000_000_000_000) in 0..0xFFFFFFFF
    assert System.monotonic_time(:millisecond) - begun < 1000
  end

  # Sparse: millions of unused groups, and one that is used.
  test "blocks of terabytes of holes are inspected at once", %{tmp_dir: directory} do
    path = Path.join(directory, "blocks")
    blocks = Emmap.Blocks.open!(path, block_size: 1)
    {:ok, _} = Emmap.Blocks.store_many(blocks, List.duplicate("y", 40_000))
    :ok = Emmap.Blocks.close(blocks)
    {:ok, sound} = Inspection.file(path)

    assert {sound.status, sound.contents.count, length(sound.contents.groups)} ==
             {:intact, 40_000, 2}

    # Room for as many blocks as a file of 4 TB has.
    size = 4_000_000_000_000
    group = 36 * 4096 + 32_768
    capacity = div(size, group) * 32_000
    {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
    {:ok, _} = :file.position(file, size)
    :ok = :file.truncate(file)
    :ok = :file.pwrite(file, 8456, <<capacity::little-64>>)
    :ok = :file.close(file)
    begun = System.monotonic_time(:millisecond)
    {:ok, report} = Inspection.file(path)
    assert System.monotonic_time(:millisecond) - begun < 20_000
    assert report.contents.count == 40_000
    assert length(report.contents.groups) == 20
    assert Enum.map(report.contents.groups, & &1.in_use) == [32_256, 7744 | List.duplicate(0, 18)]
    assert report.problems == []
  end

  # A record that claims to have a gigabyte, in a hole.
  test "a record in a hole is compared with its checksum at once", %{tmp_dir: directory} do
    path = Path.join(directory, "queue")
    queue = Emmap.Queue.open!(path, segment_size: 1_073_741_824)
    :ok = Emmap.Queue.push(queue, :binary.copy(<<0>>, 100_000_000))
    :ok = Emmap.Queue.close(queue)
    # As `cp --sparse=always` leaves it.
    {_, 0} = System.cmd("fallocate", ["--dig-holes", path])
    begun = System.monotonic_time(:millisecond)
    {:ok, report} = Inspection.file(path)
    assert System.monotonic_time(:millisecond) - begun < 3_000
    assert report.status == :intact
    assert hd(report.contents.streams).items_checked == 1
  end
end
