defmodule Emmap.Inspection do
  @moduledoc """
  Inspects a file without changing it: its format, its contents, and whether it is intact.

  It returns what `mix emmap.inspect` prints, for programs and for releases, where Mix is not available:

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_inspected.cnt")
      iex> _ = File.rm(path)
      iex> counters = Emmap.Counters.open!(path, [:requests, :errors])
      iex> Emmap.Counters.add(counters, :requests, 12)
      iex> {:ok, report} = Emmap.Inspection.file(path)
      iex> {report.format, report.status, report.contents.sum}
      {:counters, :intact, 12}
      iex> Emmap.Inspection.text(report) =~ "counters, version 1, intact"
      true

  Counter files (also those of saleyn/emmap, the earlier library), queues, blocks, tables, mutexes and the control files of
  snapshots are recognized by their first bytes, even if one bit of these is wrong. `.npy` and `.safetensors` files are recognized, too. Anything else is a plain file. Others may use the file at the same time.
  """

  import Emmap.Handle, only: [handle: 1]

  alias Emmap.OptionList

  alias Emmap.Inspection.{
    BlocksFile,
    CounterFile,
    DynamicCounterFile,
    Json,
    MutexFile,
    NpyFile,
    Plain,
    PredecessorCounters,
    QueueFile,
    SafetensorsFile,
    SnapshotFile,
    Source,
    TableFile,
    Text
  }

  # Tried in this order. A new format is a module of the behaviour `Emmap.Inspection.Format`. `Plain` comes last, because it
  # accepts every file.
  @formats [
    predecessor_counters: PredecessorCounters,
    counters: CounterFile,
    dynamic_counters: DynamicCounterFile,
    queue: QueueFile,
    blocks: BlocksFile,
    table: TableFile,
    mutex: MutexFile,
    snapshot: SnapshotFile,
    npy: NpyFile,
    safetensors: SafetensorsFile,
    plain: Plain
  ]

  @typedoc """
  A place where the file is not as it should be.

    * `:at`, `:bytes` – its position from the start of the file and its length, in bytes
    * `:severity` – `:damage`; `:unknown`, a version or byte order that this version of Emmap does not read; or `:note`,
      something harmless, such as the traces of a growth that a crash interrupted
    * `:message` – a description
  """
  @type problem :: %{
          at: Emmap.position(),
          bytes: non_neg_integer,
          severity: :note | :unknown | :damage,
          message: String.t()
        }

  @typedoc """
  What is known about a file, as maps, lists, atoms, strings and integers.

    * `:path`, `:title` – its name as it was given, and a description of its format
    * `:format` – `:counters`, `:dynamic_counters`, `:predecessor_counters`, `:queue`, `:blocks`, `:table`, `:mutex`, `:snapshot`,
      `:npy`, `:safetensors` or `:plain`
    * `:status` – `:damaged` if it has a problem of severity `:damage`, otherwise `:unknown` if it has one of severity
      `:unknown`, otherwise `:intact`
    * `:bad_format` – the reason if `Emmap.Counters.open/3`, `Emmap.Queue.open/2`, `Emmap.Blocks.open/2`, `Emmap.Table.open/2`,
      `Emmap.Array.open/3`, `Emmap.Mutex.open/2`, `Emmap.Snapshot.open/2` or `Emmap.Safetensors.open/1` returns `{:error, {:bad_format, why}}`, otherwise `nil`
    * `:size`, `:allocated` – its size, and the size of its blocks on the disk, in bytes; the latter is smaller if the
      file has holes
    * `:pages` – `:page_size` in bytes; `:count` and `:resident`, how many pages it has and how many of them are in
      memory; and `:parts`, the same for parts of about equal size, from its start. Counted before anything was read.
      In a file of more than 4,194,304 pages (16 GiB), pages in a hole count as not in memory. For a file that the
      VM's user may not write to, Linux reports all pages as in memory.
    * `:headers` – for each: `:at`, `:bytes`, `:state` and `:fields`, as in [Formats](formats.md)
    * `:contents` – `nil` if the headers do not describe them. For counters: `:count`, `:named`, `:write_concurrency`,
      `:sum` (not wrapped), `:not_zero` (how many), `:largest`, `:smallest` and the first `:values` as
      `%{key: name_or_index, value: integer}`. For dynamic counters also `:end`, and the fields of the control area
      `:lock`, `:log`, `:recoveries`, `:dropped`. For a queue: its `:streams`, `:cursors` and `:segment_count`, its first
      `:segments`, whether it was `:closed`, and the fields of the control area `:lock`, `:log`, `:dropped`, `:recoveries`,
      `:recovered_items`, `:dropped_bytes`, as in [Formats](formats.md). For blocks: `:count`, `:capacity`, `:held`,
      `:replaced`, `:blocks_checked`, whether they were `:closed`, the first `:groups`, and the fields of the control area `:lock`,
      `:log`, `:recoveries`, `:kept`, `:dropped`. For a table: `:count`, the `:format` of keys and values, whether it is
      `:sorted`, `:records_size` and `:index_size` in bytes, `:blocks_checked`, whether those were all blocks (`:all_checked`), and the first
      `:keys` as `%{at: position, key: key, bytes: length_of_the_value}`. For a `.npy` file: the `:count` of elements, the `:stride` from
      one to the next and the position of the `:first` in bytes, the `:fields` as `%{name: name, type: type}`, and the first `:values` as text. For a
      `.safetensors` file: the `:count` and the `:bytes` of all tensors, its `:metadata` as `%{key: key, value: value}`, and the first `:tensors`. For a plain file: its `:first_bytes` in hexadecimal. For a mutex: `:lock`, `:abandoned`. For the control file of a snapshot also `:generation`, the `:bytes` of its file, and `:synced`
    * `:problems` – in the order in which they were found
  """
  @type report :: %{
          path: binary,
          title: String.t(),
          format:
            :counters
            | :dynamic_counters
            | :predecessor_counters
            | :queue
            | :blocks
            | :table
            | :mutex
            | :snapshot
            | :npy
            | :safetensors
            | :plain,
          status: :intact | :unknown | :damaged,
          bad_format: atom | nil,
          size: non_neg_integer,
          allocated: non_neg_integer | nil,
          pages: map,
          headers: [map],
          contents: map | nil,
          problems: [problem]
        }

  @typedoc "How much is in a report: see `file/2`."
  @type option :: {:values, non_neg_integer | :infinity} | {:parts, 1..1000}

  @options [
    values: {&__MODULE__.values?/1, "a number from 0 | :infinity"},
    parts: {&__MODULE__.parts?/1, "1 to 1000"}
  ]

  @doc """
  Reports on a file. It writes nothing and takes no lock.

  Options:

  * `values: n` – lists up to `n` counters, segments of a queue, groups of blocks, keys of a table, elements of a `.npy`
    file or tensors (default 20; `:infinity` lists all)
  * `parts: n` – divides the file into `n` parts and counts the pages in memory of each (default 32; at most 1,000)

  The errors are those of `Emmap.open/2`, such as `:enoent`, `:eacces`, `:eisdir`, `:enodev` (a device, FIFO or socket);
  and `:estale` if the file was truncated while it was read. For a damaged file, the result is a report, not an error.

  For a queue, 8 MiB of records are compared with their checksums, starting with the oldest item; with
  `values: :infinity`, all of them. For blocks, the same is done from the first block on, and for a table with 8 MiB of the file. If problems are found and
  another process has changed the file during the reading, the file is read again, up to twice. If the last reading
  was also disturbed, its problems are reported as notes.

  It reads all counters, in pieces of at most 1 MiB, and their names, of which a file has at most 16 MiB. Of a
  plain file, it reads only the first bytes. Holes are not read, because they are zeros: a small file with a large hole
  costs neither time nor memory, except with `values: :infinity`, which also lists the counters in holes.
  """
  @doc group: "Inspecting"
  @spec file(Path.t() | :file.name_all(), [option]) :: {:ok, report} | Emmap.failure()
  def file(path, options \\ []) do
    given = OptionList.check!(options, @options)
    {values, parts} = {Map.get(given, :values, 20), Map.get(given, :parts, 32)}
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
  Returns a report as text for people, as lines without a final newline. Control characters in names and paths
  are escaped.
  """
  @doc group: "Inspecting"
  @spec text(report) :: String.t()
  def text(report), do: Text.of(report, Keyword.fetch!(@formats, report.format))

  @doc """
  Returns a report as JSON, on one line. Atoms become strings, and integers are exact at any size. Bytes of names
  and paths that are not UTF-8 become U+FFFD.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_plain.bin")
      iex> File.write!(path, "hello")
      iex> {:ok, report} = Emmap.Inspection.file(path)
      iex> Emmap.Inspection.json(report) =~ ~s("format":"plain")
      true
  """
  @doc group: "Inspecting"
  @spec json(report | map) :: String.t()
  def json(report), do: report |> Json.encode() |> IO.iodata_to_binary()

  # The pages are counted first, because everything that is read comes into memory.
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
      true -> :intact
    end
  end

  @doc false
  def values?(values), do: values == :infinity or (is_integer(values) and values >= 0)
  @doc false
  def parts?(parts), do: parts in 1..1000
end
