defmodule Emmap.Inspection.PredecessorCounters do
  @moduledoc false
  # Counter files of the predecessor. They have no checksum: of the number of counters no more can be
  # said than whether the file has room for them.
  @behaviour Emmap.Inspection.Format

  import Bitwise
  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{CounterValues, Source}

  @magic "EMMAP01\n"
  @data_offset 16

  @impl true
  def recognises?(source) do
    start = Source.read(source, 0, 8)
    start == @magic or flipped_bits(start) == 1
  end

  @impl true
  def describe(source, limit) do
    start = Source.read(source, 0, @data_offset)
    magic = binary_part(start, 0, 8)

    count =
      if byte_size(start) == @data_offset,
        do: :binary.decode_unsigned(binary_part(start, 8, 8), :little)

    problems = magic_problems(magic) ++ length_problems(source.size, count)
    short? = Enum.any?(problems, &(&1.severity == :damage and &1.at >= 8))

    %{
      format: :predecessor_counters,
      title: "counters of the predecessor",
      bad_format:
        cond do
          magic != @magic -> :kind
          short? -> :length
          true -> nil
        end,
      headers: [
        %{
          at: 0,
          bytes: @data_offset,
          state: state(magic, short?),
          fields: count && %{count: count}
        }
      ],
      contents: if(count && not short?, do: contents(source, count, limit)),
      problems: problems
    }
  end

  defp state(@magic, false), do: :in_force
  defp state(_magic, _short?), do: :damaged

  defp contents(source, count, limit),
    do: CounterValues.summary(source, %{at: @data_offset, count: count, stripes: 1}, nil, limit)

  defp magic_problems(@magic), do: []

  defp magic_problems(magic) do
    message = "magic: is #{inspect(@magic)}, and #{inspect(magic)} stands there, one bit off"
    [problem(:damage, 0, 8, message)]
  end

  defp length_problems(size, nil) do
    message = "length: the header is #{@data_offset} bytes long, and the file #{size}"
    [problem(:damage, 8, max(size - 8, 0), message)]
  end

  defp length_problems(size, count) do
    wanted = @data_offset + count * 8
    says = "number of counters: #{count} end at #{wanted}"

    cond do
      size < wanted ->
        [
          problem(
            :damage,
            8,
            8,
            "#{says}, and the file is #{size} bytes long: it was cut, or the number is wrong"
          )
        ]

      size > wanted ->
        message =
          "#{says}; behind them are #{size - wanted} bytes, as of a growth that a crash cut short"

        [problem(:note, wanted, size - wanted, message)]

      true ->
        []
    end
  end

  defp flipped_bits(start) when byte_size(start) < 8, do: :unknown

  defp flipped_bits(<<start::64>>) do
    <<magic::64>> = @magic
    start |> bxor(magic) |> Integer.digits(2) |> Enum.sum()
  end
end
