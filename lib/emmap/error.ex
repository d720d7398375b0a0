defmodule Emmap.Error do
  @moduledoc """
  Raised by functions that do not return `{:error, reason}`, if the system refuses an operation or the handle is closed.

  These are the functions that end in `!`, streams, counters, and functions of queues and blocks that return a plain
  value, such as `Emmap.Queue.length/1` and `Emmap.Blocks.count/1`.

  `reason` is the reason that the function without `!` returns in `{:error, reason}`: a POSIX name such as `:enoent` or
  `:eacces`; `:closed`; or a tuple such as `{:bad_format, why}`. Incorrect use by the caller raises `ArgumentError`
  instead. `kind` is the kind of the file: `:counters`, `:queue`, `:blocks`, `:table`,
  `:safetensors`, `:array`, `:npy`, `:mutex`, `:snapshot`, or `nil` for any other file.

      iex> Emmap.open!("no/such/file")
      ** (Emmap.Error) could not open "no/such/file": no such file or directory
  """

  defexception [:op, :path, :reason, :kind]

  @typedoc """
  The operation that was tried (`:op`), its file (`:path`, or `nil`), the kind of the file (`:kind`, or `nil`), and the
  reason for the failure.
  """
  @type t :: %__MODULE__{
          op: atom,
          path: Path.t() | nil,
          reason: term,
          kind:
            :counters
            | :queue
            | :blocks
            | :table
            | :safetensors
            | :array
            | :npy
            | :mutex
            | :snapshot
            | nil
        }

  @impl true
  def message(%{op: op, path: path, reason: reason, kind: kind}) do
    "could not #{tried(kind, op)}#{path && " " <> inspect(path)}: #{describe(kind, reason)}"
  end

  # A file is opened. Other operations act on its contents.
  defp tried(:counters, :add), do: "add to a counter of"
  defp tried(_kind, op), do: to_string(op)

  defp describe(:safetensors, {:bad_format, :index}),
    do: "it is not a valid index of safetensors files"

  defp describe(:array, {:bad_format, :length}),
    do: "it is shorter than the elements that it should have"

  defp describe(kind, {:bad_format, :kind}), do: "it is not a #{file(kind)}"
  defp describe(kind, {:bad_format, why}), do: "it is not a valid #{file(kind)} (#{why})"
  defp describe(:blocks, {:other_block_size, size}), do: "its blocks have #{size} bytes"
  defp describe(:blocks, {:corrupt, address}), do: "block #{address} is damaged"
  defp describe(:table, {:corrupt, position}), do: "it is damaged at position #{position}"
  defp describe(:table, {:duplicate, key}), do: "two records have the key #{inspect(key)}"

  defp describe(:table, :collisions),
    do: "too many keys have similar hashes; build it again, without seed: or with another one"

  defp describe(:counters, {:other_names, names}), do: other_names(names)

  defp describe(:counters, :dynamic),
    do: "its counters are dynamic: they have names, and not a number"

  defp describe(:counters, :not_dynamic),
    do: "it was created without dynamic: true, and its counters cannot become dynamic"

  defp describe(:counters, :max_names),
    do: "it has as many names as max_names: allows"

  defp describe(_kind, :closed), do: "it is closed"

  defp describe(_kind, :estale),
    do: "the file was truncated while it was mapped (or its network file system has lost it)"

  # `:file.format_error/1` says "not owner".
  defp describe(_kind, :eperm),
    do:
      "operation not permitted (the file is immutable, append-only or sealed, or belongs to another user)"

  # From a file system in user space, or on a network.
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
  defp file(:table), do: "table file"
  defp file(:safetensors), do: "safetensors file"
  defp file(:array), do: "array"
  defp file(:npy), do: ".npy file"
  defp file(:mutex), do: "mutex file"
  defp file(:snapshot), do: "control file of a snapshot"
  defp file(nil), do: "file of this format"

  defp other_names(%{asked: [], file: file}),
    do: "its counters have names, #{inspect(file)}, and are fewer than the number requested"

  defp other_names(%{asked: asked, file: []}),
    do: "its counters are numbered, and have no names such as #{inspect(asked)}"

  defp other_names(%{asked: asked, file: file}),
    do: "its names are #{inspect(file)}, not #{inspect(asked)}"
end
