defmodule Emmap.QueueBatchesTest do
  # Many items in one call.
  use ExUnit.Case, async: true
  alias Emmap.Queue

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "queue")
    {:ok, path: path, q: Queue.open!(path, format: :binary)}
  end

  # Changes the first byte of an item in the file.
  defp damage!(path, item) do
    {at, _} = :binary.match(File.read!(path), item)
    file = File.open!(path, [:read, :write, :raw])
    :ok = :file.pwrite(file, at, "#")
    :ok = File.close(file)
  end

  for {name, kind} <- [{"popped", :pop}, {"checked out", :checkout}] do
    test "a batch that is #{name} ends at a damaged item, and the next call tells", context do
      items = for n <- 1..5, do: "the item with number #{n}"
      assert {:ok, 5} = Queue.push_many(context.q, items)
      damage!(context.path, "the item with number 3")
      [one, two, _, four, five] = items

      batch = fn ->
        case unquote(kind) do
          :pop ->
            Queue.pop_many(context.q)

          :checkout ->
            with {:ok, items} <- Queue.checkout(context.q, max_items: 10) do
              {items, receipts} = Enum.unzip(items)
              :ok = Queue.ack(context.q, receipts)
              {:ok, items}
            end
        end
      end

      taken = for _ <- 1..3, do: batch.()

      # What is checked out is copied after it was claimed, so those behind the damage are in the batch, too.
      expected =
        case unquote(kind) do
          :pop -> [{:ok, [one, two]}, :damage, {:ok, [four, five]}]
          :checkout -> [{:ok, [one, two, four, five]}, :damage, :empty]
        end

      assert expected ==
               Enum.map(taken, fn
                 {:error, {:corrupt, position}} when is_integer(position) -> :damage
                 other -> other
               end)
    end
  end

  test "batches of any size", %{q: q} do
    items = for n <- 1..3_000, do: :binary.copy("#{n} ", rem(n, 70))
    large = :binary.copy("x", 300_000)
    assert {:ok, 3_001} = Queue.push_many(q, [large | items])
    assert {:ok, [^large]} = Queue.pop_many(q, max_bytes: 10)
    assert {:ok, taken} = Queue.pop_many(q, max_items: 10_000, max_bytes: 100_000_000)
    assert taken == items
    assert :empty = Queue.pop_many(q)
  end

  test "a batch has no more bytes than were asked for", %{q: q} do
    {:ok, 300} = Queue.push_many(q, List.duplicate(:binary.copy("x", 1_000), 300))
    assert {:ok, one} = Queue.pop_many(q, max_bytes: 1_999)
    assert length(one) == 1
    assert {:ok, some} = Queue.pop_many(q, max_bytes: 100_500)
    assert length(some) == 100
    assert {:ok, checked_out} = Queue.checkout(q, max_bytes: 100_500)
    assert length(checked_out) == 100
    assert Queue.length(q) == 99 and Enum.count(q) == 99
  end

  test "a batch that does not fit is pushed as far as it does", %{path: path} do
    q = Queue.open!(path, format: :binary, max_size: 1_100)
    # Each takes 96 bytes with its header, behind the 64 bytes of the segment's.
    item = :binary.copy("x", 72)
    assert {:error, :full, 10} = Queue.push_many(q, List.duplicate(item, 12))

    blocked = Queue.open!(path, format: :binary, max_size: 1_100, full: :block)
    assert {:error, :full, 0} = Queue.push_many(blocked, [item], timeout: 10)
    pushing = Task.async(fn -> Queue.push_many(blocked, List.duplicate(item, 25)) end)
    taken = for _ <- 1..35, do: Queue.pop(q, 5_000)
    assert taken == List.duplicate({:ok, item}, 35)
    assert {:ok, 25} = Task.await(pushing)
  end

  test "a list of receipts with one that is gone", %{q: q} do
    {:ok, 3} = Queue.push_many(q, ["a", "b", "c"])
    {:ok, items} = Queue.checkout(q, max_items: 3)
    receipts = [_, second, _] = for {_, receipt} <- items, do: receipt
    :ok = Queue.ack(q, second)
    assert {:error, :gone} = Queue.ack(q, receipts, durable: true)
    assert {:ok, %{checked_out: 0, length: 0}} = Queue.info(q)
  end
end
