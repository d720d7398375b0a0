defmodule Emmap.Inspection.BlocksFile do
  @moduledoc false
  # Files of blocks, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [length_problem: 3]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1, plural: 2]
  alias Emmap.Inspection.{BlocksGroups, Header, Headers, InUse, Source}

  @version 1
  @control 8192
  @slots_at 53_248
  @page 4096

  defp table do
    Header.table([0, 4096], [
      {:magic, 0, 8, "magic", :magic, "EMMAPBLK"},
      {:version, 8, 4, "version", :version, @version},
      {:endian_mark, 12, 4, "endian mark", :endian_mark, 0x01020304},
      {:sequence, 16, 8, "sequence number", :sequence, nil},
      {:block_size, 24, 8, "block size", :number,
       {"must be from 1 to 1073741824", &(&1.block_size in 1..1_073_741_824)}},
      {:file, 32, 8, "number of the file", :hex, nil},
      {:slots, 40, 4, "number of slots", :number,
       {"must be the number for this block size", &(&1.slots == slots(&1.block_size))}},
      {:checksum, 44, 4, "checksum", :checksum, nil}
    ])
  end

  # Also for an invalid block size.
  defp slots(size) when size in 1..1_073_741_824 do
    slots = 262_144 |> div(size) |> max(2) |> min(1024)
    Enum.find([1024, 512, 256, 128, 64, 32, 16, 8, 4, 2], &(&1 <= slots))
  end

  defp slots(_size), do: 2

  @doc "Where the groups begin, and how long they are."
  @spec geometry(map) :: map
  def geometry(%{block_size: size, slots: slots, file: file}) do
    groups = up(@slots_at + slots * up(size, 8), @page)
    group = 36 * @page + up(32_256 * size, @page)

    %{
      block_size: size,
      file: file,
      slots: slots,
      groups: groups,
      group: group,
      super: @page + 32_256 * group
    }
  end

  defp up(number, to), do: div(number + to - 1, to) * to

  @impl true
  def describe(source, limit) do
    with [_ | _] = headers <- Headers.read(source, table()) do
      current = Headers.current(headers)
      length = current && length(source, current)
      readable? = current != nil and not match?(%{severity: :damage}, length)
      bad = Headers.bad_format(headers) || if(current && not readable?, do: :length)

      {contents, problems} =
        if readable? do
          geometry = geometry(current.fields)
          describe = &BlocksGroups.describe(source, geometry, &1, limit)
          InUse.describe(source, fn -> control(source) end, describe)
        else
          {nil, []}
        end

      %{
        title: "blocks, version #{Headers.version(headers, @version)}",
        bad_format: bad,
        headers: Headers.shown(headers),
        contents: contents,
        problems: Headers.problems(headers, :in_turn) ++ List.wrap(length) ++ problems
      }
    end
  end

  # It may be longer, because it grows in larger units.
  defp length(source, %{fields: fields} = header) do
    stop = geometry(fields).groups
    says = "length: the slots end at #{stop}, by the header at #{header.at}"
    with %{severity: :note} <- length_problem(source, stop, says), do: nil
  end

  defp control(source) do
    area = Source.read(source, @control, @slots_at - @control)

    word = fn at ->
      area |> binary_part(at - @control, 8) |> :binary.decode_unsigned(:little)
    end

    # The word of a slot contains more than the address.
    addresses = for slot <- 0..1023, do: Bitwise.band(word.(24_576 + slot * 8), 0x1FFF_FFFF_FFFF)

    %{
      lock: word.(8192),
      log: word.(8320),
      count: word.(8448),
      capacity: word.(8456),
      replaced: word.(8472),
      closed: word.(8600) == 1,
      recoveries: word.(8608),
      kept: word.(8616),
      dropped: word.(8624),
      in_slots: for(address <- addresses, address > 0, into: MapSet.new(), do: address - 1)
    }
  end

  @impl true
  def checked,
    do:
      "both headers, their checksums, version, byte order and length; the bits of all blocks, and blocks in use"

  @impl true
  def fields(fields),
    do: "blocks of #{bytes(fields.block_size)}, #{plural(fields.slots, "slot")}"

  @impl true
  def lines(contents) do
    [
      {"state", state(contents)},
      {"blocks",
       "#{grouped(contents.count)} in use, room for #{grouped(contents.capacity)}; #{grouped(contents.held)} held, " <>
         "#{grouped(contents.replaced)} replaced since the last sync"},
      {"checked", "#{plural(contents.blocks_checked, "block")}#{more(contents)}"}
    ] ++ recovered(contents) ++ Enum.map(contents.groups, &{"group", group(&1)})
  end

  defp state(%{closed: true}), do: "closed"
  defp state(%{lock: 0}), do: "open, or not closed by its last program"

  defp state(%{lock: lock}),
    do: "open, or not closed; locked by slot #{Bitwise.band(lock, 0xFF) - 1}"

  defp more(%{all_checked: true}), do: ""
  defp more(_contents), do: ", and there are more"

  defp recovered(%{recoveries: 0}), do: []

  defp recovered(contents) do
    [
      {"history",
       "recovered #{plural(contents.recoveries, "time")}, the last time with #{plural(contents.kept, "block")}; " <>
         "#{plural(contents.dropped, "block")} dropped that no sync had covered"}
    ]
  end

  defp group(group) do
    "#{group.number} at byte #{group.at}: #{grouped(group.in_use)} in use, #{grouped(group.held)} held, " <>
      "#{grouped(group.durable)} durable"
  end
end
