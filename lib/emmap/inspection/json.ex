defmodule Emmap.Inspection.Json do
  @moduledoc false
  # JSON (RFC 8259) of plain terms: maps with atoms as keys, lists, atoms, strings and integers. OTP has an
  # encoder only from OTP 27 on.

  @spec encode(term) :: iodata
  def encode(term) when term in [nil, true, false],
    do: if(term == nil, do: "null", else: "#{term}")

  def encode(term) when is_atom(term), do: term |> Atom.to_string() |> encode()
  def encode(term) when is_integer(term), do: Integer.to_string(term)
  def encode(term) when is_binary(term), do: [?", string(term, []), ?"]

  def encode(term) when is_list(term),
    do: [?[, term |> Enum.map(&encode/1) |> Enum.intersperse(?,), ?]]

  def encode(term) when is_map(term) do
    # In a fixed order, which is the same in each run.
    pairs =
      for {key, value} <- Enum.sort(term), do: [encode(Atom.to_string(key)), ?:, encode(value)]

    [?{, Enum.intersperse(pairs, ?,), ?}]
  end

  defp string(<<>>, done), do: Enum.reverse(done)
  defp string(<<?", rest::binary>>, done), do: string(rest, ["\\\"" | done])
  defp string(<<?\\, rest::binary>>, done), do: string(rest, ["\\\\" | done])

  # U+007F and the line separators are allowed unescaped, but not every reader accepts them.
  defp string(<<c::utf8, rest::binary>>, done) when c < 0x20 or c in [0x7F, 0x2028, 0x2029] do
    code = c |> Integer.to_string(16) |> String.pad_leading(4, "0")
    string(rest, [["\\u", code] | done])
  end

  defp string(<<c::utf8, rest::binary>>, done), do: string(rest, [<<c::utf8>> | done])
  defp string(<<_not_utf8, rest::binary>>, done), do: string(rest, ["\uFFFD" | done])
end
