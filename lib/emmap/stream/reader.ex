defmodule Emmap.Stream.Reader do
  @moduledoc false
  # Reads the range of a stream: batch by batch, or only its count, or only where
  # to split it.

  import Emmap.Handle, only: [handle: 1, handle: 2]
  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Handle, HeapRoom, Native}

  # This much is brought into memory at a time, on a dirty scheduler, and then read on a normal scheduler,
  # which therefore does not wait for the disk. A batch begins inside the window and may end past it, by as much as
  # native code looks at in one call.
  @window 8 * 1024 * 1024
  @margin 128 * 1024

  @copies 1
  @trims 2
  # Above the forms: the maximum number of elements of a batch, and of KiB of the map. The native code has the same.
  @limit 4
  @most 1024

  defstruct [:ref, :owned, :root, :position, :stop, :window, :ahead, :mode, :form, :path]

  @type t :: %__MODULE__{}

  # Opens the file, if the stream is for a path.
  @spec open!(Emmap.Stream.t()) :: t
  def open!(stream) do
    {handle(ref, root), owned, path} = map!(stream.source)
    {start, stop, direct?} = bounds!(stream, ref, path)
    live? = if stream.live == nil, do: direct?, else: stream.live
    form = if(live?, do: 0, else: @copies) + if stream.trim, do: @trims, else: 0

    %__MODULE__{
      ref: ref,
      owned: owned,
      path: path,
      # A view of the whole map up to the end of the stream, so that positions are those of the map.
      root: if(live?, do: root!(Native.view(ref, Handle.root(root), 0, stop), path)),
      position: start,
      stop: stop,
      window: start,
      ahead: start,
      mode: stream.mode,
      form: form
    }
  end

  defp map!(path) when is_binary(path) do
    mem = handle(ref) = Emmap.open!(path, [:read])
    _ = Native.advise(ref, 0, 0, :sequential)
    {mem, true, path}
  end

  defp map!(mem), do: {mem, false, nil}

  defp bounds!(stream, ref, path) do
    case Native.describe(ref, true) do
      {:ok, %{size: size, direct: direct?}} ->
        start = min(stream.start + bom(stream, ref), size)
        # `:infinity` is an atom, and an atom is greater than any integer.
        {start,
         max(start, min(stream.start, size) + min(stream.length, size - min(stream.start, size))),
         direct?}

      {:error, reason} ->
        failed!(reason, path)
    end
  end

  # The length of the byte order mark, which can only be at the start of a file.
  defp bom(%{trim_bom: true, start: 0}, ref) do
    case patient(Native.pread_copy(ref, 0, 4)) do
      bytes when is_binary(bytes) -> bytes |> :unicode.bom_to_encoding() |> elem(1)
      # The error occurs again where the lines are read.
      _ -> 0
    end
  end

  defp bom(_stream, _ref), do: 0

  defp root!(root, _path) when is_binary(root), do: root
  defp root!(:eof, _path), do: ""
  defp root!({:error, reason}, path), do: failed!(reason, path)

  # Batches for a process whose heap may grow by this many words.
  @spec limit(t, non_neg_integer | :infinity) :: t
  def limit(%{form: form} = reader, words),
    do: %{reader | form: rem(form, @limit) + @limit * HeapRoom.batch(@most, words)}

  @spec close(t) :: :ok
  def close(%{owned: false}), do: :ok

  def close(reader) do
    # If live lines exist, the map itself is released with the last of them.
    if reader.root, do: Native.move_window(reader.ref, reader.window, reader.stop, 0)
    _ = Native.close(reader.ref)
    :ok
  end

  @spec next!(t) :: {[binary, ...], t} | :done
  # A page of the last batch may have been lost, which is an error. A handle closed at the end of the stream is not.
  def next!(%{position: position, stop: stop} = reader) when position >= stop do
    case Native.lines(reader.ref, nil, stop, stop, @copies) do
      {:error, reason} when reason != :closed -> failed!(reason, reader.path)
      _ -> :done
    end
  end

  def next!(%{position: position, ahead: ahead} = reader) when position >= ahead do
    %{ref: ref, owned: owned, window: window} = reader
    behind = if owned, do: window, else: position
    # An error here occurs again, and is reported, where the memory is read.
    _ = Native.move_window(ref, behind, position, @window + @margin)
    read!(%{reader | window: position, ahead: position + @window})
  end

  def next!(reader), do: read!(reader)

  defp read!(%{mode: :line} = reader) do
    %{ref: ref, root: root, position: position, stop: stop, form: form} = reader
    batch!(Native.lines(ref, root, position, stop, form), reader)
  end

  defp read!(reader) do
    %{ref: ref, root: root, position: position, stop: stop, mode: bytes, form: form} = reader
    batch!(Native.pieces(ref, root, position, stop, bytes, form), reader)
  end

  # The map was shrunk while a long line was copied.
  defp batch!(:again, reader), do: read!(reader)
  defp batch!({:error, reason}, reader), do: failed!(reason, reader.path)
  defp batch!({_position, []}, _reader), do: :done
  defp batch!({position, elements}, reader), do: {elements, %{reader | position: position}}

  @spec count!(Emmap.Stream.t()) :: non_neg_integer
  def count!(stream) do
    {handle(ref) = mem, owned, path} = map!(stream.source)

    try do
      {start, stop, _direct?} = bounds!(stream, ref, path)

      case stream.mode do
        :line -> count_lines(mem, owned, start, stop, path)
        bytes -> div(stop - start + bytes - 1, bytes)
      end
    after
      if owned, do: Native.close(ref)
    end
  end

  defp count_lines(_mem, _owned, start, start, _path), do: 0

  defp count_lines(handle(ref) = mem, owned, start, stop, path) do
    newlines = count_newlines(ref, owned, start, start, stop, 0, path)

    # The bytes after the last newline are a line, too.
    case Emmap.pread(mem, stop - 1, 1) do
      {:ok, "\n"} -> newlines
      {:ok, _} -> newlines + 1
      :eof -> newlines
      {:error, reason} -> failed!(reason, path)
    end
  end

  # A call takes a few milliseconds. Between calls, the process can be killed and the map closed.
  defp count_newlines(_ref, _owned, _start, position, stop, sum, _path) when position >= stop,
    do: sum

  defp count_newlines(ref, owned, start, position, stop, sum, path) do
    {newlines, next} = ok!(Native.count_byte(ref, start, position, stop, ?\n), path)
    if owned, do: Native.move_window(ref, position, next, 0)
    count_newlines(ref, owned, start, next, stop, sum + newlines, path)
  end

  # At most `count` ranges that end after a `byte` (or at the end). Together they are the stream's whole
  # range.
  @spec ranges!(Emmap.Stream.t(), pos_integer, <<_::8>> | pos_integer) :: [
          {Emmap.position(), Emmap.position()}
        ]
  def ranges!(%{source: handle(ref)} = stream, count, record) when is_integer(record) do
    {start, stop, _direct?} = bounds!(stream, ref, nil)
    records = div(stop - start + record - 1, record)
    border = fn n -> min(stop, start + div(records * n, count) * record) end
    for n <- 1..count, border.(n) > border.(n - 1), do: {border.(n - 1), border.(n)}
  end

  def ranges!(%{source: handle(ref)} = stream, count, <<byte>>) do
    {start, stop, _direct?} = bounds!(stream, ref, nil)

    {ranges, _} =
      Enum.flat_map_reduce(1..count, start, fn n, from ->
        to =
          if n == count, do: stop, else: cut(ref, from, ideal(start, stop, n, count), stop, byte)

        if to > from, do: {[{from, to}], to}, else: {[], from}
      end)

    ranges
  end

  defp ideal(start, stop, n, count), do: start + div((stop - start) * n, count)

  # Where the range that begins at `from` and should end at `ideal` ends.
  defp cut(_ref, from, ideal, _stop, _byte) when ideal <= from, do: from

  defp cut(ref, _from, ideal, stop, byte) do
    find_cut(ref, ideal - 1, ideal - 1, stop, byte)
  end

  defp find_cut(ref, start, position, stop, byte) do
    case ok!(Native.find_byte(ref, start, position, stop, byte), nil) do
      {:found, at} -> at + 1
      {:next, next} -> find_cut(ref, start, next, stop, byte)
      nil -> stop
    end
  end

  defp ok!({:ok, found}, _path), do: found
  defp ok!({:error, reason}, path), do: failed!(reason, path)

  @spec failed!(Emmap.reason(), binary | nil) :: no_return
  defp failed!(reason, path), do: raise(Emmap.Error, op: :stream, path: path, reason: reason)
end
