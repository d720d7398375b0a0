defmodule Emmap.Array.Codec do
  @moduledoc false
  # Elements as bytes, and bytes as elements. The bytes must not be live.

  alias Emmap.Array.Form
  alias Emmap.Typed

  orders = [{:little, 16}, {:big, 32}]

  integers =
    for {sign, odd} <- [unsigned: 0, signed: 1],
        {bits, place} <- [{8, 0}, {16, 2}, {32, 4}, {64, 6}],
        {order, base} <- orders,
        do:
          {place + odd + base,
           quote(
             do:
               unquote(Macro.var(sign, nil)) - unquote(Macro.var(order, nil)) -
                 size(unquote(bits))
           )}

  size = &Enum.at([1, 1, 2, 2, 4, 4, 8, 8], rem(&1, 16))

  floats =
    for {bits, place} <- [{32, 8}, {64, 9}], {order, base} <- orders do
      {place + base, bits,
       [
         float: quote(do: float - unquote(Macro.var(order, nil)) - size(unquote(bits))),
         bits: quote(do: unquote(Macro.var(order, nil)) - size(unquote(bits)))
       ]}
    end

  @doc "The element at position `at` of `bytes`."
  @spec decode(Form.t(), binary, non_neg_integer) :: Emmap.Array.element()
  def decode(form, bytes, at \\ 0)

  # A function for each number, whose pattern is then the only one that is tried.
  for number <- integers ++ floats, code = elem(number, 0) do
    def decode(unquote(code), bytes, at), do: unquote(:"one_#{code}")(bytes, at)
  end

  # Copied, so that it does not keep the bytes of other elements.
  def decode({:bytes, n}, bytes, at), do: :binary.copy(binary_part(bytes, at, n))

  def decode({:record, fields, _size}, bytes, at), do: :maps.from_list(pairs(fields, bytes, at))

  defp pairs([{name, offset, form} | fields], bytes, at),
    do: [{name, decode(form, bytes, at + offset)} | pairs(fields, bytes, at)]

  defp pairs([], _bytes, _at), do: []

  for {code, spec} <- integers do
    defp unquote(:"one_#{code}")(bytes, at) do
      <<value::unquote(spec)>> = binary_part(bytes, at, unquote(size.(code)))
      value
    end
  end

  for {code, bits, specs} <- floats do
    defp unquote(:"one_#{code}")(bytes, at) do
      case binary_part(bytes, at, unquote(div(bits, 8))) do
        <<value::unquote(specs[:float])>> -> value
        <<bits::unquote(specs[:bits])>> -> not_finite(unquote(bits), bits)
      end
    end
  end

  @doc "All elements in `bytes`, which follow each other without gaps."
  @spec decode_all(Form.t(), binary) :: [Emmap.Array.element()]
  for {code, _spec} <- integers do
    def decode_all(unquote(code), bytes), do: unquote(:"all_#{code}")(bytes)
  end

  for {code, _bits, _specs} <- floats do
    def decode_all(unquote(code), bytes), do: unquote(:"all_#{code}")(bytes)
  end

  def decode_all(form, bytes), do: decode_column(form, bytes, 0, Form.size(form))

  for {code, spec} <- integers do
    defp unquote(:"all_#{code}")(<<value::unquote(spec), rest::binary>>),
      do: [value | unquote(:"all_#{code}")(rest)]

    defp unquote(:"all_#{code}")(<<>>), do: []
  end

  for {code, bits, specs} <- floats do
    defp unquote(:"all_#{code}")(<<value::unquote(specs[:float]), rest::binary>>),
      do: [value | unquote(:"all_#{code}")(rest)]

    defp unquote(:"all_#{code}")(<<bits::unquote(specs[:bits]), rest::binary>>),
      do: [not_finite(unquote(bits), bits) | unquote(:"all_#{code}")(rest)]

    defp unquote(:"all_#{code}")(<<>>), do: []
  end

  defp not_finite(32, 0x7F80_0000), do: :infinity
  defp not_finite(32, 0xFF80_0000), do: :neg_infinity
  defp not_finite(64, 0x7FF0_0000_0000_0000), do: :infinity
  defp not_finite(64, 0xFFF0_0000_0000_0000), do: :neg_infinity
  defp not_finite(_bits, _nan), do: :nan

  @doc "All values of a column in `bytes`, which are whole records of `stride` bytes."
  @spec decode_column(Form.t(), binary, non_neg_integer, pos_integer) :: [Emmap.Array.element()]
  def decode_column(form, bytes, at, stride) do
    for record <- 0..(byte_size(bytes) - stride)//stride, do: decode(form, bytes, record + at)
  end

  @doc "An element as bytes. Raises `ArgumentError` if it is not one of this form."
  @spec encode!(Form.t(), term) :: iodata
  for {code, spec} <- integers do
    {least, most} =
      case {Bitwise.band(code, 1), 8 * Enum.at([1, 2, 4, 8], div(rem(code, 16), 2))} do
        {0, bits} -> {0, Bitwise.bsl(1, bits) - 1}
        {1, bits} -> {-Bitwise.bsl(1, bits - 1), Bitwise.bsl(1, bits - 1) - 1}
      end

    def encode!(unquote(code), value)
        when is_integer(value) and value >= unquote(least) and value <= unquote(most),
        do: <<value::unquote(spec)>>
  end

  for {code, bits, specs} <- floats do
    {infinity, sign, nan} =
      case bits do
        32 -> {0x7F80_0000, 0x8000_0000, 0x7FC0_0000}
        64 -> {0x7FF0_0000_0000_0000, 0x8000_0000_0000_0000, 0x7FF8_0000_0000_0000}
      end

    def encode!(unquote(code), :infinity), do: <<unquote(infinity)::unquote(specs[:bits])>>
    def encode!(unquote(code), :nan), do: <<unquote(nan)::unquote(specs[:bits])>>

    def encode!(unquote(code), :neg_infinity),
      do: <<unquote(infinity + sign)::unquote(specs[:bits])>>

    def encode!(unquote(code), value) when is_number(value) do
      bytes = <<value::unquote(specs[:float])>>
      <<bits::unquote(specs[:bits])>> = bytes

      # Out of range: some versions of OTP write infinity, and others raise.
      if Bitwise.band(bits, unquote(infinity)) == unquote(infinity),
        do: wrong!(unquote(code), value),
        else: bytes
    rescue
      ArgumentError -> wrong!(unquote(code), value)
    end
  end

  def encode!({:bytes, n}, value) when is_binary(value) and byte_size(value) <= n,
    do: [value, :binary.copy(<<0>>, n - byte_size(value))]

  def encode!({:record, fields, size}, %{} = record) when not is_struct(record) do
    {bytes, at} =
      Enum.flat_map_reduce(fields, 0, fn {name, offset, form}, at ->
        value =
          case record do
            %{^name => value} ->
              value

            %{} ->
              raise ArgumentError, "the record has no field #{inspect(name)}: #{shown(record)}"
          end

        {[<<0::size((offset - at) * 8)>> | field!(name, form, value)], offset + Form.size(form)}
      end)

    if map_size(record) != length(fields) do
      [unknown | _] = Map.keys(record) -- for {name, _, _} <- fields, do: name
      raise ArgumentError, "the array has no field #{inspect(unknown)}: #{shown(record)}"
    end

    [bytes, <<0::size((size - at) * 8)>>]
  end

  def encode!(form, value), do: wrong!(form, value)

  defp field!(name, form, value) do
    [encode!(form, value)]
  rescue
    error in ArgumentError ->
      reraise ArgumentError, "#{inspect(name)}: " <> error.message, __STACKTRACE__
  end

  @spec wrong!(Form.t(), term) :: no_return
  defp wrong!({:bytes, n}, value),
    do: raise(ArgumentError, "a binary of at most #{n} bytes is needed, got #{shown(value)}")

  defp wrong!({:record, fields, _}, value) do
    raise ArgumentError,
          "a record is a map with the keys #{Enum.map_join(fields, ", ", &inspect(elem(&1, 0)))}, got #{shown(value)}"
  end

  defp wrong!(code, value) do
    name = Typed.name(code)

    range =
      case Atom.to_string(name) do
        "u" <> bits -> "integer from 0 to 2^#{bits} - 1"
        "i" <> bits -> "integer from -2^#{power(bits)} to 2^#{power(bits)} - 1"
        "f32" -> "number up to 3.4028234663852886e38, :nan, :infinity or :neg_infinity"
        "f64" -> "number up to 1.7976931348623157e308, :nan, :infinity or :neg_infinity"
      end

    raise ArgumentError, "#{inspect(name)} needs an #{range}, got #{shown(value)}"
  end

  defp power(bits), do: String.to_integer(bits) - 1

  defp shown(value), do: inspect(value, limit: 10, printable_limit: 100)
end
