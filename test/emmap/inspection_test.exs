defmodule Emmap.InspectionTest do
  use ExUnit.Case, async: true
  import Bitwise
  alias Emmap.{Counters, Inspection}
  alias Emmap.Inspection.{CounterFile, Source}

  doctest Emmap.Inspection

  @moduletag :tmp_dir
  @fixtures "test/fixtures/formats"

  # Offset, bytes, and what the field is called: docs/formats.md.
  @fields [
    {0, 8, "magic"},
    {8, 4, "version"},
    {12, 4, "endian mark"},
    {16, 8, "sequence number"},
    {24, 8, "number of counters"},
    {32, 4, "number of stripes"},
    {36, 4, "reserved field"},
    {40, 8, "data offset"},
    {48, 8, "names offset"},
    {56, 8, "room for names"},
    {64, 8, "bytes of names"},
    {72, 4, "checksum of the names"},
    {76, 4, "checksum"}
  ]

  setup context do
    # The doctest has none.
    %{path: Path.join(context[:tmp_dir] || "", "c.cnt")}
  end

  # A counter file as it lies on the disk.
  defp counters(path, count_or_names, values \\ [], options \\ []) do
    File.rm(path)
    c = Counters.open!(path, count_or_names, options)
    for {value, index} <- Enum.with_index(values), do: Counters.add(c, index, value)
    :ok = Counters.close(c)
    File.read!(path)
  end

  defp report(path, bytes, options \\ []) do
    File.write!(path, bytes)
    {:ok, report} = Inspection.file(path, options)
    assert File.read!(path) == bytes
    # What opening says is what opening does; it may write, so that comes last.
    opened = with {:ok, c} <- Counters.open(path, 0), do: Counters.close(c)

    if report.format == :plain,
      do:
        assert(opened in [:ok, {:error, {:bad_format, :kind}}, {:error, {:bad_format, :length}}]),
      else:
        assert(opened == if(why = report.bad_format, do: {:error, {:bad_format, why}}, else: :ok))

    report
  end

  defp put(bytes, at, with) do
    behind = at + byte_size(with)
    binary_part(bytes, 0, at) <> with <> binary_part(bytes, behind, byte_size(bytes) - behind)
  end

  defp flip(bytes, at, bit), do: put(bytes, at, <<bxor(:binary.at(bytes, at), bit)>>)

  # With these bytes in it, and a checksum that fits.
  defp header(bytes, from, at, with) do
    bytes = put(bytes, from + at, with)
    put(bytes, from + 76, <<:erlang.crc32(binary_part(bytes, from, 76))::little-32>>)
  end

  defp both(bytes, at, with), do: bytes |> header(0, at, with) |> header(4096, at, with)
  defp places(report), do: for(problem <- report.problems, do: {problem.severity, problem.at})
  defp said(report), do: Enum.map_join(report.problems, "\n", & &1.message)

  describe "golden files" do
    test "counters, version 1" do
      assert {:ok, report} = Inspection.file("#{@fixtures}/counters-v1-named.bin")

      assert %{format: :counters, status: :intact, bad_format: nil, problems: [], size: 1_056_896} =
               report

      assert report.contents == %{
               count: 2,
               named: true,
               write_concurrency: false,
               sum: 42,
               not_zero: 2,
               largest: %{key: "requests", value: 40},
               smallest: %{key: "errors", value: 2},
               values: [%{key: "requests", value: 40}, %{key: "errors", value: 2}]
             }

      assert [%{at: 0, state: :current, fields: fields}, %{at: 4096, state: :same}] =
               report.headers

      assert %{sequence: 1, count: 2, stripes: 1, version: 1, names_length: 18} = fields
    end

    test "the predecessor's" do
      assert {:ok, report} = Inspection.file("#{@fixtures}/counters-v0-predecessor.bin")
      assert %{format: :predecessor_counters, status: :intact, size: 40, problems: []} = report

      assert %{sum: 42, largest: %{key: 0, value: 50}, smallest: %{key: 1, value: -9}} =
               report.contents

      assert for(%{value: value} <- report.contents.values, do: value) == [50, -9, 1]
    end
  end

  describe "counters, version 1" do
    test "each flipped bit of each header is named", %{path: path} do
      good = counters(path, 3, [1, 2, 3])

      for from <- [0, 4096],
          {at, size, title} <- @fields,
          byte <- at..(at + size - 1),
          bit <- 0..7 do
        report = report(path, flip(good, from + byte, 1 <<< bit))
        assert %{format: :counters, status: :damaged} = report
        assert [%{severity: :damage, at: where, bytes: 1, message: message}] = report.problems
        assert where == from + byte
        assert message =~ "header at #{from}, #{title}: bit #{bit} of this byte was flipped"
        # The other header serves.
        assert %{bad_format: nil, contents: %{sum: 6}} = report
      end
    end

    test "what a field was is said", %{path: path} do
      good = counters(path, 3)
      report = report(path, flip(good, 24, 8))
      assert said(report) =~ "(at 24) is 11 and was 3"
      assert Inspection.text(report) =~ "can be opened; 1 remark"
      both = good |> flip(24, 8) |> flip(4096 + 40, 1)
      assert %{bad_format: :checksum, contents: nil} = report = report(path, both)
      assert places(report) == [damage: 24, damage: 4136]
      assert Inspection.text(report) =~ "cannot be opened (checksum)"
    end

    test "what several bits did is found by the other header, or by what cannot be", %{path: path} do
      good = counters(path, 3)
      bad = put(good, 4096 + 24, <<99::little-64>>)
      assert places(report(path, bad)) == [damage: 4096 + 76, damage: 4096 + 24]

      assert said(report(path, bad)) =~
               "number of counters: is 3 in the other header, but 99 was found"

      bad = good |> put(32, <<5000::little-32>>) |> put(4096 + 24, <<99::little-64>>)
      report = report(path, bad)
      assert {:damage, 32} in places(report)
      assert said(report) =~ "number of stripes: must be 1 to 1024, but 5000 was found"
      assert report.bad_format == :checksum
    end

    test "any damage: the report predicts the result of opening", %{path: path} do
      names = for n <- 1..40, do: "name #{n}"
      originals = [counters(path, 3, [1]), counters(path, names, [1, 2])]
      seed = System.unique_integer([:positive])
      :rand.seed(:exsss, seed)

      for round <- 1..400 do
        bytes = damaged(Enum.random(originals), :rand.uniform(3))
        info = "seed #{seed}, round #{round}"
        report = report(path, bytes)
        assert is_binary(Inspection.text(report)), info
        assert String.valid?(Inspection.json(report)), info
        if report.bad_format, do: assert(report.status != :intact, info)
      end
    end

    defp damaged(bytes, 0), do: bytes

    defp damaged(bytes, left) do
      from = Enum.random([0, 0, 4096, 4096, 8192])
      {at, size, _} = Enum.random(@fields)
      random = :rand.bytes(size)

      changed =
        case :rand.uniform(6) do
          1 -> put(bytes, from + at, random)
          2 -> header(bytes, min(from, 4096), at, random)
          3 -> binary_part(bytes, 0, :rand.uniform(min(byte_size(bytes), 20_000)))
          4 -> put(bytes, from, :binary.copy(<<0>>, 80))
          5 -> flip(bytes, from + :rand.uniform(80), 1)
          6 -> bytes <> random
        end

      # A truncated part cannot be changed any more.
      if byte_size(changed) < 8300, do: changed, else: damaged(changed, left - 1)
    end

    test "another version, another byte order", %{path: path} do
      good = counters(path, 3)
      report = report(path, both(good, 8, <<2::little-32>>))

      assert %{
               status: :unknown,
               bad_format: :version,
               contents: nil,
               title: "counters, version 2"
             } = report

      assert places(report) == [unknown: 8, unknown: 4104]
      assert said(report) =~ "version: must be 1 for this version of Emmap, but 2 was found"

      other = <<mark::native-32>> = <<0x01020304::native-32>>
      other = other |> :binary.bin_to_list() |> Enum.reverse() |> :binary.list_to_bin()
      assert mark == 0x01020304
      report = report(path, header(good, 4096, 12, other))
      assert %{status: :unknown, bad_format: :endianness} = report
      assert places(report) == [unknown: 4108]
      assert said(report) =~ "the other byte order"
      assert [_, %{state: :unknown}] = report.headers
    end

    test "fields that no writer writes, under a right checksum", %{path: path} do
      good = counters(path, 3)

      for {at, with, title} <- [
            {32, <<0::32>>, "number of stripes"},
            {40, <<8193::little-64>>, "data offset"},
            {48, <<4096::little-64>>, "names offset"},
            {64, <<1::little-64>>, "bytes of names"},
            {16, <<-1::64>>, "sequence number"}
          ] do
        report = report(path, both(good, at, with))
        assert %{bad_format: :checksum, status: :damaged} = report
        assert Enum.any?(report.problems, &(&1.at == at and &1.message =~ title)), title
      end

      # More than two counters can have, and less than there is room for.
      report = report(path, both(counters(path, [:a, :b]), 64, <<2 * 1026 + 1::little-64>>))
      assert %{bad_format: :checksum, problems: [%{at: 64}, %{at: 4160}]} = report

      assert %{status: :intact, problems: [note, _]} = report(path, both(good, 36, <<7>>))
      assert %{severity: :note, at: 36} = note
    end

    test "length: shorter is damage, longer is what a crash may leave", %{path: path} do
      good = counters(path, 20, [5])
      size = byte_size(good)
      report = report(path, binary_part(good, 0, size - 1))
      assert %{bad_format: :length, contents: nil} = report
      assert [%{severity: :damage, at: at, bytes: 1}] = report.problems
      assert at == size - 1
      assert %{status: :intact, contents: %{sum: 5}} = report = report(path, good <> "abc")
      assert [%{severity: :note, at: ^size, bytes: 3}] = report.problems

      assert %{bad_format: :length, format: :counters} = report = report(path, "EMMAPCNT abc")
      assert said(report) =~ "the file ends after 12 of its 80 bytes"
      # Of two headers one is enough.
      assert {:ok, %{format: :counters}} = Inspection.file(path)
    end

    test "names", %{path: path} do
      good = counters(path, [:requests, :errors], [40, 2])
      report = report(path, flip(good, 8192 + 3, 4))
      assert %{bad_format: :names, status: :damaged, contents: %{named: false, sum: 42}} = report
      assert places(report) == [damage: 8195]
      assert said(report) =~ ~s(bit 2 of this byte was flipped: it is "a" and was "e")
      report = report(path, put(good, 8194, "REQUESTS"))
      assert places(report) == [damage: 8192]
      assert said(report) =~ "names, checksum: of bytes 8192 to 8209"

      for {table, why} <- [
            {"\x08\0requests\x06\0err\xFFrs", "number 1 is not UTF-8"},
            {"\x08\0requests\x09\0errors", "number 1 is longer than what is left"},
            {"\x10\0requests..errors", "there are 1 for 2 counters"},
            {"\x07\0samesam\x07\0samesam", ~s("samesam" occurs twice)}
          ] do
        bytes = good |> put(8192, table) |> both(64, <<byte_size(table)::little-64>>)
        report = report(path, both(bytes, 72, <<:erlang.crc32(table)::little-32>>))
        assert %{bad_format: :names, status: :damaged} = report
        assert said(report) =~ why
      end
    end

    test "a growth that a crash cut short is a note", %{path: path} do
      good = counters(path, 3, [7])
      report = report(path, header(good, 4096, 16, <<9::little-64>>))
      assert %{status: :intact, bad_format: nil, contents: %{sum: 7}} = report
      assert [%{state: :older}, %{state: :current}] = report.headers
      assert places(report) == [note: 0]
      report = report(path, put(good, 0, :binary.copy(<<0>>, 80)))
      assert %{status: :intact, problems: [%{at: 0, severity: :note}]} = report
      assert [%{state: :none}, %{state: :current}] = report.headers
    end

    test "two sound headers that claim the same", %{path: path} do
      good = counters(path, 3, [7])
      report = report(path, header(good, 4096, 24, <<2::little-64>>))
      assert %{status: :damaged, bad_format: nil, contents: %{count: 3}} = report
      assert places(report) == [damage: 4096]
    end

    test "many, with stripes, negative, beyond 64 bits", %{path: path} do
      values = for n <- 1..300_001, do: n * 7919 - 1_000_000_000
      report = report(path, counters(path, 300_001, values), values: 3)
      assert report.contents.sum == Enum.sum(values)
      assert report.contents.largest == %{key: 300_000, value: List.last(values)}
      assert report.contents.smallest == %{key: 0, value: hd(values)}

      assert report.contents.values ==
               for({v, k} <- Enum.with_index(Enum.take(values, 3)), do: %{key: k, value: v})

      bytes = counters(path, 40, [], write_concurrency: true)
      File.write!(path, bytes)
      c = Counters.open!(path, 40)

      1..8
      |> Task.async_stream(fn n -> for k <- 0..39, do: Counters.sub(c, k, n * k) end)
      |> Stream.run()

      assert {:ok, report} = Inspection.file(path, values: :infinity)
      assert for(%{value: value} <- report.contents.values, do: value) == Counters.to_list(c)
      assert report.contents.write_concurrency
      Counters.close(c)

      # More than is read at once.
      bytes = counters(path, 80_000, [], write_concurrency: true)
      File.write!(path, bytes)
      c = Counters.open!(path, 80_000)
      for k <- 0..79_999//977, do: Counters.put(c, k, k)
      assert {:ok, report} = Inspection.file(path, values: :infinity)
      assert for(%{value: value} <- report.contents.values, do: value) == Counters.to_list(c)
      Counters.close(c)

      max = (1 <<< 63) - 1
      report = report(path, counters(path, 3, [max, max, max]))
      assert report.contents.sum == 3 * max
      assert Inspection.json(report) =~ ~s("sum":#{3 * max})
      assert report(path, counters(path, 0)).contents.largest == nil
    end
  end

  describe "the predecessor's" do
    test "magic, number and length", %{path: path} do
      good = File.read!("#{@fixtures}/counters-v0-predecessor.bin")

      for bit <- 0..7, byte <- 0..7 do
        report = report(path, flip(good, byte, 1 <<< bit))
        assert %{format: :predecessor_counters, status: :damaged, bad_format: :kind} = report
        assert [%{at: 0, message: "magic: " <> _}] = report.problems
      end

      for bit <- 0..7, byte <- 8..15 do
        report = report(path, flip(good, byte, 1 <<< bit))

        if bit <= 1 and byte == 8 do
          # Nothing tells a smaller number from the traces of a growth.
          assert %{status: :intact, problems: [%{severity: :note}]} = report
        else
          assert %{status: :damaged, bad_format: :length, contents: nil} = report
          assert [%{at: 8, bytes: 8, message: "number of counters: " <> _}] = report.problems
        end
      end

      assert %{bad_format: :length} = report = report(path, binary_part(good, 0, 12))
      assert said(report) =~ "the file 12"
      assert %{bad_format: :length} = report(path, binary_part(good, 0, 39))
    end
  end

  describe "a file that claims more than there is on its disk" do
    @describetag timeout: 30_000

    # A counter file, version 1, of a few KB and a hole.
    defp claim(path, claims) do
      claims = Map.merge(%{count: 0, stripes: 1, names: 0, crc: 0}, claims)
      room = div(claims.names + 4095, 4096) * 4096
      lines = div(claims.count + 15, 16) * 128 * claims.stripes

      body =
        <<"EMMAPCNT", 1::little-32, 0x01020304::native-32, 1::little-64, claims.count::little-64,
          claims.stripes::little-32, 0::32, 8192 + room::little-64, 8192::little-64,
          room::little-64, claims.names::little-64, claims.crc::little-32>>

      header = body <> <<:erlang.crc32(body)::little-32>>
      File.write!(path, put(put(:binary.copy(<<0>>, 4176), 0, header), 4096, header))
      lengthen(path, 8192 + room + lines)
    end

    defp predecessor(path, count) do
      File.write!(path, "EMMAP01\n" <> <<count::little-64>>)
      lengthen(path, 16 + count * 8)
    end

    defp lengthen(path, size) do
      {:ok, raw} = :file.open(path, [:raw, :read, :write])
      {:ok, _} = :file.position(raw, size)
      :ok = :file.truncate(raw)
      :file.close(raw)
    end

    test "counters in a hole are zeros, and are not read", %{path: path} do
      most = 1 <<< 40

      for make <- [
            fn -> predecessor(path, most) end,
            fn -> claim(path, %{count: most}) end,
            fn -> claim(path, %{count: most >>> 6, stripes: 64}) end
          ] do
        File.rm(path)
        make.()

        assert {:ok, %{status: :intact, contents: %{count: count}} = report} =
                 Inspection.file(path)

        zero = %{key: 0, value: 0}
        assert %{sum: 0, not_zero: 0, largest: ^zero, smallest: ^zero} = report.contents
        assert report.contents.values == for(key <- 0..19, do: %{key: key, value: 0})
        assert report.pages.resident < 100
        assert byte_size(Inspection.json(report)) < 10_000
        assert Inspection.text(report) =~ "more\n"

        # Not synced, so that they are in memory only.
        c = Counters.open!(path, 0)

        for {index, value} <- [{3, -5}, {div(count, 2), 7}, {count - 1, 7}],
            do: Counters.put(c, index, value)

        assert {:ok, report} = Inspection.file(path, values: 5)
        assert %{sum: 9, not_zero: 3, smallest: %{key: 3, value: -5}} = report.contents
        assert report.contents.largest == %{key: div(count, 2), value: 7}
        assert for(%{value: value} <- report.contents.values, do: value) == [0, 0, 0, -5, 0]
        Counters.close(c)
      end
    end

    @tag timeout: 180_000
    test "the report of a file with holes equals that of the same file without", %{path: path} do
      seed = System.unique_integer([:positive])
      :rand.seed(:exsss, seed)

      for round <- 1..30 do
        stripes = Enum.random([1, 2, 3, 64])
        count = :rand.uniform(div(400_000, stripes))
        claim(path, %{count: count, stripes: stripes})
        c = Counters.open!(path, 0)

        for _ <- 1..:rand.uniform(8) do
          from = :rand.uniform(count) - 1
          sign = Enum.random([-1, 1])

          for index <- from..min(from + Enum.random([0, 100, 5000]), count - 1),
              do: Counters.put(c, index, sign * index)
        end

        {:ok, sparse} = Inspection.file(path, values: :infinity)
        values = Counters.to_list(c)
        Counters.close(c)
        assert for(%{value: value} <- sparse.contents.values, do: value) == values

        bytes = File.read!(path)
        File.rm!(path)
        File.write!(path, bytes)
        {:ok, dense} = Inspection.file(path, values: :infinity)
        assert dense.contents == sparse.contents, "seed #{seed}, round #{round}"
        File.rm!(path)
      end
    end

    test "the pages of a hole are not counted one by one", %{path: path} do
      predecessor(path, 1 <<< 40)
      mem = Emmap.open!(path)
      assert {:ok, <<"EMMAP01", _::binary>>} = Emmap.pread(mem, 0, 16)
      {microseconds, {:ok, info}} = :timer.tc(fn -> Emmap.info(mem) end)
      assert info.size == 16 + (8 <<< 40) and info.resident_pages in 1..100
      assert microseconds < 5_000_000
    end

    test "names in a hole are read up to the second one", %{path: path} do
      length = 16 <<< 20
      crc = :erlang.crc32(:binary.copy(<<0>>, length))
      claim(path, %{count: div(length, 2), names: length, crc: crc})
      assert {:error, {:bad_format, :names}} = Counters.open(path, 0)
      {microseconds, {:ok, report}} = :timer.tc(fn -> Inspection.file(path) end)
      assert %{bad_format: :names, status: :damaged, contents: %{named: false}} = report
      assert said(report) == ~s(names, "" occurs twice)
      assert microseconds < 5_000_000

      claim(path, %{count: 1 <<< 29, names: 1 <<< 30})
      assert {:error, {:bad_format, :checksum}} = Counters.open(path, 0)
      assert {:ok, %{bad_format: :checksum} = report} = Inspection.file(path)

      assert said(report) =~
               "bytes of names: must be at most the room for names, 16777216, and the most that this number of counters can have"
    end

    # Creating the files takes longer than inspecting them.
    @tag timeout: 300_000
    test "many names are compared in linear time", %{path: path} do
      # Counted, not timed: how busy the machine is makes no difference.
      reductions = fn count ->
        path = "#{path}.#{count}"
        Counters.close(Counters.open!(path, for(n <- 1..count, do: Integer.to_string(n))))
        {:reductions, before} = Process.info(self(), :reductions)
        assert {:ok, report} = Inspection.file(path, values: 1)
        {:reductions, later} = Process.info(self(), :reductions)
        assert %{status: :intact, contents: %{values: [%{key: "1", value: 0}]}} = report
        later - before
      end

      assert reductions.(200_000) < 40 * reductions.(20_000)
    end
  end

  test "a plain file, a sparse one, an empty one", %{path: path} do
    report = report(path, "hello")

    assert %{format: :plain, status: :intact, size: 5, pages: %{count: 1, parts: [%{count: 1}]}} =
             report

    assert report.contents == %{first_bytes: "68656c6c6f"}
    assert Inspection.text(report) =~ ~r/c.cnt: a plain file\n  size      5 bytes/

    {:ok, mem} = Emmap.open(path, [:create, :truncate, :sparse, size: 10_000_000])
    :ok = Emmap.pwrite(mem, 5_000_000, "one page")

    assert {:ok, %{size: 10_000_000, allocated: allocated, pages: pages} = report} =
             Inspection.file(path)

    assert allocated < 1_000_000
    assert pages.resident >= 1 and pages.count == 2442 and length(pages.parts) == 32
    assert pages.resident == pages.parts |> Enum.map(& &1.resident) |> Enum.sum()
    assert Inspection.text(report) =~ "of them on the disk, the rest not written yet"
    Emmap.close(mem)

    File.write!(path, "")
    assert {:ok, %{pages: %{count: 0, parts: []}, allocated: 0} = report} = Inspection.file(path)

    assert Inspection.text(report) ==
             "#{path}: an empty file\n  size      0 bytes, 0 allocated on the disk\n  pages     none"
  end

  test "the bar" do
    {:ok, report} = Inspection.file("#{@fixtures}/counters-v0-predecessor.bin")
    parts = for resident <- [0, 1, 4, 5, 8, 9, 10], do: %{count: 10, resident: resident}
    text = Inspection.text(put_in(report.pages.parts, parts))
    assert text =~ "            [.--===#] . none"
  end

  test "changes nothing, not even the times, and makes no file", %{path: path, tmp_dir: directory} do
    # Without what a map of it still has to write.
    bytes = counters(path, [:a, :b], [1, 2])
    File.rm!(path)
    File.write!(path, bytes)
    File.touch!(path, {{2020, 1, 1}, {0, 0, 0}})
    stat = File.stat!(path, time: :posix)
    assert {:ok, _} = Inspection.file(path)
    assert File.stat!(path, time: :posix).mtime == stat.mtime
    assert File.read!(path) == bytes
    assert {:error, :enoent} = Inspection.file(Path.join(directory, "none"))
    assert File.ls!(directory) == ["c.cnt"]
  end

  test "gives memory and descriptors back at once", %{path: path} do
    counters(path, 3)
    {:ok, _} = Inspection.file(path)
    assert {:error, :eisdir} = Inspection.file(Path.dirname(path))
    assert {:error, :einval} = Inspection.file("a\0b")
    assert {:error, :enodev} = Inspection.file("/dev/null")
  end

  test "a file that is truncated while it is read returns an error", %{path: path} do
    bytes = counters(path, 100_000, [1])
    {:ok, mem} = Emmap.open(path)
    source = %Source{mem: mem, path: path, size: byte_size(bytes)}
    assert %{contents: %{sum: 1}} = CounterFile.describe(source, 1)
    File.write!(path, binary_part(bytes, 0, 8192))
    error = assert_raise Emmap.Error, fn -> CounterFile.describe(source, 1) end
    assert error.reason == :estale
  end

  test "names and paths cannot speak to the terminal", %{tmp_dir: directory} do
    path = Path.join(directory, "c\e[31m.cnt")
    report = report(path, counters(path, ["a\e]0;b\a", "plain"]))
    text = Inspection.text(report)
    refute text =~ "\e"
    assert text =~ ~S("a\e]0;b\a")
    assert text =~ "plain"
  end

  test "options" do
    path = "#{@fixtures}/counters-v0-predecessor.bin"

    assert {:ok, %{contents: %{values: []}, pages: %{parts: [_]}}} =
             Inspection.file(path, values: 0, parts: 1)

    for bad <- [[values: -1], [parts: 0], [parts: 1001], [value: 1], [:values], :values] do
      assert_raise ArgumentError,
                   ~r/(values|parts): (must be|is given)|unknown keys|a keyword list/,
                   fn -> Inspection.file(path, bad) end
    end
  end
end
