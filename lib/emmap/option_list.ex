defmodule Emmap.OptionList do
  @moduledoc false
  # Checks a keyword list against the known options, each with a predicate and a description of its allowed values.

  @spec check!(term, [{atom, {(term -> boolean), String.t()}}]) :: map
  def check!(options, known) do
    unless Keyword.keyword?(options),
      do: raise(ArgumentError, "options must be a keyword list, got #{inspect(options)}")

    given = Map.new(options)

    if map_size(given) < length(options),
      do: raise(ArgumentError, "an option is given twice: #{inspect(options)}")

    for {name, value} <- given do
      case List.keyfind(known, name, 0) do
        nil ->
          raise ArgumentError,
                "unknown option #{inspect(name)}; the options are #{inspect(Keyword.keys(known))}"

        {_, {valid?, allowed}} ->
          valid?.(value) || wrong!(name, value, allowed)
      end
    end

    given
  end

  @spec wrong!(atom, term, String.t()) :: no_return
  def wrong!(name, value, allowed),
    do: raise(ArgumentError, "#{name}: must be #{allowed}, got #{inspect(value)}")
end
