defmodule Emmap.Location do
  @moduledoc false
  # Converts a location, as OTP's types define it, to a position, for calls that take a range of a file.

  alias Emmap.Native

  @spec position(reference, term) :: {:ok, integer} | {:error, Emmap.reason()}
  def position(_ref, position) when is_integer(position), do: {:ok, position}
  def position(_ref, :bof), do: {:ok, 0}
  def position(ref, :cur), do: Native.position(ref, 1, 0)
  def position(ref, :eof), do: Native.size(ref)

  def position(ref, {from, offset}) when from in [:bof, :cur, :eof] and is_integer(offset) do
    with {:ok, position} <- position(ref, from), do: {:ok, position + offset}
  end

  def position(_ref, other), do: wrong(other)

  @doc "What a raw file returns for a term that is neither a position nor a number of bytes."
  @spec wrong(term) :: {:error, :einval | :badarg}
  def wrong(number) when is_number(number), do: {:error, :einval}
  def wrong(_other), do: {:error, :badarg}
end
