defmodule Emmap.Inspection.FlippedBit do
  @moduledoc false
  # Which bit was flipped, by the CRC-32 that no longer fits: among so few bytes each single bit changes
  # it in a way of its own. What two bits or more did to it is not told apart.

  import Bitwise

  # Tries every bit; beyond this it would take long.
  @longest 4096

  @doc """
  Finds the one bit whose flip makes `bytes` and their checksum fit: the byte it is in, and its value
  there (1, 2, 4 … 128). Bytes from `byte_size(bytes)` on are those of the checksum, little-endian.
  """
  @spec find(binary, non_neg_integer) :: {:ok, non_neg_integer, pos_integer} | :none
  def find(bytes, checksum) do
    difference = bxor(:erlang.crc32(bytes), checksum)

    cond do
      difference == 0 -> :none
      (difference &&& difference - 1) == 0 -> in_checksum(byte_size(bytes), difference)
      byte_size(bytes) > @longest -> :none
      true -> in_bytes(bytes, checksum)
    end
  end

  @doc "`bytes` with the bit of value `bit` in byte `at` the other way round."
  @spec flip(binary, non_neg_integer, pos_integer) :: binary
  def flip(bytes, at, bit) do
    before = binary_part(bytes, 0, at)
    rest = binary_part(bytes, at + 1, byte_size(bytes) - at - 1)
    <<before::binary, bxor(:binary.at(bytes, at), bit), rest::binary>>
  end

  defp in_checksum(size, difference) do
    byte = Enum.find(0..3, &(difference >>> (8 * &1) < 256))
    {:ok, size + byte, difference >>> (8 * byte)}
  end

  defp in_bytes(bytes, checksum) do
    tries = for at <- 0..(byte_size(bytes) - 1)//1, bit <- 0..7, do: {at, 1 <<< bit}
    found = Enum.find(tries, fn {at, bit} -> :erlang.crc32(flip(bytes, at, bit)) == checksum end)
    with {at, bit} <- found || :none, do: {:ok, at, bit}
  end
end
