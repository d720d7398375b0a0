defmodule Emmap.Inspection.Crc32c do
  @moduledoc false
  # CRC-32C (Castagnoli), of which OTP has no function: a byte at a time by a table, some 20 MB a second.

  import Bitwise

  @table 0..255
         |> Enum.map(fn byte ->
           Enum.reduce(1..8, byte, fn _, crc ->
             if (crc &&& 1) == 1, do: bxor(crc >>> 1, 0x82F63B78), else: crc >>> 1
           end)
         end)
         |> List.to_tuple()

  @doc "The checksum of `bytes`, which follow bytes with the checksum `crc`."
  @spec append(non_neg_integer, binary) :: non_neg_integer
  def append(crc \\ 0, bytes), do: bxor(crc, 0xFFFFFFFF) |> each(bytes) |> bxor(0xFFFFFFFF)

  defp each(crc, <<byte, rest::binary>>),
    do: each(bxor(elem(@table, bxor(crc, byte) &&& 0xFF), crc >>> 8), rest)

  defp each(crc, <<>>), do: crc
end
