defmodule Emmap.Search do
  @moduledoc """
  Patterns of bytes in a map: what stands behind `Emmap.find/3`, `rfind/3`, `find_all/3` and `count/3`.

  A pattern is a binary of at least one byte, a list of them, or what `Emmap.compile_pattern/1` made of
  either. Of a list, the leftmost match counts, and of those that begin there the longest; the
  order of the list does not matter.
  """
  @moduledoc since: "1.0.0-rc.0"

  alias Emmap.Native

  @enforce_keys [:patterns]
  defstruct [:patterns]

  @typedoc "A pattern that `Emmap.compile_pattern/1` prepared, of use on this node only."
  @type t :: %__MODULE__{patterns: reference}
  @typedoc "One pattern, several of which any will do, or a prepared one."
  @type pattern :: binary | [binary, ...] | t
  @typedoc "Where to search, in bytes."
  @type range :: [{:start, non_neg_integer} | {:length, non_neg_integer}]

  @last 0x7FFF_FFFF_FFFF_FFFF

  # Patterns of so many bytes together are prepared in microseconds.
  @few_bytes 256

  @doc false
  @spec find(reference, pattern, range) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  def find(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    find_from(ref, compile(pattern).patterns, from, stop)
  end

  defp find_from(ref, patterns, from, stop) do
    case Native.search_find(ref, patterns, from, stop) do
      next when is_integer(next) -> find_from(ref, patterns, next, stop)
      answer -> answer
    end
  end

  @doc false
  @spec rfind(reference, pattern, range) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  def rfind(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    rfind_before(ref, compile(pattern).patterns, from, stop, stop)
  end

  defp rfind_before(ref, patterns, from, before, stop) do
    case Native.search_rfind(ref, patterns, from, before, stop) do
      next when is_integer(next) -> rfind_before(ref, patterns, from, next, stop)
      answer -> answer
    end
  end

  @doc false
  @spec find_all(reference, pattern, range | [{:limit, non_neg_integer}]) ::
          {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  def find_all(ref, pattern, options) do
    {from, stop, limit} = range!(options, [:start, :length, :limit])
    all_from(ref, compile(pattern).patterns, from, stop, limit, [])
  end

  defp all_from(ref, patterns, from, stop, limit, batches) do
    case Native.search_all(ref, patterns, from, stop, limit) do
      {:ok, last} ->
        {:ok, Enum.reduce(batches, last, &(&1 ++ &2))}

      {next, batch} when is_integer(next) ->
        all_from(ref, patterns, next, stop, limit - length(batch), [batch | batches])

      error ->
        error
    end
  end

  @doc false
  @spec count(reference, pattern, range) :: {:ok, non_neg_integer} | Emmap.failure()
  def count(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    count_from(ref, compile(pattern).patterns, from, stop, 0)
  end

  defp count_from(ref, patterns, from, stop, sum) do
    case Native.search_count(ref, patterns, from, stop) do
      {:ok, count} -> {:ok, sum + count}
      {next, count} when is_integer(next) -> count_from(ref, patterns, next, stop, sum + count)
      error -> error
    end
  end

  @doc false
  @spec compile(pattern) :: t
  def compile(%__MODULE__{} = compiled), do: compiled
  def compile(pattern) when is_binary(pattern) and pattern != "", do: compile([pattern])

  def compile([_ | _] = patterns) do
    # A live binary changes under those who look at it; its copy does not.
    patterns = Enum.map(patterns, &copied!(&1, patterns))
    bytes = Enum.reduce(patterns, 0, &(byte_size(&1) + &2))

    if bytes <= @few_bytes or match?([_], patterns),
      do: %__MODULE__{patterns: Native.search_patterns_few(patterns)},
      else: %__MODULE__{patterns: Native.search_patterns(patterns)}
  end

  def compile(other), do: no_pattern!(other)

  defp copied!(pattern, _all) when is_binary(pattern) and pattern != "",
    do: :binary.copy(pattern)

  defp copied!(_other, all), do: no_pattern!(all)

  @spec no_pattern!(term) :: no_return
  defp no_pattern!(other) do
    raise ArgumentError,
          "a pattern is a binary, a list of binaries (none of them empty), or a compiled pattern, " <>
            "got #{inspect(other, limit: 5, printable_limit: 100)}#{charlist(other)}"
  end

  defp charlist([first | _] = list) when is_integer(first) do
    if List.ascii_printable?(list), do: ", which is a charlist: write it as a string", else: ""
  end

  defp charlist(_other), do: ""

  # Where to begin, where to stop, and the most matches.
  defp range!(options, valid) when is_list(options) do
    values = Map.new(options, &option!(&1, valid))

    if map_size(values) < length(options),
      do: raise(ArgumentError, "each option may be given once, got #{inspect(options)}")

    start = Map.get(values, :start, 0)
    stop = min(start + Map.get(values, :length, @last), @last)
    {start, stop, Map.get(values, :limit, @last)}
  end

  defp range!(other, valid), do: bad_option!(other, valid)

  defp option!({name, value} = option, valid) do
    cond do
      name not in valid ->
        bad_option!(option, valid)

      is_integer(value) and value in 0..@last ->
        option

      true ->
        raise ArgumentError,
              "#{name} is an integer, 0 to 2^63 - 1, got #{inspect(value)}"
    end
  end

  defp option!(other, valid), do: bad_option!(other, valid)

  @spec bad_option!(term, [atom]) :: no_return
  defp bad_option!(other, valid) do
    raise ArgumentError,
          "unknown option #{inspect(other)}; valid are #{Enum.map_join(valid, ", ", &"{#{inspect(&1)}, n}")}"
  end
end
