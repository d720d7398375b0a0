defmodule Emmap.BadDays.ArraysTest do
  # What happens to a file of numbers or records.
  use Emmap.Test.BadDay
  alias Emmap.Array

  setup %{path: path} do
    File.rm!(path)
    :ok
  end

  @type_of_records "[id: :u64, check: :u64, x: :f64]"
  @open """
  alias Emmap.Array
  open = fn -> Array.open!(path, #{@type_of_records}, [:create]) end
  record = fn n -> %{id: n, check: Bitwise.bxor(n, 0x5555_5555_5555_5555), x: n / 2} end
  array = open.()
  """

  test "1: an array whose file is truncated while it is open", context do
    assert {[:estale], [error: :estale], :ok, 208, 21_528.0, {:ok, 208}, 209} =
             child(
               context,
               @open <>
                 """
                 {:ok, 0} = Array.append(array, for(n <- 0..9_999, do: record.(n)))
                 cut.(path, 5000)
                 reason = fn call ->
                   try do
                     call.()
                     :none
                   rescue
                     error in Emmap.Error -> error.reason
                   end
                 end
                 # The first call meets the lost pages, the others what it has noted.
                 raised = for call <- [
                   fn -> Array.sum(array, :x) end, fn -> Array.at(array, 9_000) end, fn -> Array.at(Array.column(array, :id), 9_000) end,
                   fn -> Array.binary_search(array, :id, 9_000) end, fn -> Array.get_many(Array.column(array, :id), [9_000, 1]) end,
                   fn -> Array.max(array, :id) end, fn -> Array.to_binary(Array.column(array, :x)) end, fn -> Enum.to_list(array) end
                 ], uniq: true, do: reason.(call)
                 returned = for call <- [
                   fn -> Array.append(array, record.(1)) end, fn -> Array.put(array, 1, record.(1)) end, fn -> Array.view(array) end,
                   fn -> Array.put_many(array, [{1, record.(1)}]) end, fn -> Array.sync(array) end
                 ], uniq: true, do: call.()
                 back = Array.reattach(array)
                 count = Array.count(array)
                 {raised, returned, back, count, Array.sum(array, :x) * 2, Array.append(array, record.(0)), Array.count(array)}
                 """
             )
  end

  test "1: the file of an array is truncated during a sum and a search", context do
    assert {true, :lives} =
             child(
               context,
               """
               alias Emmap.Array
               {:ok, array} = Array.open(path, :u64, [:create, :sparse, count: 40_000_000])
               Emmap.fill(array.mem, 0, 64_000_000, 1)
               caller = self()
               calls = [fn -> Array.sum(array) end, fn -> Array.min(array) end, fn -> Array.binary_search(array, 5) end]
               for call <- calls, do: spawn(fn ->
                 again = fn again ->
                   try do
                     _ = call.()
                     again.(again)
                   rescue
                     error in Emmap.Error -> send(caller, error.reason)
                   end
                 end
                 again.(again)
               end)
               Process.sleep(50)
               cut.(path, 4096)
               reasons = for _ <- calls, do: (receive do reason -> reason after 30_000 -> :none end)
               {Enum.all?(reasons, &(&1 == :estale)), :lives}
               """
             )
  end

  for kind <- [:tmpfs, :ext4] do
    test "12: disk full while records are appended (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {{:error, :enospc}, true, true, true, :ok, true} =
                   child(
                     %{context | path: Path.join(disk, "a")},
                     @open <>
                       """
                       {n, error} = Enum.find_value(Stream.iterate(0, & &1 + 100), fn n ->
                         case Array.append(array, for(k <- n..(n + 99), do: record.(k))) do
                           {:ok, ^n} -> nil
                           error -> {n, error}
                         end
                       end)
                       kept = Array.count(array) == n
                       whole = File.stat!(path).size == n * 24
                       right = Enum.all?(Enum.with_index(array), fn {got, k} -> got == record.(k) end)
                       # Everything but growing goes on.
                       put = Array.put(array, 3, record.(33))
                       {error, kept, whole, right, put, Array.at(array, 3) == record.(33)}
                       """
                   )
      end
    end
  end

  test "31: kill -9 while several VMs append to an array: what returned is there, and records are whole",
       context do
    for round <- 1..4 do
      1..2
      |> Enum.map(fn me ->
        Task.async(fn ->
          assert {:died, _, _} =
                   attempt(
                     context,
                     @open <>
                       """
                       spawn(fn -> Process.sleep(#{200 + 100 * me}); System.cmd("kill", ["-9", System.pid()]) end)
                       log = File.open!(dir <> "/returned_#{me}", [:append, :raw])
                       Enum.each(Stream.iterate(#{round * 2 + me} * 1_000_000, & &1 + 700), fn n ->
                         # More than a page.
                         {:ok, index} = Array.append(array, for(k <- n..(n + 699), do: record.(k)))
                         :ok = :file.write(log, <<index::64, n::64>>)
                       end)
                       """
                   )
        end)
      end)
      |> Task.await_many(120_000)
    end

    array = Array.open!(context.path, [id: :u64, check: :u64, x: :f64], [:write])

    for %{id: id, check: check, x: x} <- array do
      assert check == Bitwise.bxor(id, 0x5555_5555_5555_5555)
      assert x == id / 2
    end

    returned =
      for me <- 1..2,
          <<index::64, n::64 <- File.read!(Path.join(context.dir, "returned_#{me}"))>>,
          do: {index, n}

    assert length(returned) > 5
    ids = Array.column(array, :id)

    for {index, n} <- returned,
        do: assert(Array.get_many(ids, index..(index + 699)) == Enum.to_list(n..(n + 699)))

    # An incomplete record at the end is overwritten.
    count = Array.count(array)
    assert {:ok, ^count} = Array.append(array, %{id: 1, check: 2, x: 3})
    assert File.stat!(context.path).size == 24 * (count + 1)
    noted(context, {:ok, "none lost"})
  end
end
