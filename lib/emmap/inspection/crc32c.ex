defmodule Emmap.Inspection.Crc32c do
  @moduledoc false
  # CRC-32C (Castagnoli), which OTP does not have: one byte at a time by a table, about 20 MB per second.

  import Bitwise

  @table 0..255
         |> Enum.map(fn byte ->
           Enum.reduce(1..8, byte, fn _, crc ->
             if (crc &&& 1) == 1, do: bxor(crc >>> 1, 0x82F63B78), else: crc >>> 1
           end)
         end)
         |> List.to_tuple()

  # The effect of one zero byte on each bit of a checksum, from the lowest bit.
  @zero_byte for bit <- 0..31,
                 do: bxor(elem(@table, 1 <<< bit &&& 0xFF), 1 <<< bit >>> 8)

  @doc "The checksum of `bytes` that follow bytes with the checksum `crc`."
  @spec append(non_neg_integer, binary) :: non_neg_integer
  def append(crc \\ 0, bytes), do: bxor(crc, 0xFFFFFFFF) |> each(bytes) |> bxor(0xFFFFFFFF)

  @doc "As `append/2` of this number of zero bytes, in a time that hardly depends on the number."
  @spec append_zeros(non_neg_integer, non_neg_integer) :: non_neg_integer
  def append_zeros(crc, count),
    do: crc |> bxor(0xFFFFFFFF) |> zeros(count, @zero_byte) |> bxor(0xFFFFFFFF)

  # The effect of `2^n` zeros on a checksum is linear: the sum of the effects on each of its bits.
  defp zeros(crc, 0, _operator), do: crc

  defp zeros(crc, count, operator) do
    crc = if (count &&& 1) == 1, do: apply_to(operator, crc), else: crc
    zeros(crc, count >>> 1, Enum.map(operator, &apply_to(operator, &1)))
  end

  defp apply_to(operator, crc, sum \\ 0)
  defp apply_to(_operator, 0, sum), do: sum

  defp apply_to([bit | operator], crc, sum),
    do: apply_to(operator, crc >>> 1, if((crc &&& 1) == 1, do: bxor(sum, bit), else: sum))

  defp each(crc, <<byte, rest::binary>>),
    do: each(bxor(elem(@table, bxor(crc, byte) &&& 0xFF), crc >>> 8), rest)

  defp each(crc, <<>>), do: crc
end
