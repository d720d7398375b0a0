defmodule Emmap.Pieces do
  @moduledoc false
  # A kernel call for a range of gigabytes would occupy a thread of the VM, and often block the address space of the
  # whole VM. In pieces, other calls can run in between, and the caller can be killed, or the map closed, after each.

  alias Emmap.Native

  @bytes 8 * 1024 * 1024

  @doc """
  Calls `call` with the position and length of each piece of a range, up to the end of the map, until it returns an
  error. It is called at least once. A `count` of 0 is an empty range.
  """
  @spec each(
          reference,
          non_neg_integer,
          non_neg_integer,
          (non_neg_integer, non_neg_integer -> result)
        ) :: result
        when result: :ok | Emmap.failure()
  def each(ref, position, count, call) do
    with {:ok, size} <- Native.size(ref),
         do: go(position, min(position + count, max(size, position)), call)
  end

  defp go(position, stop, call) when stop - position <= @bytes,
    do: call.(position, stop - position)

  defp go(position, stop, call) do
    with :ok <- call.(position, @bytes), do: go(position + @bytes, stop, call)
  end
end
