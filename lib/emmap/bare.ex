defmodule Emmap.Bare do
  @moduledoc false
  # Results of the hot native calls are bare. `{:ok, result}` is built here, where it costs a third of what it costs in
  # native code.

  defmacro data(call) do
    quote do
      case unquote(call) do
        data when is_binary(data) -> {:ok, data}
        other -> other
      end
    end
  end

  # A number that was read may be an atom, as `:nan`.
  defmacro value(call) do
    quote do
      case unquote(call) do
        {:error, _} = error -> error
        :eof -> :eof
        value -> {:ok, value}
      end
    end
  end

  defmacro integer(call) do
    quote do
      case unquote(call) do
        integer when is_integer(integer) -> {:ok, integer}
        error -> error
      end
    end
  end
end
