defmodule Emmap.Inspection.InUse do
  @moduledoc false
  # A file that other programs may change while it is inspected.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.Source

  @tries 3

  @doc """
  Describes the contents of a file from its control area, as `{contents, problems}`. Where there are problems and the area has changed
  meanwhile, it is read again; at last the problems are notes.
  """
  @spec describe(Source.t(), (() -> control), (control -> {map, [problem]}), pos_integer) ::
          {map, [problem]}
        when control: map, problem: Emmap.Inspection.problem()
  def describe(source, read, describe, tries \\ @tries) do
    control = read.()
    {contents, problems} = describe.(control)

    cond do
      problems == [] or (not longer?(source) and read.() == control) ->
        {contents, problems}

      tries > 1 and not longer?(source) ->
        describe(source, read, describe, tries - 1)

      true ->
        text = "the file was used while it was read: what follows may not be so"
        notes = for problem <- problems, do: %{problem | severity: :note}
        {contents, [problem(:note, 8192, 0, text) | notes]}
    end
  end

  # It grew after it was opened here, so that what is new is not read.
  defp longer?(source) do
    case File.stat(source.path) do
      {:ok, %{size: size}} -> size > source.size
      _ -> false
    end
  end
end
