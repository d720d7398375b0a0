defmodule Emmap.Table.Format do
  @moduledoc false
  # Keys and values of a table: binaries, or terms in the external format.

  @type part :: :binary | :term
  @type t :: {part, part}

  # Equal terms (===) have equal bytes. Without `minor_version: 2`, atoms would be encoded differently before OTP 26.
  @of_key [:deterministic, minor_version: 2]
  @of_value [minor_version: 2]

  @spec valid?(term) :: boolean
  def valid?(format), do: format in [:binary, :term, {:binary, :term}, {:term, :binary}]

  @spec allowed :: String.t()
  def allowed, do: ":binary | :term | {:binary, :term} | {:term, :binary}"

  @spec of(part | t) :: t
  def of({_, _} = format), do: format
  def of(format), do: {format, format}

  @spec encode_pair!(t, term) :: {binary, binary}
  def encode_pair!({:binary, :binary}, {key, value} = pair)
      when is_binary(key) and is_binary(value),
      do: pair

  def encode_pair!({keys, values}, {key, value}),
    do: {encode_key!(keys, key), encode_value!(values, value)}

  def encode_pair!(_format, other),
    do: raise(ArgumentError, "a record is {key, value}, got #{inspect(other, limit: 5)}")

  @spec encode_key!(part, term) :: binary
  def encode_key!(:binary, key) when is_binary(key), do: key
  def encode_key!(:term, key), do: :erlang.term_to_binary(key, @of_key)

  def encode_key!(:binary, other) do
    raise ArgumentError,
          "the keys of this table are binaries, got #{inspect(other, limit: 5, printable_limit: 100)}"
  end

  defp encode_value!(:binary, value) when is_binary(value), do: value
  defp encode_value!(:term, value), do: :erlang.term_to_binary(value, @of_value)

  defp encode_value!(:binary, other) do
    raise ArgumentError,
          "the values of this table are binaries, got #{inspect(other, limit: 5, printable_limit: 100)}; " <>
            "for terms, build it with format: :term"
  end

  # Native code returns copies of terms, not live binaries.
  @spec decode_key(t, binary, [:safe]) :: term
  def decode_key({keys, _values}, key, options), do: decode(keys, key, options)

  @spec decode(part, binary, [:safe]) :: term
  def decode(:binary, bytes, _options), do: bytes
  def decode(:term, bytes, options), do: :erlang.binary_to_term(bytes, options)
end
