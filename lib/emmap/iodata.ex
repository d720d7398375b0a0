defmodule Emmap.Iodata do
  @moduledoc false
  # Data that is about to be written. It may hold live binaries, whose maps may have lost them: then the zeros in their
  # place are not written, and the error of the map is returned.

  alias Emmap.Native

  # A binary is returned as it is: the NIF that writes it checks it. What else there is is copied.
  @spec flatten(iodata) :: {:ok, binary} | {:error, :badarg} | Emmap.failure()
  def flatten(data) when is_binary(data), do: {:ok, data}
  def flatten(data), do: checked(data, &:erlang.iolist_to_binary/1)

  # As `flatten/1`, but the result shares no bytes with `data`: for what is written later.
  @spec copy(iodata) :: {:ok, binary} | {:error, :badarg} | Emmap.failure()
  def copy(data) when is_binary(data), do: checked(data, &:binary.copy/1)
  def copy(data), do: flatten(data)

  defp checked(data, copy) do
    {events, _} = Native.faults()
    copied = copy.(data)

    # Bytes that were lost meanwhile, or before, belong to a map with a fault; a map that has been repaired since has
    # changed the number.
    case Native.faults() do
      {^events, false} ->
        {:ok, copied}

      {now, _} ->
        with :ok <- sound(data),
             do: if(now == events, do: {:ok, copied}, else: checked(data, copy))
    end
  rescue
    ArgumentError -> {:error, :badarg}
  end

  defp sound(data) when is_binary(data), do: Native.source_fault(data)
  defp sound([head | tail]), do: with(:ok <- sound(head), do: sound(tail))
  defp sound(_byte_or_end), do: :ok
end
