defmodule Emmap.TableTest do
  use ExUnit.Case, async: true

  alias Emmap.Table

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "t"), directory: directory}

  defp built(path, records, options \\ []) do
    assert {:ok, _} = Table.build(path, records, options)
    Table.open!(path)
  end

  defp files(directory), do: directory |> File.ls!() |> Enum.sort()

  describe "lookups" do
    test "find what was built, and nothing else", %{path: path} do
      for sorted <- [false, true] do
        records = for n <- 1..5000, into: %{}, do: {"#{n}", String.duplicate("#{n}", rem(n, 60))}
        table = built(path, records, sorted: sorted)

        for {key, value} <- records do
          assert Table.get(table, key) == value
          assert Table.fetch(table, key) == {:ok, value}
          assert table[key] == value
          assert Table.has_key?(table, key)
        end

        for n <- 5001..9000 do
          assert Table.get(table, "#{n}") == nil
          assert Table.get(table, "#{n}", :none) == :none
          assert Table.fetch(table, "#{n}") == :error
          refute Table.has_key?(table, "#{n}")
        end

        assert Table.count(table) == 5000
        assert Map.new(table) == records
        assert Enum.sort(Table.keys(table)) == Enum.sort(Map.keys(records))
        assert Table.check(table) == :ok
        assert Table.close(table) == :ok
      end
    end

    test "an empty table", %{path: path} do
      for sorted <- [false, true] do
        table = built(path, [], sorted: sorted)
        assert Table.get(table, "") == nil
        assert Enum.to_list(table) == []
        assert Table.count(table) == 0
        assert Table.check(table) == :ok
        if sorted, do: assert(Enum.to_list(Table.prefix(table, "")) == [])
      end
    end

    test "the empty key, the longest one, and empty values", %{path: path} do
      long = String.duplicate("k", 65_535)
      table = built(path, [{"", "empty"}, {long, ""}])
      assert Table.get(table, "") == "empty"
      assert Table.get(table, long) == ""

      assert_raise ArgumentError, ~r/at most 65535 bytes/, fn ->
        Table.build(path, [{long <> "k", ""}])
      end

      assert Table.get(table, long <> "k") == nil
    end

    test "long values are live, short ones are not", %{path: path} do
      long = :binary.copy("x", 300_000)

      table =
        built(path, [{"65", :binary.copy("a", 65)}, {"64", :binary.copy("b", 64)}, {"long", long}])

      copy = Table.get(table, "64")
      live = Table.get(table, "65")
      other = Table.get(table, "long")
      assert other == long
      {:ok, size} = File.read(path)
      {at, 65} = :binary.match(size, live)
      {at_copy, 64} = :binary.match(size, copy)
      # An in-place change, which nobody should make.
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      :ok = :file.pwrite(file, at, "A")
      :ok = :file.pwrite(file, at_copy, "B")
      :ok = :file.close(file)
      assert :binary.first(live) == ?A
      assert :binary.first(copy) == ?b
      # What is copied is compared with its checksum, and nothing else.
      assert_raise Emmap.Error, ~r/damaged at position/, fn -> Table.get(table, "64") end
      assert :binary.first(Table.get(table, "65")) == ?A
      # The first damaged block of 64 KiB. The order of the records depends on the seed.
      damaged = 4096 + div(min(at, at_copy) - 4096, 65_536) * 65_536
      assert {:error, {:corrupt, ^damaged}} = Table.check(table)
      # They outlive the table.
      assert Table.close(table) == :ok
      assert other == long
    end

    test "keys may be live binaries", %{path: path, directory: directory} do
      table =
        built(path, [{"a live key, longer than 64 bytes" <> String.duplicate("-", 64), "v"}])

      other = Path.join(directory, "keys")
      File.write!(other, "a live key, longer than 64 bytes" <> String.duplicate("-", 64))
      assert Table.get(table, Emmap.view!(other)) == "v"
    end

    test "mistakes are explained", %{path: path} do
      table = built(path, [{"k", "v"}])

      for lookup <- [&Table.get/2, &Table.fetch/2, &Table.has_key?/2] do
        assert_raise ArgumentError, ~r/binar/, fn -> lookup.(table, :k) end
        assert_raise ArgumentError, ~r/not a table/, fn -> lookup.({:ok, table}, "k") end
      end

      for calls <- [&Table.prefix(&1, "a"), &Table.range(&1, nil, nil)],
          do: assert_raise(ArgumentError, ~r/sorted: true/, fn -> calls.(table) end)

      assert_raise ArgumentError, ~r/never changed/, fn -> put_in(table["k"], "w") end
      assert_raise ArgumentError, ~r/never changed/, fn -> pop_in(table["k"]) end
      assert Table.close(table) == :ok
      assert_raise Emmap.Error, ~r/it is closed/, fn -> Table.get(table, "k") end
      assert_raise Emmap.Error, ~r/it is closed/, fn -> Enum.to_list(table) end
      assert Table.close(table) == {:error, :closed}
    end

    test "Enumerable, Inspect and info", %{path: path} do
      table = built(path, [{"a", "1"}, {"b", "2"}], sorted: true)
      assert Enum.count(table) == 2
      assert {"a", "1"} in table
      refute {"a", "2"} in table
      refute :a in table
      assert Enum.take(table, 1) == [{"a", "1"}]
      assert Enum.zip(table, [1, 2]) == [{{"a", "1"}, 1}, {{"b", "2"}, 2}]
      assert inspect(table) == "#Emmap.Table<#{inspect(path)}, 2 records, sorted>"
      size = File.stat!(path).size
      assert {:ok, info} = Table.info(table)
      assert %{count: 2, sorted: true, format: {:binary, :binary}, size: ^size, faults: 0} = info
    end
  end

  describe "sorted tables" do
    test "ranges and prefixes agree with a list", %{path: path} do
      records =
        for n <- 1..3000, do: {Integer.to_string(n * 7, 3), :binary.copy(<<n::16>>, rem(n, 40))}

      table = built(path, Enum.shuffle(records), sorted: true)
      sorted = Enum.sort(records)
      assert Enum.to_list(table) == sorted
      keys = ["", "0", "1", "12", "2", "21012", "3", List.last(sorted) |> elem(0)]

      for prefix <- keys do
        expected = Enum.filter(sorted, fn {key, _} -> String.starts_with?(key, prefix) end)
        assert table |> Table.prefix(prefix) |> Enum.to_list() == expected
      end

      for first <- [nil | keys], last <- [nil | keys] do
        expected =
          Enum.filter(sorted, fn {key, _} ->
            (first == nil or key >= first) and (last == nil or key <= last)
          end)

        assert table |> Table.range(first, last) |> Enum.to_list() == expected
      end
    end
  end

  describe "terms" do
    test "are found by ===", %{path: path} do
      big = Map.new(1..100, &{{:key, &1}, &1})
      other = Map.new(100..1//-1, &{{:key, &1}, &1})

      records = [
        {1, :integer},
        {1.0, :float},
        {"1", :binary},
        {~c"1", :charlist},
        {big, :map},
        {nil, nil}
      ]

      table = built(path, records, format: :term)

      assert Enum.map(records, fn {key, _} -> Table.get(table, key) end) ==
               Enum.map(records, &elem(&1, 1))

      assert Table.get(table, other) == :map
      assert Table.fetch(table, nil) == {:ok, nil}
      assert Table.fetch(table, 2) == :error
      assert Enum.sort(table) == Enum.sort(records)
      assert Enum.sort(Table.keys(table)) == records |> Enum.map(&elem(&1, 0)) |> Enum.sort()
      assert {1, :integer} in table
      assert {:ok, %{format: {:term, :term}}} = Table.info(table)
    end

    test "of values alone, also long ones", %{path: path} do
      long = Enum.to_list(1..100_000)
      table = built(path, [{"a", long}, {"b", %{x: 1}}], format: {:binary, :term}, sorted: true)
      assert Table.get(table, "a") == long
      assert table["b"] == %{x: 1}
      assert Enum.to_list(Table.prefix(table, "")) == [{"a", long}, {"b", %{x: 1}}]
      assert_raise ArgumentError, ~r/keys of this table/, fn -> Table.get(table, :a) end
    end

    test "unknown atoms are refused unless all terms are decoded", %{path: path} do
      atom = "table_test_#{System.unique_integer([:positive])}"
      value = <<131, 119, byte_size(atom), atom::binary>>
      {:ok, _} = Table.build(path, [{"k", value}])
      # The flag that says that values are terms.
      <<start::binary-12, _flags::32-little, rest::binary-100, _crc::32-little, records::binary>> =
        File.read!(path)

      header = <<start::binary, 2::32-little, rest::binary>>
      File.write!(path, [header, <<:erlang.crc32(header)::32-little>>, records])
      table = Table.open!(path)
      assert_raise ArgumentError, fn -> Table.get(table, "k") end
      trusting = Table.open!(path, safe: false)
      assert Atom.to_string(Table.get(trusting, "k")) == atom
    end

    test "cannot be sorted", %{path: path} do
      assert_raise ArgumentError, ~r/binary keys/, fn ->
        Table.build(path, [], format: :term, sorted: true)
      end
    end
  end

  describe "building" do
    test "keeps the last, the first, or none of two records with one key", %{path: path} do
      records = [{"a", "1"}, {"b", "2"}, {"a", "3"}]
      assert {:ok, %{count: 2, duplicates: 1, size: size}} = Table.build(path, records)
      assert size == File.stat!(path).size
      assert Table.get(Table.open!(path), "a") == "3"
      assert {:ok, %{count: 2, duplicates: 1}} = Table.build(path, records, duplicates: :first)
      assert Table.get(Table.open!(path), "a") == "1"
      assert Table.build(path, records, duplicates: :error) == {:error, {:duplicate, "a"}}
      terms = [{:a, 1}, {:a, 2}]

      assert Table.build(path, terms, duplicates: :error, format: :term) ==
               {:error, {:duplicate, :a}}

      # The file of the last build that succeeded.
      assert Table.get(Table.open!(path), "a") == "1"
    end

    test "replaces the file in one step; open tables keep theirs", %{
      path: path,
      directory: directory
    } do
      old = built(path, [{"k", "old"}])
      new = built(path, [{"k", "new"}])
      assert {Table.get(old, "k"), Table.get(new, "k")} == {"old", "new"}
      assert Table.build(path, [], replace: false) == {:error, :eexist}
      assert Table.get(Table.open!(path), "k") == "new"
      assert files(directory) == ["t"]
    end

    test "records and tables of records end at, before and after a multiple of 4 MiB", %{
      path: path
    } do
      # The file is written in pieces of this size, and the records begin at byte 4096.
      piece = 4_194_304

      for pieces <- [1, 2], difference <- -40..8 do
        value = :binary.copy(<<pieces>>, pieces * piece - 4096 + difference)
        table = built(path, [{"k", value}, {"l", "m"}])
        assert Table.check(table) == :ok
        assert Table.fetch(table, "k") == {:ok, value}
        assert Table.fetch(table, "l") == {:ok, "m"}
        Table.close(table)
      end
    end

    test "keeps the mode of the file, and a symbolic link to it", %{
      path: path,
      directory: directory
    } do
      {:ok, _} = Table.build(path, [])
      File.chmod!(path, 0o640)
      link = Path.join(directory, "link")
      File.ln_s!("t", link)
      assert {:ok, _} = Table.build(link, [{"k", "v"}])
      assert Bitwise.band(File.stat!(path).mode, 0o777) == 0o640
      assert File.read_link!(link) == "t"
      assert Table.get(Table.open!(path), "k") == "v"
      assert files(directory) == ["link", "t"]
    end

    test "the same seed and records make the same file", %{path: path} do
      records = for n <- 1..1000, do: {"#{n}", "#{n}"}

      files =
        for order <- [records, Enum.reverse(records)] do
          {:ok, _} = Table.build(path, order, seed: 5)
          File.read!(path)
        end

      assert [same, same] = files
      {:ok, _} = Table.build(path, records)
      assert File.read!(path) != same
    end

    test "uses temporary files for what does not fit in the memory", %{
      path: path,
      directory: directory
    } do
      records =
        Stream.map(1..400_000, &{"key #{rem(&1 * 7919, 400_000)}", :binary.copy(<<&1::32>>, 12)})

      test = self()

      progress = fn progress ->
        send(test, {progress.phase, progress.done, progress.total})
        assert files(directory) == []
      end

      for sorted <- [false, true] do
        options = [memory: 16_777_216, sorted: sorted, progress: progress]
        assert {:ok, %{count: 400_000}} = Table.build(path, records, options)

        for phase <- [:reading, :sorting, :merging, :indexing],
            do: assert_received({^phase, _, _})

        table = Table.open!(path)
        assert Table.check(table) == :ok
        assert Enum.take(records, 100) -- Enum.to_list(table) == []
        File.rm!(path)
      end
    end

    test "with values that are much longer than the memory", %{path: path} do
      value = fn n -> :binary.copy(<<n>>, 5_000_000 + n) end
      table = built(path, Stream.map(1..20, &{"#{&1}", value.(&1)}), memory: 16_777_216)
      for n <- 1..20, do: assert(Table.get(table, "#{n}") == value.(n))
      assert Table.check(table) == :ok
    end

    test "leaves nothing behind if the enumerable raises", %{path: path, directory: directory} do
      records =
        Stream.map(1..100_000, fn n ->
          if n < 90_000, do: {"#{n}", "v"}, else: raise("no more")
        end)

      assert_raise RuntimeError, "no more", fn -> Table.build(path, records) end
      assert files(directory) == []

      assert_raise ArgumentError, ~r/a record is {key, value}/, fn ->
        Table.build(path, [{"a", "b"}, "c"])
      end

      assert_raise ArgumentError, ~r/values of this table are binaries/, fn ->
        Table.build(path, [{"a", 1}])
      end

      assert files(directory) == []
    end

    test "leaves nothing behind if the process is killed", %{path: path, directory: directory} do
      test = self()

      pid =
        spawn(fn ->
          Table.build(path, Stream.map(1..1_000_000_000, &{"#{&1}", "v"}),
            memory: 16_777_216,
            progress: fn %{done: done} -> if done > 300_000, do: send(test, :many) end
          )
        end)

      assert_receive :many, 60_000
      Process.exit(pid, :kill)
      assert files(directory) == []
    end

    test "removes what killed builds of the same file left", %{path: path, directory: directory} do
      {:ok, _} = Table.build(path, [])
      prefix = ".emmap-table-#{hash("t")}-"
      File.write!(Path.join(directory, prefix <> "1-0.new"), "left")

      File.write!(
        Path.join(directory, ".emmap-table-0123456789abcdef-1-0.new"),
        "of another file"
      )

      {:ok, _} = Table.build(path, [])
      assert files(directory) == [".emmap-table-0123456789abcdef-1-0.new", "t"]
    end

    test "errors of the system", %{path: path, directory: directory} do
      assert Table.build(Path.join(path, "no/directory"), []) == {:error, :enoent}
      assert Table.build(directory, []) == {:error, :eisdir}

      assert Table.build("/dev/null", []) == {:error, :enodev}

      assert Table.build(path <> <<0>>, []) == {:error, :einval}
      assert Table.open(path) == {:error, :enoent}
    end

    test "wrong options are explained", %{path: path} do
      for {option, value} <- [
            format: :terms,
            sorted: 1,
            duplicates: :none,
            memory: 5,
            seed: -1,
            progress: 1,
            replace: nil
          ],
          do:
            assert_raise(ArgumentError, ~r/#{option}: must be/, fn ->
              Table.build(path, [], [{option, value}])
            end)

      assert_raise ArgumentError, ~r/unknown/, fn -> Table.build(path, [], sort: true) end
    end
  end

  # The names of temporary files have the hash of the name: XXH64 of "t" with the seed 0.
  defp hash("t"), do: "938d507d8517a864"

  describe "files" do
    test "that are not tables", %{path: path} do
      for {bytes, why} <- [
            {"", :kind},
            {"hello", :kind},
            {"EMMAPTBL", :length},
            {"EMMAPTBL" <> <<0::8000>>, :checksum}
          ] do
        File.write!(path, bytes)
        assert Table.open(path) == {:error, {:bad_format, why}}
      end

      assert_raise Emmap.Error, ~r/not a valid table file/, fn -> Table.open!(path) end
      assert Table.open("/dev/null") == {:error, :enodev}
    end

    test "that another program truncates: an error, and no crash", %{path: path} do
      records = for n <- 1..20_000, do: {"#{n}", :binary.copy(<<n::32>>, 20)}
      table = built(path, records, sorted: true)
      live = Table.get(table, "20000")
      whole = File.read!(path)
      File.write!(path, binary_part(whole, 0, 4096))

      for call <- [
            fn -> Table.get(table, "7") end,
            fn -> Table.has_key?(table, "8") end,
            fn -> Enum.to_list(table) end,
            fn -> Enum.to_list(Table.prefix(table, "9")) end
          ],
          do: assert(%{reason: :estale} = catch_error(call.()))

      assert Table.check(table) == {:error, :estale}
      assert byte_size(live) == 80
      # The same inode is written again.
      File.write!(path, whole)
      assert Table.reattach(table) == :ok
      assert Table.get(table, "7") == :binary.copy(<<7::32>>, 20)
      assert Table.check(table) == :ok
    end
  end

  test "many processes at once", %{path: path} do
    records = for n <- 1..2000, into: %{}, do: {"#{n}", :binary.copy("#{n}", 30)}
    table = built(path, records)

    1..8
    |> Task.async_stream(fn _ ->
      Enum.all?(records, fn {key, value} -> Table.get(table, key) == value end)
    end)
    |> Enum.each(&assert(&1 == {:ok, true}))
  end
end
