defmodule Emmap.Inspection.CounterFile do
  @moduledoc false
  # Counter files, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{CounterHeader, CounterNames, CounterValues, Source}

  @headers [0, 4096]
  @per_line 16
  @line 128

  @impl true
  def recognises?(source), do: Enum.any?(headers(source), &CounterHeader.header?/1)

  @impl true
  def describe(source, limit) do
    headers = headers(source)
    in_force = in_force(headers)
    layout = in_force && layout(in_force.fields)
    {names, names_problems} = names(source, in_force, layout)

    length = layout && length_problem(source, in_force, layout)
    readable? = layout && (length == nil or length.severity == :note)

    %{
      format: :counters,
      title: "counters, version #{version(headers)}",
      bad_format: bad_format(headers, in_force, length, names_problems),
      headers: Enum.map(headers, &shown(&1, in_force, headers)),
      contents: if(readable?, do: contents(source, layout, names, limit)),
      problems:
        Enum.flat_map(headers, &CounterHeader.problems(&1, reference(&1, headers))) ++
          growth_cut_short(headers, in_force) ++ List.wrap(length) ++ names_problems
    }
  end

  defp headers(source),
    do:
      for(
        at <- @headers,
        do: CounterHeader.parse(Source.read(source, at, CounterHeader.size()), at)
      )

  defp other_sound(header, headers),
    do: Enum.find(headers, &(&1.at != header.at and &1.bad == nil))

  # What a damaged header is compared with.
  defp reference(header, headers) do
    case other_sound(header, headers) do
      nil -> headers |> Enum.find(&(&1.at != header.at)) |> CounterHeader.mended()
      sound -> sound
    end
  end

  defp version(headers) do
    sound = Enum.find(headers, &(&1.bad in [nil, :version, :endianness]))
    if sound, do: sound.fields.version, else: 1
  end

  # Of the sound headers the one with the higher sequence number; the first, of two that are the same.
  # One of another version or byte order speaks for the whole file.
  defp in_force(headers) do
    foreign? = Enum.any?(headers, &(&1.bad in [:version, :endianness]))
    sound = Enum.filter(headers, &(&1.bad == nil))
    if sound != [] and not foreign?, do: Enum.max_by(sound, & &1.fields.sequence)
  end

  defp bad_format(headers, nil, _length, _names) do
    bad = Enum.map(headers, & &1.bad)

    Enum.find(bad, &(&1 in [:version, :endianness])) ||
      Enum.find(bad, :kind, &(&1 not in [nil, :kind]))
  end

  defp bad_format(_headers, _in_force, %{severity: :damage}, _names), do: :length
  defp bad_format(_headers, _in_force, _length, [_ | _]), do: :names
  defp bad_format(_headers, _in_force, _length, []), do: nil

  defp layout(%{count: count, stripes: stripes, data_offset: data_offset}) do
    lines = div(count + @per_line - 1, @per_line)
    %{at: data_offset, count: count, stripes: stripes, end: data_offset + lines * @line * stripes}
  end

  defp length_problem(source, header, layout) do
    says = "#{layout.count} counters end at #{layout.end}, by the header at #{header.at}"

    cond do
      source.size < layout.end ->
        problem(
          :damage,
          source.size,
          layout.end - source.size,
          "length: #{says}, and the file is #{source.size} bytes long"
        )

      source.size > layout.end ->
        left = source.size - layout.end

        problem(
          :note,
          layout.end,
          left,
          "length: #{says}; behind them are #{left} bytes, as of a growth that a crash cut short"
        )

      true ->
        nil
    end
  end

  # Two headers that are sound, and not the same.
  defp growth_cut_short(headers, in_force) do
    for %{bad: nil} = header <- headers, in_force != nil, header.bytes != in_force.bytes do
      {severity, message} = different(header.fields.sequence, in_force.fields.sequence)
      problem(severity, header.at, CounterHeader.size(), "header at #{header.at}, #{message}")
    end
  end

  defp different(same, same),
    do:
      {:damage, "it is another than the one in force, and has the same sequence number (#{same})"}

  defp different(older, in_force) do
    {:note,
     "it is older (sequence number #{older}) than the one in force (#{in_force}), " <>
       "as after a growth that a crash cut short"}
  end

  defp names(_source, nil, _layout), do: {nil, []}
  defp names(source, header, layout), do: CounterNames.read(source, header.fields, layout.count)

  defp contents(source, layout, names, limit) do
    source
    |> CounterValues.summary(Map.take(layout, [:at, :count, :stripes]), names, limit)
    |> Map.put(:write_concurrency, layout.stripes > 1)
  end

  defp shown(header, in_force, headers) do
    state =
      cond do
        in_force && header.at == in_force.at -> :in_force
        header.bad == nil and other_sound(header, headers) == nil -> :sound
        header.bad == nil and in_force && header.bytes == in_force.bytes -> :same
        header.bad == nil -> :older
        header.bad == :kind and header.flipped == nil -> :none
        header.bad in [:version, :endianness] -> :unknown
        true -> :damaged
      end

    fields = header.fields |> Map.delete(:magic) |> Map.delete(:reserved)

    %{
      at: header.at,
      bytes: CounterHeader.size(),
      state: state,
      fields: if(state != :none, do: fields)
    }
  end
end
