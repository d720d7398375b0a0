defmodule Emmap.Inspection.CounterValues do
  @moduledoc false
  # The values of a counter file, read one after the other as others may go on counting.

  alias Emmap.Inspection.Source

  # Counters to a line, and the bytes of one.
  @per_line 16
  @line 128
  # Bytes read at once.
  @batch 1_048_576

  @typedoc "Where counters are: `stripes` lines one behind the other for each sixteen of them."
  @type place :: %{at: Emmap.position(), count: non_neg_integer, stripes: pos_integer}

  @doc """
  Sum, largest, smallest, how many are not 0, and the first `limit` values. `names` are in the order of
  the counters; `nil` where they are numbered.
  """
  @spec summary(Source.t(), place, [String.t()] | nil, non_neg_integer | :infinity) :: map
  def summary(source, %{count: count} = place, names, limit) do
    start = %{index: 0, sum: 0, not_zero: 0, largest: nil, smallest: nil, listed: []}
    total = source |> batches(place) |> Enum.reduce(start, &add(&1, &2, limit))
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

  defp keys(nil), do: & &1

  defp keys(names) do
    names = List.to_tuple(names)
    &elem(names, &1)
  end

  defp extreme(nil, _key), do: nil
  defp extreme({value, index}, key), do: %{key: key.(index), value: value}

  defp add(values, total, limit), do: Enum.reduce(values, total, &add_one(&1, &2, limit))

  defp add_one(value, %{index: index} = total, limit) do
    %{
      index: index + 1,
      sum: total.sum + value,
      not_zero: if(value == 0, do: total.not_zero, else: total.not_zero + 1),
      largest: if(above?(value, total.largest), do: {value, index}, else: total.largest),
      smallest: if(below?(value, total.smallest), do: {value, index}, else: total.smallest),
      # An atom is above all integers.
      listed: if(index < limit, do: [{value, index} | total.listed], else: total.listed)
    }
  end

  defp above?(_value, nil), do: true
  defp above?(value, {largest, _}), do: value > largest
  defp below?(_value, nil), do: true
  defp below?(value, {smallest, _}), do: value < smallest

  # Lists of values, in order.
  defp batches(source, %{at: at, count: count, stripes: stripes}) do
    lines = max(div(@batch, @line * stripes), 1)

    Stream.unfold(0, fn
      done when done >= count ->
        nil

      done ->
        wanted = min(count - done, lines * @per_line)
        position = at + div(done, @per_line) * @line * stripes
        {values(source, position, wanted, stripes), done + wanted}
    end)
  end

  defp values(source, position, wanted, 1), do: integers(read!(source, position, wanted * 8))

  defp values(source, position, wanted, stripes) do
    size = @line * stripes
    groups = div(wanted + @per_line - 1, @per_line)
    bytes = read!(source, position, groups * size)
    lines = for group <- 0..(groups - 1)//1, do: summed(binary_part(bytes, group * size, size))
    lines |> Enum.concat() |> Enum.take(wanted)
  end

  # Each counter is the sum of its stripes, wrapped.
  defp summed(group) do
    stripes = for <<line::binary-size(@line) <- group>>, do: integers(line)

    Enum.zip_with(stripes, fn parts ->
      <<wrapped::signed-64>> = <<Enum.sum(parts)::64>>
      wrapped
    end)
  end

  defp integers(bytes), do: for(<<value::signed-native-64 <- bytes>>, do: value)

  defp read!(source, position, count) do
    bytes = Source.read(source, position, count)

    # The file was as long as it should be.
    if byte_size(bytes) < count,
      do: raise(Emmap.Error, op: :read, path: source.path, reason: :estale)

    bytes
  end
end
