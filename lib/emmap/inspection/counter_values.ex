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
    total = source |> runs(place) |> Enum.reduce(start, &add(&1, &2, limit))
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

  # So many counters in a hole of the file.
  defp add({:zeros, count}, %{index: index} = total, limit) do
    %{
      total
      | index: index + count,
        largest: if(above?(0, total.largest), do: {0, index}, else: total.largest),
        smallest: if(below?(0, total.smallest), do: {0, index}, else: total.smallest),
        listed: zeros(index, min(index + count, limit), total.listed)
    }
  end

  defp add(values, total, limit), do: Enum.reduce(values, total, &add_one(&1, &2, limit))

  # An atom is above all integers.
  defp zeros(index, stop, listed),
    do: Enum.reduce(index..(stop - 1)//1, listed, &[{0, &1} | &2])

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

  # In order: lists of values, and `{:zeros, n}` for those in a hole of the file. A hole may be too large
  # to be read.
  defp runs(source, %{count: count} = place),
    do: Stream.unfold({0, 0}, &run(&1, count, source, place))

  defp run({done, _}, count, _source, _place) when done >= count, do: nil

  # The file has data from here to `data_end`.
  defp run({done, data_end}, count, source, place) do
    size = @line * place.stripes
    position = place.at + div(done, @per_line) * size

    if position < data_end do
      lines = min(div(data_end - position + size - 1, size), max(div(@batch, size), 1))
      wanted = min(count - done, lines * @per_line)
      {values(source, position, wanted, place.stripes), {done + wanted, data_end}}
    else
      case Source.next_data(source, position) do
        {from, to} when from - position < size ->
          run({done, to}, count, source, place)

        {from, to} ->
          zeros = min(div(from - position, size) * @per_line, count - done)
          {{:zeros, zeros}, {done + zeros, to}}

        :eof ->
          {{:zeros, count - done}, {count, data_end}}
      end
    end
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
      do: raise(Emmap.Error, op: :read, path: source.path, reason: :estale, kind: :counters)

    bytes
  end
end
