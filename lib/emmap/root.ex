defmodule Emmap.Root do
  @moduledoc false
  # A direct handle carries a binary over its whole map, of which live binaries are sub-binaries.
  # It stands in a fun, because what prints a handle (a crash report, an Erlang shell) prints a
  # fun in one word, but would print the whole file.

  @type t :: (() -> binary) | nil

  @spec wrap(binary | nil) :: t
  def wrap(nil), do: nil
  def wrap(root), do: fn -> root end

  @spec unwrap(t) :: binary | nil
  def unwrap(nil), do: nil
  def unwrap(root), do: root.()
end
