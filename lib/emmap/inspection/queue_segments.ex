defmodule Emmap.Inspection.QueueSegments do
  @moduledoc false
  # The segments of a queue's file and the records in them: which are in use, and which are damaged.

  import Bitwise
  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{Crc32c, QueueControl, Source}

  @records 64
  @head 24
  @most_payload 0x4000_0000

  @doc """
  Follows the segments of a stream, and checks records from `floor` to the tail until the `budget` of bytes is used up.
  Returns the segments, how many items and bytes were checked, the problems, and the rest of the budget.
  """
  def check(source, header, control, stream, floor, budget) do
    state = %{
      source: source,
      size: header.segment_size,
      file: header.file,
      count: min(control.segments, 1_048_576),
      stream: stream,
      floor: floor,
      budget: budget,
      segments: [],
      items: 0,
      problems: []
    }

    follow(state, stream.first_segment, MapSet.new())
  end

  defp follow(state, -1, _seen), do: done(state)

  defp follow(state, number, seen) do
    cond do
      number >= state.count or MapSet.member?(seen, number) ->
        at = if state.segments == [], do: 8880, else: hd(state.segments).at + 48
        done(damaged(state, at, 8, "the number of the next segment, #{number}, is invalid"))

      segment = segment(state, number) ->
        state = records(%{state | segments: [segment | state.segments]}, segment)
        follow(state, segment.next, MapSet.put(seen, number))

      true ->
        at = at(state, number)

        text =
          "segment #{number}, header: its checksum is wrong, and the rest of the stream is not checked"

        done(damaged(state, at, @records, text))
    end
  end

  defp done(state) do
    %{
      segments: Enum.reverse(state.segments),
      items: state.items,
      problems: Enum.reverse(state.problems),
      budget: state.budget
    }
  end

  defp damaged(state, at, bytes, message) do
    message = "#{title(state.stream)}: #{message}"
    %{state | problems: [problem(:damage, at, bytes, message) | state.problems]}
  end

  defp title(%{name: :items}), do: "items"
  defp title(%{name: :dead_letters}), do: "dead letters"

  defp at(state, number), do: QueueControl.segments_at() + number * state.size

  # `nil` if its header is damaged.
  defp segment(state, number) do
    at = at(state, number)

    with <<"EMQS", sum::little-32, body::binary-40, next::little-64, stop::little-64>> <-
           Source.read(state.source, at, @records),
         ^sum <- Crc32c.append(<<state.file::little-64, number::little-64, body::binary>>),
         <<start::little-64, sequence::little-64, salt::little-64, _floor::little-64,
           span::little-32, stream::little-32>> <- body,
         true <- span >= 1 and number + span <= state.count do
      %{
        number: number,
        at: at,
        stream: Enum.at([:items, :dead_letters], stream),
        start: start,
        first_sequence: sequence,
        span: span,
        salt: salt,
        next: next - 1,
        stop: stop
      }
    else
      _ -> nil
    end
  end

  # From the floor on. Records before it are not read again.
  defp records(state, segment) do
    bytes = segment.span * state.size
    stop = if segment.stop == 0, do: state.stream.tail, else: segment.stop
    stop = stop |> min(segment.start + bytes)
    from = max(segment.start + @records, state.floor)
    record(state, segment, from, stop)
  end

  defp record(%{budget: budget} = state, _segment, position, stop)
       when position >= stop or budget <= 0,
       do: state

  defp record(state, segment, position, stop) do
    at = segment.at + position - segment.start

    case Source.read(state.source, at, @head) do
      <<sum::little-32, length::little-32, _sequence::little-64, flags::little-32,
        extension::little-32>> = head
      when length <= @most_payload and extension <= 24 and
             position + @head + extension + length <= stop ->
        crc = Crc32c.append(segment.salt &&& 0xFFFFFFFF, binary_part(head, 4, @head - 4))
        crc = crc_of(state.source, crc, at + @head, at + @head + extension + length)
        state = %{state | budget: state.budget - @head - length}

        state =
          if crc == sum do
            %{state | items: state.items + if((flags &&& 4) == 0, do: 1, else: 0)}
          else
            text = "the record at position #{position}: its checksum is wrong"
            damaged(state, at, @head + extension + length, text)
          end

        room = div(@head + extension + length + 7, 8) * 8
        record(state, segment, position + room, stop)

      _ ->
        text =
          "the record at position #{position}: its length is wrong, and the rest of segment #{segment.number} is not checked"

        damaged(state, at, @head, text)
    end
  end

  defp crc_of(source, crc, from, stop) do
    source
    |> Source.pieces(from, stop, 1)
    |> Enum.reduce(crc, fn
      {:zeros, count}, crc -> Crc32c.append_zeros(crc, count)
      bytes, crc -> Crc32c.append(crc, bytes)
    end)
  end
end
