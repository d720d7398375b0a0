defmodule Emmap.Iodata do
  @moduledoc false
  # Data to be written. It may contain live binaries whose maps have lost their pages. In that case, the zeros in
  # their place are not written, and the error of the map is returned.

  alias Emmap.Native

  # A binary is returned unchanged, because the NIF that writes it checks it. Anything else is copied.
  @spec flatten(iodata) :: {:ok, binary} | {:error, :badarg} | Emmap.failure()
  def flatten(data) when is_binary(data), do: {:ok, data}
  def flatten(data), do: checked(data, &:erlang.iolist_to_binary/1)

  # As `flatten/1`, but the result shares no bytes with `data`: for a write that happens later.
  @spec copy(iodata) :: {:ok, binary} | {:error, :badarg} | Emmap.failure()
  def copy(data) when is_binary(data), do: checked(data, &:binary.copy/1)
  def copy(data), do: flatten(data)

  defp checked(data, copy) do
    case Native.faults() do
      {events, false} ->
        copied = copy.(data)
        # No map had a fault before or during the copy, so no byte was lost.
        if Native.faults() == {events, false}, do: {:ok, copied}, else: exact(data)

      {_events, true} ->
        exact(data)
    end
  rescue
    ArgumentError -> {:error, :badarg}
  end

  # Copies each binary and checks its map.
  defp exact(data) do
    {:ok, data |> copies() |> :erlang.iolist_to_binary()}
  catch
    {:lost, error} -> error
  end

  defp copies(data) when is_binary(data) do
    case Native.source_copy(data) do
      {:ok, copy} -> copy
      error -> throw({:lost, error})
    end
  end

  defp copies([head | tail]), do: [copies(head) | copies(tail)]
  defp copies(byte_or_end), do: byte_or_end
end
