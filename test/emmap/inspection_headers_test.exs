defmodule Emmap.InspectionHeadersTest do
  # A format that does not exist, by its table alone: what the next one gets for it.
  use ExUnit.Case, async: true
  import Bitwise
  alias Emmap.Inspection.{Header, Headers, Source}

  @moduletag :tmp_dir

  defp table(places) do
    Header.table(places, [
      {:magic, 0, 4, "magic", :magic, "TEST"},
      {:version, 4, 2, "version", :version, 7},
      {:mark, 6, 4, "mark", :endian_mark, 0x0A0B0C0D},
      {:sequence, 10, 4, "sequence", :sequence, nil},
      {:width, 14, 1, "width", :number, {"must be 1 to 8", &(&1.width in 1..8)}},
      {:salt, 15, 2, "salt", :hex, nil},
      {:later, 17, 1, "for later", :reserved, 0},
      {:sum, 18, 4, "sum", :checksum, nil}
    ])
  end

  defp header(fields \\ []) do
    f =
      Map.merge(
        %{version: 7, mark: <<0x0A0B0C0D::native-32>>, sequence: 1, width: 3, later: 0},
        Map.new(fields)
      )

    body =
      <<"TEST", f.version::little-16, f.mark::binary, f.sequence::little-32, f.width,
        0xAB::little-16, f.later>>

    body <> <<:erlang.crc32(body)::little-32>>
  end

  # Two headers, the second at 32; or one.
  defp read(context, bytes, places \\ [0, 32]) do
    path = Path.join(context.tmp_dir, "file")
    File.write!(path, bytes)
    mem = Emmap.open!(path)
    headers = Headers.read(%Source{mem: mem, path: path, size: byte_size(bytes)}, table(places))
    :ok = Emmap.close(mem)
    headers
  end

  defp two(first, second), do: first <> :binary.copy(<<0>>, 32 - byte_size(first)) <> second
  defp said(headers), do: Enum.map_join(Headers.problems(headers), "\n", & &1.message)
  defp states(headers), do: for(shown <- Headers.shown(headers), do: shown.state)

  test "sound: its fields, but for the magic and what is reserved", context do
    assert [_, _] = headers = read(context, two(header(), header()))

    assert {Headers.problems(headers), Headers.bad_format(headers), states(headers)} ==
             {[], nil, [:current, :same]}

    assert [%{at: 0, bytes: 22, fields: fields}, %{at: 32}] = Headers.shown(headers)
    assert %{version: 7, sequence: 1, width: 3, salt: 0xAB} = fields
    refute Map.has_key?(fields, :magic) or Map.has_key?(fields, :later)
  end

  test "each flipped bit is found, in one header and in two", context do
    good = header()

    for byte <- 0..21, bit <- 0..7, places <- [[0], [0, 32]] do
      rest = binary_part(good, byte + 1, 21 - byte)
      flipped = bxor(:binary.at(good, byte), 1 <<< bit)
      bad = <<binary_part(good, 0, byte)::binary, flipped, rest::binary>>
      headers = read(context, two(bad, good), places)

      assert [%{at: ^byte, bytes: 1, severity: :damage, message: message}] =
               Headers.problems(headers)

      assert message =~ ": bit #{bit} of this byte was flipped"
      assert String.starts_with?(message, "header at 0, ") == (places == [0, 32])

      assert Headers.bad_format(headers) ==
               if(places == [0], do: if(byte < 4, do: :kind, else: :checksum))
    end
  end

  test "the problems of a field, and their descriptions", context do
    mark =
      <<0x0A0B0C0D::native-32>>
      |> :binary.bin_to_list()
      |> Enum.reverse()
      |> :binary.list_to_bin()

    for {fields, bad_format, words} <- [
          {[version: 8], :version,
           "version: must be 7 for this version of Emmap, but 8 was found"},
          {[mark: mark], :endianness, "the file is from a machine with the other byte order"},
          {[width: 9], :checksum, "width: must be 1 to 8, but 9 was found"},
          {[sequence: -1], :checksum,
           "sequence: must be below 2^32 - 1, but 4294967295 was found"},
          {[later: 5], nil, "for later: must be 0 in version 7, but 5 was found"}
        ] do
      headers = read(context, header(fields), [0])
      assert {Headers.bad_format(headers), said(headers) =~ words} == {bad_format, true}, words
    end

    assert said(read(context, binary_part(header(), 0, 21), [0])) ==
             "the file ends after 21 of its 22 bytes"

    other = read(context, two(header() |> binary_part(0, 16) |> Kernel.<>("xxxxxx"), header()))
    assert said(other) =~ "salt: is 0x00AB in the other header, but 0x78AB was found"
    assert read(context, "something else") == nil
  end

  test "of two sound headers the later one counts", context do
    headers = read(context, two(header(sequence: 3), header(sequence: 4)))
    assert {Headers.current(headers).at, states(headers)} == {32, [:older, :current]}
    assert [%{at: 0, severity: :note}] = Headers.problems(headers)
    headers = read(context, two(header(), header(version: 8)))
    assert {Headers.current(headers), Headers.version(headers, 7)} == {nil, 7}
    assert [_, %{severity: :unknown, at: 36}] = [nil | Headers.problems(headers)]
  end
end
