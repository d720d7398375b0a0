defmodule Emmap.Bare do
  @moduledoc false
  # The results of the hot native calls are not wrapped. `{:ok, result}` is built here, at a third of the cost
  # in native code.

  @type kind :: :data | :integer | :value

  defmacro data(call), do: wrapped(call, :data)

  defmacro integer(call), do: wrapped(call, :integer)

  defp wrapped(call, kind) do
    quote do
      case unquote(call) do
        result when unquote(usual(kind, quote(do: result))) -> {:ok, result}
        error -> error
      end
    end
  end

  @doc "A guard: whether a result is one that is wrapped. For `:value`, it misses `:nan` and the infinities."
  @spec usual(kind, Macro.t()) :: Macro.t()
  def usual(:data, result), do: quote(do: is_binary(unquote(result)))
  def usual(:integer, result), do: quote(do: is_integer(unquote(result)))
  def usual(:value, result), do: quote(do: is_number(unquote(result)))
end
