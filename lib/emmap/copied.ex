defmodule Emmap.Copied do
  @moduledoc false
  # Any binary may be live, and no function can detect that. A function that reads its argument twice
  # (such as `:unicode.characters_to_binary/3`) crashes the VM if the bytes change in between. So a term from a
  # caller is copied before it is passed to such a function, and before it is stored.

  @doc "The same term, with copies of all binaries in it."
  @spec copied(term) :: term
  def copied(binary) when is_binary(binary), do: :binary.copy(binary)
  def copied([head | tail]), do: [copied(head) | copied(tail)]

  def copied(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> copied() |> List.to_tuple()

  def copied(%{} = map), do: :maps.from_list(copied(:maps.to_list(map)))
  def copied(other), do: other
end
