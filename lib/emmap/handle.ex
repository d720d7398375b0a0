defmodule Emmap.Handle do
  @moduledoc false
  # The structure of a handle, which no other module knows: the record that `:file` accepts, which contains a tuple of the
  # reference, the root of a direct handle, and a struct for `inspect/1`. A function head matches a tuple in a tenth of
  # the time that it needs for a struct.
  #
  # The root is a binary of the whole map, and long live binaries are parts of it. It is wrapped in a fun, because
  # whatever prints a handle (a crash report, an Erlang shell) prints a fun in one word, but would print the whole file.

  # This must not use the struct of `Emmap`, because `Emmap` needs this module to be compiled.
  @type t :: {:file_descriptor, Emmap.File, {reference, (() -> binary) | nil, struct}}

  @doc "Matches any handle, and binds its reference."
  defmacro handle(ref) do
    quote do: {:file_descriptor, Emmap.File, {unquote(ref), _, _}}
  end

  @doc "Matches any handle, and binds its reference and its root (or `nil`)."
  defmacro handle(ref, root) do
    quote do: {:file_descriptor, Emmap.File, {unquote(ref), unquote(root), _}}
  end

  @doc """
  The longest live binary that does not share the root, in bytes, because checking the root costs more. The VM
  counts the bytes of such a binary as memory of the process, and collects garbage after 370 KB of them.
  """
  defmacro alone, do: 4096

  @spec new(reference, binary | nil) :: t
  def new(ref, root),
    do: {:file_descriptor, Emmap.File, {ref, wrap(root), %{:__struct__ => Emmap, :ref => ref}}}

  @doc "A root binary, or `nil`, in the form in which it is stored."
  @spec wrap(binary | nil) :: (() -> binary) | nil
  def wrap(nil), do: nil
  def wrap(root), do: fn -> root end

  @doc "The root binary of a handle, or `nil`."
  @spec root((() -> binary) | nil) :: binary | nil
  def root(nil), do: nil
  def root(root), do: root.()

  @spec ref!(t) :: reference
  def ref!(handle(ref)), do: ref
  def ref!(other), do: none!(other)

  @doc "An addition to the message about a term that is not one of the expected handles."
  @spec meant(term) :: String.t()
  def meant({:ok, _}),
    do: ", the whole result of open: match {:ok, mem} = Emmap.open(...) and pass mem"

  def meant({:error, _}), do: ", the error of a file that could not be opened"
  def meant(_other), do: ""

  @doc "Raises for a term that is not a handle. The message names common mistakes."
  @spec none!(term) :: no_return
  def none!({:ok, {:file_descriptor, _, _}}) do
    raise ArgumentError,
          "not a handle, but the whole result of open/2: match {:ok, mem} = Emmap.open(...) and pass mem"
  end

  def none!({:error, _} = error),
    do:
      raise(
        ArgumentError,
        "not a handle, but the error of a file that could not be opened: #{inspect(error)}"
      )

  def none!(%{__struct__: module})
      when module in [Emmap.Array, Emmap.Counters, Emmap.Queue, Emmap.Blocks, Emmap.Table] do
    raise ArgumentError,
          "not a handle of Emmap.open, but of #{inspect(module)}: call the functions of #{inspect(module)}"
  end

  def none!(path) when is_binary(path) do
    raise ArgumentError,
          "not an open Emmap handle of this node: #{inspect(path, printable_limit: 100)}; " <>
            "open a file first: {:ok, mem} = Emmap.open(path)"
  end

  def none!(other) do
    raise ArgumentError,
          "not an open Emmap handle of this node: #{inspect(other, limit: 5, printable_limit: 100)}"
  end
end
