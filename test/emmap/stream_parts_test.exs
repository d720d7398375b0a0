defmodule Emmap.StreamPartsTest do
  # Chunks, collecting, and what one call of native code does.
  use ExUnit.Case, async: true
  import Emmap.Test.Resources

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "text")}

  describe "one call of native code" do
    # What keeps it short on a scheduler that others wait for.
    test "gives a bounded number of lines, bytes and pieces", %{path: path} do
      File.write!(
        path,
        String.duplicate("\n", 300_000) <> String.duplicate("0123456789" <> "\n", 30_000)
      )

      {_, _, {ref, _, _}} = mem = Emmap.open!(path)
      {:ok, root} = Emmap.view(mem, 0, 700_000)
      assert {1024, lines} = Emmap.Native.lines(ref, root, 0, 630_000, 0)
      assert length(lines) == 1024

      long = String.duplicate(String.duplicate("x", 999) <> "\n", 1000)
      File.write!(path, long)
      {_, _, {ref, _, _}} = mem = Emmap.open!(path)
      {:ok, root} = Emmap.view(mem, 0, 1_000_000)

      for form <- 0..3 do
        assert {131_000, lines} = Emmap.Native.lines(ref, root, 0, 1_000_000, form)
        assert length(lines) == 131
      end

      assert {65_000, pieces} = Emmap.Native.pieces(ref, root, 0, 1_000_000, 1000, 1)
      assert length(pieces) == 65
      assert {1_000_000, _} = Emmap.Native.pieces(ref, root, 0, 1_000_000, 1000, 0)
      assert {1024, _} = Emmap.Native.pieces(ref, root, 0, 1_000_000, 1, 0)
    end

    test "searches no byte outside of the root and of the map", %{path: path} do
      File.write!(path, "one\ntwo\n")
      {_, _, {ref, _, _}} = mem = Emmap.open!(path)
      {:ok, root} = Emmap.view(mem, 0, 5)
      huge = 0xFFFF_FFFF_FFFF_FFFF_FFFF

      for stop <- [5, 8, 9, huge] do
        assert Emmap.Native.lines(ref, root, 0, stop, 0) == {4, ["one\n"]}
        assert Emmap.Native.lines(ref, root, 4, stop, 0) == {5, ["t"]}
        assert Emmap.Native.pieces(ref, root, 0, stop, huge, 0) == {5, ["one\nt"]}
      end

      # Copies need no root: they end where the map does.
      for stop <- [8, 9, huge] do
        assert Emmap.Native.lines(ref, nil, 4, stop, 1) == {8, ["two\n"]}
        assert Emmap.Native.pieces(ref, nil, 0, stop, huge, 1) == {8, ["one\ntwo\n"]}
      end

      for position <- [5, 6, huge],
          do: assert({5, []} = Emmap.Native.lines(ref, root, position, huge, 0))

      assert_raise ArgumentError, fn -> Emmap.Native.lines(ref, nil, 0, 5, 0) end
      assert_raise ArgumentError, fn -> Emmap.Native.lines(ref, root, -1, 5, 0) end
      assert_raise ArgumentError, fn -> Emmap.Native.lines(make_ref(), root, 0, 5, 0) end
    end
  end

  describe "chunks" do
    test "are all bytes, in order, cut behind the separator", %{path: path} do
      for size <- [0, 1, 2, 5, 100, 5000], separator <- ["\n", ",", <<0>>] do
        text = for _ <- 1..size//1, into: "", do: Enum.random(["a", "b", "é", separator, "\r"])
        File.write!(path, text)
        mem = Emmap.open!(path)

        for count <- [1, 2, 3, 7, 64, 6000] do
          chunks = Emmap.chunks!(mem, count, split: separator)
          assert length(chunks) <= count
          if text != "", do: assert(chunks != [])

          parts =
            for %{start: start, length: length} <- chunks, do: binary_part(text, start, length)

          assert IO.iodata_to_binary(parts) == text
          for part <- parts, do: assert(part != "")
          for part <- Enum.drop(parts, -1), do: assert(String.ends_with?(part, separator))
        end
      end
    end

    test "are of about the same size", %{path: path} do
      File.write!(path, String.duplicate("0123456789\n", 10_000))
      chunks = Emmap.chunks!(Emmap.open!(path), 8)
      assert length(chunks) == 8
      for %{length: length} <- chunks, do: assert_in_delta(length, 110_000 / 8, 11)
    end

    test "end where they should when a line does", %{path: path} do
      File.write!(path, "a\nb\nc\nd\n")
      mem = Emmap.open!(path)
      assert for(%{start: start} <- Emmap.chunks!(mem, 4), do: start) == [0, 2, 4, 6]
      assert for(%{start: start} <- Emmap.chunks!(mem, 8), do: start) == [0, 2, 4, 6]
      assert for(%{start: start} <- Emmap.chunks!(mem, 2, start: 1), do: start) == [1, 4]
    end

    test "give the lines of the whole, in several processes, with the stream's options", %{
      path: path
    } do
      File.write!(path, for(n <- 1..20_000, do: "#{n}\r\n"))
      mem = Emmap.open!(path, [:direct])

      for options <- [[], [trim: true], [copy: true], [start: 7, length: 50_000]] do
        lines =
          mem
          |> Emmap.chunks!(5, options)
          |> Task.async_stream(&Enum.to_list/1)
          |> Enum.flat_map(fn {:ok, lines} -> lines end)

        assert lines == Enum.to_list(Emmap.stream!(mem, :line, options))
      end
    end

    test "of a path are those of a map of it", %{path: path} do
      File.write!(path, "a\nb\nc\nd\n")

      assert [["a\n", "b\n"], ["c\n", "d\n"]] =
               path |> Emmap.chunks!(2) |> Enum.map(&Enum.to_list/1)

      assert_raise Emmap.Error, fn -> Emmap.chunks!(path <> ".none", 2) end
      assert_raise ArgumentError, ~r/a path or an open/, fn -> Emmap.chunks!(7, 2) end
    end

    @tag :slow
    test "of a large file without a separator are one chunk", %{path: path} do
      mem = Emmap.open!(path, [:create, :sparse, size: 200_000_000])
      assert [%{start: 0, length: 200_000_000}] = Emmap.chunks!(mem, 100)
    end
  end

  describe "collecting" do
    test "appends to a path, and makes the file", %{path: path} do
      stream = Emmap.stream!(path)
      assert Enum.into(["one\n", [?t, "wo", [?\n]]], stream) == stream
      assert File.read!(path) == "one\ntwo\n"
      Enum.into([], stream)
      "three\n" |> List.wrap() |> Enum.into(Emmap.stream!(path, :line, length: 2))
      assert File.read!(path) == "one\ntwo\nthree\n"
    end

    test "appends to a handle, in blocks, and leaves its cursor", %{path: path} do
      mem = Emmap.open!(path, [:create])
      lines = for n <- 1..50_000, do: "line #{n}\n"
      Enum.into(lines, Emmap.stream!(mem))
      Enum.into(["last"], Emmap.stream!(mem))
      assert File.read!(path) == IO.iodata_to_binary([lines, "last"])
      assert {:ok, 0} = Emmap.position(mem, :cur)
      # From one stream to another.
      copy = path <> ".copy"
      mem |> Emmap.stream!() |> Stream.map(&String.upcase/1) |> Enum.into(Emmap.stream!(copy))
      assert File.read!(copy) == String.upcase(File.read!(path))
    end

    test "writes as it goes on, and behind what others append", %{path: path} do
      mem = Emmap.open!(path, [:create])

      for source <- [path, mem] do
        {:ok, 0} = Emmap.position(mem, 0)
        :ok = Emmap.resize(mem, 0)

        1..30_000
        |> Stream.map(fn n ->
          if n == 20_000 do
            assert File.stat!(path).size in 65_536..200_000
            :ok = Emmap.resize(mem, File.stat!(path).size)
            {:ok, _} = Emmap.position(mem, :eof)
            :ok = Emmap.write(mem, "somebody else's\n")
          end

          "0123456\n"
        end)
        |> Enum.into(Emmap.stream!(source))

        assert File.stat!(path).size == 30_000 * 8 + 16
        lines = path |> File.stream!() |> Enum.frequencies()
        assert lines == %{"0123456\n" => 30_000, "somebody else's\n" => 1}
      end
    end

    test "keeps what was collected before a raise", %{path: path, tmp_dir: directory} do
      Task.await(
        Task.async(fn ->
          ["kept\n", "bad"]
          |> Stream.map(fn line -> if line == "bad", do: raise("bad"), else: line end)
          |> Enum.into(Emmap.stream!(path))
          |> catch_error()
        end)
      )

      assert File.read!(path) == "kept\n"
      assert eventually(fn -> held(directory) == {0, 0} end)
    end

    test "what cannot be written", %{path: path} do
      File.write!(path, "text")

      assert %Emmap.Error{op: :append, reason: :eacces} =
               catch_error(Enum.into(["x"], Emmap.stream!(Emmap.open!(path))))

      assert %Emmap.Error{op: :append, reason: :enospc} =
               catch_error(Enum.into(["x"], Emmap.stream!(Emmap.open!([:anon, size: 8]))))

      assert %Emmap.Error{op: :open, reason: :enoent} =
               catch_error(Enum.into(["x"], Emmap.stream!("no/such/file")))

      assert_raise ArgumentError, fn -> Enum.into([:atom], Emmap.stream!(path)) end
      assert File.read!(path) == "text"
    end
  end

  test "folding and counting from Erlang", %{path: path} do
    File.write!(path, "one\ntwo\nthree")
    mem = Emmap.open!(path)

    for source <- [mem, path, String.to_charlist(path)] do
      assert :emmap.fold_lines(source, &[&1 | &2], []) == ["three", "two\n", "one\n"]
      assert :emmap.count_lines(source) == 3
    end
  end
end
