defmodule Emmap.BadDays.WrittenTest do
  # Bytes that another process writes while a function reads them twice. `:unicode` and
  # `:erlang.binary_to_term/1` kill the VM on such bytes, so the library passes them copies only.
  use Emmap.Test.BadDay

  # Switches a map between two contents of the same size, and repeats a call for two seconds: its
  # different results, sorted.
  @during """
  during = fn mem, one, other, call ->
    writer = spawn(fn -> Stream.repeatedly(fn -> Emmap.pwrite(mem, 0, other); Emmap.pwrite(mem, 0, one) end) |> Stream.run() end)
    stop = System.monotonic_time(:millisecond) + 2000
    answers = Stream.repeatedly(call) |> Stream.take_while(fn _ -> System.monotonic_time(:millisecond) < stop end) |> Enum.uniq() |> Enum.sort()
    Process.exit(writer, :kill)
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    answers
  end
  """

  test "37: a live binary is written while a term is decoded", context do
    answers =
      child(
        context,
        @during <>
          """
          n = 100_000
          [one, other] = for item <- [<<98, 0, 0, 1, 45>>, <<109, 0, 0, 0, 0>>],
            do: <<131, 108, n::32>> <> :binary.copy(item, n) <> <<106>>
          {:ok, mem} = Emmap.open(path, [:write, :direct, :nolock])
          :ok = Emmap.pwrite(mem, 0, one)
          during.(mem, one, other, fn ->
            case Emmap.term(mem, 0, byte_size(one)) do
              {:ok, list} -> {:ok, length(list)}
              error -> error
            end
          end)
          """
      )

    # A torn copy may be no term.
    assert {:ok, 100_000} in answers
    assert answers -- [{:error, :ebadmsg}, {:ok, 100_000}] == []
  end

  test "37: a live binary is written while a string is read", context do
    answers =
      child(
        context,
        @during <>
          """
          [one, other] = ["a" <> :binary.copy("é", 50_000) <> "a", :binary.copy("é", 50_001)]
          {:ok, mem} = Emmap.open(path, [:write, :direct, :nolock])
          :ok = Emmap.pwrite(mem, 0, one)
          during.(mem, one, other, fn ->
            case Emmap.string(mem, 0, byte_size(one)) do
              {:ok, text} -> {:ok, text |> :unicode.characters_to_list() |> length() |> div(50_000)}
              error -> error
            end
          end)
          """
      )

    assert {:ok, 1} in answers
    assert answers -- [{:error, :ebadmsg}, {:ok, 1}] == []
  end

  test "37: a live binary is written while a device reads it", context do
    answers =
      child(
        context,
        @during <>
          """
          [one, other] = for text <- ["aaaa", "\\u{1F600}"], do: :binary.copy(text, 50_000) <> "\\r\\n"
          {:ok, mem} = Emmap.open(path, [:write, :direct, :nolock])
          :ok = Emmap.pwrite(mem, 0, one)
          {:ok, device} = Emmap.device(mem, encoding: :unicode)
          {:ok, lists} = Emmap.device(mem, encoding: :unicode, binary: false)
          during.(mem, one, other, fn ->
            for d <- [device, lists], do: {:ok, 0} = :file.position(d, 0)
            line = IO.read(device, :line)
            true = :io.get_chars(lists, "", 10_000) |> is_list()
            is_binary(line) and String.ends_with?(line, "\\n") and not String.ends_with?(line, "\\r\\n")
          end)
          """
      )

    # A character that is half of each is not valid text; the VM lives.
    assert true in answers and answers -- [true, false] == []
  end

  test "37: a live binary is written while a device writes it", context do
    answers =
      child(
        context,
        @during <>
          """
          [one, other] = for text <- ["aa", "\\u00E9"], do: :binary.copy(text, 100_000)
          {:ok, mem} = Emmap.open(path, [:write, :direct, :nolock])
          :ok = Emmap.pwrite(mem, 0, one)
          {:ok, live} = Emmap.pread(mem, 0, byte_size(one))
          {:ok, output} = Emmap.open([:anon, size: 1_000_000])
          {:ok, device} = Emmap.device(output, encoding: :unicode)
          during.(mem, one, other, fn ->
            {:ok, 0} = :file.position(device, 0)
            # As characters of latin1 each byte above 127 becomes two.
            [IO.binwrite(device, live), :file.pwrite(device, 0, ["x", live]), :io.format(device, "~ts", [live])]
          end)
          """
      )

    assert answers == [[:ok, :ok, :ok]]
  end

  test "37: a live binary is written while it is a search pattern", context do
    answers =
      child(
        context,
        @during <>
          """
          [one, other] = for letter <- ["a", "b"], do: :binary.copy(letter, 1000)
          {:ok, mem} = Emmap.open(path, [:write, :direct, :nolock])
          :ok = Emmap.pwrite(mem, 0, one)
          {:ok, live} = Emmap.pread(mem, 0, 1000)
          {:ok, other_mem} = Emmap.open([:anon, size: 5000])
          :ok = Emmap.pwrite(other_mem, 1000, one <> other)
          compiled = Emmap.compile_pattern([live, "no match"])
          during.(mem, one, other, fn ->
            {:ok, {1000, 1000}} = Emmap.find(other_mem, compiled)
            # A torn pattern matches nowhere.
            case Emmap.find(other_mem, [live, binary_part(live, 3, 300)]) do
              {:ok, {at, _length}} when at in 1000..2999 -> :found
              :nomatch -> :nomatch
            end
          end)
          """
      )

    assert :found in answers
  end
end
