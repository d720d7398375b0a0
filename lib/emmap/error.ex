defmodule Emmap.Error do
  @moduledoc """
  Raised by the functions that end in `!`, by streams and by counters, when the system refuses or a handle is closed.

  `reason` is what the function without `!` answers in `{:error, reason}`: a POSIX name such as
  `:enoent`, `:eacces`, `:enospc`, or `:closed`. What the *caller* did wrong raises
  `ArgumentError` instead.

      iex> Emmap.open!("no/such/file")
      ** (Emmap.Error) could not open "no/such/file": no such file or directory
  """
  @moduledoc since: "1.0.0-rc.0"

  defexception [:op, :path, :reason]

  @typedoc "What was tried (`:op`), on which file (`nil`: on none), and why it failed."
  @type t :: %__MODULE__{op: atom, path: Path.t() | nil, reason: term}

  @impl true
  def message(%{op: op, path: path, reason: reason}) do
    "could not #{tried(op)}#{path && " " <> inspect(path)}: #{describe(reason)}"
  end

  # Opening is of a file; the rest is done to what is in it.
  defp tried(:add), do: "add to a counter of"
  defp tried(op), do: to_string(op)

  defp describe(:closed), do: "it was closed before"
  defp describe(:estale), do: "the file was truncated while it was mapped"

  defp describe(reason) when is_atom(reason) do
    case :file.format_error(reason) do
      ~c"unknown POSIX error" ++ _ -> inspect(reason)
      text -> List.to_string(text)
    end
  end

  defp describe({:bad_format, :kind}), do: "it is no counter file"
  defp describe({:bad_format, why}), do: "it is no sound counter file (#{why})"

  defp describe({:other_names, %{asked: [], file: file}}),
    do:
      "its counters have names, #{inspect(file)}, and there are fewer than were asked for by number"

  defp describe({:other_names, %{asked: asked, file: []}}),
    do: "its counters are numbered, and have no names such as #{inspect(asked)}"

  defp describe({:other_names, %{asked: asked, file: file}}),
    do: "its names are #{inspect(file)}, not #{inspect(asked)}"

  defp describe(reason), do: inspect(reason)
end
