defmodule Emmap.Path do
  @moduledoc false
  # A path in the form that the system expects: bytes. Paths are stored, for example in streams, so the result is a copy.

  import Emmap.Copied

  @doc "Whether a term may be a path, as `t::file.name_all/0` defines it."
  defguard is_path(term)
           when is_binary(term) or is_list(term) or
                  (is_atom(term) and term not in [nil, true, false])

  @spec bytes!(Path.t() | :file.name_all()) :: binary
  def bytes!(path) when is_binary(path), do: copied(path)

  def bytes!(path) when is_path(path) do
    flat = path |> copied() |> :filename.flatten()

    # Characters are encoded as `:file` does it. A list may also hold bytes, as file names that are not UTF-8 do.
    case :unicode.characters_to_binary(flat, :unicode, :file.native_name_encoding()) do
      bytes when is_binary(bytes) -> bytes
      _ -> :erlang.iolist_to_binary(flat)
    end
  rescue
    # Of `flatten/1` or of `iolist_to_binary/1`.
    _ in [ArgumentError, FunctionClauseError] ->
      reraise ArgumentError, [message: "not a path: #{inspect(path)}"], __STACKTRACE__
  end

  def bytes!(other) do
    raise ArgumentError,
          "a path is a string, a charlist or an atom, got #{inspect(other)}#{Emmap.Handle.meant(other)}"
  end
end
