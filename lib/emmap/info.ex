defmodule Emmap.Info do
  @moduledoc false
  # What `Emmap.info/1` and `inspect/1` show for a map.

  alias Emmap.Native

  @type t :: Emmap.info()

  @spec of(reference) :: {:ok, t} | Emmap.failure()
  def of(ref), do: shown(Native.info(ref))

  # The number of pages of the map and how many of them are in memory, in at most `parts` parts from its
  # start: `[{pages, resident}]`.
  @spec residency(reference, 1..0xFFFF) ::
          {:ok, [{pos_integer, non_neg_integer}]} | Emmap.failure()
  def residency(ref, parts), do: Native.residency(ref, parts)

  # Bytes of the blocks that the file has on its disk; `nil` if unknown.
  @spec allocated(reference) :: non_neg_integer | nil
  def allocated(ref) do
    case Native.file_info(ref) do
      {:ok, info} -> info.allocated
      {:error, _} -> nil
    end
  end

  # As `of/1`, but without the resident pages and the blocks: it takes constant time for any size of map.
  @spec brief(reference) :: {:ok, t} | Emmap.failure()
  def brief(ref), do: shown(Native.describe(ref, true))

  defp shown(answer) do
    with {:ok, info} <- answer do
      {state, info} =
        Map.split(info, [
          :writable,
          :private,
          :direct,
          :lock,
          :resizable,
          :grows,
          :appends,
          :given
        ])

      {max_size, info} = Map.pop!(info, :max_size)

      {:ok,
       Map.merge(info, %{
         flags: flags(state),
         growable_up_to: if(state.resizable, do: max_size || :infinity)
       })}
    end
  end

  # What was given, and what it implies. A map that was made read-only has lost `:write`.
  defp flags(state) do
    implied = [
      :read,
      if(state.private, do: :private, else: :shared),
      if(state.lock, do: :lock, else: :nolock),
      (state.writable or state.appends) && :write,
      # Each handle of a map has its own.
      state.direct && :direct
    ]

    flags = Emmap.Options.flags(state.given, implied)
    if state.writable or state.appends, do: flags, else: flags -- [:write, :append]
  end
end

defimpl Inspect, for: Emmap do
  def inspect(%Emmap{ref: ref}, _opts) do
    # Inspecting a handle must not change it.
    case Emmap.Native.describe(ref, false) do
      {:ok, %{path: path, size: size} = info} ->
        name = if path, do: Kernel.inspect(path), else: "anonymous"
        "#Emmap<#{name} #{size} bytes, #{access(info)}>"

      {:error, :closed} ->
        "#Emmap<closed>"
    end
  rescue
    ArgumentError -> "#Emmap<not a handle of this node>"
  end

  defp access(%{appends: true}), do: "read append"
  defp access(%{writable: true}), do: "read write"
  defp access(_info), do: "read"
end
