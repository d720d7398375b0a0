defmodule Emmap.Inspection.BlocksGroups do
  @moduledoc false
  # The groups of a file of blocks (docs/formats.md): the bits of each group, and its blocks.

  import Bitwise
  import Emmap.Inspection.Format, only: [problem: 4, length_problem: 3]
  alias Emmap.Inspection.{Crc32c, Source}

  @blocks 32_256
  @words 4032
  @page 4096
  # How many bytes of blocks are compared with their checksums, unless all are requested.
  @budget 8_388_608
  @ones 0..255
        |> Enum.map(fn byte -> for(<<(bit::1 <- <<byte>>)>>, do: bit) |> Enum.sum() end)
        |> List.to_tuple()
  @crc_of_zeros Crc32c.append(:binary.copy(<<0>>, @words))

  @doc "The contents of a file with this control area, and its problems."
  @spec describe(Source.t(), map, map, non_neg_integer | :infinity) :: {map, [map]}
  def describe(source, geometry, control, limit) do
    budget = if limit == :infinity, do: :infinity, else: @budget
    {groups, beyond} = groups(source, geometry, control, limit)

    {groups, {checked, budget, problems}} =
      Enum.map_reduce(groups, {0, budget, []}, fn number, {checked, budget, problems} ->
        group = read(source, geometry, number)
        {more, budget, damaged} = check(source, geometry, control, group, budget)
        problems = [damaged, durable_problems(group) | problems]
        {Map.delete(group, :live), {checked + more, budget, problems}}
      end)

    sum = fn field -> groups |> Enum.map(&Map.fetch!(&1, field)) |> Enum.sum() end
    in_use = sum.(:in_use)

    contents =
      control
      |> Map.drop([:in_slots])
      |> Map.merge(%{
        held: sum.(:held),
        blocks_checked: checked,
        all_checked: budget == :infinity or budget > 0,
        groups:
          groups
          |> take(limit)
          |> Enum.map(&Map.take(&1, [:number, :at, :in_use, :held, :durable]))
      })

    {contents,
     beyond ++ count(control, in_use, beyond) ++ (problems |> Enum.reverse() |> List.flatten())}
  end

  # The groups that are in the file. A group whose bits are in a hole has no blocks; of those, only the first are listed.
  defp groups(source, geometry, %{capacity: capacity}, limit) do
    in_file = in_file(geometry, source.size)
    wanted = div(capacity + @blocks - 1, @blocks)
    groups = with_data(source, geometry, 0, min(wanted, in_file), limit, [])

    if capacity > 0 and (wanted > in_file or stop(geometry, capacity) > source.size) do
      says = "length: there is room for #{capacity} blocks, by the control area"
      stop = min(stop(geometry, capacity), 0xFFFF_FFFF_FFFF_FFFF)
      {groups, List.wrap(length_problem(source, stop, says))}
    else
      {groups, []}
    end
  end

  # How many groups have all of their bits inside a file of this size.
  defp in_file(geometry, size), do: group_at(geometry, size - 36 * @page) + 1

  # The last group that begins at or before a position, or -1.
  defp group_at(%{groups: groups} = geometry, place) when place >= groups do
    super = div(place - groups, geometry.super)
    inside = place - groups - super * geometry.super - @page
    super * @blocks + if(inside < 0, do: -1, else: min(div(inside, geometry.group), @blocks - 1))
  end

  defp group_at(_geometry, _place), do: -1

  defp with_data(_source, _geometry, number, count, _limit, groups) when number >= count,
    do: Enum.reverse(groups)

  # An atom is greater than any integer.
  defp with_data(source, geometry, number, count, limit, groups) when number < limit,
    do: with_data(source, geometry, number + 1, count, limit, [number | groups])

  defp with_data(source, geometry, number, count, limit, groups) do
    at = at(geometry, number)

    case Source.data_from(source, at) do
      nil ->
        Enum.reverse(groups)

      from when from < at + 4 * @page ->
        with_data(source, geometry, number + 1, count, limit, [number | groups])

      # The data may be blocks of that group, or a page between groups.
      from ->
        next = max(group_at(geometry, from), number + 1)
        with_data(source, geometry, next, count, limit, groups)
    end
  end

  defp stop(geometry, capacity) do
    last = capacity - 1
    at(geometry, div(last, @blocks)) + 36 * @page + (rem(last, @blocks) + 1) * geometry.block_size
  end

  defp at(geometry, number),
    do:
      geometry.groups + div(number, @blocks) * geometry.super + @page +
        rem(number, @blocks) * geometry.group

  defp count(%{count: count}, in_use, []) when count != in_use do
    [
      problem(
        :damage,
        8448,
        8,
        "count: is #{count}, and #{in_use} blocks are in use by their bits"
      )
    ]
  end

  defp count(_control, _in_use, _beyond), do: []

  defp read(source, geometry, number) do
    at = at(geometry, number)
    pages = Source.read(source, at, 4 * @page)
    [live, held, first, second] = for page <- 0..3, do: binary_part(pages, page * @page, @page)
    copies = for page <- [first, second], do: durable?(page)
    durable = if hd(copies), do: first, else: second

    %{
      number: number,
      at: at,
      live: words(live),
      in_use: ones(words(live)),
      held: ones(words(held)),
      durable: ones(words(durable)),
      copies: copies
    }
  end

  defp words(page), do: binary_part(page, 0, @words)

  defp ones(words), do: for(<<byte <- words>>, reduce: 0, do: (sum -> sum + elem(@ones, byte)))

  defp durable?(page) do
    <<words::binary-size(@words), checksum::little-64, _::binary>> = page
    checksum == bxor(Crc32c.append(words), @crc_of_zeros)
  end

  defp durable_problems(%{copies: copies, at: at, number: number}) do
    for {false, copy} <- Enum.with_index(copies) do
      text = "group #{number}, what is durable, copy #{copy}: its checksum is wrong"
      # One of the two is written at a time, and may be found half-written.
      severity = if true in copies, do: :note, else: :damage
      problem(severity, at + (2 + copy) * @page, @page, text)
    end
  end

  # Compares blocks in use with their checksums, some at a time. Blocks in slots are stored elsewhere.
  defp check(source, geometry, control, group, budget) do
    checksums = Source.read(source, group.at + 4 * @page, @blocks * 4)
    together = max(div(1_048_576, geometry.block_size), 1)

    group.live
    |> set_bits()
    |> Stream.reject(&MapSet.member?(control.in_slots, group.number * @blocks + &1))
    |> Stream.chunk_by(&div(&1, together))
    |> Enum.reduce_while({0, budget, []}, fn [first | _] = indexes, {checked, budget, problems} ->
      {indexes, budget} = within(indexes, budget, geometry.block_size)
      start = group.at + 36 * @page + first * geometry.block_size
      last = List.last(indexes) || first - 1
      data = Source.read(source, start, (last - first + 1) * geometry.block_size)

      damaged =
        for index <- indexes,
            at = (index - first) * geometry.block_size,
            # Past the end of the file, which is reported elsewhere.
            at + geometry.block_size <= byte_size(data),
            block = binary_part(data, at, geometry.block_size),
            not sound?(geometry, group, index, block, checksums),
            do: damage(geometry, group, index, start + at)

      so_far = {checked + length(indexes), budget, [damaged | problems]}
      if budget == 0, do: {:halt, so_far}, else: {:cont, so_far}
    end)
    |> then(fn {checked, budget, problems} -> {checked, budget, Enum.reverse(problems)} end)
  end

  defp within(indexes, :infinity, _size), do: {indexes, :infinity}

  defp within(indexes, budget, size) do
    some = Enum.take(indexes, div(budget, size))
    {some, if(length(some) < length(indexes), do: 0, else: budget - length(some) * size)}
  end

  defp sound?(geometry, group, index, block, checksums) do
    <<expected::little-32>> = binary_part(checksums, index * 4, 4)
    Crc32c.append(seed(geometry, group.number * @blocks + index), block) == expected
  end

  defp damage(geometry, group, index, at) do
    address = group.number * @blocks + index
    problem(:damage, at, geometry.block_size, "block #{address}: its checksum is wrong")
  end

  defp seed(geometry, address) do
    mixed = address * 0x9E3779B97F4A7C15 &&& 0xFFFF_FFFF_FFFF_FFFF
    bxor(geometry.file, mixed) >>> 32
  end

  defp set_bits(words) do
    for {word, number} <- Enum.with_index(for(<<word::little-64 <- words>>, do: word)),
        word != 0,
        bit <- 0..63,
        (word >>> bit &&& 1) == 1,
        do: number * 64 + bit
  end

  defp take(list, :infinity), do: list
  defp take(list, limit), do: Enum.take(list, limit)
end
