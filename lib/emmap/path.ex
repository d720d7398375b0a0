defmodule Emmap.Path do
  @moduledoc false
  # A path in the form that the system expects: bytes. Charlists contain characters or, for file names that are not
  # UTF-8, bytes. Paths are stored, for example in streams, so the result is a copy.

  import Emmap.Copied

  @spec bytes!(Path.t() | :file.name_all()) :: binary
  def bytes!(path) when is_binary(path), do: copied(path)

  def bytes!(path) when is_list(path) do
    path = copied(path)

    case :unicode.characters_to_binary(path) do
      bytes when is_binary(bytes) -> bytes
      _ -> :erlang.iolist_to_binary(path)
    end
  rescue
    ArgumentError -> raise ArgumentError, "not a path: #{inspect(path)}"
  end

  def bytes!(other) do
    raise ArgumentError,
          "a path is a string or a charlist, got #{inspect(other)}#{Emmap.Handle.meant(other)}"
  end
end
