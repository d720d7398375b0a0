defmodule Emmap.Inspection.Format do
  @moduledoc false
  # What a format needs in order to be inspected: a table of its headers (`Emmap.Inspection.Headers`), its contents, and
  # both as text. `Emmap.Inspection` asks the formats in turn; the first one that recognizes a file describes it.

  alias Emmap.Inspection.Source

  @type problem :: Emmap.Inspection.problem()
  @type position :: Emmap.position()

  @typedoc """
  `bad_format` is the reason in `{:error, {:bad_format, why}}` that opening the file returns, or `nil`.
  `headers` and `contents` are for people and programs to read; `contents` is `nil` if the headers do not describe
  where it is.
  """
  @type description :: %{
          title: String.t(),
          bad_format: atom | nil,
          headers: [map],
          contents: map | nil,
          problems: [problem]
        }

  @doc "The contents of the file, with up to the given number of values; `nil` if it has another format."
  @callback describe(Source.t(), values :: non_neg_integer | :infinity) :: description | nil

  @doc "What was checked in an intact file, in words; `nil` if there is nothing to check."
  @callback checked() :: String.t() | nil

  @doc "The fields of a header on one line."
  @callback fields(map) :: String.t()

  @doc "The contents as lines, each with a title, which may be empty, and a text."
  @callback lines(contents :: map) :: [{String.t(), String.t()}]

  @optional_callbacks fields: 1

  @spec problem(atom, position, non_neg_integer, String.t()) :: problem
  def problem(severity, at, bytes, message),
    do: %{at: at, bytes: bytes, severity: severity, message: message}

  @doc """
  Compares the size of the file with the end of its contents, which `says` describes. A file that is too short is damaged
  where bytes are missing, or at `{at, bytes}`.
  """
  @spec length_problem(Source.t(), position, String.t(), {position, pos_integer} | nil) ::
          problem | nil
  def length_problem(%{size: size}, stop, says, place \\ nil) do
    cond do
      size < stop ->
        {at, bytes} = place || {size, stop - size}
        problem(:damage, at, bytes, "#{says}, and the file is #{size} bytes long")

      size > stop ->
        behind = "after them are #{size - stop} bytes, as after a growth that a crash interrupted"
        problem(:note, stop, size - stop, "#{says}; #{behind}")

      true ->
        nil
    end
  end
end
