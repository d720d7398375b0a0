defmodule Emmap.BadDays.BlocksTest do
  # What happens to a file of blocks.
  use Emmap.Test.BadDay

  setup %{path: path} do
    File.rm!(path)
    :ok
  end

  @open """
  alias Emmap.Blocks
  blocks = Blocks.open!(path, block_size: 1000)
  block = fn n -> <<n::64, 0::992*8>> end
  """

  test "1: a file of blocks truncated while it is open", context do
    assert {[{:error, :estale}], "estale", {:error, {:bad_format, :length}}, {:error, :estale},
            :ok, {:ok, true}, {:ok, 100},
            101} =
             child(
               context,
               @open <>
                 """
                 {:ok, _} = Blocks.store_many(blocks, for(n <- 0..99, do: block.(n)))
                 :ok = Blocks.sync(blocks)
                 whole = File.read!(path)
                 cut.(path, 5000)
                 results = for call <- [
                   &Blocks.store(&1, block.(1)), &Blocks.read(&1, 0), &Blocks.free(&1, 0), &Blocks.write(&1, 0, block.(2)), &Blocks.sync/1,
                   &Blocks.check/1, &Blocks.trim/1, &Blocks.compact(&1, fn _, _ -> :ok end)
                 ], uniq: true, do: call.(blocks)
                 raised = try do Blocks.count(blocks) rescue error in Emmap.Error -> to_string(error.reason) end
                 refused = Blocks.reattach(blocks)
                 still = Blocks.read(blocks, 0)
                 File.write!(path, whole)
                 back = Blocks.reattach(blocks)
                 right = {:ok, Enum.all?(0..99, &(Blocks.read(blocks, &1) == {:ok, block.(&1)}))}
                 {results, raised, refused, still, back, right, Blocks.store(blocks, block.(7)), Blocks.count(blocks)}
                 """
             )
  end

  for kind <- [:tmpfs, :ext4] do
    test "12: disk full while blocks are stored (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {{:error, :enospc}, true, true, :ok, :ok, true, :ok, {:ok, 5}} =
                   child(
                     %{context | path: Path.join(disk, "b")},
                     @open <>
                       """
                       {n, error} = Enum.find_value(0..1_000_000, fn n ->
                         case Blocks.store(blocks, block.(n)) do
                           {:ok, ^n} -> nil
                           error -> {n, error}
                         end
                       end)
                       kept = Blocks.count(blocks) == n
                       right = Enum.all?(0..(n - 1), &(Blocks.read(blocks, &1) == {:ok, block.(&1)}))
                       # Everything but growing goes on.
                       written = Blocks.write(blocks, 3, block.(33))
                       synced = Blocks.sync(blocks)
                       for m <- 0..299, do: :ok = Blocks.write(blocks, m, block.(m + 1))
                       replaced = Enum.all?(0..299, &(Blocks.read(blocks, &1) == {:ok, block.(&1 + 1)}))
                       :ok = Blocks.free(blocks, 5)
                       {error, kept, right, written, synced, replaced, Blocks.sync(blocks), Blocks.store(blocks, block.(5))}
                       """
                   )
      end
    end
  end

  test "14: the device fails when blocks are synced", context do
    case Emmap.Test.CLibrary.build("inject", context.dir) do
      {:error, why} ->
        skipped(context, why)

      {:ok, library} ->
        File.write!(Path.join(context.dir, "control"), <<0::64*64>>)

        # The first msync from anywhere in the process fails, and only the first.
        assert {{:error, :eio}, {:error, :eio}, {:ok, true}, {:ok, 2}} =
                 child(
                   context,
                   @open <>
                     """
                     {:ok, 0} = Blocks.store(blocks, block.(0))
                     :ok = Blocks.sync(blocks)
                     {:ok, 1} = Blocks.store(blocks, block.(1))
                     {:ok, control} = :file.open(dir <> "/control", [:read, :write])
                     :ok = :file.pwrite(control, 0, for(word <- [0, 0xFFFF_FFFF_FFFF_FFFF, 7, 1, 5], do: <<word::native-64>>))
                     failed = Blocks.sync(blocks)
                     {failed, Blocks.sync(blocks), {:ok, Blocks.read(blocks, 1) == {:ok, block.(1)}}, Blocks.store(blocks, block.(2))}
                     """,
                   env: [
                     {"LD_PRELOAD", library <> ".so"},
                     {"EMMAP_INJECT", Path.join(context.dir, "control")}
                   ]
                 )
    end
  end

  test "5: a file of blocks deleted: open handles keep working, and the next open creates a new file",
       context do
    assert {{:ok, 1}, true, 0, {:ok, 0}} =
             child(
               context,
               @open <>
                 """
                 {:ok, 0} = Blocks.store(blocks, block.(0))
                 File.rm!(path)
                 stored = Blocks.store(blocks, block.(1))
                 right = Blocks.read(blocks, 0) == {:ok, block.(0)}
                 new = Blocks.open!(path, block_size: 1000)
                 {stored, right, Blocks.count(new), Blocks.store(new, block.(3))}
                 """
             )
  end

  test "31: kill -9 while blocks are stored and freed: what returned is there, and the file opens",
       context do
    for _ <- 1..5 do
      assert {:died, _, _} =
               attempt(
                 context,
                 @open <>
                   """
                   spawn(fn -> Process.sleep(300); System.cmd("kill", ["-9", System.pid()]) end)
                   log = File.open!(dir <> "/returned", [:append, :raw])
                   Enum.each(Stream.iterate(0, & &1 + 1), fn n ->
                     {:ok, address} = Blocks.store(blocks, block.(n))
                     :ok = :file.write(log, <<address::64, n::64>>)
                     if rem(n, 3) == 0 do
                       :ok = Blocks.free(blocks, address)
                       :ok = :file.write(log, <<address::64, -1::64>>)
                     end
                     if rem(n, 50) == 0, do: :ok = Blocks.sync(blocks)
                   end)
                   """
               )
    end

    log = File.read!(Path.join(context.dir, "returned"))
    returned = for <<address::64, n::signed-64 <- log>>, into: %{}, do: {address, n}
    blocks = Emmap.Blocks.open!(context.path)
    assert {:ok, %{recovered: nil, count: count}} = Emmap.Blocks.info(blocks)
    there = for {address, <<n::64, _::binary>>} <- blocks, into: %{}, do: {address, n}
    assert map_size(there) == count
    {freed, stored} = Enum.split_with(returned, fn {_address, n} -> n == -1 end)
    # The last call of each program may have happened or not.
    lost = Enum.reject(stored, fn {address, n} -> there[address] == n end)
    assert length(lost) <= 5, inspect(lost)
    assert Enum.all?(lost, fn {_address, n} -> rem(n, 3) == 0 end), inspect(lost)
    back = Enum.count(freed, fn {address, _} -> Map.has_key?(there, address) end)
    assert back <= 5
    assert {:ok, %{blocks: ^count, damaged: []}} = Emmap.Blocks.check(blocks)
    noted(context, {:ok, "none lost"})
  end
end
