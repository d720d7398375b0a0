defmodule Emmap.Stream.Decoder do
  @moduledoc false
  # Lines of characters in an encoding, as strings.

  # How much of the file is decoded at once, for encodings in which a newline has more than one byte.
  @bytes 64 * 1024

  @doc "A stream of the strings."
  @spec strings(Emmap.Stream.t()) :: Enumerable.t()
  def strings(%{encoding: encoding} = stream) do
    bytes = %{stream | encoding: nil, live: false}

    if encoding in [:latin1, :unicode, :utf8],
      do: Stream.map(bytes, &line!(&1, encoding, stream)),
      else: wide(%{bytes | mode: @bytes, trim: false}, encoding, stream)
  end

  defp line!(line, :latin1, _stream), do: :unicode.characters_to_binary(line, :latin1)
  defp line!(line, _utf8, stream), do: if(String.valid?(line), do: line, else: failed!(stream))

  # Carries the rest over: bytes of a character, and characters of a line.
  defp wide(pieces, encoding, stream) do
    Stream.transform(
      pieces,
      fn -> {"", ""} end,
      fn piece, {bytes, characters} ->
        {decoded, bytes} = decoded!(bytes <> piece, encoding, stream)
        {lines, characters} = lines(characters <> decoded)
        {Enum.map(lines, &ended(&1, stream.trim)), {bytes, characters}}
      end,
      fn
        {"", ""} = done -> {[], done}
        {"", last} -> {[last], {"", ""}}
        _incomplete -> failed!(stream)
      end,
      fn _ -> :ok end
    )
  end

  defp decoded!(bytes, encoding, stream) do
    case :unicode.characters_to_binary(bytes, encoding) do
      decoded when is_binary(decoded) -> {decoded, ""}
      {:incomplete, decoded, rest} -> {decoded, rest}
      {:error, _decoded, _rest} -> failed!(stream)
    end
  end

  defp lines(characters) do
    {lines, [rest]} = characters |> :binary.split("\n", [:global]) |> Enum.split(-1)
    {lines, rest}
  end

  defp ended(line, trim?) do
    line =
      if :binary.last("\n" <> line) == ?\r,
        do: binary_part(line, 0, byte_size(line) - 1),
        else: line

    if trim?, do: line, else: line <> "\n"
  end

  @spec failed!(Emmap.Stream.t()) :: no_return
  defp failed!(%{source: source}) do
    path = if is_binary(source), do: source
    raise Emmap.Error, op: :stream, path: path, reason: :ebadmsg
  end
end
