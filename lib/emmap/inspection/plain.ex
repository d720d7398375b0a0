defmodule Emmap.Inspection.Plain do
  @moduledoc false
  # Any other file: bytes without a known format, and without a header.
  @behaviour Emmap.Inspection.Format

  alias Emmap.Inspection.Source

  @shown 16

  @impl true
  def describe(source, _limit) do
    %{
      title: if(source.size == 0, do: "an empty file", else: "a plain file"),
      bad_format: nil,
      headers: [],
      contents: %{first_bytes: source |> Source.read(0, @shown) |> Base.encode16(case: :lower)},
      problems: []
    }
  end

  @impl true
  def checked, do: nil

  @impl true
  def lines(%{first_bytes: ""}), do: []

  def lines(%{first_bytes: first}),
    do: [{"begins", first |> String.graphemes() |> Enum.chunk_every(2) |> Enum.join(" ")}]
end
