defmodule Emmap.Inspection.MutexFile do
  @moduledoc false
  # Files of mutexes, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  alias Emmap.Inspection.ControlFile

  defp table do
    ControlFile.table("EMMAPMTX", [
      {:reserved, 24, 8, "reserved", :number, {"must be 0", &(&1.reserved == 0)}},
      {:checksum, 32, 4, "checksum", :checksum, nil}
    ])
  end

  @impl true
  def describe(source, _limit) do
    ControlFile.describe(source, table(), "mutex", fn _fields, control ->
      {Map.take(control, [:lock, :abandoned]), []}
    end)
  end

  @impl true
  def checked, do: "both headers, their checksums, version, byte order and length"

  @impl true
  def fields(_fields), do: "a lock"

  @impl true
  def lines(contents), do: ControlFile.lines(contents)
end
