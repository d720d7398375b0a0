defmodule Emmap.Queue.Options do
  @moduledoc false
  # Checks the options of queues. Invalid options raise `ArgumentError` with the allowed values.

  import Emmap.OptionList, only: [check!: 2, wrong!: 3]

  @segment_sizes for exponent <- 16..30, do: Integer.pow(2, exponent)

  @open [
    format: {&__MODULE__.format?/1, ":term | :binary"},
    direct: {&is_boolean/1, "true | false"},
    compressed: {&__MODULE__.level?/1, "0..9"},
    safe: {&is_boolean/1, "true | false"},
    max_size: {&__MODULE__.limit?/1, "a positive number of bytes | :infinity"},
    full: {&__MODULE__.full?/1, ":error | :block | :drop_oldest"},
    durable: {&is_boolean/1, "true | false"},
    max_attempts: {&__MODULE__.attempts?/1, "1..65535 | :infinity"},
    segment_size:
      {&__MODULE__.segment?/1,
       "a power of two of bytes, 65,536 (64 KiB) to 1,073,741,824 (1 GiB)"},
    create: {&is_boolean/1, "true | false"}
  ]

  @push [
    durable: {&is_boolean/1, "true | false"},
    timeout: {&__MODULE__.timeout?/1, "milliseconds | :infinity"},
    id: {&__MODULE__.id?/1, "{producer, number}, with a number from 0 to 2^63 - 2"}
  ]

  @pop_many [
    max_items: {&__MODULE__.positive?/1, "a positive integer"},
    max_bytes: {&__MODULE__.positive?/1, "a positive integer"},
    timeout: {&__MODULE__.timeout?/1, "milliseconds | :infinity"}
  ]

  @ack [durable: {&is_boolean/1, "true | false"}]

  @reader [max_lag: {&__MODULE__.limit?/1, "a positive number of bytes | :infinity"}]

  def open!(options) do
    given = check!(options, @open)

    if Map.get(given, :direct, false) and Map.get(given, :format, :term) != :binary do
      raise ArgumentError,
            "direct: true is for queues with format: :binary; the term of an item is always a copy"
    end

    given
  end

  def push!([]), do: %{}
  def push!(options), do: check!(options, @push)
  def pop_many!([]), do: %{}
  def pop_many!(options), do: check!(options, @pop_many)
  def ack!([]), do: %{}
  def ack!(options), do: check!(options, @ack)
  def reader!(options), do: check!(options, @reader)

  def timeout!(timeout) do
    if timeout?(timeout), do: timeout, else: wrong!(:timeout, timeout, "milliseconds | :infinity")
  end

  @doc false
  def format?(format), do: format in [:term, :binary]
  @doc false
  def level?(level), do: level in 0..9
  @doc false
  def limit?(limit), do: limit == :infinity or positive?(limit)
  @doc false
  def full?(full), do: full in [:error, :block, :drop_oldest]
  @doc false
  def attempts?(attempts), do: attempts == :infinity or attempts in 1..65_535
  @doc false
  def segment?(size), do: size in @segment_sizes
  @doc false
  def timeout?(timeout), do: timeout == :infinity or (is_integer(timeout) and timeout >= 0)
  @doc false
  def positive?(number), do: is_integer(number) and number > 0
  @doc false
  def id?({_producer, number}),
    do: is_integer(number) and number >= 0 and number < 0x7FFF_FFFF_FFFF_FFFF

  def id?(_), do: false
end
