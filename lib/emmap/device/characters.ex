defmodule Emmap.Device.Characters do
  @moduledoc false
  # Characters in an encoding: how many bytes they have, and conversion to another encoding.

  @type encoding :: :latin1 | :unicode | {:utf16 | :utf32, :big | :little}
  # What follows the characters that were found: nothing, the beginning of a character, or invalid bytes.
  @type tail :: :ok | :incomplete | :invalid

  @doc "The encoding of a name as in `:file.open/2`."
  @spec encoding(term) :: {:ok, encoding} | :error
  def encoding(:latin1), do: {:ok, :latin1}
  def encoding(name) when name in [:unicode, :utf8], do: {:ok, :unicode}
  def encoding(name) when name in [:utf16, :utf32], do: {:ok, {name, :big}}

  def encoding({width, order} = name) when width in [:utf16, :utf32] and order in [:big, :little],
    do: {:ok, name}

  def encoding(_other), do: :error

  @doc "How many characters are at the beginning of `bytes`, up to `limit`, and their size in bytes."
  @spec count(binary, pos_integer, encoding) :: {non_neg_integer, non_neg_integer, tail}
  def count(bytes, limit, encoding) do
    {left, rest} = skip(bytes, limit, encoding)

    {limit - left, byte_size(bytes) - byte_size(rest),
     if(left > 0, do: tail(rest, encoding), else: :ok)}
  end

  defp skip(rest, 0, _encoding), do: {0, rest}

  defp skip(<<_::utf8, rest::binary>>, left, :unicode), do: skip(rest, left - 1, :unicode)

  defp skip(<<_::utf16-big, rest::binary>>, left, {:utf16, :big} = encoding),
    do: skip(rest, left - 1, encoding)

  defp skip(<<_::utf16-little, rest::binary>>, left, {:utf16, :little} = encoding),
    do: skip(rest, left - 1, encoding)

  defp skip(<<_::utf32-big, rest::binary>>, left, {:utf32, :big} = encoding),
    do: skip(rest, left - 1, encoding)

  defp skip(<<_::utf32-little, rest::binary>>, left, {:utf32, :little} = encoding),
    do: skip(rest, left - 1, encoding)

  defp skip(rest, left, _encoding), do: {left, rest}

  defp tail("", _encoding), do: :ok
  # A character has at most 4 bytes.
  defp tail(rest, _encoding) when byte_size(rest) >= 4, do: :invalid

  defp tail(rest, encoding) do
    case :unicode.characters_to_list(rest, encoding) do
      {:incomplete, _, _} -> :incomplete
      _ -> :invalid
    end
  end

  @doc """
  The characters of `bytes` as a list, and their size in bytes. Stops at the first character that is incomplete,
  invalid or, with `latin1_only?`, above 255.
  """
  @spec decode(binary, encoding, boolean) :: {[char], non_neg_integer}
  def decode(bytes, encoding, latin1_only?) do
    {characters, size} =
      case :unicode.characters_to_list(bytes, encoding) do
        {_error, characters, rest} -> {characters, byte_size(bytes) - IO.iodata_length(rest)}
        characters -> {characters, byte_size(bytes)}
      end

    if latin1_only? and Enum.any?(characters, &(&1 > 255)) do
      characters = Enum.take_while(characters, &(&1 < 256))
      {characters, size(characters, encoding)}
    else
      {characters, size}
    end
  end

  @doc "The size in bytes of a list of characters. Raises `ArgumentError` if it is not one."
  @spec size(:unicode.chardata(), encoding) :: non_neg_integer
  def size(characters, encoding) do
    case :unicode.characters_to_binary(characters, :unicode, encoding) do
      bytes when is_binary(bytes) -> byte_size(bytes)
      _ -> raise ArgumentError, "not a list of characters of #{inspect(encoding)}"
    end
  end

  @doc "Characters of one encoding as bytes of another. Invalid chardata returns `{:error, :badarg}`."
  @spec translate(:unicode.chardata(), encoding, encoding) ::
          {:ok, binary} | {:error, :badarg | {:no_translation, encoding, encoding}}
  def translate(data, from, to) do
    case bytes(data, from, to) do
      bytes when is_binary(bytes) -> {:ok, bytes}
      _ -> {:error, {:no_translation, from, to}}
    end
  rescue
    ArgumentError -> {:error, :badarg}
  end

  # Latin-1 to Latin-1: the bytes need not be checked one by one.
  defp bytes(data, :latin1, :latin1), do: IO.iodata_to_binary(data)
  defp bytes(data, from, to), do: :unicode.characters_to_binary(data, from, to)

  @doc "What a client gets for bytes of the map: a binary in its encoding, or a list of characters."
  @spec answer(iodata, encoding, encoding, boolean) ::
          {:ok, binary | [char]} | {:error, {:no_translation, encoding, encoding}}
  def answer(bytes, from, to, true), do: translate(bytes, from, to)
  def answer(bytes, :latin1, _to, false), do: {:ok, :erlang.binary_to_list(bytes)}

  def answer(bytes, from, to, false) do
    # Converted through the client's encoding, so that a character outside of it is an error in a list, too.
    with {:ok, bytes} <- translate(bytes, from, to),
         do: {:ok, :unicode.characters_to_list(bytes, to)}
  end
end
