defmodule Bench.Plot do
  @moduledoc false
  # Plots as SVG, readable in light and dark mode: bars and curves on logarithmic axes.

  @width 760
  @style """
  .back { fill: #ffffff } text { fill: #241a38 } text.own { fill: inherit } .soft { fill: #5d5670 } .grid { stroke: #ddd8e6 }
  .c0 { fill: #5b3f8c; stroke: #5b3f8c } .c1 { fill: #b8741a; stroke: #b8741a } .c2 { fill: #2f7d3b; stroke: #2f7d3b }
  .c3 { fill: #1f6f9c; stroke: #1f6f9c } .c4 { fill: #a8324a; stroke: #a8324a } .other { fill: #b3abc2 }
  .curve { fill: none; stroke-width: 2.2 } .expected { stroke-dasharray: 5 5; stroke-width: 1.4 } .bold { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #17141f } text { fill: #ece8f5 } text.own { fill: inherit } .soft { fill: #aaa2bd } .grid { stroke: #3a3448 }
    .c0 { fill: #b79bf0; stroke: #b79bf0 } .c1 { fill: #e8a94f; stroke: #e8a94f } .c2 { fill: #7cc98a; stroke: #7cc98a }
    .c3 { fill: #6cb8e6; stroke: #6cb8e6 } .c4 { fill: #ef7f95; stroke: #ef7f95 } .other { fill: #6b6480 }
  }
  """

  # Bars.
  @label 270
  @room 380
  @bar 17

  @doc """
  Bars on a logarithmic axis of time: `[{name, [{label, nanoseconds, :ours | :other}]}]`.
  """
  def bars(title, groups, format \\ &Bench.time/1) do
    values = for {_, bars} <- groups, {_, value, _} <- bars, do: value

    {low, high} =
      {floor(:math.log10(Enum.min(values)) - 0.001), ceil(:math.log10(Enum.max(values)))}

    high = max(high, low + 1)
    x = fn value -> @label + 10 + @room * (:math.log10(value) - low) / (high - low) end

    {marks, bottom} =
      Enum.map_reduce(groups, 52, fn {name, bars}, y ->
        {rows, y} = Enum.map_reduce(bars, y + 22, &{bar(&1, &2, x, format), &2 + @bar})
        heading = text(16, y - length(bars) * @bar - 6, name, "bold")
        {[heading | rows], y + 8}
      end)

    axis =
      for power <- low..high, at = x.(:math.pow(10, power)) do
        [
          line(at, 46, at, bottom, "grid"),
          text(at, bottom + 16, whole(format.(:math.pow(10, power))), "soft", "middle")
        ]
      end

    svg(title, bottom + 28, [text(16, 28, title, "bold"), axis, marks])
  end

  defp bar({label, value, kind}, y, x, format) do
    class = if kind == :ours, do: "c0", else: "other"
    start = @label + 10
    width = max(x.(value) - start, 1)

    [
      text(@label, y + 12, label, "soft", "end"),
      ~s(<rect class="#{class}" stroke="none" x="#{start}" y="#{y + 1}" width="#{n(width)}" height="#{@bar - 4}" rx="2"/>\n),
      text(start + width + 6, y + 12, format.(value), "")
    ]
  end

  # Curves.
  @left 78
  @right 560
  @top 52
  @height 300

  @doc """
  Curves over a logarithmic axis: `[{label, :measured | :expected, [{x, y}]}]`. The labels of the axes are made by `x:` and `y:`, and
  `lowest:` is the least that the other axis shows.
  """
  def curves(title, series, options) do
    points = Enum.flat_map(series, &elem(&1, 2))
    {x_low, x_high} = points |> Enum.map(&elem(&1, 0)) |> Enum.min_max()
    {y_low, y_high} = points |> Enum.map(&elem(&1, 1)) |> Enum.min_max()
    low = floor(:math.log10(min(y_low, options[:lowest] || y_low)) - 0.001)
    high = max(ceil(:math.log10(y_high)), low + 1)
    log = &:math.log10(&1)

    x = fn v ->
      @left + (@right - @left) * (log.(v) - log.(x_low)) / max(log.(x_high) - log.(x_low), 0.001)
    end

    y = fn v -> @top + @height * (high - log.(v)) / (high - low) end
    format_x = options[:x] || (&Bench.digits/1)
    format_y = options[:y] || (&Bench.time/1)

    grid =
      for power <- low..high, at = y.(:math.pow(10, power)) do
        [
          line(@left, at, @right, at, "grid"),
          text(@left - 8, at + 4, whole(format_y.(:math.pow(10, power))), "soft", "end")
        ]
      end

    ticks =
      for v <- points |> Enum.map(&elem(&1, 0)) |> Enum.uniq() |> Enum.sort() |> ticks(x) do
        text(x.(v), @top + @height + 18, format_x.(v), "soft", "middle")
      end

    labels =
      apart(
        for {_, _, points} = one <- series, do: {y.(points |> List.last() |> elem(1)) + 4, one}
      )

    curves =
      for {{at, {label, kind, points}}, index} <- Enum.with_index(labels) do
        class = "c#{index |> div(if(has_expected?(series), do: 2, else: 1)) |> rem(5)}"
        dashed = if kind == :expected, do: " expected", else: ""
        path = Enum.map_join(points, " ", fn {a, b} -> "#{n(x.(a))},#{n(y.(b))}" end)

        [
          ~s(<polyline class="#{class} curve#{dashed}" style="fill:none" points="#{path}"/>\n),
          if(kind == :measured,
            do:
              for(
                {a, b} <- points,
                do: ~s(<circle class="#{class}" cx="#{n(x.(a))}" cy="#{n(y.(b))}" r="3"/>\n)
              ),
            else: []
          ),
          ~s(<g class="#{class}" style="stroke:none">#{text(@right + 10, at, label, "own")}</g>\n)
        ]
      end

    caption =
      text((@left + @right) / 2, @top + @height + 38, options[:caption] || "", "soft", "middle")

    svg(title, @top + @height + 52, [text(16, 28, title, "bold"), grid, ticks, curves, caption])
  end

  # A measured curve is followed by its expected one, in the same colour.
  defp has_expected?(series), do: Enum.any?(series, &(elem(&1, 1) == :expected))

  # As many as have room.
  defp ticks(values, x) do
    values
    |> Enum.reduce([], fn
      value, [last | _] = ticks -> if x.(value) - x.(last) < 52, do: ticks, else: [value | ticks]
      value, [] -> [value]
    end)
  end

  # Labels that would lie on each other move apart, in the order of their curves' ends: down, and up again where they do not fit.
  defp apart(labels) do
    {named, others} =
      labels
      |> Enum.with_index()
      |> Enum.split_with(fn {{_, {label, _, _}}, _} -> label != "" end)

    down = spread(Enum.sort(named), 0, fn at, last -> max(at, last + 15) end)

    up =
      down |> Enum.reverse() |> spread(@top + @height + 25, fn at, last -> min(at, last - 15) end)

    (up ++ others) |> Enum.sort_by(&elem(&1, 1)) |> Enum.map(&elem(&1, 0))
  end

  defp spread(labels, from, move) do
    labels
    |> Enum.map_reduce(from, fn {{at, one}, index}, last ->
      at = move.(at, last)
      {{{at, one}, index}, at}
    end)
    |> elem(0)
  end

  defp svg(title, height, content) do
    IO.iodata_to_binary([
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{n(height)}" role="img" aria-label="#{escape(title)}" ),
      ~s(font-family="system-ui, -apple-system, 'Segoe UI', sans-serif" font-size="12">\n<style>\n#{@style}</style>\n),
      ~s(<rect class="back" width="#{@width}" height="#{n(height)}" rx="8"/>\n),
      content,
      "</svg>\n"
    ])
  end

  defp text(x, y, text, class, anchor \\ "start"),
    do:
      ~s(<text class="#{class}" x="#{n(x)}" y="#{n(y)}" text-anchor="#{anchor}">#{escape(text)}</text>\n)

  defp line(x1, y1, x2, y2, class),
    do: ~s(<line class="#{class}" x1="#{n(x1)}" y1="#{n(y1)}" x2="#{n(x2)}" y2="#{n(y2)}"/>\n)

  # A power of ten needs no decimals.
  defp whole(text), do: String.replace(text, ~r/\.0+(?=\D|$)/, "")

  defp n(number), do: :erlang.float_to_binary(number / 1, [:compact, decimals: 1])
  defp escape(text), do: text |> String.replace("&", "&amp;") |> String.replace("<", "&lt;")
end
