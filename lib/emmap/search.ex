defmodule Emmap.Search do
  @moduledoc """
  Patterns of bytes to search for in a map, used by `Emmap.find/3`, `rfind/3`, `find_all/3` and `count/3`.

  A pattern is a binary of at least one byte, a list of such binaries, or the result of `Emmap.compile_pattern/1` for
  either. For a list, the leftmost match counts (in `rfind/3`, the one that begins last), and of those that begin at
  the same position, the longest. The order of the list does not matter.

  A list may contain up to 1,048,576 patterns, of at most 1 MiB each and 16 MiB in total. A single pattern may be
  longer.

  Preparing patterns takes time in proportion to their bytes. Searching takes time in proportion to the bytes of the
  map, regardless of the patterns: even if one is the prefix of another, and even if they match everywhere. Short work
  runs on the caller's scheduler; longer work runs in steps of a few milliseconds on dirty CPU schedulers, and other
  work can run between the steps. If the process is killed or the handle is closed, the work ends after the current
  step.
  """

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.Native
  alias Emmap.Search.Preparation

  @enforce_keys [:patterns]
  defstruct [:patterns]

  @typedoc "A pattern that `Emmap.compile_pattern/1` has prepared. It is valid only on this node."
  @type t :: %__MODULE__{patterns: reference}
  @typedoc "One pattern, a list of alternative patterns, or a prepared pattern."
  @type pattern :: binary | [binary, ...] | t
  @typedoc "Where to search, in bytes."
  @type range :: [{:start, non_neg_integer} | {:length, non_neg_integer}]

  @last 0x7FFF_FFFF_FFFF_FFFF

  @doc false
  @spec find(reference, pattern, range) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  def find(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    find_from(ref, compile(pattern, :forward).patterns, from, 0, stop)
  end

  defp find_from(ref, patterns, from, read, stop) do
    case patient(Native.search_find(ref, patterns, from, read, stop)) do
      {next, read} when is_integer(next) -> find_from(ref, patterns, next, read, stop)
      answer -> answer
    end
  end

  @doc false
  @spec rfind(reference, pattern, range) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  def rfind(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    rfind_before(ref, compile(pattern, :backward).patterns, from, stop, 0, stop)
  end

  defp rfind_before(ref, patterns, from, before, read, stop) do
    case patient(Native.search_rfind(ref, patterns, from, before, read, stop)) do
      {next, read} when is_integer(next) -> rfind_before(ref, patterns, from, next, read, stop)
      answer -> answer
    end
  end

  @doc false
  @spec find_all(reference, pattern, range | [{:limit, non_neg_integer}]) ::
          {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  def find_all(ref, pattern, options) do
    {from, stop, limit} = range!(options, [:start, :length, :limit])
    all_from(ref, compile(pattern, :forward).patterns, from, 0, stop, limit, [])
  end

  defp all_from(ref, patterns, from, read, stop, limit, batches) do
    case patient(Native.search_all(ref, patterns, from, read, stop, limit)) do
      {:ok, last} ->
        {:ok, Enum.reduce(batches, last, &(&1 ++ &2))}

      {next, read, batch} ->
        all_from(ref, patterns, next, read, stop, limit - length(batch), [batch | batches])

      error ->
        error
    end
  end

  @doc false
  @spec count(reference, pattern, range) :: {:ok, non_neg_integer} | Emmap.failure()
  def count(ref, pattern, options) do
    {from, stop, _limit} = range!(options, [:start, :length])
    count_from(ref, compile(pattern, :forward).patterns, from, 0, stop, 0)
  end

  defp count_from(ref, patterns, from, read, stop, sum) do
    case patient(Native.search_count(ref, patterns, from, read, stop)) do
      {:ok, count} -> {:ok, sum + count}
      {next, read, count} -> count_from(ref, patterns, next, read, stop, sum + count)
      error -> error
    end
  end

  @doc false
  @spec compile(pattern) :: t
  def compile(pattern), do: compile(pattern, :any)

  # Compiled for one direction only, unless it was prepared before.
  defp compile(%__MODULE__{} = compiled, _purpose), do: compiled

  defp compile(pattern, purpose) when is_binary(pattern) and pattern != "",
    do: %__MODULE__{patterns: Preparation.one(pattern, purpose)}

  defp compile([_ | _] = patterns, purpose) do
    unless Enum.all?(patterns, &(is_binary(&1) and &1 != "")), do: no_pattern!(patterns)

    case patterns do
      [pattern] -> compile(pattern, purpose)
      patterns -> %__MODULE__{patterns: Preparation.list(patterns, purpose)}
    end
  end

  defp compile(%Regex{} = regex, _purpose) do
    raise ArgumentError,
          "a pattern consists of bytes and cannot be a regular expression, got #{inspect(regex)}: run it on a copy, as " <>
            "Regex.run(regex, string) of {:ok, string} = Emmap.string(mem, position, count), or on the lines of " <>
            "Emmap.stream!(mem)"
  end

  defp compile(other, _purpose), do: no_pattern!(other)

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

  # Where to begin, where to stop, and the maximum number of matches.
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
