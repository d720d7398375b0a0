defmodule Emmap.BlocksFormatsTest do
  # Files that an earlier version wrote, and their inspection.
  use ExUnit.Case, async: true

  alias Emmap.{Blocks, Inspection}

  @moduletag :tmp_dir
  @golden "test/fixtures/formats/blocks-v1.bin"
  @group 163_840
  @blocks @group + 36 * 4096

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "b")
    File.cp!(@golden, path)
    %{path: path}
  end

  defp block(n), do: <<n::64>> <> String.duplicate(<<n>>, 92)

  test "version 1: what the last sync covered, and what was replaced since then", %{path: path} do
    blocks = Blocks.open!(path)

    # A copy is another file, as after a reboot. 150 and 200 were stored after the last sync, and 100 was freed.
    assert {:ok,
            %{
              count: 198,
              block_size: 100,
              replaced: 1,
              recovered: %{kept: 198, dropped: 2}
            }} = Blocks.info(blocks)

    expected =
      for n <- 0..199, n not in [100, 150], do: {n, if(n == 7, do: block(77), else: block(n))}

    assert Enum.to_list(blocks) == expected
    assert Blocks.check(blocks) == {:ok, %{blocks: 198, damaged: []}}
    # 100 is held until the next sync.
    assert Blocks.store(blocks, block(1)) == {:ok, 150}
    assert Blocks.store(blocks, block(2)) == {:ok, 200}
    assert Blocks.sync(blocks) == :ok
    assert Blocks.store(blocks, block(3)) == {:ok, 100}
    assert Blocks.read(blocks, 7) == {:ok, block(77)}
    assert Blocks.close(blocks) == :ok
  end

  test "what mix emmap.inspect shows of it, and that it changes nothing", %{path: path} do
    before = File.read!(path)
    assert {:ok, report} = Inspection.file(path)
    assert %{format: :blocks, status: :intact, bad_format: nil, problems: []} = report
    assert [%{state: :current, fields: %{block_size: 100, slots: 1024}}, _] = report.headers

    assert %{
             count: 200,
             held: 199,
             replaced: 1,
             blocks_checked: 199,
             all_checked: true,
             closed: false,
             groups: [%{number: 0, at: @group, in_use: 200, held: 199, durable: 199}]
           } = report.contents

    text = Inspection.text(report)
    for part <- ["blocks, version 1, intact", "200 in use", "199 held"], do: assert(text =~ part)
    assert Inspection.json(report) =~ ~s("format":"blocks")
    assert File.read!(path) == before
  end

  test "blocks that are open and being used are sound, too; and closed ones", %{
    tmp_dir: directory
  } do
    path = Path.join(directory, "used")
    blocks = Blocks.open!(path, block_size: 100)
    user = Task.async(fn -> use_them(blocks, 0) end)
    for _ <- 1..20, do: assert({:ok, %{status: :intact}} = Inspection.file(path))
    send(user.pid, :stop)
    assert Task.await(user) > 0
    Blocks.close(blocks)

    assert {:ok, %{status: :intact, contents: %{closed: true, replaced: 0}}} =
             Inspection.file(path, values: :infinity)
  end

  defp use_them(blocks, count) do
    {:ok, address} = Blocks.store(blocks, block(rem(count, 200)))
    if address > 1000, do: :ok = Blocks.free(blocks, address)
    if rem(count, 100) == 0, do: :ok = Blocks.sync(blocks)

    :ok =
      Blocks.write(blocks, 1, block(7)) |> then(&if(&1 == {:error, :enoent}, do: :ok, else: &1))

    receive do
      :stop -> count
    after
      0 -> use_them(blocks, count + 1)
    end
  end

  # Where, and what the report has of it.
  for {what, at, expected} <- [
        {"a header", 24, {:damage, 24, "header at 0, block size"}},
        {"the other header", 4096 + 32, {:damage, 4096 + 32, "number of the file"}},
        {"the count", 8448, {:damage, 8448, "count: is"}},
        {"the bits of blocks in use", @group + 10, {:damage, 8448, "count: is"}},
        {"what is durable", @group + 2 * 4096 + 5, {:note, @group + 2 * 4096, "copy 0"}},
        {"a block", @blocks + 20 * 100 + 50,
         {:damage, @blocks + 20 * 100, "block 20: its checksum"}},
        {"a checksum", @group + 4 * 4096 + 4 * 30, {:damage, @blocks + 30 * 100, "block 30"}}
      ] do
    test "a flipped bit in #{what} is found", %{path: path} do
      {severity, at, message} = unquote(Macro.escape(expected))
      flip(path, unquote(at))
      assert {:ok, %{problems: problems}} = Inspection.file(path)

      assert found = Enum.find(problems, &(&1.severity == severity and &1.at == at)),
             inspect(problems)

      assert found.message =~ message
    end
  end

  defp flip(path, at) do
    bytes = File.read!(path)

    {before, <<byte, rest::binary>>} =
      {binary_part(bytes, 0, at), binary_part(bytes, at, byte_size(bytes) - at)}

    File.write!(path, [before, Bitwise.bxor(byte, 0x40), rest])
  end

  test "a file that is too short", %{path: path} do
    bytes = File.read!(path)
    File.write!(path, binary_part(bytes, 0, @blocks + 5000))
    assert {:ok, %{status: :damaged} = report} = Inspection.file(path)
    assert Enum.any?(report.problems, &(&1.message =~ "there is room for"))
    assert Blocks.open(path) == {:error, {:bad_format, :length}}
    File.write!(path, binary_part(bytes, 0, 100_000))
    assert {:ok, %{bad_format: :length, contents: nil}} = Inspection.file(path)
    assert Blocks.open(path) == {:error, {:bad_format, :length}}
  end
end
