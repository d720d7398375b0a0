defmodule Emmap.OptionList do
  @moduledoc false
  # Checks a keyword list against the known options, each with a predicate and a description of its allowed values.

  @type known :: [{atom, {(term -> boolean), String.t()}}]

  @doc "Returns the options as a map. Raises `ArgumentError` if one is unknown, is given twice or has a wrong value."
  @spec check!(term, known) :: map
  def check!(options, known) do
    # The message of `Keyword.validate!/2` calls an option that is given twice unknown.
    once!(options)

    for {name, value} <- Keyword.validate!(options, Keyword.keys(known)), into: %{} do
      {valid?, allowed} = Keyword.fetch!(known, name)
      valid?.(value) || wrong!(name, value, allowed)
      {name, value}
    end
  end

  @doc "Raises `ArgumentError` unless `options` is a keyword list in which each option is given once."
  @spec once!(term) :: :ok
  def once!(options) do
    unless Keyword.keyword?(options),
      do: raise(ArgumentError, "options must be a keyword list, got #{inspect(options)}")

    names = Keyword.keys(options)

    case names -- Enum.uniq(names) do
      [] -> :ok
      [name | _] -> raise ArgumentError, "#{name}: is given twice, got #{inspect(options)}"
    end
  end

  @spec wrong!(atom, term, String.t()) :: no_return
  def wrong!(name, value, allowed),
    do: raise(ArgumentError, "#{name}: must be #{allowed}, got #{inspect(value)}")
end
