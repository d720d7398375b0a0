defmodule Emmap.Inspection.InUse do
  @moduledoc false
  # A file that other programs may change while it is inspected.

  import Emmap.Inspection.Format, only: [problem: 4]
  alias Emmap.Inspection.Source

  @tries 3

  @doc """
  Describes the contents of a file from its control area, as `{contents, problems}`. If there are problems and the area has
  changed in the meantime, the file is read again. After the last try, the problems become notes.
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
        text = "the file was changed while it was read: the following problems may not exist"
        notes = for problem <- problems, do: %{problem | severity: :note}
        {contents, [problem(:note, 8192, 0, text) | notes]}
    end
  end

  # It grew after it was opened here, so the new part cannot be read.
  defp longer?(source) do
    case File.stat(source.path) do
      {:ok, %{size: size}} -> size > source.size
      _ -> false
    end
  end
end
