defmodule Emmap.Inspection.Plain do
  @moduledoc false
  # Every other file: bytes that mean nothing to us, and that no header says anything about.
  @behaviour Emmap.Inspection.Format

  alias Emmap.Inspection.Source

  @shown 16

  @impl true
  def recognises?(_source), do: true

  @impl true
  def describe(source, _limit) do
    %{
      format: :plain,
      title: if(source.size == 0, do: "an empty file", else: "a plain file"),
      bad_format: nil,
      headers: [],
      contents: %{first_bytes: source |> Source.read(0, @shown) |> Base.encode16(case: :lower)},
      problems: []
    }
  end
end
