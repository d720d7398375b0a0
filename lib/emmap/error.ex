defmodule Emmap.Error do
  @moduledoc """
  Raised by the functions that end in `!`, by streams and by counters, when the system refuses or a handle is closed.

  `reason` is what the function without `!` returns in `{:error, reason}`: a POSIX name such as
  `:enoent`, `:eacces`, `:enospc`, or `:closed`. What the *caller* did wrong raises
  `ArgumentError` instead. `kind` is which kind of file it was about: `:counters`, `:queue`, `:blocks`, or `nil` for any file.

      iex> Emmap.open!("no/such/file")
      ** (Emmap.Error) could not open "no/such/file": no such file or directory
  """
  @moduledoc since: "1.0.0-rc.0"

  defexception [:op, :path, :reason, :kind]

  @typedoc """
  What was tried (`:op`), on which file (`nil`: on none) and of which kind (`nil`: of any), and why it failed.
  """
  @type t :: %__MODULE__{
          op: atom,
          path: Path.t() | nil,
          reason: term,
          kind: :counters | :queue | :blocks | nil
        }

  @impl true
  def message(%{op: op, path: path, reason: reason, kind: kind}) do
    "could not #{tried(kind, op)}#{path && " " <> inspect(path)}: #{describe(kind, reason)}"
  end

  # Opening is of a file; the rest is done to what is in it.
  defp tried(:counters, :add), do: "add to a counter of"
  defp tried(_kind, op), do: to_string(op)

  defp describe(kind, {:bad_format, :kind}), do: "it is not a #{file(kind)}"
  defp describe(kind, {:bad_format, why}), do: "it is not a sound #{file(kind)} (#{why})"
  defp describe(:blocks, {:other_block_size, size}), do: "its blocks have #{size} bytes"
  defp describe(:blocks, {:corrupt, address}), do: "block #{address} is damaged"
  defp describe(:counters, {:other_names, names}), do: other_names(names)
  defp describe(_kind, :closed), do: "it was closed before"

  defp describe(_kind, :estale),
    do: "the file was truncated while it was mapped (or its network file system has lost it)"

  # `:file.format_error/1` says "not owner".
  defp describe(_kind, :eperm),
    do: "operation not permitted (the file is immutable, append-only, sealed or somebody else's)"

  # Of a file system in user space, or on a network.
  defp describe(_kind, :enotconn), do: "the server of its file system is gone"

  defp describe(kind, :enodev) do
    way = if kind, do: "", else: "open it with :private, or "

    "no such device (it is not a regular file, or its file system does not support shared maps; with FUSE and direct I/O: " <>
      way <> "mount it without direct_io, or with direct_io_allow_mmap)"
  end

  defp describe(_kind, reason) when is_atom(reason) do
    case :file.format_error(reason) do
      ~c"unknown POSIX error" ++ _ -> inspect(reason)
      text -> List.to_string(text)
    end
  end

  defp describe(_kind, reason), do: inspect(reason)

  defp file(:counters), do: "counter file"
  defp file(:queue), do: "queue file"
  defp file(:blocks), do: "file of blocks"
  defp file(nil), do: "file of this format"

  defp other_names(%{asked: [], file: file}),
    do:
      "its counters have names, #{inspect(file)}, and there are fewer than were asked for by number"

  defp other_names(%{asked: asked, file: []}),
    do: "its counters are numbered, and have no names such as #{inspect(asked)}"

  defp other_names(%{asked: asked, file: file}),
    do: "its names are #{inspect(file)}, not #{inspect(asked)}"
end
