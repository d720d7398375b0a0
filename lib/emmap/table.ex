defmodule Emmap.Table do
  @moduledoc """
  A lookup table in a file: built once from any enumerable of `{key, value}`, then opened in constant time and read by any
  number of processes and VMs.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.table")
      iex> {:ok, %{count: 3}} = Emmap.Table.build(path, %{"fr" => "France", "de" => "Germany", "it" => "Italy"})
      iex> {:ok, table} = Emmap.Table.open(path)
      iex> Emmap.Table.get(table, "fr")
      "France"
      iex> Emmap.Table.fetch(table, "xx")
      :error
      iex> table["de"]
      "Germany"
      iex> Emmap.Table.count(table)
      3
      iex> Emmap.Table.close(table)
      :ok

  Nothing is loaded: a lookup reads the file's pages in the page cache, which all processes and VMs of the machine share.
  The heap, ETS and `persistent_term` stay empty, and a new version of the data costs no garbage collection.

  ## The contract

    * A table is never changed. To replace it, build it again under the same path: the new file replaces the old one in
      one step, when it is complete and on the disk. Tables that are open keep the old file until they are closed; open
      the path again to read the new one.
    * A key is a binary of at most 65,535 bytes, or with `format: :term` any term whose external format is that short.
      Keys are compared by their bytes, so `1` and `1.0` are different keys: see [Terms](#module-terms).
    * A value of more than 64 bytes is a live binary: it is the file's memory, returned in constant time, and keeps the map
      in memory. A shorter one is a copy. With `format: :term`, each lookup decodes a copy of the value.
    * All records have checksums. A lookup compares the checksum of each value that it copies or decodes. Only `check/1`
      checks the checksums of live binaries, and whether a key was not found because of damage.
    * The file must not be written to while it is open. If it is truncated, lookups raise `Emmap.Error` with the reason
      `:estale`, and live binaries read as zeros past the new end: see [Reliability](reliability.md).

  ## Sorted tables

  A table that was built with `sorted: true` has its records in the order of its keys, compared byte by byte, as `<` compares
  binaries. `range/3` and `prefix/2` read only such tables, and all streams are in this order.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_sorted.table")
      iex> {:ok, _} = Emmap.Table.build(path, [{"b/2", "2"}, {"a", "0"}, {"b/1", "1"}], sorted: true)
      iex> table = Emmap.Table.open!(path)
      iex> table |> Emmap.Table.prefix("b/") |> Enum.to_list()
      [{"b/1", "1"}, {"b/2", "2"}]
      iex> table |> Emmap.Table.range("a", "b/1") |> Enum.to_list()
      [{"a", "0"}, {"b/1", "1"}]
      iex> Enum.to_list(Emmap.Table.keys(table))
      ["a", "b/1", "b/2"]

  ## Terms

  With `format: :term`, keys and values are terms; with `format: {:binary, :term}`, only the values are.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_terms.table")
      iex> {:ok, _} = Emmap.Table.build(path, [{{:user, 1}, %{name: "Ada"}}], format: :term)
      iex> path |> Emmap.Table.open!() |> Emmap.Table.get({:user, 1})
      %{name: "Ada"}

  The key is found by its external format (`:erlang.term_to_binary/2` with `:deterministic` and `minor_version: 2`). So `1`
  and `1.0` are different keys, as in a map, and so are `0.0` and `-0.0`, in every version of OTP. Maps are encoded in the
  order of their keys. Functions, pids, ports and references have a different external format in another VM, so do not
  use them in keys.

  ## Errors

  Lookups and streams return plain values. They raise `Emmap.Error` with one of these reasons:

    * `:closed` – the table was closed
    * `{:corrupt, position}` – the file is damaged at this position, in bytes
    * the reasons for lost pages that `Emmap.reattach/1` lists

  A key that is not a binary, for a table of binary keys, raises `ArgumentError`.

  ## Costs

  A lookup takes constant time. It reads one cache line of the index and, for a key that exists, those of the record:
  one or two for a short record. The file needs, in addition to the keys and values, about 18 bytes per record.
  """

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Handle, Native, OptionList, Structure}
  alias Emmap.Table.{Build, Format, Reader}

  @behaviour Access

  @enforce_keys [:ref, :path]
  defstruct [
    :ref,
    :path,
    :root,
    count: 0,
    sorted: false,
    format: {:binary, :binary},
    to_term: [:safe]
  ]

  @typedoc "An opened table, valid in every process of this node. `:path` and `:sorted` may be read."
  @type t :: %__MODULE__{}
  @typedoc "A key: a binary, or a term if the table was built with that `:format`."
  @type key :: term
  @typedoc "A value: a binary, or a term if the table was built with that `:format`."
  @type value :: term
  @typedoc "Why a file is not opened: see `open/2`."
  @type bad_format :: :kind | :version | :length | :checksum
  @typedoc "Why a file is not opened: a POSIX atom, or why its contents are invalid."
  @type reason :: :file.posix() | {:bad_format, bad_format}
  @typedoc "What keys and values are: see `build/3`."
  @type format :: :binary | :term | {:binary, :term} | {:term, :binary}
  @typedoc "What the progress function of `build/3` gets."
  @type progress :: %{
          phase: :reading | :sorting | :merging | :indexing | :publishing,
          done: non_neg_integer,
          total: non_neg_integer | nil
        }
  @typedoc "See `build/3`."
  @type option ::
          {:format, format}
          | {:sorted, boolean}
          | {:duplicates, :last | :first | :error}
          | {:replace, boolean}
          | {:progress, (progress -> term)}
          | {:memory, pos_integer}
          | {:seed, non_neg_integer}

  # Building

  @doc """
  Builds a table in a file from an enumerable of `{key, value}`. Returns `{:ok, %{count: n, duplicates: n, size:
  bytes}}`: the number of records in the table, how many were dropped because another record has the same key, and the
  size of the file.

  The enumerable is read once, in the calling process. Records that do not fit in `:memory` are sorted in temporary
  files, in the directory of the file. They need about as much space as the new file. The file gets its name when it is
  complete and on the disk. If the call fails, raises, or its process is killed, the file is not created or replaced,
  and nothing is left behind. If the VM is killed, a temporary file may stay on systems other than Linux: the next build
  of the same file removes it.

  Options, with their defaults:

    * `format: :binary` – keys and values are binaries. With `:term`, both are terms; `{:binary, :term}` and
      `{:term, :binary}` are the format of the keys and that of the values
    * `sorted: false` – with `true`, the records are stored in the order of their keys, which must be binaries. Lookups
      take the same time
    * `duplicates: :last` – of several records with the same key, the last one is kept. `:first` keeps the first one.
      `:error` returns `{:error, {:duplicate, key}}`
    * `replace: true` – an existing file is replaced. With `false`, the result is `{:error, :eexist}`
    * `:progress` – a function that is called in the calling process with a map: the `:phase`, how many records are `:done`,
      and the `:total`, or `nil` while the enumerable is being read. It is called when a phase has begun, and then every
      100 milliseconds. Phases that take a few milliseconds may be left out
    * `memory: 67_108_864` – about how many bytes of native memory the build uses, from 16 MiB to 2 GiB. More memory makes
      a build a little faster if its records take more than 256 times as much
    * `:seed` – the seed of the hash function, a 64-bit integer. By default, it is random, so that users of
      your program cannot choose keys with equal hashes. With a given seed, the same records make the same file

  Errors:

    * a POSIX atom, such as `:enospc`, `:enoent` if the directory does not exist, or `:eacces`
    * `{:duplicate, key}` – see `:duplicates`
    * `:collisions` – too many keys have similar hashes. Build it again with another `:seed`

  An element that is not `{key, value}`, or does not match `:format`, raises `ArgumentError`.
  """
  @doc group: "Building"
  @spec build(Path.t() | :file.name_all(), Enumerable.t(), [option]) ::
          {:ok, Build.counts()}
          | {:error, :file.posix() | {:duplicate, key} | :collisions}
  def build(path, enumerable, options \\ []),
    do: path |> Emmap.Path.bytes!() |> Build.run(enumerable, options)

  # Opening and closing

  @doc """
  Opens a table. Returns `{:ok, table}`.

  Reads only the header, so it takes constant time, whatever the size of the table.

  Options, with their defaults:

    * `safe: true` – terms are decoded as with `:erlang.binary_to_term(binary, [:safe])`: a lookup of a value with an
      unknown atom or an external function raises `ArgumentError`. With `false`, all terms are decoded; use it only for
      files from a source that you trust

  Errors:

    * those of `Emmap.open/2`
    * `{:bad_format, why}` – the file is not a table (`:kind`), has an unknown version (`:version`), is shorter or longer
      than its header says (`:length`), or its header is damaged (`:checksum`)
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), [{:safe, boolean}]) :: {:ok, t} | {:error, reason}
  def open(path, options \\ []) do
    given = OptionList.check!(options, safe: {&is_boolean/1, "true | false"})
    to_term = if Map.get(given, :safe, true), do: [:safe], else: []
    native = &patient(Native.table_open(&1))

    Structure.open(Emmap.Path.bytes!(path), native, fn path, {:ok, ref, root, info} ->
      %__MODULE__{
        ref: ref,
        path: path,
        root: Handle.wrap(root),
        count: info.count,
        sorted: info.sorted,
        format: {part(info.term_keys), part(info.term_values)},
        to_term: to_term
      }
    end)
  end

  defp part(true), do: :term
  defp part(false), do: :binary

  @doc "Same as `open/2`, but returns only the table and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), [{:safe, boolean}]) :: t
  def open!(path, options \\ []), do: path |> open(options) |> Structure.opened!(:table, path)

  @doc """
  Closes the table for all processes that hold it. Later lookups raise `Emmap.Error`; live binaries stay valid.

  A table that no process holds any more is closed by the garbage collector.
  """
  @doc group: "Opening and closing"
  @spec close(t) :: :ok | Emmap.failure()
  def close(table), do: Structure.close(table!(table))

  @doc """
  Repairs a table whose file was truncated or whose disk failed, after the file has been restored: see `Emmap.reattach/1`.

  Returns `{:error, :estale}` if the file is another table now.
  """
  @doc group: "Opening and closing"
  @spec reattach(t) :: :ok | {:error, reason | :closed}
  def reattach(table) do
    table = table!(table)
    patient(Native.table_reattach(table.ref))
  end

  @doc """
  Returns the properties of the table as a map.

  Its keys are:

    * `:path`, `:size` (of the file, in bytes), `:faults` (how often a lost page was accessed)
    * `:count` – the number of records
    * `:format` – `{format of the keys, format of the values}`, each `:binary` or `:term`
    * `:sorted` – whether `range/3` and `prefix/2` can be used
  """
  @doc group: "Opening and closing"
  @spec info(t) :: {:ok, map} | Emmap.failure()
  def info(table) do
    table = table!(table)

    with {:ok, info} <- Structure.info(table),
         do: {:ok, Map.merge(info, Map.take(table, [:count, :format, :sorted]))}
  end

  @doc """
  Compares the whole file with its checksums, and each record with the index. Returns `:ok`, or
  `{:error, {:corrupt, position}}` with the position of the first damage, in bytes.

  It reads the file twice, in steps on a dirty scheduler. Other errors are those of `Emmap.pread/3`.
  """
  @doc group: "Opening and closing"
  @spec check(t) :: :ok | {:error, {:corrupt, non_neg_integer}} | Emmap.failure()
  def check(table), do: check_from(table!(table), {0, 0, 0, 0, 0})

  defp check_from(table, place) do
    case Native.table_check(table.ref, place) do
      {_, _, _, _, _} = place -> check_from(table, place)
      result -> result
    end
  end

  # Lookups

  @doc """
  Returns the value of a key, or `default` if the table does not have the key.
  """
  @doc group: "Lookups"
  @spec get(t, key, default) :: value | default when default: term
  def get(table, key, default \\ nil)

  def get(%__MODULE__{format: {:binary, :binary}, root: nil, ref: ref} = table, key, default) do
    case Native.table_get(ref, nil, key) do
      value when is_binary(value) -> value
      nil -> default
      {:error, reason} -> Reader.failed!(table, reason)
    end
  end

  def get(table, key, default) do
    case fetch(table, key) do
      {:ok, value} -> value
      :error -> default
    end
  end

  @doc """
  Returns `{:ok, value}`, or `:error` if the table does not have the key.
  """
  @doc group: "Lookups"
  @impl Access
  @spec fetch(t, key) :: {:ok, value} | :error
  def fetch(%__MODULE__{ref: ref, root: root, format: {keys, values}} = table, key) do
    case Native.table_get(ref, Handle.root(root), Format.encode_key!(keys, key)) do
      value when is_binary(value) -> {:ok, Format.decode(values, value, table.to_term)}
      nil -> :error
      {:error, reason} -> Reader.failed!(table, reason)
    end
  end

  def fetch(other, _key), do: Structure.refuse!(other, __MODULE__, "a table")

  @doc "Returns whether the table has a key."
  @doc group: "Lookups"
  @spec has_key?(t, key) :: boolean
  def has_key?(%__MODULE__{ref: ref, format: {keys, _values}} = table, key) do
    case Native.table_has(ref, Format.encode_key!(keys, key)) do
      {:error, reason} -> Reader.failed!(table, reason)
      has? -> has?
    end
  end

  def has_key?(other, _key), do: Structure.refuse!(other, __MODULE__, "a table")

  @doc "Returns the number of records, in constant time."
  @doc group: "Lookups"
  @spec count(t) :: non_neg_integer
  def count(table), do: table!(table).count

  # Many records

  @doc """
  Returns a stream of all keys: in the order of the keys if the table is sorted, otherwise in no particular order.

  The table itself is an enumerable of `{key, value}`, in the same order.
  """
  @doc group: "Many records"
  @spec keys(t) :: Enumerable.t()
  def keys(table), do: Reader.stream(table!(table), :keys, nil, :none)

  @doc """
  Returns a stream of `{key, value}` of the keys from `first` to `last`, both included, in the order of the keys. With
  `nil` as `first`, the stream begins with the first record; with `nil` as `last`, it ends with the last one.

  The first record is found in logarithmic time. Raises `ArgumentError` if the table is not sorted.
  """
  @doc group: "Many records"
  @spec range(t, binary | nil, binary | nil) :: Enumerable.t()
  def range(table, first, last) do
    table = sorted!(table)
    for key <- [first, last], key != nil, do: Format.encode_key!(:binary, key)
    bound = if last, do: {:last, last}, else: :none
    Reader.stream(table, :pairs, first, bound)
  end

  @doc """
  Returns a stream of the `{key, value}` pairs whose keys begin with `prefix`, in the order of the keys.

  The first record is found in logarithmic time. Raises `ArgumentError` if the table is not sorted.
  """
  @doc group: "Many records"
  @spec prefix(t, binary) :: Enumerable.t()
  def prefix(table, prefix) do
    table = sorted!(table)
    Reader.stream(table, :pairs, Format.encode_key!(:binary, prefix), {:prefix, prefix})
  end

  defp sorted!(table) do
    case table!(table) do
      %{sorted: true} = table ->
        table

      %{path: path} ->
        raise ArgumentError,
              "the table #{inspect(path)} is not sorted: build it with sorted: true"
    end
  end

  @doc false
  @impl Access
  @spec get_and_update(t, key, term) :: no_return
  def get_and_update(_table, _key, _fun), do: never_changed!()

  @doc false
  @impl Access
  @spec pop(t, key) :: no_return
  def pop(_table, _key), do: never_changed!()

  @spec never_changed! :: no_return
  defp never_changed!, do: raise(ArgumentError, "a table is never changed: build it again")

  defp table!(%__MODULE__{} = table), do: table
  defp table!(other), do: Structure.refuse!(other, __MODULE__, "a table")

  defimpl Enumerable do
    def count(table), do: {:ok, Emmap.Table.count(table)}

    def member?(table, {key, value}), do: {:ok, Emmap.Table.fetch(table, key) == {:ok, value}}
    def member?(_table, _other), do: {:ok, false}

    def slice(_table), do: {:error, __MODULE__}

    def reduce(table, acc, fun),
      do: table |> Emmap.Table.Reader.stream(:pairs, nil, :none) |> Enumerable.reduce(acc, fun)
  end

  defimpl Inspect do
    def inspect(%{path: path, count: count, sorted: sorted}, _options) do
      sorted = if sorted, do: ", sorted"
      "#Emmap.Table<#{Kernel.inspect(path)}, #{count} records#{sorted}>"
    end
  end
end
