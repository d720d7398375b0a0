defimpl Enumerable, for: Emmap.Array do
  alias Emmap.Array.Bulk

  def count(array), do: {:ok, Emmap.Array.count(array)}
  def member?(_array, _element), do: {:error, __MODULE__}

  def slice(array) do
    {:ok, Emmap.Array.count(array),
     fn
       from, count, 1 -> Bulk.pieces(array, from, count)
       from, count, step -> Bulk.steps(array, from, count, step)
     end}
  end

  # The elements that there are when it begins.
  def reduce(array, acc, fun),
    do: next([], {array, 0, Emmap.Array.count(array)}, acc, fun)

  defp next(_elements, _rest, {:halt, acc}, _fun), do: {:halted, acc}

  defp next(elements, rest, {:suspend, acc}, fun),
    do: {:suspended, acc, &next(elements, rest, &1, fun)}

  defp next([element | elements], rest, {:cont, acc}, fun),
    do: next(elements, rest, fun.(element, acc), fun)

  defp next([], {_array, from, count}, {:cont, acc}, _fun) when from >= count, do: {:done, acc}

  defp next([], {array, from, count}, {:cont, acc}, fun) do
    step = Emmap.HeapRoom.batch(Bulk.step(array))

    case Bulk.part(array, from, min(step, count - from)) do
      # The map became shorter in the meantime.
      [] -> {:done, acc}
      elements -> next(elements, {array, from + step, count}, {:cont, acc}, fun)
    end
  end
end

defimpl Inspect, for: Emmap.Array do
  import Inspect.Algebra

  def inspect(array, opts) do
    # Charlists would hide numbers.
    elements = to_doc(shown(array, opts.limit), %{opts | charlists: :as_lists})
    shape = array |> Emmap.Array.shape() |> to_doc(opts)
    concat(["#Emmap.Array<", to_doc(array.type, opts), " ", shape, " ", elements, ">"])
  rescue
    error in Emmap.Error -> "#Emmap.Array<#{Kernel.inspect(array.type)} #{error.reason}>"
    ArgumentError -> "#Emmap.Array<#{Kernel.inspect(array.type)} not of this node>"
  end

  # One more than is shown, so that "..." follows.
  defp shown(array, :infinity), do: Enum.to_list(array)
  defp shown(array, limit), do: Emmap.Array.Bulk.part(array, 0, limit + 1)
end
