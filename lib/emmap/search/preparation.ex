defmodule Emmap.Search.Preparation do
  @moduledoc false
  # Prepares patterns: few patterns in one call, others in steps of a few milliseconds on dirty CPU schedulers. Between
  # steps, the process can be killed.

  alias Emmap.Native

  # Up to this size, all patterns of a list together, or a single pattern, are prepared in microseconds.
  @few_bytes 256
  @short 4096

  # For each pattern of a list.
  @most_of_one 1_048_576
  @most_together 16_777_216
  @most_patterns 1_048_576

  # How many bytes of a long pattern are copied at once.
  @part 1_048_576

  @type purpose :: :any | :forward | :backward

  @doc "Prepares one pattern, for searches in both directions or in one."
  @spec one(binary, purpose) :: reference
  # A live binary may change while it is read. Its copy does not.
  def one(pattern, _purpose) when byte_size(pattern) <= @short,
    do: Native.search_patterns_few([:binary.copy(pattern)])

  def one(pattern, purpose) do
    preparing = Native.search_prepare(purpose)
    append(preparing, pattern, 0)
    advance(preparing)
  end

  @doc "Prepares a list of alternative patterns. Raises `ArgumentError` if they are too many or too long."
  @spec list([binary, ...], purpose) :: reference
  def list(patterns, purpose) do
    sizes = Enum.map(patterns, &byte_size/1)
    bytes = Enum.sum(sizes)

    if bytes > @most_together or Enum.max(sizes) > @most_of_one or length(sizes) > @most_patterns do
      raise ArgumentError,
            "the patterns of a list are too many or too long: there may be #{@most_patterns}, of #{@most_of_one} bytes " <>
              "each and #{@most_together} together, got #{length(sizes)}, of up to #{Enum.max(sizes)} bytes and " <>
              "#{bytes} together"
    end

    patterns = Enum.map(patterns, &:binary.copy/1)

    if bytes <= @few_bytes do
      Native.search_patterns_few(patterns)
    else
      preparing = Native.search_prepare(purpose)
      add(preparing, patterns)
      advance(preparing)
    end
  end

  defp append(_preparing, pattern, at) when at == byte_size(pattern), do: :ok

  defp append(preparing, pattern, at) do
    count = min(@part, byte_size(pattern) - at)
    part = pattern |> binary_part(at, count) |> :binary.copy()
    :ok = Native.search_append(preparing, part, byte_size(pattern))
    append(preparing, pattern, at + count)
  end

  defp add(_preparing, []), do: :ok
  defp add(preparing, patterns), do: add(preparing, Native.search_add(preparing, patterns))

  defp advance(preparing) do
    case Native.search_advance(preparing) do
      nil -> advance(preparing)
      patterns -> patterns
    end
  end
end
