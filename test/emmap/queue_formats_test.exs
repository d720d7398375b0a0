defmodule Emmap.QueueFormatsTest do
  # Files that an earlier version wrote, and their inspection.
  use ExUnit.Case, async: true

  alias Emmap.{Inspection, Queue}

  @moduletag :tmp_dir
  @golden "test/fixtures/formats/queue-v1.bin"
  @segment 65_536
  @segments 262_144

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "q")
    File.cp!(@golden, path)
    %{path: path}
  end

  @large {:large, String.duplicate("x", 70_000)}
  @rest (for n <- 4..9 do
           {:event, n}
         end) ++
          [
            @large,
            String.duplicate("compressed", 10),
            <<1, 2, 3>>,
            :with_identity
          ]

  test "version 1: the items, the readers, and claims that ended with their program", %{
    path: path
  } do
    queue = Queue.open!(path)

    # A copy is another file, as after a reboot: all of it is read again. Item 3 was acknowledged durably.
    assert {:ok,
            %{
              length: 11,
              checked_out: 0,
              dead_letters: 1,
              dropped: 0,
              segment_size: @segment,
              recovered: %{items: 14, dropped_bytes: 0},
              readers: [
                %{name: "audit", length: 12, lost: 0, max_lag: 0},
                %{name: "behind", length: 14, lost: 0, max_lag: 1_000_000}
              ]
            }} = Queue.info(queue)

    assert Queue.dead_letters(queue) == [{{:event, 1}, 1}]
    assert Queue.push(queue, :again, id: {"producer", 7}) == :duplicate
    assert Queue.push(queue, :again, id: {"producer", 8}) == :ok
    {:ok, reader} = Queue.reader(queue, "audit")
    assert Enum.to_list(reader) == [{:event, 2}, {:event, 3}] ++ @rest ++ [:again]

    popped = for _ <- 1..(length(@rest) + 2), do: Queue.pop(queue)
    assert popped == Enum.map([{:event, 2}] ++ @rest ++ [:again], &{:ok, &1})
    assert Queue.pop(queue) == :empty
    {:ok, behind} = Queue.reader(queue, "behind")
    assert Queue.length(behind) == 15
    assert Queue.pop(behind) == {:ok, {:event, 0}}
  end

  test "what mix emmap.inspect shows of it, and that it changes nothing", %{path: path} do
    before = File.read!(path)
    assert {:ok, report} = Inspection.file(path)
    assert %{format: :queue, status: :intact, bad_format: nil, problems: []} = report
    assert [%{state: :current, at: 0, fields: fields}, %{state: :older}] = report.headers
    assert %{segment_size: @segment, sequence: 5, durable_position: 135_920} = fields

    assert [
             %{number: 0, floor: 144, sequence: 4, checked_out: 1},
             %{number: 1, name: "audit", sequence: 2},
             %{number: 2, name: "behind", max_lag: 1_000_000, floor: 0},
             %{number: 32, stream: :dead_letters}
           ] = report.contents.cursors

    assert %{all: 4, of_streams: 4, other: 0, free: 0} = report.contents.segment_count
    assert [%{number: 0}, %{number: 1, span: 2}, %{number: 3}] = report.contents.segments

    assert [%{items_checked: 14, all_checked: true}, %{items_checked: 1}] =
             report.contents.streams

    assert {:ok, %{contents: %{segments: [_]}}} = Inspection.file(path, values: 1)
    text = Inspection.text(report)

    for part <- ["a queue, version 1, intact", "cursor    audit: next item 2"],
        do: assert(text =~ part)

    assert Inspection.json(report) =~ ~s("format":"queue")
    assert File.read!(path) == before
  end

  # Each inspection may begin three times.
  @tag timeout: 300_000
  test "a queue that is open and being used is sound, too", %{tmp_dir: directory} do
    path = Path.join(directory, "used")
    queue = Queue.open!(path, segment_size: @segment)
    user = Task.async(fn -> use_it(queue, 0) end)

    for _ <- 1..20 do
      assert {:ok, %{status: :intact}} = Inspection.file(path)
    end

    send(user.pid, :stop)
    assert Task.await(user) > 0
    Queue.close(queue)
    assert {:ok, %{contents: %{closed: true}}} = Inspection.file(path)
  end

  defp use_it(queue, count) do
    Queue.push(queue, {count, String.duplicate("x", 1000)})
    if count > 100, do: Queue.pop(queue)

    receive do
      :stop -> count
    after
      0 -> use_it(queue, count + 1)
    end
  end

  test "the first item that is checked out, wherever its claim is", %{tmp_dir: directory} do
    path = Path.join(directory, "claims")
    queue = Queue.open!(path, segment_size: @segment)
    for n <- 0..39, do: :ok = Queue.push(queue, n)
    {:ok, items} = Queue.checkout(queue, max_items: 30)

    cursor = fn ->
      {:ok, %{status: :intact, contents: contents}} = Inspection.file(path)
      assert %{all: 2, of_streams: 1, other: 1} = contents.segment_count
      hd(contents.cursors)
    end

    # Positions of items begin after the segment's header.
    assert %{floor: 64, checked_out: 30, next: next} = cursor.()
    each = div(next - 64, 30)

    # 24 claims are in the control area, the others in a segment.
    for count <- [1, 23, 24, 29, 30] do
      for {_, receipt} <- Enum.take(items, count), do: Queue.ack(queue, receipt)
      assert %{floor: floor, checked_out: checked_out} = cursor.()
      assert {floor, checked_out} == {64 + count * each, 30 - count}
    end
  end

  # Where, and what the report has of it.
  for {what, at, expected} <- [
        {"a header", 24, {:damage, 24, "header at 0, segment size"}},
        {"the other header", 4096 + 2500,
         {:damage, 4096 + 2500, "cursors: bit 6 of this byte was flipped"}},
        {"a segment's header", @segments + 20, {:damage, @segments, "segment 0, header"}},
        {"a payload", @segments + 225, {:damage, @segments + 224, "position 224: its checksum"}},
        {"a large payload", @segments + @segment + 60_000,
         {:damage, @segments + @segment + 64, "checksum"}},
        {"the length of a record", @segments + 224 + 7,
         {:damage, @segments + 224, "its length is wrong"}},
        {"a dead letter", @segments + 3 * @segment + 100,
         {:damage, @segments + 3 * @segment + 64, "dead letters"}}
      ] do
    test "a flipped bit in #{what} is found", %{path: path} do
      {severity, at, message} = unquote(Macro.escape(expected))
      flip(path, unquote(at))
      assert {:ok, %{status: :damaged, problems: problems}} = Inspection.file(path)

      assert found = Enum.find(problems, &(&1.severity == severity and &1.at == at)),
             inspect(problems)

      assert found.message =~ message
    end
  end

  defp flip(path, at) do
    bytes = File.read!(path)
    <<before::binary-size(at), byte, rest::binary>> = bytes
    # A high bit: lengths become impossible.
    File.write!(path, [before, Bitwise.bxor(byte, 0x40), rest])
  end

  test "a segment that cannot follow, a file that is too short, and another version", %{
    path: path
  } do
    bytes = File.read!(path)
    # The link of segment 0 leads to itself.
    <<before::binary-size(@segments), head::binary-48, _::64, rest::binary>> = bytes
    File.write!(path, [before, head, <<1::little-64>>, rest])
    assert {:ok, %{status: :damaged, problems: [problem]}} = Inspection.file(path)
    assert problem.message =~ "next segment, 0, is invalid"
    assert problem.at == @segments + 48

    File.write!(path, binary_part(bytes, 0, @segments + @segment))
    assert {:ok, %{status: :damaged, bad_format: nil} = short} = Inspection.file(path)
    assert Enum.any?(short.problems, &(&1.message =~ "4 segments end at"))

    File.write!(path, binary_part(bytes, 0, 300_000))
    assert {:ok, %{status: :damaged, bad_format: :length, contents: nil}} = Inspection.file(path)
    assert {:error, {:bad_format, :length}} = Queue.open(path)
  end

  test "CRC-32C" do
    alias Emmap.Inspection.Crc32c
    assert Crc32c.append("123456789") == 0xE3069283
    assert "1234" |> Crc32c.append() |> Crc32c.append("56789") == 0xE3069283
  end
end
