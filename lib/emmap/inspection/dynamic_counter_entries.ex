defmodule Emmap.Inspection.DynamicCounterEntries do
  @moduledoc false
  # The entries of a file of dynamic counters, one after the other, and its directory.

  import Bitwise
  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{Crc32c, Source}

  @line 128
  @first 104
  @longest_name 1024
  @kinds %{1 => :counter, 2 => :directory, 3 => :gap}

  @type counter :: {Emmap.position(), name :: binary, integer}
  @type place :: %{
          from: Emmap.position(),
          to: Emmap.position(),
          stripes: pos_integer,
          salt: non_neg_integer
        }

  @doc "The counters, in order, and the problems. It stops at the first entry whose length is unknown."
  @spec read(Source.t(), place) :: %{counters: [counter], problems: [map]}
  def read(source, place) do
    {counters, problems} = entries(source, place, place.from, [], [])
    %{counters: Enum.reverse(counters), problems: Enum.reverse(problems)}
  end

  defp entries(_source, %{to: to}, at, counters, problems) when at >= to,
    do: {counters, problems}

  defp entries(source, place, at, counters, problems) do
    line = Source.read(source, at, @line)

    with <<_value::signed-native-64, number::native-64, description::native-64, _::binary>> <-
           line,
         %{bytes: bytes} = entry <- entry(number, description, place),
         true <- bytes <= place.to - at do
      name = name(source, line, at, entry.name, place)
      more = checksum(entry, at, name, place) ++ invalid(entry, name, at)

      counters =
        if entry.kind == :counter,
          do: [{at, name, value(source, at, place.stripes)} | counters],
          else: counters

      entries(source, place, at + bytes, counters, more ++ problems)
    else
      _ ->
        message = "entry at #{at}: it is not an entry, and what follows it is not found"
        {counters, [problem(:damage, at, place.to - at, message) | problems]}
    end
  end

  defp entry(number, description, place) do
    <<crc::32, kind::16, name::16>> = <<description::64>>

    case @kinds do
      %{^kind => kind} when name <= @longest_name ->
        entry = %{kind: kind, name: name, number: number, crc: crc, description: description}
        bytes = bytes(entry, place)
        if bytes > 0, do: Map.put(entry, :bytes, bytes)

      _ ->
        nil
    end
  end

  defp bytes(%{kind: :gap, number: bytes}, _place),
    do: if(rem(bytes, @line) == 0, do: bytes, else: 0)

  defp bytes(%{kind: :directory, number: slots}, _place), do: @line + up(slots * 8)
  defp bytes(%{name: name}, %{stripes: stripes}), do: stripes * @line + up(max(name - @first, 0))
  defp up(bytes), do: div(bytes + @line - 1, @line) * @line

  defp name(_source, line, _at, length, _place) when length <= @first,
    do: binary_part(line, 24, length)

  defp name(source, line, at, length, %{stripes: stripes}),
    do:
      binary_part(line, 24, @first) <> Source.read(source, at + stripes * @line, length - @first)

  # The value of a counter is the sum of its stripes, wrapped.
  defp value(source, at, stripes) do
    values =
      for stripe <- 0..(stripes - 1),
          <<value::signed-native-64>> = Source.read(source, at + stripe * @line, 8),
          do: value

    <<wrapped::signed-64>> = <<Enum.sum(values)::64>>
    wrapped
  end

  defp checksum(entry, at, name, %{salt: salt}) do
    head =
      <<salt::little-64, at::little-64, entry.number::native-64,
        band(entry.description, 0xFFFFFFFF)::native-32>>

    case 0 |> Crc32c.append(head) |> Crc32c.append(name) do
      crc when crc == entry.crc ->
        []

      crc ->
        [is, was] = for sum <- [crc, entry.crc], do: Base.encode16(<<sum::32>>)
        message = "#{entry.kind} at #{at}: its checksum is 0x#{is}, and the entry says 0x#{was}"
        [problem(:damage, at, entry.bytes, message)]
    end
  end

  defp invalid(%{kind: :counter}, name, at) do
    if String.valid?(name),
      do: [],
      else: [
        problem(:damage, at + 24, byte_size(name), "counter at #{at}: its name is not UTF-8")
      ]
  end

  defp invalid(_entry, _name, _at), do: []

  @doc "The problems of the directory with this word: each counter has one slot."
  @spec directory(Source.t(), non_neg_integer, [counter]) :: [map]
  def directory(source, word, counters) do
    {at, log} = {(word >>> 8) * @line, band(word, 0xFF)}

    if log <= 39 and at > 0 and at + (8 <<< log) <= source.size do
      bytes = Source.read(source, at, 8 <<< log)
      slots = for <<slot::native-64 <- bytes>>, slot != 0, do: band(slot, 0xFF_FFFF_FFFF) * @line
      places = for {place, _name, _value} <- counters, do: place

      if Enum.sort(slots) == places,
        do: [],
        else: [
          problem(
            :damage,
            at,
            8 <<< log,
            "directory: its #{length(slots)} slots are not those of the #{length(places)} counters"
          )
        ]
    else
      [problem(:damage, 8464, 8, "directory: the word does not refer to slots in the file")]
    end
  end
end
