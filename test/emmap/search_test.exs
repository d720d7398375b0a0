defmodule Emmap.SearchTest do
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir

  defp map(%{tmp_dir: directory}, bytes, options \\ []) do
    path = Path.join(directory, "text#{System.unique_integer([:positive])}")
    File.write!(path, bytes)
    {path, Emmap.open!(path, options)}
  end

  # The model: OTP's own search, on the same bytes. Two letters make matches that touch, overlap
  # and hold one another.
  test "finds what :binary.match and :binary.matches find", context do
    seed = String.to_integer(System.get_env("EMMAP_SEED") || "#{:rand.uniform(1_000_000)}")
    :rand.seed(:exsss, {seed, 5, 6})

    for step <- 1..300 do
      bytes = random(:rand.uniform(2000) - 1, Enum.random([2, 2, 3, 256]))
      {_path, mem} = map(context, bytes)
      patterns = for _ <- 1..Enum.random([1, 1, 2, 5]), do: random(:rand.uniform(6), 2)
      pattern = Enum.random([patterns, hd(patterns), Emmap.compile_pattern(patterns)])
      used = if is_binary(pattern), do: [pattern], else: patterns

      for {options, start, length} <- ranges(byte_size(bytes)) do
        scope = [scope: {start, length}]
        all = :binary.matches(bytes, used, scope)
        where = "seed #{seed} (EMMAP_SEED), step #{step}: #{inspect({bytes, used, options})}"
        assert {where, {:ok, all}} == {where, Emmap.find_all(mem, pattern, options)}
        assert {where, {:ok, length(all)}} == {where, Emmap.count(mem, pattern, options)}

        assert {where, found(:binary.match(bytes, used, scope))} ==
                 {where, Emmap.find(mem, pattern, options)}

        assert {where, found(last(bytes, used, start, length))} ==
                 {where, Emmap.rfind(mem, pattern, options)}

        assert {:ok, Enum.take(all, 3)} == Emmap.find_all(mem, pattern, options ++ [limit: 3])
      end

      :ok = Emmap.close(mem)
    end
  end

  defp random(count, letters) do
    for <<byte <- :rand.bytes(count)>>, into: "", do: <<?a + rem(byte, letters)>>
  end

  defp ranges(size) do
    start = :rand.uniform(size + 1) - 1
    length = :rand.uniform(size - start + 1) - 1

    [
      {[], 0, size},
      {[start: start], start, size - start},
      {[length: length], 0, length},
      {[start: start, length: length], start, length},
      # Past the end, as far as it goes.
      {[start: start, length: size + 10], start, size - start}
    ]
  end

  defp found(:nomatch), do: :nomatch
  defp found(part), do: {:ok, part}

  # The match that begins last: the first of those that begin at each place, from the end on.
  defp last(bytes, patterns, start, length) do
    Enum.find_value((start + length - 1)..start//-1, :nomatch, fn at ->
      rest = start + length - at

      case :binary.match(binary_part(bytes, at, rest), patterns) do
        {0, length} -> {at, length}
        _ -> nil
      end
    end)
  end

  # Blocks are of 128 KB, a call on a dirty scheduler looks at 16 MB: matches lie across both.
  test "across the borders of blocks and calls", context do
    size = 40_000_000
    borders = for n <- [131_072, 262_144, 16_777_216, 33_554_432], d <- -9..1//2, do: n + d
    places = borders |> Enum.map(&div(&1, 10)) |> Enum.uniq() |> Enum.map(&(&1 * 10 + 3))
    {path, mem} = map(context, :binary.copy(".", size), [:write])
    for at <- places, do: :ok = Emmap.pwrite(mem, at, "needle7")
    :ok = Emmap.pwrite(mem, size - 3, "end")

    all = Enum.map(places, &{&1, 7})
    assert {:ok, ^all} = Emmap.find_all(mem, "needle7")
    assert {:ok, ^all} = Emmap.find_all(mem, ["needle7", "needle", "dle"])
    assert {:ok, count} = Emmap.count(mem, "needle7")
    assert count == length(places)
    assert Emmap.count(mem, ["needle", "needle7", "absent"]) == {:ok, count}
    assert {:ok, dots} = Emmap.count(mem, ".")
    assert dots == size - 7 * count - 3
    assert {:ok, {hd(places), 7}} == Emmap.find(mem, "needle7")
    assert {:ok, {List.last(places), 7}} == Emmap.rfind(mem, "needle7")
    assert {:ok, {List.last(places) + 4, 3}} == Emmap.rfind(mem, ["needle7", "le7"])
    assert {:ok, {size - 3, 3}} == Emmap.find(mem, "end")
    assert {:ok, {size - 3, 3}} == Emmap.rfind(mem, "end")
    assert :nomatch = Emmap.find(mem, "ends")
    assert :nomatch = Emmap.rfind(mem, "absent")
    assert :nomatch = Emmap.find(mem, "end", length: size - 1)
    assert {:ok, {0, 1}} = Emmap.rfind(mem, ".", length: 1)

    # A pattern longer than a block, and one as long as the file.
    long = binary_part(File.read!(path), 131_000, 300_000)
    assert {:ok, {131_000, 300_000}} == Emmap.find(mem, long)
    assert {:ok, {131_000, 300_000}} == Emmap.rfind(mem, long)
    assert {:ok, {0, size}} == Emmap.find(mem, File.read!(path))
    assert :nomatch = Emmap.find(mem, File.read!(path) <> "x")
  end

  test "many matches come in order, and a limit bounds them", context do
    {_path, mem} = map(context, :binary.copy("ab", 500_000))
    assert {:ok, all} = Emmap.find_all(mem, "a")
    assert all == for(n <- 0..499_999, do: {2 * n, 1})
    assert {:ok, 500_000} = Emmap.count(mem, "ab")
    assert {:ok, 500_000} = Emmap.count(mem, ["ab", "zz"])
    assert {:ok, []} = Emmap.find_all(mem, "a", limit: 0)
    assert {:ok, most} = Emmap.find_all(mem, ["a", "q"], limit: 400_001)
    assert most == Enum.take(all, 400_001)
  end

  test "positions are the map's, at any offset in the file", context do
    {_path, mem} = map(context, :binary.copy("x", 5000) <> "needle", offset: 4999)
    assert {:ok, {1, 6}} = Emmap.find(mem, "needle")
    assert {:ok, {1, 6}} = Emmap.rfind(mem, "needle")
  end

  test "an empty map, and a start past the end", context do
    {_path, mem} = map(context, "")
    assert :nomatch = Emmap.find(mem, "a")
    assert :nomatch = Emmap.rfind(mem, "a")
    assert {:ok, []} = Emmap.find_all(mem, "a")
    assert {:ok, 0} = Emmap.count(mem, "a")
    {_path, mem} = map(context, "aaa")

    for start <- [3, 4, 0x7FFF_FFFF_FFFF_FFFF] do
      assert :nomatch = Emmap.find(mem, "a", start: start)
      assert :nomatch = Emmap.rfind(mem, "a", start: start)
      assert {:ok, 0} = Emmap.count(mem, "a", start: start, length: 0x7FFF_FFFF_FFFF_FFFF)
    end
  end

  test "a live pattern is what it is when the search begins", context do
    {_path, mem} = map(context, "one two one", [:write, :direct])
    {:ok, live} = Emmap.pread(mem, 4, 3)
    compiled = Emmap.compile_pattern(live)
    assert {:ok, {4, 3}} = Emmap.find(mem, live)
    :ok = Emmap.pwrite(mem, 4, "one")
    assert {:ok, {0, 3}} = Emmap.find(mem, live)
    assert :nomatch = Emmap.find(mem, compiled)
  end

  test "invalid patterns, options and handles", context do
    {_path, mem} = map(context, "abc")

    for wrong <- ["", [], ["a", ""], :a, 97, ~c"a", [~c"a"], :binary.compile_pattern("a"), nil],
        call <- [&Emmap.find/2, &Emmap.rfind/2, &Emmap.find_all/2, &Emmap.count/2] do
      assert_raise ArgumentError, ~r/a pattern is a binary, a list of binaries/, fn ->
        call.(mem, wrong)
      end
    end

    for {wrong, message} <- [
          {[begin: 1], ~r/unknown option {:begin, 1}; valid are {:start, n}, {:length, n}/},
          {[limit: 1], ~r/unknown option/},
          {[:start], ~r/unknown option :start/},
          {:start, ~r/unknown option/},
          {[start: -1], ~r/start is an integer, 0 to 2\^63 - 1, got -1/},
          {[length: 1.0], ~r/length is an integer/},
          {[length: Bitwise.bsl(1, 63)], ~r/length is an integer/},
          {[start: 1, start: 2], ~r/given once/}
        ] do
      assert_raise ArgumentError, message, fn -> Emmap.find(mem, "a", wrong) end
    end

    assert_raise ArgumentError, ~r/limit is an integer/, fn ->
      Emmap.find_all(mem, "a", limit: :all)
    end

    assert_raise ArgumentError, ~r/too many or too long/, fn ->
      Emmap.find(mem, ["a", :binary.copy("b", 5_000_000)])
    end

    foreign = %Emmap.Search{patterns: make_ref()}
    assert_raise ArgumentError, ~r/compiled pattern/, fn -> Emmap.find(mem, foreign) end
    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Emmap.find(:mem, "a") end
  end

  test "after close, and a close in the middle", context do
    {_path, mem} = map(context, "abc")
    :ok = Emmap.close(mem)

    for call <- [&Emmap.find/2, &Emmap.rfind/2, &Emmap.find_all/2, &Emmap.count/2],
        do: assert({:error, :closed} = call.(mem, "a"))

    {:ok, large} = Emmap.open([:anon, size: 4_000_000_000])
    search = Task.async(fn -> Emmap.count(large, ["ab", "cd"]) end)
    Process.sleep(30)
    :ok = Emmap.close(large)
    assert {:error, :closed} = Task.await(search, 60_000)
  end

  test "4: truncated under a search", %{tmp_dir: directory} do
    for {bytes, search} <- [
          {40_000, "Emmap.find(mem, \"absent\")"},
          {40_000_000, "Emmap.find(mem, \"absent\")"},
          {40_000_000, "Emmap.rfind(mem, [\"absent\", \"gone\"])"},
          {40_000_000, "Emmap.find_all(mem, \"absent\")"},
          {40_000_000, "Emmap.count(mem, \"x\")"}
        ] do
      assert ChildVM.run!("""
             path = #{inspect(Path.join(directory, "cut"))}
             File.write!(path, :binary.copy("x", #{bytes}))
             {:ok, mem} = Emmap.open(path)
             {:ok, raw} = :file.open(path, [:raw, :read, :write])
             {:ok, _} = :file.position(raw, 5000)
             :ok = :file.truncate(raw)
             {#{search}, Emmap.pread(mem, 0, 1)}
             """) == {{:error, :estale}, {:error, :estale}}
    end
  end

  test "a block that is searched has whole writes only", context do
    {_path, mem} = map(context, :binary.copy("x", 2_000_000), [:write])
    test = self()
    # Inside of one block.
    at = 3 * 131_072 + 1000

    writer =
      spawn_link(fn ->
        for byte <- Stream.cycle(["y", "x"]) do
          :ok = Emmap.pwrite(mem, at, :binary.copy(byte, 60_000))
          send(test, :wrote)
        end
      end)

    assert_receive :wrote

    for _ <- 1..500 do
      assert {:ok, 0} = Emmap.count(mem, ["xy", "yx"], start: at, length: 60_000)
      # On a dirty scheduler: the borders of what was written, or nothing.
      assert {:ok, found} = Emmap.find_all(mem, ["xy", "yx"], start: at - 1000, length: 70_000)
      assert found in [[], [{at - 1, 2}, {at + 59_999, 2}]]
    end

    Process.unlink(writer)
    Process.exit(writer, :kill)
  end

  test "from Erlang", context do
    {_path, mem} = map(context, "one two one")
    assert {:ok, {4, 3}} = :emmap.find(mem, "two")
    assert :nomatch = :emmap.find(mem, ["two", "three"], length: 6)
    assert {:ok, {8, 3}} = :emmap.rfind(mem, "one")
    assert {:ok, {0, 3}} = :emmap.rfind(mem, "one", length: 5)
    assert {:ok, [{0, 3}, {8, 3}]} = :emmap.find_all(mem, "one")
    assert {:ok, [{0, 3}]} = :emmap.find_all(mem, "one", limit: 1)
    assert {:ok, 2} = :emmap.count(mem, :emmap.compile_pattern("one"))
    assert {:ok, 1} = :emmap.count(mem, "one", start: 1)
  end
end
