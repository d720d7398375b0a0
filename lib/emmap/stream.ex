defmodule Emmap.Stream do
  @moduledoc """
  Lines or pieces of a file, as a stream: what `Emmap.stream!/3` and `Emmap.chunks!/3` return.

      iex> path = Path.join(System.tmp_dir!(), "emmap_stream.txt")
      iex> File.write!(path, "one\\ntwo\\nthree")
      iex> Enum.to_list(Emmap.stream!(path))
      ["one\\n", "two\\n", "three"]
      iex> path |> Emmap.stream!(:line, trim: true) |> Enum.map(&String.length/1)
      [3, 3, 5]
      iex> Enum.to_list(Emmap.stream!(path, 6))
      ["one\\ntw", "o\\nthre", "e"]
      iex> path |> Emmap.stream!() |> Enum.count()
      3

  ## The contract

    * A stream of a *path* maps the file at each enumeration, read-only, and closes it after that,
      also when the enumeration is halted or raises. A stream of a *handle* reads the handle's map
      and leaves its cursor alone: others may use the handle meanwhile.
    * Lines are, byte for byte, those of `File.stream!/3`: with their newline, and CRLF as LF. The last
      line may have none.
    * Lines and pieces are **copies**, as `pread/3` returns them: they stay as they are when the file changes, and keep
      no map. Up to 64 bytes they are on the heap of the process; longer ones are binaries of their own. They are
      **live** on a `:direct` handle, or with `live: true`: see [Live lines](#module-live-lines).
    * The end is that of the map when the enumeration began, or `:start` + `:length`. Bytes by which the map grows
      later do not belong to the stream; a map that `Emmap.resize/2` makes shorter ends it earlier.
    * Errors of the system raise `Emmap.Error`: a file that cannot be opened, `:closed` when the handle is
      closed in the middle, `:estale` (or another reason that `Emmap.reattach/1` lists) when pages of the map were lost, or its
      file is shorter than the map when the enumeration begins.
    * The lock of `pread/3` and `pwrite/3` is not taken: a line that another process writes meanwhile may
      be half old, half new. A copied line does not change after that.

  ## What it costs

  Up to 1,024 lines come from one call of native code, which looks at 128 KiB at most; a longer line is
  searched and copied, and a piece of more than 64 KiB is copied, on a dirty CPU scheduler, in steps of some milliseconds:
  a kill of the process, and a `close/1` of the handle, end them. Holes of a file are zeros, and no newlines: where a line is
  longer than a megabyte, they are not read (except on FUSE, and in private maps). The process waits for the disk on a
  dirty I/O scheduler, 8 MiB ahead. So no scheduler is blocked, however long a line and however slow the disk is. For
  the time of an enumeration the process has a heap of at least half a megabyte (`:min_heap_size`), which makes a line a
  third cheaper. A process with a `:max_heap_size` that leaves less than 16 times that keeps its heap as it is, and gets
  smaller batches: 10,000 words are enough for short lines.

  Memory stays flat: a stream of a path also returns the pages that it has passed to the page cache. When its
  enumeration ends, the file is released: descriptor, pages, and the disk space if it was deleted. (With `live: true` the
  pages stay until the last live line is collected.)

  `Enum.count/1` of lines is one search for newlines, on dirty CPU schedulers; of pieces it is a division.

  ## Live lines

  `live: true` makes lines and pieces live, also of a path; so does a `:direct` handle. `copy: true` (or `live: false`)
  makes copies of a `:direct` handle. `live: true` with `copy: true` raises `ArgumentError`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_live_lines.txt")
      iex> File.write!(path, ["one ", String.duplicate(".", 100), "\\n"])
      iex> mem = Emmap.open!(path, [:write, :direct])
      iex> [live] = Enum.to_list(Emmap.stream!(mem))
      iex> [copied] = Enum.to_list(Emmap.stream!(mem, copy: true))
      iex> :ok = Emmap.pwrite(mem, 0, "ONE")
      iex> {binary_part(live, 0, 3), binary_part(copied, 0, 3)}
      {"ONE", "one"}

  Some are copies all the same: a line that ends in CRLF (not with `trim: true`); from OTP 27 on, lines and pieces of up
  to 64 bytes; before OTP 27, those of up to 24 bytes, once the process has collected its garbage. So `live: true` is worth
  it for long lines and large pieces, and saves little for short ones. Live lines have the limits of every live
  binary (see "Live binaries" in `Emmap`):

    * A live line changes with the file. Do not use it as a key of a map or of ETS, and copy a line before you keep it
      (`:binary.copy/1`).
    * One live line keeps the pages of the whole map.
    * Functions that read twice crash the VM when the line changes meanwhile, among them `:binary.split(line, ";")` and
      `String.split(line, ";")`, whose pattern has one byte:
      [the list](live-binaries.md#functions-that-read-twice). All of them are safe on copied lines.

  ## In parallel

  `Emmap.chunks!/3` splits a map where lines end, so that each core reads a part of it. The lowest, highest and
  mean temperature of each station in a file of `Station;Temperature` lines:

      iex> path = Path.join(System.tmp_dir!(), "emmap_measurements.txt")
      iex> File.write!(path, "Oslo;-3.4\\nQuito;14.0\\nOslo;6.0\\nHull;9.5\\nQuito;15.5\\n")
      iex> {:ok, mem} = Emmap.open(path)
      iex> measure = fn lines ->
      ...>   Enum.reduce(lines, %{}, fn line, stations ->
      ...>     # The lines are copies, so splitting them is safe, and their parts may be keys.
      ...>     [station, number] = :binary.split(line, ";")
      ...>     t = :erlang.binary_to_float(number)
      ...>
      ...>     case stations do
      ...>       %{^station => {low, high, sum, n}} ->
      ...>         %{stations | station => {min(low, t), max(high, t), sum + t, n + 1}}
      ...>
      ...>       _ ->
      ...>         Map.put(stations, station, {t, t, t, 1})
      ...>     end
      ...>   end)
      ...> end
      iex> merge = fn _station, {low, high, sum, n}, {low2, high2, sum2, n2} ->
      ...>   {min(low, low2), max(high, high2), sum + sum2, n + n2}
      ...> end
      iex> stations =
      ...>   mem
      ...>   |> Emmap.chunks!(4 * System.schedulers_online(), trim: true)
      ...>   |> Task.async_stream(measure, ordered: false, timeout: :infinity)
      ...>   |> Enum.reduce(%{}, fn {:ok, part}, all -> Map.merge(all, part, merge) end)
      iex> for {name, {low, high, sum, n}} <- Enum.sort(stations), do: {name, low, sum / n, high}
      [{"Hull", 9.5, 9.5, 9.5}, {"Oslo", -3.4, 1.3, 6.0}, {"Quito", 14.0, 14.75, 15.5}]

  ## Writing

  A stream of a path, or of a writable handle, is `Collectable`: collected elements (iodata) are appended,
  where `File.stream!/3` would empty the file first; a file that does not exist is created. `:start` and
  `:length` have no effect.

  Each element is copied when it is collected, so a live line is written as it was then. An element whose map has lost
  it raises `Emmap.Error` with the error of that map. The elements are written in blocks of 64 KiB and at the end, also
  when the enumeration raises.

  Each block of a path, or of a handle opened with `:append`, goes to the end of the file, also where others append. On
  any other handle only one process should append at a time, because each block is written at the end that the process
  found.

      iex> path = Path.join(System.tmp_dir!(), "emmap_collect.txt")
      iex> File.write!(path, "one\\n")
      iex> _ = Enum.into(["two\\n", ["three", ?\\n]], Emmap.stream!(path))
      iex> File.read!(path)
      "one\\ntwo\\nthree\\n"

  The fields `:start` and `:length` (bytes) may be read; the others are private.
  """
  @moduledoc since: "1.0.0-rc.0"

  import Emmap.Handle, only: [handle: 1]
  alias Emmap.Handle
  alias Emmap.Stream.{Options, Reader}

  @enforce_keys [:source, :mode]
  defstruct [
    :source,
    :mode,
    :live,
    :encoding,
    start: 0,
    length: :infinity,
    trim: false,
    trim_bom: false
  ]

  @typedoc "Lines, or pieces of so many bytes."
  @type mode :: :line | pos_integer
  @typedoc "See `Emmap.stream!/3`; `:start` and `:length` are bytes."
  @type option ::
          {:trim, boolean}
          | {:live, boolean}
          | {:copy, boolean}
          | {:start, non_neg_integer}
          | {:length, non_neg_integer | :infinity}
          | {:trim_bom, boolean}
          | {:encoding, :unicode.encoding()}
  @typedoc "A stream: `:start` and `:length` may be read."
  @type t :: %__MODULE__{
          source: Emmap.t() | binary,
          mode: mode,
          start: non_neg_integer,
          length: non_neg_integer | :infinity,
          trim: boolean,
          trim_bom: boolean,
          encoding: :unicode.encoding() | nil,
          live: boolean | nil
        }

  @doc false
  @spec new!(Emmap.t() | Path.t() | :file.name_all(), mode, [option]) :: t
  def new!(source, mode, options) do
    struct!(__MODULE__, [source: source!(source), mode: mode] ++ Options.stream!(mode, options))
  end

  @doc false
  @spec chunks!(Emmap.t() | Path.t() | :file.name_all(), pos_integer, [
          option | {:split, <<_::8>>} | {:record, pos_integer}
        ]) :: [t]
  def chunks!(handle(_) = mem, count, options) do
    {split, options} = Options.chunks!(count, options)
    stream = new!(mem, if(is_integer(split), do: split, else: :line), options)

    for {from, to} <- Reader.ranges!(stream, count, split),
        do: %{stream | start: from, length: to - from}
  end

  # Mapped once: its handle goes with the last of the streams.
  def chunks!(path, count, options) when is_binary(path) or is_list(path) do
    {split, rest} = Options.chunks!(count, options)
    # What is wrong in them is the caller's, whether there is a file or not.
    _ = new!(path, if(is_integer(split), do: split, else: :line), rest)
    chunks!(Emmap.open!(path, []), count, options)
  end

  def chunks!(other, _count, _options) do
    raise ArgumentError,
          "chunks are made of a path or of an open Emmap handle, got #{inspect(other)}#{Handle.meant(other)}"
  end

  defp source!(handle(_) = mem), do: mem
  defp source!(path) when is_binary(path) or is_list(path), do: Emmap.Path.bytes!(path)

  defp source!(other) do
    raise ArgumentError,
          "a stream is made of a path or of an open Emmap handle, got #{inspect(other)}#{Handle.meant(other)}"
  end

  defimpl Enumerable do
    def reduce(_stream, {:halt, acc}, _fun), do: {:halted, acc}

    # Nothing is opened before the first element is asked for.
    def reduce(stream, {:suspend, acc}, fun), do: {:suspended, acc, &reduce(stream, &1, fun)}

    def reduce(%{encoding: encoding} = stream, acc, fun) when encoding != nil,
      do: Enumerable.reduce(Emmap.Stream.Decoder.strings(stream), acc, fun)

    def reduce(stream, acc, fun), do: resume([], Reader.open!(stream), acc, fun)

    # Words: half a megabyte, in which a batch of lines is garbage before it meets a collection. Measured
    # on a reduce: 44 ns a line with the heap as it grows by itself, 29 with this.
    @heap 65_536

    # A collection needs room for the old heap and the new one, which may be the next larger size.
    @room 16 * @heap

    # For the time of the enumeration; the process gets back what it had.
    defp resume(elements, reader, acc, fun) do
      words = Emmap.HeapRoom.words()
      reader = Reader.limit(reader, words)

      if words >= @room,
        do: on_large_heap(elements, reader, acc, fun),
        else: run(elements, reader, acc, fun)
    end

    defp on_large_heap(elements, reader, acc, fun) do
      before = Process.flag(:min_heap_size, @heap)
      if before > @heap, do: Process.flag(:min_heap_size, before)

      try do
        run(elements, reader, acc, fun)
      after
        Process.flag(:min_heap_size, before)
      end
    end

    # However the enumeration ends, a map of its own is closed.
    defp run(elements, reader, acc, fun) do
      go(acc, elements, fun, reader)
    catch
      kind, reason ->
        Reader.close(reader)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      {:suspended, acc, elements, reader} ->
        {:suspended, acc, &resume(elements, reader, &1, fun)}

      ended ->
        Reader.close(reader)
        ended
    end

    defp go({:cont, acc}, elements, fun, reader), do: each(elements, acc, fun, reader)
    defp go({:halt, acc}, _elements, _fun, _reader), do: {:halted, acc}
    defp go({:suspend, acc}, elements, _fun, reader), do: {:suspended, acc, elements, reader}

    # The loop over every line: no more in it than there must be.
    defp each([element | rest], acc, fun, reader) do
      case fun.(element, acc) do
        {:cont, acc} -> each(rest, acc, fun, reader)
        other -> go(other, rest, fun, reader)
      end
    end

    defp each([], acc, fun, reader) do
      case Reader.next!(reader) do
        {elements, reader} -> each(elements, acc, fun, reader)
        :done -> {:done, acc}
      end
    end

    # What is decoded may not be what it should be.
    def count(%{encoding: encoding}) when encoding != nil, do: {:error, __MODULE__}
    def count(stream), do: {:ok, Reader.count!(stream)}
    def member?(_stream, _value), do: {:error, __MODULE__}
    def slice(_stream), do: {:error, __MODULE__}
  end

  defimpl Collectable do
    alias Emmap.Stream.Writer

    def into(%{source: source} = stream) do
      collect = fn
        writer, {:cont, data} ->
          Writer.write!(writer, data)

        writer, :done ->
          Writer.close!(writer)
          stream

        writer, :halt ->
          Writer.close!(writer)
      end

      {Writer.open!(source), collect}
    end
  end
end
