defmodule Emmap.Inspection do
  @moduledoc """
  Looks at a file without changing it: what it is, what is in it, and whether it is sound.

  What `mix emmap.inspect` prints, for programs and for releases, where there is no Mix:

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_inspected.cnt")
      iex> _ = File.rm(path)
      iex> counters = Emmap.Counters.open!(path, [:requests, :errors])
      iex> Emmap.Counters.add(counters, :requests, 12)
      iex> {:ok, report} = Emmap.Inspection.file(path)
      iex> {report.format, report.status, report.contents.sum}
      {:counters, :sound, 12}
      iex> Emmap.Inspection.text(report) =~ "counters, version 1, sound"
      true

  Counter files, those of the predecessor, queues, blocks, and plain files are told apart by their first bytes, also when
  one bit of those is wrong. Others may go on using the file meanwhile.
  """
  @moduledoc since: "1.0.0-rc.0"

  import Emmap.Handle, only: [handle: 1]

  alias Emmap.Inspection.{
    BlocksFile,
    CounterFile,
    Json,
    Plain,
    PredecessorCounters,
    QueueFile,
    Source,
    Text
  }

  # Asked in this order. A new format is a module of `Emmap.Inspection.Format`, before `Plain`, which takes every file.
  @formats [
    predecessor_counters: PredecessorCounters,
    counters: CounterFile,
    queue: QueueFile,
    blocks: BlocksFile,
    plain: Plain
  ]

  @typedoc """
  Where something is not as it should be.

    * `:at`, `:bytes` – where, in bytes from the start of the file, and how many of them
    * `:severity` – `:damage`; `:unknown`, of a version or byte order that this Emmap does not read; or
      `:note`, what does no harm, such as the traces of a growth that a crash cut short
    * `:message` – what it is, in words
  """
  @type problem :: %{
          at: Emmap.position(),
          bytes: non_neg_integer,
          severity: :note | :unknown | :damage,
          message: String.t()
        }

  @typedoc """
  What there is to know about a file. All of it is maps, lists, atoms, strings and integers.

    * `:path`, `:title` – its name as it was given, and what it is in words
    * `:format` – `:counters`, `:predecessor_counters`, `:queue`, `:blocks` or `:plain`
    * `:status` – that of its worst problem: `:sound`, `:unknown` or `:damaged`
    * `:bad_format` – why `Emmap.Counters.open/3`, `Emmap.Queue.open/2` or `Emmap.Blocks.open/2` returns `{:error, {:bad_format, why}}`; `nil` if it does not
    * `:size`, `:allocated` – bytes, and the bytes of its blocks on the disk: fewer where there are holes
    * `:pages` – `:page_size` in bytes; `:count` and `:resident`, how many pages it has, and how many of
      them are in memory; `:parts`, the same for parts of it of about the same size, from its start on.
      Counted before anything was read. In a file of more than 4,194,304 pages (16 GiB), pages of a hole
      count as not in memory. Of a file that one may not write Linux says that all is in memory.
    * `:headers` – for each: `:at`, `:bytes`, `:state` and `:fields`, as in [Formats](formats.md)
    * `:contents` – of counters: `:count`, `:named`, `:write_concurrency`, `:sum` (not wrapped), `:not_zero`
      (how many), `:largest`, `:smallest` and the first `:values` as `%{key: name_or_index, value: integer}`;
      of a queue its `:streams`, `:cursors` and `:segment_count`, its first `:segments`, whether it was `:closed`, and the words
      `:lock`, `:log`, `:dropped`, `:recoveries`, `:recovered_items`, `:dropped_bytes`, as in [Formats](formats.md);
      of blocks `:count`, `:capacity`, `:held`, `:replaced`, `:blocks_checked`, whether they were `:closed`, its first `:groups`, and the words
      `:lock`, `:log`, `:recoveries`, `:kept`, `:dropped`;
      of a plain file its `:first_bytes` in hexadecimal; `nil` where the headers do not say where it is
    * `:problems` – in the order in which they were found
  """
  @type report :: %{
          path: binary,
          title: String.t(),
          format: :counters | :predecessor_counters | :queue | :blocks | :plain,
          status: :sound | :unknown | :damaged,
          bad_format: Emmap.Counters.bad_format() | nil,
          size: non_neg_integer,
          allocated: non_neg_integer | nil,
          pages: map,
          headers: [map],
          contents: map | nil,
          problems: [problem]
        }

  @typedoc "How much is in a report: see `file/2`."
  @type option :: {:values, non_neg_integer | :infinity} | {:parts, 1..1000}

  @doc """
  Reports on a file. Nothing is written, and no lock is taken.

  Options: `values: n`, how many counters are listed one by one (20; `:infinity`: all of them); `parts: n`, in
  how many parts pages are counted (32; at most 1,000).

  Errors: those of `Emmap.open/2`: `:enoent`, `:eacces`, `:eisdir`, `:enodev` (a device, FIFO or socket), and
  `:estale` when the file was truncated while it was read. For a damaged file the result is a report, not an error.

  Of a queue, 8 MiB of records are compared with their checksums, from the oldest item on; with `values: :infinity` all of them. Of blocks likewise, from the first block on.
  Others may use it meanwhile: it is read again if it changed, and then the problems are notes.

  Reads all counters, in pieces of at most 1 MiB, and their names, of which a file has at most 16 MiB; of a
  plain file, no more than its first bytes. Holes are zeros, and are not read: a small file with a large hole
  costs neither time nor memory, except with `values: :infinity`, which lists the counters of holes, too.
  """
  @doc group: "Inspecting", since: "1.0.0-rc.0"
  @spec file(Path.t() | :file.name_all(), [option]) :: {:ok, report} | Emmap.failure()
  def file(path, options \\ []) do
    {values, parts} = options!(options)
    path = Emmap.Path.bytes!(path)

    with {:ok, mem} <- Emmap.open(path) do
      try do
        report(mem, path, values, parts)
      after
        Emmap.close(mem)
      end
    end
  end

  @doc """
  A report as text for people, in lines, without a newline at the end. Names and paths with control
  characters are escaped.
  """
  @doc group: "Inspecting", since: "1.0.0-rc.0"
  @spec text(report) :: String.t()
  def text(report), do: Text.of(report, Keyword.fetch!(@formats, report.format))

  @doc """
  A report as JSON, on one line. Atoms are strings, and integers are exact, however large. Bytes of names
  and paths that are not UTF-8 become U+FFFD.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_plain.bin")
      iex> File.write!(path, "hello")
      iex> {:ok, report} = Emmap.Inspection.file(path)
      iex> Emmap.Inspection.json(report) =~ ~s("format":"plain")
      true
  """
  @doc group: "Inspecting", since: "1.0.0-rc.0"
  @spec json(report | map) :: String.t()
  def json(report), do: report |> Json.encode() |> IO.iodata_to_binary()

  # First of all the pages, for whatever is read comes into memory.
  defp report(mem, path, values, parts) do
    with {:ok, pages, info} <- pages(mem, parts) do
      source = %Source{mem: mem, path: path, size: info.size}

      {format, description} =
        Enum.find_value(@formats, fn {name, format} ->
          with %{} = description <- format.describe(source, values), do: {name, description}
        end)

      {:ok,
       Map.merge(description, %{
         path: path,
         format: format,
         status: status(description.problems),
         size: info.size,
         allocated: info.allocated,
         pages: pages
       })}
    end
  rescue
    # Raised by Source: the file was truncated, or its disk failed.
    error in Emmap.Error -> {:error, error.reason}
  end

  defp pages(handle(ref), parts) do
    with {:ok, residency} <- Emmap.Info.residency(ref, parts),
         {:ok, info} <- Emmap.Info.brief(ref) do
      info = Map.put(info, :allocated, Emmap.Info.allocated(ref))
      parts = for {count, resident} <- residency, do: %{count: count, resident: resident}

      [count, resident] =
        for key <- [:count, :resident], do: parts |> Enum.map(& &1[key]) |> Enum.sum()

      {:ok, %{page_size: info.page_size, count: count, resident: resident, parts: parts}, info}
    end
  end

  defp status(problems) do
    severities = Enum.map(problems, & &1.severity)

    cond do
      :damage in severities -> :damaged
      :unknown in severities -> :unknown
      true -> :sound
    end
  end

  defp options!(options) do
    with true <- Keyword.keyword?(options),
         [] <- Keyword.drop(options, [:values, :parts]),
         {values, parts} = {Keyword.get(options, :values, 20), Keyword.get(options, :parts, 32)},
         true <- values == :infinity or (is_integer(values) and values >= 0),
         true <- is_integer(parts) and parts in 1..1000 do
      {values, parts}
    else
      _ ->
        raise ArgumentError,
              "options are values: n (or :infinity) and parts: 1 to 1000, got #{inspect(options)}"
    end
  end
end
