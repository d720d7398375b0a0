defmodule Emmap.ErlangBlocksTest do
  # Block storage as users of saleyn/emmap know it. What its functions return here was compared with what they return there:
  # 127,469 results were the same, and so were the files.
  use ExUnit.Case, async: true

  alias Emmap.{Blocks, Native}

  @moduletag :tmp_dir

  @fixture "test/fixtures/formats/blocks-v0-predecessor.bin"
  # Of the fixture: the number of each block by its place.
  @kept Enum.to_list(0..69) -- [0, 2, 63, 66]

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "blocks")}

  defp storage(path, block_size, options \\ [:create]) do
    {:ok, mem} = :emmap.open(String.to_charlist(path), 0, 16, options)
    :ok = :emmap.init_block_storage(mem, block_size)
    mem
  end

  # The address of a place in the order of the file.
  defp address(place), do: rem(place, 64) * 4096 + rem(div(place, 64), 64) * 64 + div(place, 4096)

  defp in_steps(mem, count, from \\ 0, read \\ [])
  defp in_steps(_mem, _count, :eof, read), do: Enum.concat(read)

  defp in_steps(mem, count, from, read) do
    {blocks, next} = :emmap.read_blocks(mem, from, count)
    assert length(blocks) == count or next == :eof
    in_steps(mem, count, next, [blocks | read])
  end

  defp repair_in_steps(_mem, _count, :eof), do: :ok

  defp repair_in_steps(mem, count, from),
    do: repair_in_steps(mem, count, :emmap.repair_block_storage(mem, from, count))

  defp badarg(call), do: assert(catch_error(call.()) == :badarg)

  test "the module as Erlang calls it", %{path: path} do
    mem = storage(path, 5)
    assert :emmap.read_blocks(mem) == []
    assert :emmap.read_blocks(mem, 0, 1) == {[], :eof}
    assert :emmap.read_block(mem, 0) == :eof
    assert :emmap.free_block(mem, 0) == false
    assert :emmap.store_block(mem, "first") == 0
    assert :emmap.store_block(mem, "other") == 4096
    assert :emmap.store_block(mem, "third") == 8192
    assert :emmap.read_block(mem, 4096) == "other"
    all = [{8192, "third"}, {4096, "other"}, {0, "first"}]
    assert :emmap.read_blocks(mem) == all
    assert :emmap.read_blocks(mem, 0, 100) == {all, :eof}
    assert :emmap.read_blocks(mem, 0, 2) == {[{4096, "other"}, {0, "first"}], 8192}
    assert :emmap.read_blocks(mem, 8192, 1) == {[{8192, "third"}], 12288}
    assert :emmap.read_blocks(mem, 12288, 1) == {[], :eof}
    assert :emmap.free_block(mem, 4096) == true
    assert :emmap.free_block(mem, 4096) == false
    assert :emmap.read_block(mem, 4096) == :eof
    assert :emmap.store_block(mem, "again") == 4096
    assert :emmap.repair_block_storage(mem) == :ok
    assert :emmap.repair_block_storage(mem, 0, 1000) == :eof
    assert :emmap.repair_block_storage(mem, 0, 3) == 12288
    # Bytes are where the format has them: behind a header and three levels of masks.
    assert :emmap.pread(mem, 56, 15) == {:ok, "firstagainthird"}
    assert :emmap.init_block_storage(mem, 3) == :ok
    assert :emmap.read_blocks(mem) == []
    assert :emmap.close(mem) == :ok
    assert :emmap.read_block(mem, 0) == {:error, :closed}
    assert :emmap.store_block(mem, "abc") == {:error, :closed}
    assert :emmap.init_block_storage(mem, 3) == {:error, :closed}
  end

  test "a file of the predecessor is used in place", %{path: path} do
    File.cp!(@fixture, path)
    {:ok, mem} = :emmap.open(path, [:write])
    assert :emmap.repair_block_storage(mem) == :ok
    blocks = for n <- @kept, do: {address(n), "block" <> String.pad_leading("#{n}", 3)}
    assert :emmap.read_blocks(mem) == Enum.reverse(blocks)
    for count <- [1, 7, 66, 67], do: assert(in_steps(mem, count) == Enum.reverse(blocks))
    for {address, data} <- blocks, do: assert(:emmap.read_block(mem, address) == data)
    for n <- [0, 2, 63, 66, 70], do: assert(:emmap.read_block(mem, address(n)) == :eof)
    # Nothing was changed.
    assert File.read!(path) == File.read!(@fixture)
    for n <- [0, 2, 63, 66, 70], do: assert(:emmap.store_block(mem, "newblock") == address(n))
  end

  test "a file is the same, byte for byte, as the predecessor writes it", %{path: path} do
    mem = storage(path, 8)

    addresses =
      for n <- 0..69, do: :emmap.store_block(mem, "block" <> String.pad_leading("#{n}", 3))

    assert addresses == Enum.map(0..69, &address/1)
    for n <- [0, 2, 63, 66], do: assert(:emmap.free_block(mem, address(n)))
    {written, expected} = {File.read!(path), File.read!(@fixture)}
    size = min(byte_size(written), byte_size(expected))
    assert binary_part(written, 0, size) == binary_part(expected, 0, size)
    # The rest has no blocks.
    assert String.trim_trailing(binary_part(expected, size, byte_size(expected) - size), <<0>>) ==
             ""
  end

  test "wrong arguments are badarg, with an explanation", %{path: path} do
    mem = storage(path, 5)

    for data <- ["", "four", "sixsix", ~c"first", :first],
        do: badarg(fn -> :emmap.store_block(mem, data) end)

    for address <- [-1, 0.0, :a, nil] do
      badarg(fn -> :emmap.read_block(mem, address) end)
      badarg(fn -> :emmap.free_block(mem, address) end)
      badarg(fn -> :emmap.read_blocks(mem, address, 1) end)
      badarg(fn -> :emmap.repair_block_storage(mem, address, 1) end)
    end

    for count <- [0, -1, 1.0, :all] do
      badarg(fn -> :emmap.read_blocks(mem, 0, count) end)
      badarg(fn -> :emmap.repair_block_storage(mem, 0, count) end)
    end

    for size <- [0, -1, 4_294_967_296, 1.0, "5"],
        do: badarg(fn -> :emmap.init_block_storage(mem, size) end)

    assert_raise ArgumentError, ~r/2nd argument: the data must be as long as a block/, fn ->
      :emmap.store_block(mem, "four")
    end

    # No header has room in it.
    {:ok, short} = :emmap.open([:anon, size: 15])
    badarg(fn -> :emmap.store_block(short, "first") end)
    badarg(fn -> :emmap.read_block(short, 0) end)
    badarg(fn -> :emmap.free_block(short, 0) end)
    badarg(fn -> :emmap.read_blocks(short) end)
    badarg(fn -> :emmap.read_blocks(short, 0, 1) end)
    badarg(fn -> :emmap.repair_block_storage(short) end)
    badarg(fn -> :emmap.repair_block_storage(short, 0, 1) end)

    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn ->
      :emmap.read_blocks(:no_map)
    end
  end

  test "addresses that no block has", %{path: path} do
    mem = storage(path, 5)
    assert :emmap.store_block(mem, "first") == 0

    # The predecessor takes the low bits of them.
    for address <- [262_144, 2 ** 32, 2 ** 63, 2 ** 64, 2 ** 200] do
      assert :emmap.read_block(mem, address) == :eof
      assert :emmap.free_block(mem, address) == false
      assert :emmap.read_blocks(mem, address, 1) == {[], :eof}
      assert :emmap.repair_block_storage(mem, address, 1) == :eof
    end

    assert :emmap.read_blocks(mem, 0, 2 ** 200) == {[{0, "first"}], :eof}
    assert :emmap.repair_block_storage(mem, 0, 2 ** 200) == :eof
  end

  test "a map without a storage has no blocks", %{path: path} do
    File.write!(path, :binary.copy(<<0>>, 5000))
    {:ok, mem} = :emmap.open(path, [:write])
    assert :emmap.read_blocks(mem) == []
    assert :emmap.read_block(mem, 0) == :eof
    refute :emmap.free_block(mem, 0)
    badarg(fn -> :emmap.store_block(mem, "") end)
    assert :emmap.repair_block_storage(mem) == :ok
    assert File.read!(path) == :binary.copy(<<0>>, 5000)
  end

  test "a full storage", %{path: path} do
    mem = storage(path, 1)
    for place <- 0..262_143, do: true = :emmap.store_block(mem, <<place::8>>) == address(place)
    for _ <- 1..2, do: assert(:emmap.store_block(mem, "x") == {:error, :full})
    all = :emmap.read_blocks(mem)
    assert length(all) == 262_144
    assert hd(all) == {262_143, <<255>>}
    assert in_steps(mem, 100_000) == all
    assert :emmap.read_blocks(mem, 262_143, 1) == {[{262_143, <<255>>}], :eof}
    # It ends, where the predecessor begins again.
    assert repair_in_steps(mem, 65_536, 0) == :ok
    assert :emmap.free_block(mem, 12_345)
    assert :emmap.store_block(mem, "x") == 12_345
    assert :emmap.store_block(mem, "x") == {:error, :full}
    size = File.stat!(path).size
    assert size <= 2 * 262_144 + 65_536
    for {address, _} <- all, do: true = :emmap.free_block(mem, address)
    assert :emmap.read_blocks(mem) == []
    assert :emmap.store_block(mem, "x") == 0
  end

  test "maps that cannot be changed, or not grow", %{path: path} do
    mem = storage(path, 100)
    assert :emmap.store_block(mem, :binary.copy("a", 100)) == 0
    {:ok, read_only} = :emmap.open(path, [])
    assert :emmap.read_block(read_only, 0) == :binary.copy("a", 100)
    assert :emmap.store_block(read_only, :binary.copy("a", 100)) == {:error, :eacces}
    assert :emmap.free_block(read_only, 0) == {:error, :eacces}
    assert :emmap.init_block_storage(read_only, 1) == {:error, :eacces}
    assert :emmap.repair_block_storage(read_only) == {:error, :eacces}
    assert :emmap.repair_block_storage(read_only, 0, 1) == {:error, :eacces}

    {:ok, fixed} = :emmap.open([:anon, :fixed_size, size: 200])
    assert :emmap.init_block_storage(fixed, 100) == :ok
    assert :emmap.store_block(fixed, :binary.copy("a", 100)) == 0
    assert :emmap.store_block(fixed, :binary.copy("a", 100)) == {:error, :enospc}
    assert [{0, _}] = :emmap.read_blocks(fixed)
    {:ok, fixed} = :emmap.open([:anon, :fixed_size, size: 15])
    assert :emmap.init_block_storage(fixed, 100) == {:error, :enospc}
  end

  test "large blocks, and maps that begin in the middle of a file", %{path: path} do
    File.write!(path, :binary.copy("x", 10_007))
    large = :binary.copy("large", 20_000)
    {:ok, mem} = :emmap.open(path, 10_001, 300_000, [:write])
    assert :emmap.init_block_storage(mem, 100_000) == :ok
    assert :emmap.store_block(mem, large) == 0
    assert :emmap.store_block(mem, large) == 4096
    assert :emmap.store_block(mem, large) == {:error, :enospc}
    assert :emmap.read_block(mem, 4096) == large
    assert :emmap.repair_block_storage(mem) == :ok
    assert File.read!(path) |> binary_part(0, 10_001) == :binary.copy("x", 10_001)
    # Another length, another map.
    {:ok, again} = :emmap.open(path, 10_001, 0, [])
    assert :emmap.read_blocks(again) == [{4096, large}, {0, large}]
  end

  test "a direct map gives live binaries", %{path: path} do
    mem = storage(path, 100, [:create, :direct])
    0 = :emmap.store_block(mem, :binary.copy("a", 100))
    live = :emmap.read_block(mem, 0)
    [{0, listed}] = :emmap.read_blocks(mem)
    :ok = :emmap.pwrite(mem, 56, "b")
    assert "ba" <> _ = live
    assert "ba" <> _ = listed
    # A live binary is stored, too, while the map grows.
    for n <- 1..200, do: assert(:emmap.store_block(mem, live) == address(n))
    assert :emmap.read_block(mem, address(200)) == live
  end

  test "the same as a model, whatever is done", %{path: path} do
    for {seed, size} <- [{1, 1}, {2, 9}, {3, 1531}] do
      :rand.seed(:exsss, {seed, seed, seed})
      _ = File.rm(path)
      mem = storage(path, size)
      model = Enum.reduce(1..3000, {mem, %{}, []}, &step(&1, &2, path, size)) |> elem(1)
      {:ok, mem} = :emmap.open(path, [:write])
      blocks = for {place, data} <- Enum.sort(model, :desc), do: {address(place), data}
      assert :emmap.read_blocks(mem) == blocks
      assert in_steps(mem, 10) == blocks
      :ok = :emmap.repair_block_storage(mem)
      assert :emmap.read_blocks(mem) == blocks
    end
  end

  # The model: data by place, and the places that are free below the highest one that was used.
  defp step(n, {mem, model, free}, path, size) do
    case :rand.uniform(10) do
      store when store <= 5 ->
        {place, free} = if free == [], do: {map_size(model), []}, else: {hd(free), tl(free)}
        data = :rand.bytes(size)
        assert :emmap.store_block(mem, data) == address(place)
        {mem, Map.put(model, place, data), free}

      free_one when free_one <= 8 and model != %{} ->
        {place, data} = Enum.random(model)
        assert :emmap.read_block(mem, address(place)) == data
        assert :emmap.free_block(mem, address(place))
        {mem, Map.delete(model, place), Enum.sort([place | free])}

      9 ->
        # Of places in order, from one of them on.
        from = :rand.uniform(400)
        {blocks, next} = :emmap.read_blocks(mem, address(from), 20)
        places = model |> Map.keys() |> Enum.filter(&(&1 >= from)) |> Enum.sort() |> Enum.take(20)
        assert blocks == for(place <- Enum.reverse(places), do: {address(place), model[place]})

        if length(places) == 20,
          do: assert(next == address(List.last(places) + 1)),
          else: assert(next == :eof)

        {mem, model, free}

      _ when rem(n, 5) == 0 ->
        :ok = :emmap.close(mem)
        {:ok, mem} = :emmap.open(path, [:write])
        {mem, model, free}

      _ ->
        absent = Enum.random([:rand.uniform(500) + 3000 | free])
        assert :emmap.read_block(mem, address(absent)) == :eof
        refute :emmap.free_block(mem, address(absent))
        {mem, model, free}
    end
  end

  test "processes and handles of one VM use a storage at once", %{path: path} do
    mem = storage(path, 16)
    handles = for _ <- 1..3, do: elem(:emmap.open(path, [:write]), 1)

    stored =
      for worker <- 1..8 do
        Task.async(fn ->
          mem = Enum.at([mem | handles], rem(worker, 4))

          for n <- 1..1000 do
            data = <<worker::64, n::64>>
            address = :emmap.store_block(mem, data)
            assert :emmap.read_block(mem, address) == data
            if rem(n, 3) == 0, do: assert(:emmap.free_block(mem, address))
            if rem(n, 100) == 0, do: :emmap.read_blocks(mem, 0, 100)
            if rem(n, 3) == 0, do: [], else: [{address, data}]
          end
        end)
      end
      |> Task.await_many(60_000)
      |> List.flatten()

    assert length(stored) == 8 * 667
    {:ok, mem} = :emmap.open(path, [:write])
    blocks = :emmap.read_blocks(mem)
    assert Enum.sort(blocks) == Enum.sort(stored)
    :ok = :emmap.repair_block_storage(mem)
    assert :emmap.read_blocks(mem) == blocks
  end

  test "whatever is in the file, calls return", %{path: path} do
    for seed <- 1..30 do
      :rand.seed(:exsss, {seed, seed, seed})
      size = 10_000 * :rand.uniform(20)
      block_size = Enum.random([0, 1, 22, 1000, size, 0xFFFFFFFF])
      last = Enum.random([-1, 0, size, 2 ** 40, 2 ** 63 - 1, -(2 ** 63), :rand.uniform(size)])

      garbage =
        Enum.random([:rand.bytes(size - 16), :binary.copy(<<Enum.random([0, 255])>>, size - 16)])

      File.write!(path, [<<block_size::32-native, -1::32, last::64-native>>, garbage])
      # A storage of large blocks would make the file as large as they are.
      {:ok, mem} = :emmap.open(path, [:write, :private])

      look = fn ->
        blocks = :emmap.read_blocks(mem)
        assert in_steps(mem, 1000) == blocks
        for {address, data} <- blocks, do: assert(:emmap.read_block(mem, address) == data)
        length(blocks)
      end

      before = look.()
      for _ <- 1..100, do: :emmap.free_block(mem, :rand.uniform(262_144) - 1)
      stored = fn -> :emmap.store_block(mem, :binary.copy("x", block_size)) end
      if block_size in 1..size, do: for(_ <- 1..100, do: assert(stored.() |> returned?()))
      {:ok, bytes} = :emmap.pread(mem, 0, size)
      :ok = :emmap.repair_block_storage(mem)
      {:ok, repaired} = :emmap.pread(mem, 0, size)
      :ok = :emmap.pwrite(mem, 0, bytes)
      assert repair_in_steps(mem, 999, 0) == :ok
      assert :emmap.pread(mem, 0, size) == {:ok, repaired}
      assert look.() >= before - 100
      {looked, _} = Native.block_storage_look(Emmap.Handle.ref!(mem))
      assert looked in [:ok, :error]
    end
  end

  defp returned?(result), do: is_integer(result) or result in [{:error, :full}, {:error, :enospc}]

  test "a file that was truncated", %{path: path} do
    mem = storage(path, 1000)
    for n <- 0..99, do: assert(:emmap.store_block(mem, :binary.copy("a", 1000)) == address(n))
    :ok = :emmap.close(mem)

    # Masks of 64 blocks each. The last blocks are lost, and the mask of the second group is not.
    size = 16 + 16 + 16 + 8 + 64_000 + 8 + 10_500
    {:ok, file} = :file.open(path, [:read, :write, :raw])
    {:ok, ^size} = :file.position(file, size)
    :ok = :file.truncate(file)
    assert Blocks.import(path, path <> ".new") == {:error, {:bad_format, :length}}

    # A map of a part of the file does not make the rest lost.
    {:ok, part} = :emmap.open(path, 0, 5000, [:write])
    assert :emmap.repair_block_storage(part) == {:error, :einval}
    assert :emmap.repair_block_storage(part, 0, 1) == {:error, :einval}
    assert :emmap.read_block(part, address(50)) == :eof

    {:ok, mem} = :emmap.open(path, [:write])
    assert length(:emmap.read_blocks(mem)) == 74
    assert :emmap.read_block(mem, address(73)) == :binary.copy("a", 1000)
    assert :emmap.read_block(mem, address(74)) == :eof
    assert :emmap.repair_block_storage(mem) == :ok
    assert length(:emmap.read_blocks(mem)) == 74
    assert :emmap.store_block(mem, :binary.copy("b", 1000)) == address(74)
    assert length(:emmap.read_blocks(mem)) == 75

    # While it is mapped.
    {:ok, 100} = :file.position(file, 100)
    :ok = :file.truncate(file)
    assert :emmap.read_blocks(mem) == {:error, :estale}
    assert :emmap.read_blocks(mem, 0, 10) == {:error, :estale}
    assert :emmap.read_block(mem, 0) == {:error, :estale}
    assert :emmap.store_block(mem, :binary.copy("b", 1000)) == {:error, :estale}
    assert :emmap.repair_block_storage(mem) == {:error, :estale}
  end

  describe "import" do
    test "at the same addresses", %{path: path} do
      new = path <> ".new"
      File.cp!(@fixture, path)
      File.chmod!(path, 0o400)
      assert {:ok, addresses} = Blocks.import(path, new)
      assert Enum.sort(addresses) == Enum.sort(for n <- @kept, do: {address(n), address(n)})
      assert File.read!(path) == File.read!(@fixture)
      blocks = Blocks.open!(new)
      assert Blocks.count(blocks) == 66
      expected = for n <- @kept, do: {address(n), "block" <> String.pad_leading("#{n}", 3)}
      assert Enum.to_list(blocks) == Enum.sort(expected)
      assert {:ok, %{damaged: []}} = Blocks.check(blocks)
      # The lowest free address is used, as ever.
      assert Blocks.store(blocks, "newblock") == {:ok, 0}
      assert Blocks.store(blocks, "newblock") == {:ok, 1}
      assert Blocks.import(path, blocks) == {:error, :eexist}
      :ok = Blocks.close(blocks)
      assert Blocks.import(path, new) == {:error, :eexist}
    end

    test "at new addresses, into open blocks", %{path: path} do
      blocks = Blocks.open!(path, block_size: 8)
      {:ok, 0} = Blocks.store(blocks, "was here")
      assert {:ok, addresses} = Blocks.import(@fixture, blocks, addresses: :new)

      assert addresses ==
               for({n, new} <- Enum.with_index(@kept, 1), into: %{}, do: {address(n), new})

      assert Blocks.read(blocks, addresses[address(69)]) == {:ok, "block 69"}
      assert Blocks.count(blocks) == 67
    end

    test "needs no repair", %{path: path} do
      File.cp!(@fixture, path)
      # The root and the first section say that there is nothing.
      File.open!(path, [:read, :write, :raw], fn file ->
        :ok = :file.pwrite(file, [{24, <<0::64>>}, {40, <<0::64>>}])
      end)

      {:ok, mem} = :emmap.open(path, [])
      assert :emmap.read_blocks(mem) == []
      assert {:ok, addresses} = Blocks.import(path, path <> ".new")
      assert map_size(addresses) == 66
    end

    test "an empty storage, and a full one", %{path: path} do
      mem = storage(path, 1)
      assert Blocks.import(path, path <> ".empty") == {:ok, %{}}
      for _ <- 1..262_144, do: :emmap.store_block(mem, "x")
      assert {:ok, addresses} = Blocks.import(path, path <> ".full")
      assert map_size(addresses) == 262_144
      blocks = Blocks.open!(path <> ".full")
      assert Blocks.count(blocks) == 262_144
      assert Blocks.store(blocks, "y") == {:ok, 262_144}
    end

    test "an address that the last sync covered, and that was freed since", %{path: path} do
      blocks = Blocks.open!(path, block_size: 8)
      {:ok, 0} = Blocks.store(blocks, "was here")
      {:ok, 1} = Blocks.store(blocks, "was here")
      :ok = Blocks.sync(blocks)
      :ok = Blocks.free(blocks, 0)
      :ok = Blocks.free(blocks, 1)
      mem = storage(path <> ".old", 8)
      0 = :emmap.store_block(mem, "imported")
      assert Blocks.import(path <> ".old", blocks) == {:ok, %{0 => 0}}
      assert Enum.to_list(blocks) == [{0, "imported"}]
    end

    test "what is no storage", %{path: path} do
      new = path <> ".new"
      assert Blocks.import(path, new) == {:error, :enoent}

      for bytes <- [
            "",
            "short",
            :binary.copy(<<0>>, 5000),
            :rand.bytes(5000),
            "EMMAPBLK" <> :binary.copy(<<1>>, 5000)
          ] do
        File.write!(path, bytes)
        assert Blocks.import(path, new) == {:error, {:bad_format, :kind}}
      end

      refute File.exists?(new)
      blocks = Blocks.open!(new, block_size: 9)
      assert Blocks.import(@fixture, blocks) == {:error, {:other_block_size, 9}}
      assert Blocks.import(@fixture, new) == {:error, {:other_block_size, 9}}

      assert_raise ArgumentError, ~r/:same \| :new/, fn ->
        Blocks.import(@fixture, new, addresses: :old)
      end

      assert_raise ArgumentError, fn -> Blocks.import(@fixture, 5) end
    end
  end
end
