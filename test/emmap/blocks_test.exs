defmodule Emmap.BlocksTest do
  use ExUnit.Case, async: true

  import Emmap.Test.Resources, only: [eventually: 2]
  alias Emmap.Blocks
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    %{path: Path.join(directory, "b")}
  end

  defp block(number, size \\ 64), do: <<number::little-64, 0::size(size - 8)-unit(8)>>

  describe "opening" do
    test "a new file needs a size; one that is there has its own", %{path: path} do
      assert Blocks.open(path) == {:error, :enoent}
      assert Blocks.open(path, block_size: 100, create: false) == {:error, :enoent}
      refute File.exists?(path)

      assert {:ok, %Blocks{block_size: 100, path: ^path} = blocks} =
               Blocks.open(path, block_size: 100)

      assert {:ok, 0} = Blocks.store(blocks, block(7, 100))
      assert Blocks.close(blocks) == :ok
      assert {:ok, %{block_size: 100} = blocks} = Blocks.open(path)
      assert Blocks.read(blocks, 0) == {:ok, block(7, 100)}
      assert Blocks.open(path, block_size: 64) == {:error, {:other_block_size, 100}}

      assert_raise Emmap.Error, ~r/its blocks have 100 bytes/, fn ->
        Blocks.open!(path, block_size: 64)
      end
    end

    test "files of other formats are refused, and not changed", %{path: path} do
      for bytes <- [
            "text",
            String.duplicate("x", 100_000),
            "EMMAPBLK" <> String.duplicate("x", 100_000)
          ] do
        File.write!(path, bytes)
        assert {:error, {:bad_format, _}} = Blocks.open(path, block_size: 64)
        assert File.read!(path) == bytes
      end

      File.rm!(path)
      Emmap.Queue.close(Emmap.Queue.open!(path))
      assert Blocks.open(path, block_size: 64) == {:error, {:bad_format, :kind}}

      assert {:error, {:bad_format, :kind}} =
               Emmap.Queue.open(Path.dirname(path) <> "/c") |> swap(path)
    end

    # A file of blocks is not a queue.
    defp swap({:ok, queue}, path) do
      Emmap.Queue.close(queue)
      File.rm!(path)
      Blocks.close(Blocks.open!(path, block_size: 64))
      Emmap.Queue.open(path)
    end

    test "wrong options raise with the allowed values", %{path: path} do
      for {options, message} <- [
            {[block_size: 0], ~r/block_size: must be a number of bytes, 1 to 1073741824/},
            {[block_size: 2_000_000_000], ~r/block_size: must be/},
            {[pad: 1], ~r/pad: must be true \| false, got 1/},
            {[size: 1], ~r/unknown keys \[:size\].*the allowed keys are: \[:block_size/},
            {[pad: true, pad: true], ~r/given twice/},
            {:x, ~r/must be a keyword list/}
          ] do
        assert_raise ArgumentError, message, fn -> Blocks.open(path, options) end
      end
    end
  end

  describe "blocks" do
    test "keep their addresses; the lowest free one is used", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64)
      assert {:ok, addresses} = Blocks.store_many(blocks, Stream.map(0..9999, &block/1))
      assert addresses == Enum.to_list(0..9999)
      for n <- [7, 5000, 3], do: assert(Blocks.free(blocks, n) == :ok)
      assert Blocks.free(blocks, 7) == {:error, :enoent}
      assert Blocks.read(blocks, 7) == {:error, :enoent}
      refute Blocks.used?(blocks, 7)
      assert Blocks.used?(blocks, 8)
      assert Blocks.count(blocks) == 9997
      for n <- [3, 7, 5000, 10_000], do: assert(Blocks.store(blocks, block(n)) == {:ok, n})
      assert Enum.all?(0..10_000, &(Blocks.read(blocks, &1) == {:ok, block(&1)}))

      assert {:ok, %{count: 10_001, capacity: capacity, recovered: nil, replaced: 0}} =
               Blocks.info(blocks)

      assert capacity >= 10_001 and capacity == Blocks.capacity(blocks)
      assert Blocks.check(blocks) == {:ok, %{blocks: 10_001, damaged: []}}
    end

    test "addresses that cannot be", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64)
      {:ok, 0} = Blocks.store(blocks, block(1))

      for address <- [1, 1_000_000, 0xFFFF_FFFF_FFFF_FFFF, 0x1_0000_0000_0000_0000] do
        assert Blocks.read(blocks, address) == {:error, :enoent}
        assert Blocks.free(blocks, address) == {:error, :enoent}
        assert Blocks.write(blocks, address, block(1)) == {:error, :enoent}
        refute Blocks.used?(blocks, address)
      end

      for address <- [-1, :a, 1.0] do
        assert_raise ArgumentError, fn -> Blocks.read(blocks, address) end
      end
    end

    test "of another length raise; shorter ones are padded where that is asked for", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64)

      for wrong <- ["", "short", String.duplicate("x", 65), :atom] do
        assert_raise ArgumentError, fn -> Blocks.store(blocks, wrong) end
        assert_raise ArgumentError, fn -> Blocks.store_many(blocks, [block(1), wrong]) end
      end

      padded = Blocks.open!(path, pad: true)
      {:ok, address} = Blocks.store(padded, "short")
      assert Blocks.read(padded, address) == {:ok, "short" <> <<0::59*8>>}
      assert Blocks.write(padded, address, "") == :ok
      assert Blocks.read(blocks, address) == {:ok, <<0::64*8>>}
      assert_raise ArgumentError, fn -> Blocks.store(padded, String.duplicate("x", 65)) end
    end

    test "are replaced where they are, also those that a sync has covered", %{path: path} do
      blocks = Blocks.open!(path, block_size: 4096)
      {:ok, _} = Blocks.store_many(blocks, for(n <- 0..299, do: block(n, 4096)))

      for round <- 1..3 do
        for n <- 0..299, do: assert(Blocks.write(blocks, n, block(n + round, 4096)) == :ok)
        for n <- 0..299, do: assert(Blocks.read(blocks, n) == {:ok, block(n + round, 4096)})
        assert Blocks.sync(blocks) == :ok
        assert {:ok, %{replaced: 0}} = Blocks.info(blocks)
      end

      :ok = Blocks.write(blocks, 5, block(500, 4096))
      assert {:ok, %{replaced: 1}} = Blocks.info(blocks)
      # Closing syncs.
      :ok = Blocks.close(blocks)
      blocks = Blocks.open!(path)
      assert Blocks.read(blocks, 5) == {:ok, block(500, 4096)}
      assert {:ok, %{replaced: 0}} = Blocks.info(blocks)
    end

    test "that a sync has covered are used again after the next one", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64)
      {:ok, _} = Blocks.store_many(blocks, Enum.map(0..9, &block/1))
      :ok = Blocks.sync(blocks)
      :ok = Blocks.free(blocks, 4)
      assert Blocks.store(blocks, block(10)) == {:ok, 10}
      :ok = Blocks.sync(blocks)
      assert Blocks.store(blocks, block(4)) == {:ok, 4}
    end

    test "of sizes from 1 byte to a megabyte", %{path: path} do
      for size <- [1, 3, 8, 63, 65, 4095, 65_536, 65_537, 1_000_000] do
        path = "#{path}#{size}"
        blocks = Blocks.open!(path, block_size: size)
        data = for n <- 1..5, do: String.duplicate(<<n>>, size)
        assert Blocks.store_many(blocks, data) == {:ok, [0, 1, 2, 3, 4]}
        assert Enum.map(blocks, &elem(&1, 1)) == data
        assert Blocks.write(blocks, 2, hd(data)) == :ok
        assert Blocks.read(blocks, 2) == {:ok, hd(data)}
        assert Blocks.close(blocks) == :ok
        assert Enum.count(Blocks.open!(path)) == 5
      end
    end

    test "that are damaged are told; the others stay readable", %{path: path} do
      blocks = Blocks.open!(path, block_size: 100)
      {:ok, _} = Blocks.store_many(blocks, for(n <- 0..99, do: String.duplicate(<<n>>, 100)))
      {:ok, file} = :file.open(path, [:read, :write, :binary, :raw])
      {:ok, size} = :file.position(file, :eof)
      bytes = File.read!(path)
      {at, _} = :binary.match(bytes, String.duplicate(<<42>>, 100))
      :ok = :file.pwrite(file, at + 50, "x")
      assert size == byte_size(bytes)

      assert Blocks.read(blocks, 42) == {:error, {:corrupt, 42}}
      assert Blocks.read(blocks, 43) == {:ok, String.duplicate(<<43>>, 100)}
      assert Blocks.check(blocks) == {:ok, %{blocks: 100, damaged: [42]}}
      assert_raise Emmap.Error, ~r/block 42 is damaged/, fn -> Enum.to_list(blocks) end
      # New data heals it.
      assert Blocks.write(blocks, 42, String.duplicate("y", 100)) == :ok
      assert Blocks.check(blocks) == {:ok, %{blocks: 100, damaged: []}}
    end
  end

  describe "live blocks" do
    test "are the bytes in the file", %{path: path} do
      blocks = Blocks.open!(path, block_size: 4096, direct: true)
      {:ok, 0} = Blocks.store(blocks, block(1, 4096))
      {:ok, live} = Blocks.read(blocks, 0)
      assert live == block(1, 4096)
      :ok = Blocks.write(blocks, 0, block(2, 4096))
      assert live == block(2, 4096)
      :ok = Blocks.sync(blocks)
      # It goes to a place of its own until the next sync.
      :ok = Blocks.write(blocks, 0, block(3, 4096))
      assert live == block(2, 4096)
      assert Blocks.read(blocks, 0) == {:ok, block(3, 4096)}
      :ok = Blocks.sync(blocks)
      assert live == block(3, 4096)
      assert Blocks.read(blocks, 1) == {:error, :enoent}
      :ok = Blocks.close(blocks)
      assert live == block(3, 4096)
    end

    test "of few bytes are copies", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64, direct: true)
      {:ok, 0} = Blocks.store(blocks, block(1))
      {:ok, copy} = Blocks.read(blocks, 0)
      :ok = Blocks.write(blocks, 0, block(2))
      assert copy == block(1)
    end
  end

  describe "all blocks" do
    test "are enumerated in order, in steps", %{path: path} do
      blocks = Blocks.open!(path, block_size: 8)
      {:ok, _} = Blocks.store_many(blocks, for(n <- 0..99_999, do: <<n::64>>))
      for n <- 0..99_999, rem(n, 3) == 0, do: :ok = Blocks.free(blocks, n)
      expected = for n <- 0..99_999, rem(n, 3) != 0, do: {n, <<n::64>>}
      assert Enum.to_list(blocks) == expected
      assert Enum.count(blocks) == length(expected)
      assert Enum.take(blocks, 3) == Enum.take(expected, 3)

      assert Enum.zip(blocks, blocks) |> Enum.take(2) == [
               {{1, <<1::64>>}, {1, <<1::64>>}},
               {{2, <<2::64>>}, {2, <<2::64>>}}
             ]

      assert {5, <<5::64>>} in blocks
    end

    test "inspect", %{path: path} do
      blocks = Blocks.open!(path, block_size: 8)
      {:ok, 0} = Blocks.store(blocks, <<1::64>>)
      assert inspect(blocks) =~ ~r/#Emmap.Blocks<".*", 1 of 8 bytes>/
      :ok = Blocks.close(blocks)
      assert inspect(blocks) =~ "closed"
    end

    test "move to the front, and the room goes back to the disk", %{path: path} do
      blocks = Blocks.open!(path, block_size: 4096)
      {:ok, _} = Blocks.store_many(blocks, for(n <- 0..1999, do: block(n, 4096)))
      :ok = Blocks.sync(blocks)
      for n <- 0..1999, rem(n, 2) == 0, do: :ok = Blocks.free(blocks, n)
      references = :ets.new(:references, [:public])
      :ets.insert(references, for(n <- 0..1999, rem(n, 2) == 1, do: {n, n}))

      assert {:ok, moves} =
               Blocks.compact(blocks, fn from, to ->
                 assert Blocks.read(blocks, from) == Blocks.read(blocks, to)
                 {:ok, <<number::little-64, _::binary>>} = Blocks.read(blocks, to)
                 true = :ets.update_element(references, number, {2, to})
               end)

      assert moves == 500
      assert Blocks.count(blocks) == 1000
      assert Enum.map(blocks, &elem(&1, 0)) == Enum.to_list(0..999)

      for {number, address} <- :ets.tab2list(references),
          do: assert(Blocks.read(blocks, address) == {:ok, block(number, 4096)})

      before = allocated(path)
      :ok = Blocks.sync(blocks)
      assert {:ok, bytes} = Blocks.trim(blocks)
      assert bytes >= 1000 * 4096
      assert Blocks.capacity(blocks) == 1000
      assert before - allocated(path) >= 1000 * 4096
      assert Blocks.trim(blocks) == {:ok, 0}
      # It grows again.
      assert {:ok, addresses} = Blocks.store_many(blocks, for(n <- 0..1499, do: block(n, 4096)))
      assert addresses == Enum.to_list(1000..2499)
      assert Blocks.check(blocks) == {:ok, %{blocks: 2500, damaged: []}}
    end

    defp allocated(path) do
      {output, 0} = System.cmd("du", ["--block-size=1", path])
      output |> String.split() |> hd() |> String.to_integer()
    end
  end

  test "a closed handle", %{path: path} do
    blocks = Blocks.open!(path, block_size: 8)
    assert Blocks.close(blocks) == :ok

    for call <- [
          &Blocks.store(&1, <<1::64>>),
          &Blocks.read(&1, 0),
          &Blocks.free(&1, 0),
          &Blocks.write(&1, 0, <<1::64>>),
          &Blocks.sync/1,
          &Blocks.trim/1,
          &Blocks.check/1,
          &Blocks.reattach/1,
          &Blocks.info/1,
          &Blocks.close/1,
          &Blocks.compact(&1, fn _, _ -> :ok end)
        ] do
      assert call.(blocks) == {:error, :closed}
    end

    assert Blocks.store_many(blocks, [<<1::64>>]) == {:error, :closed, []}

    for call <- [
          &Blocks.count/1,
          &Blocks.capacity/1,
          &Blocks.used?(&1, 0),
          &Enum.to_list/1
        ] do
      assert_raise Emmap.Error, ~r/closed/, fn -> call.(blocks) end
    end

    assert_raise ArgumentError, ~r/not an open Emmap handle/, fn ->
      Emmap.Native.blocks_count(Emmap.Queue.open!(path <> "q").ref)
    end

    assert_raise ArgumentError, ~r/the whole result of open/, fn ->
      Blocks.count({:ok, blocks})
    end
  end

  test "in a supervision tree, by name", %{path: path} do
    start_supervised!({Blocks, path: path, block_size: 8, name: :thumbnails})
    assert Blocks.store(:thumbnails, <<1::64>>) == {:ok, 0}
    assert Blocks.read(:thumbnails, 0) == {:ok, <<1::64>>}
    assert Blocks.free(:thumbnails, 0) == :ok
    assert elem(Blocks.info(:thumbnails), 1).count == 0
    stop_supervised!({Blocks, :thumbnails})

    assert_raise ArgumentError, ~r/no Emmap.Blocks is started/, fn ->
      Blocks.count(:thumbnails)
    end
  end

  test "8 processes at once: no address twice", %{path: path} do
    blocks = Blocks.open!(path, block_size: 16)

    addresses =
      1..8
      |> Task.async_stream(
        fn process ->
          for n <- 1..5000, reduce: [] do
            held ->
              {:ok, address} = Blocks.store(blocks, <<process::64, n::64>>)
              if rem(n, 100) == 0, do: :ok = Blocks.sync(blocks)

              case held do
                [{first, number} | rest] when rem(n, 2) == 0 ->
                  assert Blocks.read(blocks, first) == {:ok, <<process::64, number::64>>}
                  :ok = Blocks.free(blocks, first)
                  [{address, n} | rest]

                held ->
                  [{address, n} | held]
              end
          end
          |> Enum.map(fn {address, n} -> {address, <<process::64, n::64>>} end)
        end,
        timeout: 120_000
      )
      |> Enum.flat_map(fn {:ok, held} -> held end)
      |> Map.new()

    assert map_size(addresses) == 8 * 2500
    assert Blocks.count(blocks) == 8 * 2500
    assert Map.new(blocks) == addresses
  end

  for processes <- [1, 8] do
    @tag :slow
    @tag timeout: 1_200_000
    test "10 million blocks, half of them freed, by #{processes} at once", %{path: path} do
      blocks = Blocks.open!(path, block_size: 64)
      each = div(10_000_000, unquote(processes))
      memory = :erlang.memory(:total)

      freed =
        1..unquote(processes)
        |> Task.async_stream(
          fn process ->
            data = for n <- 1..1000, do: <<process::64, n::64, 0::48*8>>

            for _ <- 1..div(each, 1000), reduce: 0 do
              freed ->
                {:ok, addresses} = Blocks.store_many(blocks, data)

                addresses
                |> Enum.zip(data)
                |> Enum.reduce(freed, fn {address, block}, freed ->
                  # Nobody else has got it.
                  {:ok, ^block} = Blocks.read(blocks, address)
                  <<_process::64, n::64, _::binary>> = block

                  if rem(n, 2) == 0 do
                    :ok = Blocks.free(blocks, address)
                    freed + 1
                  else
                    freed
                  end
                end)
            end
          end,
          timeout: :infinity
        )
        |> Enum.map(fn {:ok, freed} -> freed end)
        |> Enum.sum()

      count = 10_000_000 - freed
      assert {:ok, %{count: ^count, capacity: capacity, size: size}} = Blocks.info(blocks)
      assert freed == 5_000_000
      # Freed addresses are used again, so there are never many more than those in use.
      assert capacity < 1.3 * count
      # 68.5 bytes for each, slots and the control area, and a group that has just begun.
      assert size < 69 * capacity + 1_000_000
      # Other tests run meanwhile, and what they use comes and goes.
      assert eventually(fn -> :erlang.memory(:total) - memory < 200_000_000 end, 120_000)
      assert Blocks.check(blocks) == {:ok, %{blocks: count, damaged: []}}
      assert {:ok, ^count} = {:ok, Enum.count(blocks)}
    end
  end

  test "what a VM stored that was killed is there, at once", %{path: path} do
    blocks = Blocks.open!(path, block_size: 8)
    {:ok, 0} = Blocks.store(blocks, <<0::64>>)

    assert {:died, _, _} =
             ChildVM.run("""
             blocks = Emmap.Blocks.open!(#{inspect(path)})
             for n <- 1..1000, do: {:ok, ^n} = Emmap.Blocks.store(blocks, <<n::64>>)
             :ok = Emmap.Blocks.free(blocks, 500)
             System.cmd("kill", ["-9", System.pid()])
             """)

    assert Blocks.count(blocks) == 1000
    assert Blocks.read(blocks, 1000) == {:ok, <<1000::64>>}
    assert Blocks.read(blocks, 500) == {:error, :enoent}
    assert Blocks.store(blocks, <<500::64>>) == {:ok, 500}
    assert Blocks.check(blocks) == {:ok, %{blocks: 1001, damaged: []}}
  end
end
