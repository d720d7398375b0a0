defmodule Emmap.Inspection.Format do
  @moduledoc false
  # What a kind of file must answer to be inspected. `Emmap.Inspection` asks each of its formats in
  # turn; the first that recognises a file describes it.

  alias Emmap.Inspection.Source

  @typedoc "Where something is not as it should be, in bytes from the start of the file."
  @type problem :: %{
          at: Emmap.position(),
          bytes: non_neg_integer,
          severity: :note | :unknown | :damage,
          message: String.t()
        }

  @typedoc """
  `bad_format` is what opening the file answers in `{:error, {:bad_format, why}}`, or `nil`.
  `headers` and `contents` are for people and programs to read; `contents` is `nil` where the headers
  do not say where it is.
  """
  @type description :: %{
          format: atom,
          title: String.t(),
          bad_format: atom | nil,
          headers: [map],
          contents: map | nil,
          problems: [problem]
        }

  @callback recognises?(Source.t()) :: boolean
  @callback describe(Source.t(), values :: non_neg_integer | :infinity) :: description

  @spec problem(problem_severity, Emmap.position(), non_neg_integer, String.t()) :: problem
        when problem_severity: :note | :unknown | :damage
  def problem(severity, at, bytes, message),
    do: %{at: at, bytes: bytes, severity: severity, message: message}
end
