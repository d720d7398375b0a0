defmodule Emmap.Inspection.PredecessorCounters do
  @moduledoc false
  # Counter files of the predecessor: `docs/formats.md`. They have no checksum, so the only check of the number of counters
  # is whether the file has room for them.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4, length_problem: 4]
  alias Emmap.Inspection.{CounterValues, Header, Headers, Text}

  @counters 16

  defp table do
    Header.table([0], [
      {:magic, 0, 8, "magic", :magic, "EMMAP01\n"},
      {:count, 8, 8, "number of counters", :number, nil}
    ])
  end

  @impl true
  def describe(source, limit) do
    with [header] <- Headers.read(source, table()) do
      length = length(source, header.fields)
      short? = match?(%{severity: :damage}, length)
      [shown] = Headers.shown([header])
      magic = if header.bad == :kind, do: Headers.problems([header]), else: []
      magic = for problem <- magic, do: %{problem | message: problem.message <> ", one bit off"}

      %{
        title: "counters of the predecessor",
        bad_format: if(header.bad != :kind and short?, do: :length, else: header.bad),
        headers: [if(short?, do: %{shown | state: :damaged}, else: shown)],
        contents: if(not short?, do: contents(source, header.fields, limit)),
        problems: magic ++ List.wrap(length)
      }
    end
  end

  defp length(source, %{count: count}) do
    stop = @counters + count * 8
    says = "number of counters: #{count} end at #{stop}"

    with %{severity: :damage} = problem <- length_problem(source, stop, says, {8, 8}) do
      %{problem | message: problem.message <> ": it was truncated, or the number is wrong"}
    end
  end

  defp length(%{size: size}, _none) do
    message = "length: the header is #{@counters} bytes long, and the file #{size}"
    problem(:damage, 8, max(size - 8, 0), message)
  end

  defp contents(source, %{count: count}, limit) do
    place = %{at: @counters, count: count, stripes: 1}
    CounterValues.summary(source, place, nil, limit)
  end

  @impl true
  def checked, do: "length (this format has no checksum)"

  @impl true
  def fields(%{count: count}), do: Text.plural(count, "counter")

  @impl true
  defdelegate lines(contents), to: CounterValues
end
