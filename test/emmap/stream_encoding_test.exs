defmodule Emmap.StreamEncodingTest do
  # Lines of characters in an encoding, and the mark at the start of a file: as `File.stream!` has them.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @text "Łódź;1\r\nnaïve\n\n\u{1F600} wide\r\nlast"
  @encodings [:utf8, :unicode, :utf16, {:utf16, :big}, {:utf16, :little}, :utf32] ++
               [{:utf32, :big}, {:utf32, :little}]

  defp write!(directory, data) do
    path = Path.join(directory, "text")
    File.write!(path, data)
    path
  end

  for encoding <- @encodings, bom? <- [false, true] do
    test "#{inspect(encoding)}, #{bom? && "with a mark"}", %{tmp_dir: directory} do
      encoding = unquote(Macro.escape(encoding))
      text = @text <> String.duplicate("ż\n", 50_000)
      mark = if unquote(bom?), do: :unicode.encoding_to_bom(encoding), else: ""
      path = write!(directory, [mark, :unicode.characters_to_binary(text, :utf8, encoding)])
      expected = text |> String.replace("\r\n", "\n") |> String.split(~r/(?<=\n)/, trim: true)
      options = [encoding: encoding, trim_bom: true]
      mem = Emmap.open!(path, [:direct])

      for source <- [path, mem] do
        assert Enum.to_list(Emmap.stream!(source, options)) == expected
        trimmed = Enum.map(expected, &String.trim_trailing(&1, "\n"))
        assert Enum.to_list(Emmap.stream!(source, [trim: true] ++ options)) == trimmed
        assert Enum.count(Emmap.stream!(source, options)) == length(expected)
        assert Enum.take(Emmap.stream!(source, options), 2) == Enum.take(expected, 2)
      end

      # The first lines of OTP, which does not take the last for incomplete.
      of_file = path |> File.stream!([:trim_bom, encoding: encoding]) |> Enum.take(3)
      assert of_file == Enum.take(expected, 3)
    end
  end

  test "latin1", %{tmp_dir: directory} do
    path = write!(directory, <<"caf", 0xE9, "\nna", 0xEF, "ve">>)
    assert Enum.to_list(Emmap.stream!(path, encoding: :latin1)) == ["café\n", "naïve"]
    assert Enum.to_list(Emmap.stream!(path)) == [<<"caf", 0xE9, "\n">>, <<"na", 0xEF, "ve">>]
    assert Enum.to_list(File.stream!(path, encoding: :latin1)) == ["café\n", "naïve"]
  end

  test "trim_bom alone", %{tmp_dir: directory} do
    path = write!(directory, "\uFEFFname;age\nA;1\n")

    assert Enum.to_list(Emmap.stream!(path, trim_bom: true)) ==
             Enum.to_list(File.stream!(path, [:trim_bom]))

    assert Enum.to_list(Emmap.stream!(path)) == ["\uFEFFname;age\n", "A;1\n"]
    assert Enum.to_list(Emmap.stream!(path, 5, trim_bom: true)) |> hd() == "name;"
    assert Enum.to_list(Emmap.stream!(path, trim_bom: true, start: 9)) == ["ge\n", "A;1\n"]
    assert Enum.to_list(Emmap.stream!(path, trim_bom: true, length: 5)) == ["na"]
    assert Enum.to_list(Emmap.stream!(path, trim_bom: true, length: 2)) == []
    assert Enum.count(Emmap.stream!(path, trim_bom: true)) == 2

    chunks = Emmap.chunks!(path, 2, trim_bom: true, trim: true)
    assert Enum.flat_map(chunks, &Enum.to_list/1) == ["name;age", "A;1"]

    for empty <- ["", "\uFEFF"] do
      path = write!(directory, empty)
      assert Enum.to_list(Emmap.stream!(path, trim_bom: true, encoding: :utf8)) == []
    end
  end

  test "what is not in the encoding", %{tmp_dir: directory} do
    for {bytes, encoding} <- [
          {<<"ok\n", 0xFF, "\n">>, :utf8},
          {<<0, ?a, 0, ?\n, 0xD8, 0, 0, 0>>, :utf16},
          {<<0, ?a, 0>>, :utf16},
          {<<0, 0, 0, ?a, 0x7F, 0, 0, 0>>, :utf32}
        ] do
      path = write!(directory, bytes)

      error =
        assert_raise Emmap.Error, fn -> Enum.to_list(Emmap.stream!(path, encoding: encoding)) end

      assert %{reason: :ebadmsg, path: ^path} = error
    end
  end

  test "options that are wrong", %{tmp_dir: directory} do
    path = write!(directory, "text")

    for {options, message} <- [
          {[encoding: :ascii], ~r/bad option \[encoding: :ascii\]/},
          {[encoding: :utf8, live: true], ~r/contradict/},
          {[trim_bom: 1], ~r/bad option \[trim_bom: 1\]/}
        ],
        do: assert_raise(ArgumentError, message, fn -> Emmap.stream!(path, options) end)

    assert_raise ArgumentError, ~r/is for lines/, fn ->
      Emmap.stream!(path, 10, encoding: :utf8)
    end

    assert_raise ArgumentError, ~r/one-byte/, fn -> Emmap.chunks!(path, 2, encoding: :utf16) end
  end

  test "chunks of records", %{tmp_dir: directory} do
    for size <- [0, 1, 7, 70, 71, 1000], count <- [1, 2, 3, 8], start <- [0, 3] do
      data = for(n <- 1..1000, into: "", do: <<n>>) |> binary_part(0, size)
      path = write!(directory, data)
      chunks = Emmap.chunks!(path, count, record: 7, start: start)
      assert length(chunks) <= count
      records = Enum.map(chunks, &Enum.to_list/1)
      refute [] in records
      expected = data |> binary_part(min(start, size), max(size - start, 0)) |> pieces(7)
      assert Enum.concat(records) == expected
      sizes = Enum.map(records, &length/1)
      if sizes != [], do: assert(Enum.max(sizes) - Enum.min(sizes) <= 1)
    end

    for {options, message} <- [
          {[record: 0], ~r/above 0, got 0/},
          {[record: "x"], ~r/above 0, got "x"/},
          {[record: 2, split: "a"], ~r/contradict/},
          {[record: 2, trim: true], ~r/is for lines/}
        ],
        do: assert_raise(ArgumentError, message, fn -> Emmap.chunks!("x", 2, options) end)
  end

  defp pieces("", _size), do: []
  defp pieces(data, size) when byte_size(data) <= size, do: [data]

  defp pieces(data, size),
    do: [
      binary_part(data, 0, size) | pieces(binary_part(data, size, byte_size(data) - size), size)
    ]
end
