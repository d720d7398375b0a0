defmodule Emmap.Stream do
  @moduledoc """
  A stream of the lines or chunks of a file, as `Emmap.stream!/3` and `Emmap.chunks!/3` return it.

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

    * A stream that `Emmap.stream!/3` made of a *path* maps the file at each enumeration, read-only, and closes it
      afterwards, even if the enumeration is halted or raises. (`Emmap.chunks!/3` maps a path once, for all its streams.) A stream of a *handle* reads the handle's map
      and does not move its cursor, so others may use the handle at the same time.
    * Lines are the same bytes as those of `File.stream!/3`: they include the newline, and CRLF becomes LF. The last
      line may have no newline.
    * By default, lines and chunks are **copies**, as `pread/3` returns them: they do not change when the file
      changes, and do not keep the file mapped. Copies of up to 64 bytes are on the heap of the process; longer ones
      are separate binaries. On a `:direct` handle, or with `live: true`, lines and chunks are **live** binaries
      instead: see [Live lines](#module-live-lines).
    * The stream ends where the map ended when the enumeration began, or at `:start` + `:length`. Bytes by which the map
      grows later are not part of the stream. If `Emmap.resize/2` shrinks the map, the stream ends earlier.
    * System errors raise `Emmap.Error`: an error from opening the file; `:closed` if the handle is closed during the
      enumeration; `:estale` (or another reason that `Emmap.reattach/1` lists) if pages of the map were lost, or if the
      file is shorter than the map when the enumeration begins.
    * Streams do not take the lock of `pread/3` and `pwrite/3`: a line that another process writes at the same time may
      be partly old and partly new. A copied line does not change after that.

  ## What it costs

  One call of native code returns up to 1,024 lines and looks at 128 KiB at most. Longer lines, and chunks of more
  than 64 KiB, are searched and copied on a dirty CPU scheduler, in steps of a few milliseconds. If the process is
  killed or the handle is closed, this work ends after the current step. Holes of a file read as zeros and contain no
  newline, so in a line longer than 1 MiB they are skipped (except on FUSE, and in private maps). Pages are read from
  the disk 8 MiB ahead, on a dirty I/O scheduler. Therefore no scheduler is blocked, regardless of the length of a
  line and the speed of the disk. During an enumeration, the process has a heap of at least 512 KiB
  (`:min_heap_size`), which reduces the cost of a line by a third. If the `:max_heap_size` leaves the process less
  than 8 MiB to grow by, its heap is left as it is and the batches are smaller; for short lines, a `:max_heap_size` of
  10,000 words is enough.

  Memory use stays flat: a stream of a path unmaps the pages that it has already read, and leaves them to the page
  cache. When its enumeration ends, the file is released: its descriptor, its pages, and its disk space if it was
  deleted. (With `live: true`, the pages stay until the last live line is collected.)

  `Enum.count/1` of lines is one search for newlines, on dirty CPU schedulers. For chunks, it is a division.

  ## Live lines

  `live: true` makes lines and chunks live, even for a path. A `:direct` handle does the same. `copy: true` (or
  `live: false`) makes copies from a `:direct` handle. `live: true` with `copy: true` raises `ArgumentError`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_live_lines.txt")
      iex> File.write!(path, ["one ", String.duplicate(".", 100), "\\n"])
      iex> mem = Emmap.open!(path, [:write, :direct])
      iex> [live] = Enum.to_list(Emmap.stream!(mem))
      iex> [copied] = Enum.to_list(Emmap.stream!(mem, copy: true))
      iex> :ok = Emmap.pwrite(mem, 0, "ONE")
      iex> {binary_part(live, 0, 3), binary_part(copied, 0, 3)}
      {"ONE", "one"}

  Some lines are copied even then: lines that end in CRLF (except with `trim: true`); from OTP 27 on, lines and chunks of
  up to 64 bytes; before OTP 27, those of up to 24 bytes, after the process has collected its garbage. So `live: true` is
  worthwhile for long lines and large chunks, and saves little for short ones. Live lines have the limits of every live
  binary (see "Live binaries" in `Emmap`):

    * A live line changes with the file. Do not use it as a key of a map or of ETS. To keep a line, copy it
      (`:binary.copy/1`).
    * One live line keeps the whole map mapped.
    * Do not pass a live line to a [function that reads twice](live-binaries.md#functions-that-read-twice), such as
      `:binary.split(line, ";")` or `String.split(line, ";")`, whose pattern has one byte. These functions are safe on
      copied lines.

  ## In parallel

  `Emmap.chunks!/3` splits a map at line ends, so that each core reads a part of it. This example computes the lowest,
  mean and highest temperature of each station in a file of `Station;Temperature` lines:

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

  A stream of a path, or of a writable handle, is `Collectable`: collected elements (iodata) are appended
  (`File.stream!/3` would empty the file first). A file that does not exist is created. `:start` and
  `:length` have no effect.

  Each element is copied when it is collected, so a live line is written as it is at that time. If an element is a
  live binary whose pages were lost, `Emmap.Error` is raised with the error of that binary's map. The elements are
  written in blocks of 64 KiB; the rest is written at the end, even if the enumeration raises.

  For a path, or a handle opened with `:append`, each block goes to the end of the file, even if others append at the
  same time. For any other handle, only one process should append at a time, because each block is written where the
  process last saw the end of the file.

      iex> path = Path.join(System.tmp_dir!(), "emmap_collect.txt")
      iex> File.write!(path, "one\\n")
      iex> _ = Enum.into(["two\\n", ["three", ?\\n]], Emmap.stream!(path))
      iex> File.read!(path)
      "one\\ntwo\\nthree\\n"

  The fields `:start` and `:length` (bytes) may be read; the others are private.
  """

  import Emmap.Handle, only: [handle: 1]
  import Emmap.Path, only: [is_path: 1]
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

  @typedoc "Lines, or chunks of this many bytes."
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

  # Mapped once: the handle is closed when the last of the streams is collected.
  def chunks!(path, count, options) when is_path(path) do
    {split, rest} = Options.chunks!(count, options)
    # Invalid options raise, whether the file exists or not.
    _ = new!(path, if(is_integer(split), do: split, else: :line), rest)
    chunks!(Emmap.open!(path, []), count, options)
  end

  def chunks!(other, _count, _options) do
    raise ArgumentError,
          "chunks need a path or an open Emmap handle, got #{inspect(other)}#{Handle.meant(other)}"
  end

  defp source!(handle(_) = mem), do: mem
  defp source!(path) when is_path(path), do: Emmap.Path.bytes!(path)

  defp source!(other) do
    raise ArgumentError,
          "a stream needs a path or an open Emmap handle, got #{inspect(other)}#{Handle.meant(other)}"
  end

  defimpl Enumerable do
    def reduce(_stream, {:halt, acc}, _fun), do: {:halted, acc}

    # Nothing is opened until the first element is requested.
    def reduce(stream, {:suspend, acc}, fun), do: {:suspended, acc, &reduce(stream, &1, fun)}

    def reduce(%{encoding: encoding} = stream, acc, fun) when encoding != nil,
      do: Enumerable.reduce(Emmap.Stream.Decoder.strings(stream), acc, fun)

    def reduce(stream, acc, fun), do: resume([], Reader.open!(stream), acc, fun)

    # In words: half a megabyte, so that a batch of lines is garbage before the next collection. Measured
    # on a reduce: 44 ns per line with the default heap, 29 ns with this one.
    @heap 65_536

    # A collection needs room for the old heap and the new one, which may be the next larger size.
    @room 16 * @heap

    # During the enumeration; afterwards the process gets its previous settings back.
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

    # However the enumeration ends, a map that was opened for it is closed.
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

    # The loop over every line: keep it minimal.
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

    # Decoding may fail, so the strings have to be decoded to be counted.
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
