defmodule Emmap.Bare do
  @moduledoc false
  # The results of the hot native calls are not wrapped. `{:ok, result}` is built here, at a third of the cost
  # in native code.

  defmacro data(call) do
    quote do
      case unquote(call) do
        data when is_binary(data) -> {:ok, data}
        other -> other
      end
    end
  end

  # A number that was read may be an atom, such as `:nan`.
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
