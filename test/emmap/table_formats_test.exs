defmodule Emmap.TableFormatsTest do
  # Files that an earlier version wrote, the reader in docs/formats.md, and the inspection.
  use ExUnit.Case, async: true

  alias Emmap.{Inspection, Table}

  @moduletag :tmp_dir
  @golden "test/fixtures/formats/table-v1.bin"
  @python System.find_executable("python3")

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "t")}

  defp records, do: for(n <- 0..999, do: {"key #{n}", String.duplicate(<<n::16>>, rem(n, 50))})

  test "version 1", %{path: path} do
    table = Table.open!(@golden)
    assert Table.check(table) == :ok
    assert Enum.to_list(table) == Enum.sort(records())
    for {key, value} <- records(), do: assert(Table.get(table, key) == value)
    assert Table.get(table, "key 1000") == nil
    assert table |> Table.prefix("key 99") |> Enum.count() == 11
    # A build of this version is the same.
    assert {:ok, _} = Table.build(path, records(), sorted: true, seed: 1)
    assert File.read!(path) == File.read!(@golden)
  end

  unless @python, do: @tag(skip: "there is no python3")

  test "the reader in docs/formats.md finds the same", %{path: path, tmp_dir: directory} do
    [_, reader] = Regex.run(~r/```python\n(.*?)```/s, File.read!("docs/formats.md"))

    script =
      reader <>
        ~S"""
        table = Table(sys.argv[1])
        records = list(table)
        assert len(records) == table.count, len(records)
        for key, value in records:
            assert table.get(key) == value, key
            assert table.get(key + b"?") is None, key
            print(key.hex() or "-", zlib.crc32(value))
        """

    program = Path.join(directory, "reader.py")
    File.write!(program, script)
    long = for n <- 1..100, do: {String.duplicate("k", n), String.duplicate("v", n * 50)}

    for {records, sorted} <- [{records(), true}, {long, false}, {[], false}] do
      {:ok, _} = Table.build(path, records, sorted: sorted)
      assert {printed, 0} = System.cmd(@python, [program, path], stderr_to_stdout: true)

      expected =
        for {key, value} <- Table.open!(path),
            do: "#{Base.encode16(key, case: :lower)} #{:erlang.crc32(value)}\n"

      assert printed == Enum.join(expected)
    end
  end

  describe "mix emmap.inspect" do
    test "shows an intact file" do
      assert {:ok, report} = Inspection.file(@golden, values: 2)
      assert %{format: :table, status: :intact, bad_format: nil, problems: []} = report

      assert %{count: 1000, sorted: true, format: [:binary, :binary], all_checked: true} =
               report.contents

      assert [%{key: "key 0", bytes: 0, at: 4096}, %{key: "key 1", bytes: 2}] =
               report.contents.keys

      text = Inspection.text(report)
      assert text =~ "table, version 1, intact"
      assert text =~ "1,000, sorted"
      assert Inspection.json(report) =~ ~s("format":"table")
    end

    @tag timeout: 300_000
    test "finds every damaged byte, as opening and checking do", %{path: path} do
      whole = File.read!(@golden)

      for at <- Enum.concat([0..119, 4096..4200//13, 4200..(byte_size(whole) - 1)//4999]) do
        <<start::binary-size(at), byte, rest::binary>> = whole
        File.write!(path, [start, Bitwise.bxor(byte, 1), rest])
        assert {:ok, report} = Inspection.file(path)
        assert report.format == :table and report.status != :intact, "byte #{at}"

        case Table.open(path) do
          {:error, {:bad_format, why}} -> assert report.bad_format == why
          {:ok, table} -> assert {:error, {:corrupt, _}} = Table.check(table)
        end
      end
    end

    test "finds a file that is too short or too long", %{path: path} do
      whole = File.read!(@golden)

      for bytes <- [
            binary_part(whole, 0, byte_size(whole) - 1),
            whole <> "x",
            binary_part(whole, 0, 60)
          ] do
        File.write!(path, bytes)
        assert {:ok, %{status: :damaged, bad_format: :length}} = Inspection.file(path)
        assert Table.open(path) == {:error, {:bad_format, :length}}
      end
    end
  end
end
