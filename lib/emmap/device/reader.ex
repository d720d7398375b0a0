defmodule Emmap.Device.Reader do
  @moduledoc false
  # Reads characters, lines and terms at the cursor of a map.
  #
  # A block is read at the cursor, without moving it. Then the cursor moves past the part of the block that was
  # used. So nothing is read ahead that would have to be undone, or could become stale. A request
  # that fails does not move the cursor: see `unmoved/2`.

  import Emmap.Handle, only: [handle: 1]
  alias Emmap.Device.Characters
  import Emmap.Waiting, only: [patient: 2]
  alias Emmap.Native

  @type source :: %{
          :mem => Emmap.t(),
          :owed => Emmap.position() | nil,
          :direct => boolean,
          :encoding => Characters.encoding(),
          :binary => boolean,
          optional(atom) => term
        }
  @type answer :: {:ok, binary | [char]} | :eof | {:error, term}

  @smallest 128
  @largest 65_536
  @most 0x7FFF_FFFF_FFFF_FFFF

  @doc """
  Runs `request`, and moves the cursor back unless the result is `:ok`, `{:ok, answer}` or `:eof`.

  While pages are lost, the cursor cannot be moved; the move is then `owed` until it can.
  """
  @spec unmoved(source, (() -> answer)) :: {answer | {:error, atom}, source} when answer: term
  def unmoved(source, request) do
    case Emmap.position(source.mem, source.owed || :cur) do
      {:ok, at} -> unmoved(%{source | owed: nil}, at, request.())
      error -> {error, source}
    end
  end

  defp unmoved(source, at, answer) do
    done? = answer in [:ok, :eof] or (is_tuple(answer) and elem(answer, 0) == :ok)

    with false <- done?, {:error, _} <- Emmap.position(source.mem, at) do
      {answer, %{source | owed: at}}
    else
      _ -> {answer, source}
    end
  end

  defp cursor(source), do: Emmap.position(source.mem, :cur)

  @doc "Reads `count` characters, fewer at the end. An invalid count returns `{:error, :get_chars}`."
  @spec characters(source, term, Characters.encoding()) :: answer
  def characters(source, 0, to), do: Characters.answer("", source.encoding, to, source.binary)

  def characters(source, count, to) when is_integer(count) and count > 0 do
    with {:ok, at} <- cursor(source),
         {:ok, bytes} <- bytes(source, at, count),
         {:ok, answer} <- Characters.answer(bytes, source.encoding, to, source.binary),
         do: used(source, at + byte_size(bytes), answer)
  end

  def characters(_source, _count, _to), do: {:error, :get_chars}

  # The bytes of this many characters.
  defp bytes(%{encoding: :latin1} = source, at, count), do: fetch(source, at, min(count, @most))
  defp bytes(source, at, count), do: bytes(source, at, count, [])

  defp bytes(source, at, left, parts) do
    case fetch(source, at, block(left)) do
      {:ok, block} ->
        case Characters.count(block, left, source.encoding) do
          {^left, size, _} ->
            joined([binary_part(block, 0, size) | parts])

          {_, _, :invalid} ->
            {:error, :invalid_unicode}

          # The last character of the map is incomplete. Translating it will return the error.
          {0, 0, :incomplete} ->
            joined([block | parts])

          {count, size, _} ->
            bytes(source, at + size, left - count, [binary_part(block, 0, size) | parts])
        end

      :eof when parts != [] ->
        joined(parts)

      other ->
        other
    end
  end

  defp joined([part]), do: {:ok, part}
  defp joined(parts), do: {:ok, IO.iodata_to_binary(Enum.reverse(parts))}

  # A character has at most 4 bytes.
  defp block(count), do: (count * 4) |> max(@smallest) |> min(@largest)

  @doc "Reads a line with its newline; CRLF is LF."
  @spec line(source, Characters.encoding()) :: answer
  def line(%{encoding: encoding} = source, to) when encoding in [:latin1, :unicode] do
    # In both encodings, a byte of 10 is always a newline.
    with {:ok, line} <- bytes_of_line(source),
         do: Characters.answer(line, encoding, to, source.binary)
  end

  def line(source, to) do
    case until(%{source | binary: false}, to, &line_of/2) do
      {:ok, :eof} -> :eof
      {:ok, line} -> Characters.answer(line, :unicode, to, source.binary)
      {:stuck, _} -> {:error, {:no_translation, source.encoding, to}}
      error -> error
    end
  end

  defp bytes_of_line(%{direct: false} = source), do: Emmap.read_line(source.mem)

  # The line is live, so it is used only to find the end of the line.
  defp bytes_of_line(%{direct: true} = source) do
    with {:ok, at} <- cursor(source),
         {:ok, _live} <- Emmap.read_line(source.mem),
         {:ok, next} <- cursor(source),
         {:ok, line} <- fetch(source, at, next - at) do
      if String.ends_with?(line, "\r\n"),
        do: {:ok, binary_part(line, 0, byte_size(line) - 2) <> "\n"},
        else: {:ok, line}
    end
  end

  defp line_of([], :eof), do: {:done, :eof, []}
  defp line_of(reversed, :eof), do: {:done, Enum.reverse(reversed), []}
  defp line_of([?\r | reversed], [?\n | rest]), do: {:done, Enum.reverse(reversed, [?\n]), rest}
  defp line_of(reversed, [?\n | rest]), do: {:done, Enum.reverse(reversed, [?\n]), rest}
  defp line_of(reversed, [character | rest]), do: line_of([character | reversed], rest)
  defp line_of(reversed, []), do: {:more, reversed}

  @doc """
  Passes characters to `next.(continuation, characters | :eof)` until that returns
  `{:done, result, rest}`. The characters in `rest` were not used, and stay in the map.

  Returns `{:stuck, continuation}` if the bytes are invalid, or if `next` returns something other
  than `{:done, _, _}` or `{:more, continuation}` (which is not allowed after `:eof`). Raises what `next` raises.
  """
  @spec until(source, Characters.encoding(), (term, [char] | :eof -> term)) ::
          {:ok, term} | {:stuck, term} | {:error, term}
  def until(source, to, next) do
    with {:ok, at} <- cursor(source), do: until(source, to, next, at, @smallest, [])
  end

  defp until(source, to, next, at, size, continuation) do
    with {:ok, given, at} <- given(source, to, at, size) do
      case next.(continuation, given) do
        {:done, result, rest} ->
          left = if rest == :eof, do: 0, else: Characters.size(rest, source.encoding)
          used(source, max(at - left, 0), result(source, to, result))

        {:more, continuation} when given != :eof ->
          until(source, to, next, at, min(size * 2, @largest), continuation)

        _ ->
          {:stuck, continuation}
      end
    else
      :stuck -> {:stuck, continuation}
      error -> error
    end
  end

  # The next characters, and where they end.
  defp given(source, to, at, size) do
    case fetch(source, at, size) do
      {:ok, block} ->
        # Binaries for a Latin-1 client cannot contain characters above 255.
        case Characters.decode(block, source.encoding, source.binary and to == :latin1) do
          {[], 0} -> :stuck
          {characters, used} -> {:ok, characters, at + used}
        end

      :eof ->
        {:ok, :eof, at}

      error ->
        error
    end
  end

  defp result(%{binary: true}, to, characters) when is_list(characters) do
    {:ok, bytes} = Characters.translate(characters, :unicode, to)
    bytes
  end

  defp result(_source, _to, result), do: result

  defp used(source, next, answer) do
    with {:ok, _} <- Emmap.position(source.mem, next), do: {:ok, answer}
  end

  # On a direct handle, a read would return the memory itself, which may change while it is translated.
  # So this always copies.
  defp fetch(source, at, count), do: patient(Native.pread_copy(ref(source), at, count), :data)

  defp ref(%{mem: handle(ref)}), do: ref
end
