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
      {flags, info} =
        Map.split(
          info,
          [:writable, :private, :direct, :lock, :auto_unlink, :resizable, :grows, :appends]
        )

      {max_size, info} = Map.pop!(info, :max_size)

      {:ok,
       Map.merge(info, %{
         flags: flags(flags, info),
         growable_up_to: if(flags.resizable, do: max_size || :infinity)
       })}
    end
  end

  defp flags(flags, info) do
    [
      :read,
      (flags.writable or flags.appends) && :write,
      flags.appends && :append,
      if(flags.private, do: :private, else: :shared),
      is_nil(info.path) && :anon,
      flags.direct && :direct,
      if(flags.lock, do: :lock, else: :nolock),
      flags.auto_unlink && :auto_unlink,
      flags.writable and not flags.resizable && :fixed_size
    ]
    |> Enum.filter(& &1)
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
