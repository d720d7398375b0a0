defmodule Emmap.Inspection.QueueControl do
  @moduledoc false
  # The control area of a queue's file (docs/formats.md): its words, and the cursors and streams that they describe.

  alias Emmap.Inspection.Source

  @control 8192
  @segments 262_144
  @streams [items: 8832, dead_letters: 8960]
  @cursors 24_576
  @dead_cursor 32
  # The claims of a cursor that are in the control area.
  @claims 208_896
  @first_claims 24

  @doc "Where the segments begin."
  def segments_at, do: @segments

  @doc "The words of the area, its streams and its cursors, consistent if the file is not changed while it is read."
  def read(source, segment_size) do
    area = Source.read(source, @control, @segments - @control)
    word = &word(area, &1 - @control)

    %{
      area: area,
      lock: word.(8192),
      log: word.(8320),
      closed: word.(8600) != 0,
      segments: word.(8608),
      dropped: word.(8672),
      recoveries: word.(8680),
      recovered_items: word.(8688),
      dropped_bytes: word.(8696),
      streams: for({name, at} <- @streams, do: stream(name, at, word)),
      cursors:
        for(number <- 0..@dead_cursor, do: cursor(source, number, area, segment_size))
        |> Enum.filter(& &1)
    }
  end

  defp stream(name, at, word) do
    %{
      name: name,
      tail: word.(at),
      sequence: word.(at + 8),
      last_segment: word.(at + 16) - 1,
      first_segment: word.(at + 48) - 1
    }
  end

  defp cursor(source, number, area, segment_size) do
    at = @cursors - @control + number * 512

    if word(area, at) == 1 do
      <<outstanding::32, released::32>> = <<word(area, at + 64)::64>>

      %{
        number: number,
        name: name(number, binary_part(area, at + 96, min(word(area, at + 88), 62))),
        stream: if(number == @dead_cursor, do: :dead_letters, else: :items),
        floor: floor(source, area, number, segment_size),
        next: word(area, at + 8),
        sequence: word(area, at + 16),
        checked_out: max(outstanding - released, 0),
        released: released,
        length: nil,
        max_lag: word(area, at + 72),
        lost: word(area, at + 80)
      }
    end
  end

  defp name(0, _name), do: "(the queue)"
  defp name(@dead_cursor, _name), do: "(dead letters)"
  defp name(_number, name), do: name

  # The position of the first outstanding claim, or else of the next item.
  defp floor(source, area, number, segment_size) do
    at = @cursors - @control + number * 512
    next = word(area, at + 8)
    <<first::32, _last::32>> = <<word(area, at + 40)::64>>

    with true <- first > 0,
         claim when claim != nil <- claim_at(area, number, first - 1, segment_size),
         <<position::little-64>> <- Source.read(source, claim + 16, 8) do
      min(position, next)
    else
      _ -> next
    end
  end

  # The offset of a claim in the file.
  defp claim_at(_area, number, claim, _segment_size) when claim < @first_claims,
    do: @claims + (number * @first_claims + claim) * 64

  defp claim_at(area, number, claim, segment_size) do
    each = div(segment_size, 64)
    index = div(claim - @first_claims, each)
    at = @cursors - @control + number * 512 + 160 + index * 4

    with true <- index < 64,
         <<segment::little-32>> when segment > 0 <- binary_part(area, at, 4) do
      @segments + (segment - 1) * segment_size + rem(claim - @first_claims, each) * 64
    else
      _ -> nil
    end
  end

  defp word(area, at), do: area |> binary_part(at, 8) |> :binary.decode_unsigned(:little)

  @doc "Whether a segment is marked as in use."
  def used?(%{area: area}, number) do
    at = 77_824 - @control + div(number, 8)

    at < byte_size(area) and
      Bitwise.band(:binary.at(area, at), Bitwise.bsl(1, rem(number, 8))) != 0
  end
end
