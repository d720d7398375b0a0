defmodule Emmap.Inspection.FlippedBit do
  @moduledoc false
  # Finds the flipped bit from a CRC-32 that no longer matches: in short data, each single bit changes the checksum in a
  # different way. Two or more flipped bits cannot be identified.

  import Bitwise

  # Tries every bit, which would take too long for more bytes.
  @longest 4096

  @typedoc "A byte, and the number of a bit in it."
  @type bit :: {non_neg_integer, 0..7}

  @doc """
  Finds the one bit whose flip makes `bytes` and their checksum match. Positions from `byte_size(bytes)` on are in the
  checksum, little-endian.
  """
  @spec find(binary, non_neg_integer) :: bit | nil
  def find(bytes, checksum) do
    size = byte_size(bytes)
    whole = bytes <> <<checksum::little-32>>
    tries = for at <- 0..(size + 3), size <= @longest, bit <- 0..7, do: {at, bit}

    Enum.find(tries, fn bit ->
      flipped = flip(whole, bit)
      checksum = flipped |> binary_part(size, 4) |> :binary.decode_unsigned(:little)
      flipped |> binary_part(0, size) |> :erlang.crc32() == checksum
    end)
  end

  @doc "`bytes` with one bit flipped."
  @spec flip(binary, bit) :: binary
  def flip(bytes, {at, bit}) do
    rest = binary_part(bytes, at + 1, byte_size(bytes) - at - 1)
    <<binary_part(bytes, 0, at)::binary, bxor(:binary.at(bytes, at), 1 <<< bit), rest::binary>>
  end

  @doc "Whether `bytes` are `good` with one bit flipped."
  @spec one?(binary, binary) :: boolean
  def one?(bytes, good) do
    bits = for at <- 0..(byte_size(good) - 1), bit <- 0..7, do: {at, bit}
    Enum.any?(bits, &(flip(good, &1) == bytes))
  end
end
