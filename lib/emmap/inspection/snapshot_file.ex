defmodule Emmap.Inspection.SnapshotFile do
  @moduledoc false
  # Control files of snapshots, version 1: `docs/formats.md`.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4]
  import Emmap.Inspection.Text, only: [bytes: 1]
  alias Emmap.Inspection.ControlFile

  @limit 0x7FFF_FFFF_FFFF_FFFF

  defp table do
    ControlFile.table("EMMAPSNP", [
      {:number, 24, 8, "current version", :number,
       {"must be below #{@limit}", &(&1.number < @limit)}},
      {:bytes, 32, 8, "size of its file", :number,
       {"must be at most #{@limit}", &(&1.bytes <= @limit)}},
      {:boot, 40, 16, "boot id", :hex, nil},
      {:checksum, 56, 4, "checksum", :checksum, nil}
    ])
  end

  @impl true
  def describe(source, _limit) do
    ControlFile.describe(source, table(), "control file of a snapshot", fn fields, control ->
      contents = %{
        lock: control.lock,
        abandoned: control.abandoned,
        generation: fields.number,
        bytes: fields.bytes,
        synced: fields.boot == 0
      }

      {contents, file(source, fields) ++ word(control.number, fields.number)}
    end)
  end

  # The file of the version, next to the control file.
  defp file(_source, %{number: 0}), do: []

  defp file(source, %{number: number, bytes: size}) do
    name = "version-#{number}"

    case File.stat(Path.join(Path.dirname(source.path), name)) do
      {:ok, %{size: ^size}} -> []
      {:ok, %{size: other}} -> [damage("#{name} has #{other} bytes instead of #{size}")]
      {:error, _} -> [damage("#{name} does not exist")]
    end
  end

  defp damage(text), do: problem(:damage, 24, 16, "the current version: #{text}")

  defp word(number, number), do: []

  defp word(word, number) do
    text = "readers see version #{word}, and not #{number}, until the snapshot is opened again"
    [problem(:note, 8256, 8, text)]
  end

  @impl true
  def checked,
    do: "both headers, their checksums, version, byte order and length; the file of the version"

  @impl true
  def fields(fields), do: "version #{fields.number} of #{bytes(fields.bytes)}"

  @impl true
  def lines(contents) do
    synced = if contents.synced, do: "on the disk", else: "not synced"
    version = "#{contents.generation}, #{bytes(contents.bytes)}, #{synced}"
    [{"version", version} | ControlFile.lines(contents)]
  end
end
