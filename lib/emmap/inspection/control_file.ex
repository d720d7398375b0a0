defmodule Emmap.Inspection.ControlFile do
  @moduledoc false
  # What the files of mutexes and the control files of snapshots have in common: `docs/formats.md`.

  import Emmap.Inspection.Format, only: [length_problem: 3]
  alias Emmap.Inspection.{Header, Headers, InUse, Source}

  @size 16_384
  @control 8192

  @doc "The table of a header with this magic and these fields after the common ones."
  @spec table(String.t(), [Header.row()]) :: Header.table()
  def table(magic, rows) do
    Header.table(
      [0, 4096],
      [
        {:magic, 0, 8, "magic", :magic, magic},
        {:version, 8, 4, "version", :version, 1},
        {:endian_mark, 12, 4, "endian mark", :endian_mark, 0x01020304},
        {:sequence, 16, 8, "sequence number", :sequence, nil}
      ] ++ rows
    )
  end

  @doc "As `c:Emmap.Inspection.Format.describe/2`. `contents` gets the fields of the current header and a function of words."
  @spec describe(
          Source.t(),
          Header.table(),
          String.t(),
          (map, (non_neg_integer -> integer) -> {map, list})
        ) ::
          Emmap.Inspection.Format.description() | nil
  def describe(source, table, title, contents) do
    with [_ | _] = headers <- Headers.read(source, table) do
      current = Headers.current(headers)
      length = current && length_problem(source, @size, "length: the file has #{@size} bytes")
      readable? = current != nil and not match?(%{severity: :damage}, length)

      {contents, problems} =
        if readable?,
          do: InUse.describe(source, fn -> control(source) end, &contents.(current.fields, &1)),
          else: {nil, []}

      %{
        title: "#{title}, version #{Headers.version(headers, 1)}",
        bad_format: Headers.bad_format(headers) || if(current && not readable?, do: :length),
        headers: Headers.shown(headers),
        contents: contents,
        problems: Headers.problems(headers, :in_turn) ++ List.wrap(length) ++ problems
      }
    end
  end

  defp control(source) do
    area = Source.read(source, @control, 256)
    word = fn at -> area |> binary_part(at - @control, 8) |> :binary.decode_unsigned(:little) end

    %{
      lock: word.(8192),
      abandoned: word.(8200) != 0,
      waiting: word.(8208),
      number: word.(8256)
    }
  end

  @doc "The lines that both formats have."
  @spec lines(map) :: [{String.t(), String.t()}]
  def lines(contents) do
    [
      {"lock", lock(contents.lock)},
      {"state", if(contents.abandoned, do: "abandoned by the last holder", else: "consistent")}
    ]
  end

  defp lock(0), do: "free"

  defp lock(lock),
    do: "taken by slot #{Bitwise.band(lock, 0xFF) - 1}, unless that program has ended"
end
