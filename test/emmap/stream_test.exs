defmodule Emmap.StreamTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "text")}

  # Every way to the same lines.
  defp all_ways(path, options) do
    direct = Emmap.open!(path, [:direct])
    copying = Emmap.open!(path, [:write, :nolock])

    for source <- [path, String.to_charlist(path), direct, copying], copy <- [false, true] do
      Emmap.stream!(source, :line, [copy: copy] ++ options)
    end
  end

  defp assert_lines(path, options, expected) do
    for stream <- all_ways(path, options) do
      # Compared apart, so that a failure prints no megabytes.
      assert Enum.to_list(stream) == expected or
               {:differs, stream, first_difference(Enum.to_list(stream), expected, 0)}
               |> inspect()
               |> flunk()

      assert Enum.count(stream) == length(expected)
    end
  end

  defp first_difference([same | one], [same | other], n), do: first_difference(one, other, n + 1)
  defp first_difference(one, other, n), do: {n, Enum.take(one, 1), Enum.take(other, 1)}

  # As a line without its newline is defined: what File.stream! gives, less the LF.
  defp trimmed(lines), do: Enum.map(lines, &String.replace_suffix(&1, "\n", ""))

  describe "lines are those of File.stream!" do
    for {name, text} <- [
          empty: "",
          "a newline": "\n",
          newlines: "\n\n\n\n",
          "no last newline": "one\ntwo",
          CRLF: "one\r\ntwo\r\n\r\nthree\r",
          CRs: "\r\r\n\r\n\rx\r\r\r\n",
          "NUL bytes": "\0\n\0\0\n\0",
          "invalid UTF-8": <<0xFF, 0xC3, ?\n, 0x80, ?\n, 0xED, 0xA0, 0x80>>,
          "one long line": String.duplicate("x", 300_000),
          "long lines": String.duplicate(String.duplicate("y", 140_000) <> "\n", 3),
          "long CRLF lines": String.duplicate(String.duplicate("z", 131_071) <> "\r\n", 3)
        ] do
      test name, %{path: path} do
        File.write!(path, unquote(text))
        lines = path |> File.stream!() |> Enum.to_list()
        assert_lines(path, [], lines)
        assert_lines(path, [trim: true], trimmed(lines))
      end
    end

    test "lines of every length around the borders of batches", %{path: path} do
      # 1,024 lines make a batch, and 128 KiB are looked at in one.
      for lines <- [1023, 1024, 1025, 2048, 2049], length <- [0, 1, 63, 64, 65, 127, 128] do
        text = String.duplicate(String.duplicate("a", length) <> "\n", lines)
        File.write!(path, [text, "end"])
        assert Enum.to_list(Emmap.stream!(path)) == Enum.to_list(File.stream!(path))
      end

      for length <- 131_060..131_074, ending <- ["\n", "\r\n", ""] do
        File.write!(path, ["short\n", String.duplicate("b", length), ending, "more\r\n"])
        assert Enum.to_list(Emmap.stream!(path)) == Enum.to_list(File.stream!(path))
      end
    end

    test "a range that begins between CR and LF", %{path: path} do
      File.write!(path, "a\r\nb")
      assert_lines(path, [start: 2], ["\n", "b"])
      assert_lines(path, [start: 2, trim: true], ["", "b"])
      assert_lines(path, [length: 2], ["a\r"])
      assert_lines(path, [length: 2, trim: true], ["a\r"])
    end

    @tag timeout: 120_000
    test "of random files, whole and in part", %{path: path, tmp_dir: directory} do
      part = Path.join(directory, "part")
      seed = String.to_integer(System.get_env("EMMAP_SEED") || "#{:rand.uniform(1_000_000)}")
      :rand.seed(:exsss, seed)

      for round <- 1..60 do
        text = random_text()
        File.write!(path, text)
        size = byte_size(text)
        start = :rand.uniform(size + 2) - 1
        length = :rand.uniform(size + 2) - 1
        from = min(start, size)
        File.write!(part, binary_part(text, from, min(length, size - from)))

        try do
          whole = path |> File.stream!() |> Enum.to_list()
          assert_lines(path, [], whole)
          assert_lines(path, [trim: true], trimmed(whole))
          some = part |> File.stream!() |> Enum.to_list()
          assert_lines(path, [start: start, length: length], some)
          assert_lines(path, [start: start, length: length, trim: true], trimmed(some))
        rescue
          error ->
            IO.puts("EMMAP_SEED=#{seed}, round #{round}, start #{start}, length #{length}")
            reraise error, __STACKTRACE__
        end
      end
    end

    defp random_text do
      pieces = [
        fn -> "\n" end,
        fn -> "\r\n" end,
        fn -> "\r" end,
        fn -> <<0>> end,
        fn -> :rand.bytes(:rand.uniform(40)) end,
        fn -> "some words" end,
        fn -> String.duplicate("\n", :rand.uniform(1500)) end,
        fn -> String.duplicate("word\n", :rand.uniform(700)) end,
        fn -> if :rand.uniform(10) == 1, do: :rand.bytes(70_000), else: "" end,
        fn -> if :rand.uniform(10) == 1, do: String.duplicate("x", 140_000), else: "" end
      ]

      for(_ <- 1..:rand.uniform(60), do: Enum.random(pieces).()) |> IO.iodata_to_binary()
    end

    @tag :slow
    @tag timeout: 300_000
    test "one line of 200 MB", %{path: path} do
      long = :binary.copy("0123456789", 20_000_000)
      File.write!(path, ["first\n", long, "\r\n", "last"])

      for options <- [[], [copy: true], [trim: true], [trim: true, copy: true]] do
        assert [first, line, "last"] = Enum.to_list(Emmap.stream!(path, :line, options))
        ending = if options[:trim], do: "", else: "\n"
        assert first == "first" <> ending
        assert byte_size(line) == byte_size(long) + byte_size(ending)
        assert binary_part(line, 0, byte_size(long)) == long
      end

      assert Enum.count(Emmap.stream!(path)) == 3
    end
  end

  describe "pieces" do
    test "are those of File.stream!", %{path: path} do
      File.write!(path, :rand.bytes(200_000))

      for bytes <- [1, 7, 64, 65, 4096, 70_000, 200_000, 200_001] do
        theirs = path |> pieces_of_a_file(bytes) |> Enum.to_list()

        for source <- [path, Emmap.open!(path, [:direct]), Emmap.open!(path)],
            copy <- [false, true] do
          stream = Emmap.stream!(source, bytes, copy: copy)
          assert Enum.to_list(stream) == theirs
          assert Enum.count(stream) == length(theirs)
        end
      end
    end

    # What File.stream! takes changed its place in Elixir 1.16.
    defp pieces_of_a_file(path, bytes) do
      if Version.match?(System.version(), ">= 1.16.0"),
        do: apply(File, :stream!, [path, bytes]),
        else: apply(File, :stream!, [path, [], bytes])
    end

    test "of a range, and of nothing", %{path: path} do
      File.write!(path, "0123456789")
      assert Enum.to_list(Emmap.stream!(path, 3, start: 2, length: 7)) == ["234", "567", "8"]
      assert Enum.count(Emmap.stream!(path, 3, start: 2, length: 7)) == 3
      assert Enum.to_list(Emmap.stream!(path, 3, start: 10)) == []
      assert Enum.count(Emmap.stream!(path, 3, start: 11)) == 0
      assert Enum.to_list(Emmap.stream!(path, 3, length: 0)) == []
      File.write!(path, "")
      assert Enum.to_list(Emmap.stream!(path, 3)) == []
    end
  end
end
