defmodule Emmap.Inspection.CounterValues do
  @moduledoc false
  # The values of a counter file, read one after the other, because others may change them at the same time.

  import Emmap.Inspection.Text, only: [grouped: 1, name: 1, plural: 2]
  alias Emmap.Inspection.Source

  # Counters per line, and the bytes of one.
  @per_line 16
  @line 128

  @typedoc "Where counters are: each sixteen counters have `stripes` consecutive lines."
  @type place :: %{at: Emmap.position(), count: non_neg_integer, stripes: pos_integer}

  @doc """
  Returns the sum, the largest and smallest value, how many are not 0, and the first `limit` values. `names` are in the
  order of the counters, or `nil` if the counters are numbered.
  """
  @spec summary(Source.t(), place, [String.t()] | nil, non_neg_integer | :infinity) :: map
  def summary(source, %{count: count, stripes: stripes} = place, names, limit) do
    start = %{index: 0, sum: 0, not_zero: 0, largest: nil, smallest: nil, listed: []}
    stop = place.at + div(count + @per_line - 1, @per_line) * @line * stripes
    pieces = Source.pieces(source, place.at, min(stop, source.size), @line * stripes)
    total = Enum.reduce(pieces, start, &add_all(&1, &2, place, limit))
    summary(total, count, names)
  end

  defp summary(total, count, names) do
    key = keys(names)

    %{
      count: count,
      named: names != nil,
      sum: total.sum,
      not_zero: total.not_zero,
      largest: extreme(total.largest, key),
      smallest: extreme(total.smallest, key),
      values: total.listed |> Enum.reverse() |> Enum.map(&extreme(&1, key))
    }
  end

  @doc "As `summary/4`, of names and values that were already read."
  @spec of_list([{String.t(), integer}], non_neg_integer | :infinity) :: map
  def of_list(pairs, limit) do
    start = %{index: 0, sum: 0, not_zero: 0, largest: nil, smallest: nil, listed: []}
    total = Enum.reduce(pairs, start, fn {_name, value}, total -> add(value, 1, total, limit) end)
    summary(total, length(pairs), Enum.map(pairs, &elem(&1, 0)))
  end

  defp keys(nil), do: & &1

  defp keys(names) do
    names = List.to_tuple(names)
    &elem(names, &1)
  end

  defp extreme(nil, _key), do: nil
  defp extreme({value, index}, key), do: %{key: key.(index), value: value}

  @doc "A summary as lines of text."
  @spec lines(map) :: [{String.t(), String.t()}]
  def lines(%{count: count, values: values} = contents) do
    counters =
      "#{plural(count, "counter")} #{if contents.named, do: "by name", else: "by number"}"

    totals = "#{grouped(contents.not_zero)} of them not 0; sum #{grouped(contents.sum)}"

    extremes =
      for name <- [:largest, :smallest], %{key: key, value: value} <- [contents[name]] do
        {"", "#{name} #{shown(key)}: #{grouped(value)}"}
      end

    values = for %{key: key, value: value} <- values, do: {shown(key), grouped(value)}
    width = values |> Enum.map(&String.length(elem(&1, 0))) |> Enum.max(fn -> 0 end)

    listed =
      for {key, value} <- values, do: {"", "  #{String.pad_trailing(key, width)}  #{value}"}

    left = count - length(values)
    more = if values != [] and left > 0, do: [{"", "  and #{grouped(left)} more"}], else: []
    [{"contents", "#{counters}, #{totals}"} | extremes] ++ listed ++ more
  end

  defp shown(index) when is_integer(index), do: Integer.to_string(index)
  defp shown(name), do: name(name)

  # The last line has room for more counters than exist.
  defp add_all({:zeros, lines}, %{index: index} = total, %{count: count}, limit),
    do: add(0, min(lines * @per_line, count - index), total, limit)

  defp add_all(bytes, %{index: index} = total, %{count: count, stripes: stripes}, limit) do
    all = values(bytes, stripes)

    there =
      if byte_size(bytes) <= (count - index) * 8, do: all, else: Enum.take(all, count - index)

    Enum.reduce(there, total, &add(&1, 1, &2, limit))
  end

  # Adds a number of counters with this value.
  defp add(value, times, %{index: index} = total, limit) do
    %{
      index: index + times,
      sum: total.sum + value * times,
      not_zero: if(value == 0, do: total.not_zero, else: total.not_zero + times),
      largest: if(above?(value, total.largest), do: {value, index}, else: total.largest),
      smallest: if(below?(value, total.smallest), do: {value, index}, else: total.smallest),
      listed: if(index < limit, do: list(value, index, times, total, limit), else: total.listed)
    }
  end

  # An atom is greater than any integer.
  defp list(value, index, times, total, limit) do
    Enum.reduce(index..(min(index + times, limit) - 1)//1, total.listed, &[{value, &1} | &2])
  end

  defp above?(_value, nil), do: true
  defp above?(value, {largest, _}), do: value > largest
  defp below?(_value, nil), do: true
  defp below?(value, {smallest, _}), do: value < smallest

  defp values(bytes, 1), do: for(<<value::signed-native-64 <- bytes>>, do: value)

  # The value of a counter is the sum of its stripes, wrapped.
  defp values(bytes, stripes) do
    lines = for <<line::binary-size(@line) <- bytes>>, do: values(line, 1)

    for group <- Enum.chunk_every(lines, stripes), sum <- Enum.zip_with(group, &Enum.sum/1) do
      <<wrapped::signed-64>> = <<sum::64>>
      wrapped
    end
  end
end
