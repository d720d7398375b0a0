defmodule Emmap.BadArgument do
  @moduledoc false
  # Raises `badarg`, as functions of Erlang do, with an explanation that the shells of Erlang and Elixir show.

  @doc "Raises from the calling function. `number` is the position of the invalid argument."
  defmacro badarg(arguments, number, explanation) do
    quote do
      :erlang.error(:badarg, unquote(arguments),
        error_info: %{
          module: unquote(__MODULE__),
          cause: %{unquote(number) => unquote(explanation)}
        }
      )
    end
  end

  @spec format_error(term, [tuple]) :: %{optional(pos_integer) => String.t()}
  def format_error(_reason, [{_module, _function, _arguments, info} | _]),
    do: info[:error_info][:cause] || %{}
end
