defmodule Emmap.Array.Literal do
  @moduledoc false
  # The literals of Python in the header of a `.npy` file: strings, integers, `True`, `False`, `None`, tuples, lists and
  # dicts. Nothing is evaluated, and no atom is created.

  @type t ::
          binary | integer | boolean | nil | {:tuple, [t]} | {:list, [t]} | {:dict, [{t, t}]}

  # Headers of NumPy are at most this deep: fields in fields.
  @deepest 32
  # No size of a file has more digits.
  @longest_number 20

  @doc "The literal that `text`, which is UTF-8, consists of."
  @spec parse(String.t()) :: {:ok, t} | :error
  def parse(text) do
    {value, rest} = value(skip(text), 0)
    if skip(rest) == "", do: {:ok, value}, else: :error
  catch
    :invalid -> :error
  end

  defp value(_text, @deepest), do: throw(:invalid)
  defp value("{" <> rest, depth), do: items(rest, "}", depth + 1, &pair/2, :dict)
  defp value("[" <> rest, depth), do: items(rest, "]", depth + 1, &value/2, :list)

  defp value("(" <> rest, depth) do
    case items(rest, ")", depth + 1, &value/2, :tuple) do
      # Without a comma, these are only parentheses.
      {{:tuple, [value], :bare}, rest} -> {value, rest}
      other -> other
    end
  end

  defp value("True" <> rest, _depth), do: {true, word_end(rest)}
  defp value("False" <> rest, _depth), do: {false, word_end(rest)}
  defp value("None" <> rest, _depth), do: {nil, word_end(rest)}
  # Python 2 and 3 both write these before some strings.
  defp value(<<p, q, rest::binary>>, _depth) when p in ~c"ub" and q in ~c"'\"",
    do: string(rest, q, [])

  defp value(<<q, rest::binary>>, _depth) when q in ~c"'\"", do: string(rest, q, [])
  defp value("-" <> <<d, _::binary>> = text, _depth) when d in ?0..?9, do: number(text)
  defp value(<<d, _::binary>> = text, _depth) when d in ?0..?9, do: number(text)
  defp value(_other, _depth), do: throw(:invalid)

  defp items(text, close, depth, item, kind), do: items(skip(text), close, depth, item, kind, [])

  defp items(text, close, depth, item, kind, done) do
    case text do
      <<^close::binary-size(1), rest::binary>> ->
        {{kind, Enum.reverse(done)}, rest}

      _ ->
        {value, rest} = item.(text, depth)

        case skip(rest) do
          "," <> rest ->
            items(skip(rest), close, depth, item, kind, [value | done])

          <<^close::binary-size(1), rest::binary>> when kind == :tuple and done == [] ->
            {{:tuple, [value], :bare}, rest}

          <<^close::binary-size(1), rest::binary>> ->
            {{kind, Enum.reverse([value | done])}, rest}

          _ ->
            throw(:invalid)
        end
    end
  end

  defp pair(text, depth) do
    {key, rest} = value(text, depth)

    case skip(rest) do
      ":" <> rest ->
        {value, rest} = value(skip(rest), depth)
        {{key, value}, rest}

      _ ->
        throw(:invalid)
    end
  end

  defp number(text) do
    case Integer.parse(binary_part(text, 0, min(byte_size(text), @longest_number + 1))) do
      {number, more} ->
        used = min(byte_size(text), @longest_number + 1) - byte_size(more)
        used <= @longest_number || throw(:invalid)
        rest = binary_part(text, used, byte_size(text) - used)
        # Python 2 wrote 3L.
        rest =
          if match?("L" <> _, rest), do: binary_part(rest, 1, byte_size(rest) - 1), else: rest

        {number, word_end(rest)}

      :error ->
        throw(:invalid)
    end
  end

  defp word_end(<<c, _::binary>>)
       when c in ?a..?z or c in ?A..?Z or c in ?0..?9 or c in ~c"_.'\"",
       do: throw(:invalid)

  defp word_end(rest), do: rest

  defp string(<<q, rest::binary>>, q, done),
    do: {done |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string(<<?\\, rest::binary>>, q, done), do: escape(rest, q, done)

  defp string(<<c::utf8, rest::binary>>, q, done) when c >= 0x20,
    do: string(rest, q, [<<c::utf8>> | done])

  defp string(_other, _q, _done), do: throw(:invalid)

  for {letter, char} <- [{?n, ?\n}, {?t, ?\t}, {?r, ?\r}, {?\\, ?\\}, {?', ?'}, {?", ?"}] do
    defp escape(<<unquote(letter), rest::binary>>, q, done),
      do: string(rest, q, [unquote(char) | done])
  end

  for {letter, digits} <- [{?x, 2}, {?u, 4}, {?U, 8}] do
    defp escape(<<unquote(letter), hex::binary-size(unquote(digits)), rest::binary>>, q, done) do
      with true <- hex =~ ~r/\A[0-9a-fA-F]+\z/,
           code when code in 0..0xD7FF or code in 0xE000..0x10FFFF <- String.to_integer(hex, 16) do
        string(rest, q, [<<code::utf8>> | done])
      else
        _ -> throw(:invalid)
      end
    end
  end

  defp escape(_other, _q, _done), do: throw(:invalid)

  defp skip(<<c, rest::binary>>) when c in ~c" \t\r\n", do: skip(rest)
  defp skip(text), do: text
end
