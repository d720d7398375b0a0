defmodule Emmap.Stream.Reader do
  @moduledoc false
  # Reads a stream's range: one batch of lines or pieces after the other, or its count, or where
  # to cut it.

  import Emmap.Handle, only: [handle: 1, handle: 2]
  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Handle, HeapRoom, Native}

  # So much is brought into memory at a time, on a dirty scheduler, and then read on a normal one,
  # which therefore waits for no disk. A batch begins inside and may end as much behind it as
  # native code looks at in one call.
  @window 8 * 1024 * 1024
  @margin 128 * 1024

  @copies 1
  @trims 2
  # Above the forms: how many elements a batch has at most, and of how many KiB of the map; as native code has it.
  @limit 4
  @most 1024

  defstruct [:ref, :owned, :root, :position, :stop, :window, :ahead, :mode, :form, :path]

  @type t :: %__MODULE__{}

  # Opens the file, if the stream is one of a path.
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
      # Of the whole map up to the end of the stream, so that positions are the map's.
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
        # `:infinity` is an atom, and atoms are above all integers.
        {start,
         max(start, min(stream.start, size) + min(stream.length, size - min(stream.start, size))),
         direct?}

      {:error, reason} ->
        failed!(reason, path)
    end
  end

  # The bytes of the mark of an encoding, which only the start of a file has.
  defp bom(%{trim_bom: true, start: 0}, ref) do
    case patient(Native.pread_copy(ref, 0, 4)) do
      bytes when is_binary(bytes) -> bytes |> :unicode.bom_to_encoding() |> elem(1)
      # Met again where the lines are read.
      _ -> 0
    end
  end

  defp bom(_stream, _ref), do: 0

  defp root!(root, _path) when is_binary(root), do: root
  defp root!(:eof, _path), do: ""
  defp root!({:error, reason}, path), do: failed!(reason, path)

  # Batches for a process whose heap may take so many words more.
  @spec limit(t, non_neg_integer | :infinity) :: t
  def limit(%{form: form} = reader, words),
    do: %{reader | form: rem(form, @limit) + @limit * HeapRoom.batch(@most, words)}

  @spec close(t) :: :ok
  def close(%{owned: false}), do: :ok

  def close(reader) do
    # With live lines out, the map itself goes with the last of them.
    if reader.root, do: Native.move_window(reader.ref, reader.window, reader.stop, 0)
    _ = Native.close(reader.ref)
    :ok
  end

  @spec next!(t) :: {[binary, ...], t} | :done
  # A page may have been lost under what the last batch gave. To close there is no loss.
  def next!(%{position: position, stop: stop} = reader) when position >= stop do
    case Native.lines(reader.ref, nil, stop, stop, @copies) do
      {:error, reason} when reason != :closed -> failed!(reason, reader.path)
      _ -> :done
    end
  end

  def next!(%{position: position, ahead: ahead} = reader) when position >= ahead do
    %{ref: ref, owned: owned, window: window} = reader
    behind = if owned, do: window, else: position
    # What went wrong here is met again, and told, where the memory is read.
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

  # The map was made shorter while a long line was copied.
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

    # What follows the last newline is a line, too.
    case Emmap.pread(mem, stop - 1, 1) do
      {:ok, "\n"} -> newlines
      {:ok, _} -> newlines + 1
      :eof -> newlines
      {:error, reason} -> failed!(reason, path)
    end
  end

  # A call takes some milliseconds. Between calls the process can be killed, and the map closed.
  defp count_newlines(_ref, _owned, _start, position, stop, sum, _path) when position >= stop,
    do: sum

  defp count_newlines(ref, owned, start, position, stop, sum, path) do
    {newlines, next} = ok!(Native.count_byte(ref, start, position, stop, ?\n), path)
    if owned, do: Native.move_window(ref, position, next, 0)
    count_newlines(ref, owned, start, next, stop, sum + newlines, path)
  end

  # At most `count` ranges that end behind a `byte` (or at the end), together all of the stream's
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

  # Where the part that began at `from` and should end at `ideal` ends.
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
