defmodule Emmap.HeapRoom do
  @moduledoc false
  # How much the calling process may add to its heap before its `max_heap_size` kills it. Reads in batches use smaller
  # batches if there is little room.

  # Words needed for each element of a batch. A garbage collection counts the old heap and the new one, which
  # may be the next larger size, and data that is in neither yet.
  @words_of_an_element 1024

  # Words left; `:infinity`, which is greater than any integer, if neither the process nor the system has a limit.
  @spec words :: non_neg_integer | :infinity
  def words do
    [garbage_collection: flags, total_heap_size: heap] =
      Process.info(self(), [:garbage_collection, :total_heap_size])

    case flags[:max_heap_size] do
      %{size: 0} -> :infinity
      %{size: size} when is_integer(size) and is_integer(heap) -> max(size - heap, 0)
    end
  end

  # How many elements to read at once, at most `most`.
  @spec batch(pos_integer) :: pos_integer
  def batch(most), do: batch(most, words())

  @spec batch(pos_integer, non_neg_integer | :infinity) :: pos_integer
  def batch(most, :infinity), do: most
  def batch(most, words), do: words |> div(@words_of_an_element) |> max(1) |> min(most)
end
