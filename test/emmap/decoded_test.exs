defmodule Emmap.DecodedTest do
  # Emmap.term/4 and Emmap.string/3: a copy of the bytes, decoded or checked.
  use ExUnit.Case, async: true
  alias Emmap.Native

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    %{path: Path.join(directory, "data")}
  end

  defp map!(path, bytes, options \\ []) do
    File.write!(path, bytes)
    Emmap.open!(path, [:write | options])
  end

  # A live binary, which lies in no heap, is nobody's copy.
  defp live?(mem, term) do
    before = Native.pread_copy(ref(mem), 0, 1_000_000)
    was = :binary.copy(term)
    :ok = Emmap.fill(mem, 0, byte_size(before), ?#)
    changed = term != was
    :ok = Emmap.pwrite(mem, 0, before)
    changed
  end

  defp ref({:file_descriptor, Emmap.File, {ref, _, _}}), do: ref

  describe "pread_copy" do
    test "is a copy at every size, on every handle", %{path: path} do
      for options <- [[], [:direct], [:nolock], [:direct, :private]],
          size <- [1, 64, 65, 65_536, 65_537, 900_000] do
        mem = map!(path, :binary.copy("a", 900_000), options)
        assert copy = Native.pread_copy(ref(mem), 0, size)
        assert copy == :binary.copy("a", size)
        refute live?(mem, copy)
      end
    end

    test "has the answers of pread", %{path: path} do
      mem = map!(path, "0123456789", [:direct])
      assert "89" = Native.pread_copy(ref(mem), 8, 100)
      assert :eof = Native.pread_copy(ref(mem), 10, 1)
      assert :eof = Native.pread_copy(ref(mem), 0, 0)
      assert {:error, :einval} = Native.pread_copy(ref(mem), -1, 1)
      File.write!(path, "")
      assert {:error, :estale} = Native.pread_copy(ref(mem), 0, 1)
      assert :ok = Emmap.reattach(mem)
      assert :eof = Native.pread_copy(ref(mem), 0, 1)
      assert :ok = Emmap.close(mem)
      assert {:error, :closed} = Native.pread_copy(ref(mem), 0, 1)
    end
  end

  describe "term" do
    test "decodes what term_to_binary made, compressed or not, and ignores what follows",
         context do
      terms = [
        1,
        "text",
        [1, 2 | 3],
        %{key: {1.5, self()}},
        :binary.copy("long", 100_000),
        &is_atom/1
      ]

      for options <- [[], [:direct]], term <- terms, compressed <- [[], [:compressed]] do
        bytes = :erlang.term_to_binary(term, compressed)
        mem = map!(context.path, "before" <> bytes <> "behind", options)
        assert {:ok, ^term} = Emmap.term(mem, 6, byte_size(bytes))
        assert {:ok, ^term} = Emmap.term(mem, 6, byte_size(bytes) + 100)
        assert {:ok, ^term} = :emmap.term(mem, 6, byte_size(bytes))
        assert {:error, :ebadmsg} = Emmap.term(mem, 6, byte_size(bytes) - 1)
        assert {:error, :ebadmsg} = Emmap.term(mem, 0, byte_size(bytes))
      end
    end

    test "keeps no part of the map", %{path: path} do
      bytes = :binary.copy("abcd", 1000)
      mem = map!(path, :erlang.term_to_binary({bytes, 1}), [:direct])
      assert {:ok, {decoded, 1}} = Emmap.term(mem, 0, 5000)
      refute live?(mem, decoded)
    end

    test "[:safe] creates no atom", %{path: path} do
      name = "emmap_atom_#{System.unique_integer([:positive])}"
      mem = map!(path, <<131, 119, byte_size(name), name::binary>>)
      assert {:error, :ebadmsg} = Emmap.term(mem, 0, 100, [:safe])
      assert {:error, :ebadmsg} = :emmap.term(mem, 0, 100, [:safe])
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      assert {:ok, atom} = Emmap.term(mem, 0, 100)
      assert to_string(atom) == name
      assert {:ok, ^atom} = Emmap.term(mem, 0, 100, [:safe])
    end

    test "another option raises, before anything is read", %{path: path} do
      mem = map!(path, "x")

      for options <- [[:used], [:safe, :used], [safe: true], :safe, nil, [:safe | :safe]] do
        assert_raise ArgumentError,
                     ~r/valid is :safe, got #{Regex.escape(inspect(options))}/,
                     fn ->
                       Emmap.term(mem, 0, 1, options)
                     end
      end
    end
  end

  describe "string" do
    test "is valid UTF-8, and a copy", %{path: path} do
      for options <- [[], [:direct]] do
        mem = map!(path, "Łódź" <> <<0xFF>> <> :binary.copy("ł", 50_000), options)
        assert {:ok, "Łódź"} = Emmap.string(mem, 0, 7)
        assert {:ok, "ź"} = :emmap.string(mem, 5, 2)
        # Ends, or begins, inside a character.
        assert {:error, :ebadmsg} = Emmap.string(mem, 0, 6)
        assert {:error, :ebadmsg} = Emmap.string(mem, 1, 2)
        assert {:error, :ebadmsg} = Emmap.string(mem, 0, 8)
        assert {:ok, long} = Emmap.string(mem, 8, 1_000_000)
        assert String.length(long) == 50_000
        refute live?(mem, long)
      end
    end
  end

  test "ends and errors are those of pread", %{path: path} do
    for {call, found} <- [
          {&Emmap.term/3, {:ok, 7}},
          {&:emmap.term(&1, &2, &3, [:safe]), {:ok, 7}},
          {&Emmap.string/3, {:error, :ebadmsg}}
        ] do
      mem = map!(path, :erlang.term_to_binary(7), [:direct])
      assert call.(mem, 0, 3) == found
      assert call.(mem, 3, 1) == :eof
      assert call.(mem, 0, 0) == :eof
      assert call.(mem, -1, 1) == {:error, :einval}
      assert_raise ArgumentError, fn -> call.(mem, :start, 1) end
      assert_raise ArgumentError, fn -> call.(mem, 0, -1) end
      assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> call.(self(), 0, 1) end
      File.write!(path, "")
      assert call.(mem, 0, 3) == {:error, :estale}
      :ok = Emmap.close(mem)
      assert call.(mem, 0, 3) == {:error, :closed}
    end
  end

  test "the error has a message" do
    error = %Emmap.Error{op: :read, path: "data", reason: :ebadmsg}
    refute Exception.message(error) =~ ":ebadmsg"
  end
end
