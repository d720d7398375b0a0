defmodule Emmap.Inspection.Headers do
  @moduledoc false
  # The headers of a file, one or two: which one is current, and what a report contains of them.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.{Format, Header, HeaderProblems, Source}

  @foreign [:version, :endianness]

  @doc "The headers of a table; `nil` if none of them is recognized."
  @spec read(Source.t(), Header.table()) :: [Header.t(), ...] | nil
  def read(source, table) do
    headers = for at <- table.at, do: Header.read(source, table, at)
    if Enum.any?(headers, &Header.recognised?/1), do: headers
  end

  @doc """
  Of the sound headers, the one with the higher sequence number, or the first if the numbers are equal. A header of another
  version or byte order decides for the whole file: then `nil`.
  """
  @spec current([Header.t()]) :: Header.t() | nil
  def current(headers) do
    sound = Enum.filter(headers, &(&1.bad == nil))
    foreign? = Enum.any?(headers, &(&1.bad in @foreign))
    if sound != [] and not foreign?, do: Enum.max_by(sound, & &1.fields[:sequence])
  end

  @doc "Why opening the file fails because of its headers; `nil` if one is intact and current."
  @spec bad_format([Header.t()]) :: Header.bad() | nil
  def bad_format(headers) do
    bad = Enum.map(headers, & &1.bad)

    if current(headers) == nil,
      do: Enum.find(bad, &(&1 in @foreign)) || Enum.find(bad, :kind, &(&1 not in [nil, :kind]))
  end

  @doc "The version of the file, from a header whose version is reliable, or `default`."
  @spec version([Header.t()], pos_integer) :: non_neg_integer
  def version(headers, default) do
    case Enum.find(headers, &(&1.bad in [nil | @foreign])) do
      nil -> default
      header -> header.fields.version
    end
  end

  @doc "The problems of the headers. `:in_turn`: they are written alternately, so an older one is not a problem."
  @spec problems([Header.t()], :together | :in_turn) :: [Format.problem()]
  def problems(headers, written \\ :together) do
    Enum.flat_map(headers, &HeaderProblems.of(&1, reference(&1, headers, written))) ++
      for(
        problem <- growth_cut_short(headers, current(headers)),
        written == :together or problem.severity == :damage,
        do: problem
      )
  end

  # What a damaged header is compared with: the original contents of the other one.
  defp reference(_header, _headers, :in_turn), do: nil

  defp reference(header, headers, :together),
    do: with(%{} = other <- other(header, headers), do: Header.restored(other))

  defp other(header, headers), do: Enum.find(headers, &(&1.at != header.at))

  # Two headers that are sound, but different.
  defp growth_cut_short(headers, current) do
    for %{bad: nil} = header <- headers, current != nil, header.bytes != current.bytes do
      {severity, message} =
        case {header.fields.sequence, current.fields.sequence} do
          {same, same} ->
            {:damage,
             "different from the current one, but has the same sequence number (#{same})"}

          {older, newer} ->
            {:note,
             "older (sequence number #{older}) than the current one (#{newer}), " <>
               "as after a growth that a crash interrupted"}
        end

      problem(severity, header.at, header.table.size, "header at #{header.at}, it is #{message}")
    end
  end

  @doc "The headers in the form that a report contains."
  @spec shown([Header.t()]) :: [map]
  def shown(headers) do
    current = current(headers)

    for header <- headers do
      state = state(header, current, other(header, headers))

      hidden =
        for %{kind: kind, name: name} <- header.table.fields,
            kind in [:magic, :reserved, :bytes],
            do: name

      fields = if state != :none, do: Map.drop(header.fields, hidden)
      %{at: header.at, bytes: header.table.size, state: state, fields: fields}
    end
  end

  defp state(%{bad: nil, at: at}, %{at: at}, _other), do: :current
  defp state(%{bad: nil}, _current, %{bad: bad}) when bad != nil, do: :intact
  defp state(%{bad: nil, bytes: bytes}, %{bytes: bytes}, _other), do: :same
  defp state(%{bad: nil}, _current, _other), do: :older
  defp state(%{bad: :kind, flipped: nil, table: %{at: [_, _]}}, _current, _other), do: :none
  defp state(%{bad: bad}, _current, _other) when bad in @foreign, do: :unknown
  defp state(_header, _current, _other), do: :damaged
end
