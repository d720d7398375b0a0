defmodule Emmap.Snapshot do
  @moduledoc """
  Data that many processes read while it is being replaced: a version is published as a whole, and readers get the
  current one in constant time, without a lock.

      iex> directory = Path.join(System.tmp_dir!(), "emmap_doc_snapshot")
      iex> _ = File.rm_rf!(directory)
      iex> {:ok, rates} = Emmap.Snapshot.open(directory)
      iex> Emmap.Snapshot.current(rates)
      {:error, :enoent}
      iex> Emmap.Snapshot.publish(rates, "EUR 1.08")
      {:ok, 1}
      iex> {:ok, mem} = Emmap.Snapshot.current(rates)
      iex> Emmap.Snapshot.publish(rates, "EUR 1.09")
      {:ok, 2}
      iex> Emmap.view!(mem)
      "EUR 1.08"
      iex> {:ok, mem} = Emmap.Snapshot.current(rates)
      iex> Emmap.view!(mem)
      "EUR 1.09"
      iex> Emmap.Snapshot.close(rates)
      :ok

  A snapshot is a directory. It contains a control file of 16 KiB, and the file of the current version. The versions can be
  anything that is a file: bytes, an array, a table. The option `:open` decides what `current/1` returns:

      {:ok, geo} = Emmap.Snapshot.open("geo", open: &Emmap.Table.open/1)

  The guide [Replacing data under load](replacing-data.md) shows how.

  ## The contract

    * `current/1` returns the version that had been published last, by any VM, when the call began, or one that was
      published during the call. It takes no lock, and no publisher delays it. The first call after a publication in each VM opens
      the new file; processes of that VM that call `current/1` at the same time wait for it.
    * What a process got stays as it is, even when newer versions are published: handles and live binaries keep the
      pages of their version. The memory of a version is released with the last process that refers to it. No reader,
      not even one that was killed or that hangs, delays a publisher or keeps a file from being removed.
    * A version is complete or does not exist: a reader never sees a part of one. If a publisher dies or fails at any
      moment, the previous version stays current; its unfinished file is removed: at once if it failed, by the next
      publisher if it died.
    * Publishers, in any VM, take turns: the whole `publish/3` is done under a lock, which is released when the publisher dies.
    * A version that was published with `sync: true`, the default, survives a power failure once `publish/3` has
      returned. If the power fails earlier, this version or the one before it survives. With `sync: false`, a
      publication does not wait for the disk: it survives the death of the VM, but after the machine has restarted, the
      snapshot is empty until the next publication.
    * Versions are numbered from 1. The number of a version is its *generation*. The numbering continues after a reboot.

  ## Costs

  `current/1` compares a word of the control file, which is mapped, with the number of the opened version, and copies
  what `:open` returned, as `:ets.lookup/2` copies: a handle, or a struct that refers to one, takes less than 0.1 µs. So
  `:open` should return a handle or a struct, and not the data itself.

  `publish/3` writes a file, and with `sync: true` waits for the disk three times (the file, its name, and the control
  file). The time does not depend on how many processes there are, or how many versions they hold, whereas
  `:persistent_term.put/2` scans the heap of every process.

  Up to 64 VMs can have a snapshot open (on systems other than Linux, one).
  """

  alias Emmap.{Handle, Native, OptionList, ProcessLock, Structure, StructureOwner, Word}
  alias Emmap.Snapshot.Source

  @enforce_keys [:ref, :lock, :path, :directory]
  defstruct [:ref, :lock, :path, :directory, :open, sync: true]

  @typedoc "An opened snapshot, valid in every process of this node. `:directory` may be read."
  @type t :: %__MODULE__{}
  @typedoc "An opened snapshot, or the name that it was started with: see `start_link/1`."
  @type snapshot :: t | atom
  @typedoc "The number of a version, from 1; 0: nothing has been published yet."
  @type generation :: non_neg_integer
  @typedoc "Why a call failed: see the functions."
  @type failure :: {:error, :closed | :file.posix() | :inet.posix() | term}
  @typedoc "Why a snapshot is not opened: see `open/2`."
  @type reason ::
          :file.posix()
          | :eusers
          | {:bad_format, :kind | :version | :endianness | :length | :checksum}
  @typedoc "See `open/2`."
  @type option ::
          {:open, (binary -> {:ok, term} | {:error, term})}
          | {:sync, boolean}
          | {:create, boolean}
  @typedoc "See `publish/3`."
  @type source :: (binary -> term) | iodata | {:file, Path.t() | :file.name_all()}

  @control "control"
  @options [
    open: {&__MODULE__.opens?/1, "a function of a path"},
    sync: {&is_boolean/1, "true | false"},
    create: {&is_boolean/1, "true | false"}
  ]
  @publish [
    sync: {&is_boolean/1, "true | false"},
    timeout: {&__MODULE__.timeout?/1, "milliseconds | :infinity"}
  ]

  @doc false
  def opens?(fun), do: is_function(fun, 1)
  @doc false
  def timeout?(timeout), do: timeout == :infinity or timeout in 0..0xFFFF_FFFF

  # Opening and closing

  @doc """
  Opens the snapshot in a directory, and creates the directory if it does not exist. The directory above it must exist. Returns
  `{:ok, snapshot}`.

  Options, with their defaults:

    * `:open` – a function that is given the path of the file of a version, and returns `{:ok, term}` or `{:error, reason}`.
      `current/1` returns the same. It is called once for each version in each VM. The default is `Emmap.open/1`
    * `sync: true` – with `false`, publications do not wait for the disk
    * `create: true` – with `false`, the snapshot must exist

  Errors:

    * those of `Emmap.open/2`
    * `{:bad_format, why}` – the control file is not valid: as with `Emmap.Queue.open/2`
    * `:eusers` – 64 programs have the snapshot open
    * `:ebusy` – on systems other than Linux, only one VM at a time can have the snapshot open
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), [option]) :: {:ok, t} | {:error, reason}
  def open(directory, options \\ []) do
    given = OptionList.check!(options, @options)
    directory = directory |> Emmap.Path.bytes!() |> Path.absname()
    create? = Map.get(given, :create, true)

    with :ok <- if(create?, do: make(directory), else: :ok) do
      Structure.open(
        Path.join(directory, @control),
        &Native.snapshot_open(&1, not create?),
        fn path, {:ok, ref, lock} ->
          %__MODULE__{
            ref: ref,
            lock: lock,
            path: path,
            directory: directory,
            open: given[:open],
            sync: Map.get(given, :sync, true)
          }
        end
      )
    end
  end

  defp make(directory) do
    with {:error, :eexist} <- :file.make_dir(directory), do: :ok
  end

  @doc "Same as `open/2`, but returns only the snapshot and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), [option]) :: t
  def open!(directory, options \\ []),
    do: Structure.opened!(open(directory, options), :snapshot, directory)

  @doc """
  Closes the snapshot. Processes that wait for a version get `{:error, :closed}`. What `current/1` has returned stays valid.
  """
  @doc group: "Opening and closing"
  @spec close(snapshot) :: :ok | {:error, :closed}
  def close(snapshot), do: Native.snapshot_close(snapshot!(snapshot).ref)

  # Reading

  @doc """
  Returns the current version: `{:ok, term}`, where `term` is what the function `:open` has returned for it. By default, this is
  a handle of `Emmap.open/1`, which must not be closed: it belongs to all processes of the VM.

  Errors:

    * `:enoent` – nothing has been published yet, or the version was published with `sync: false` and the machine has
      restarted since
    * `{:bad_format, :length}` – the file of the version is shorter or longer than it was when it was published
    * `:closed`, `:estale` – the snapshot is closed; its control file was truncated
    * those of the function `:open`, which is called again by the next call
  """
  @doc group: "Reading"
  @spec current(snapshot) :: {:ok, term} | failure
  def current(%__MODULE__{ref: ref} = snapshot) do
    case Native.snapshot_current(ref) do
      handle when is_reference(handle) -> {:ok, Handle.new(handle, nil)}
      {term} -> {:ok, term}
      {:open, generation} -> open_version(snapshot, generation)
      {:error, _} = error -> error
    end
  end

  def current(name), do: current(snapshot!(name))

  @doc "Same as `current/1`, but returns only the version and raises `Emmap.Error` on failure."
  @doc group: "Reading"
  @spec current!(snapshot) :: term
  def current!(snapshot) do
    case current(snapshot) do
      {:ok, version} -> version
      {:error, reason} -> Structure.failed!(snapshot!(snapshot), :snapshot, :read, reason)
    end
  end

  # One process of the VM opens a version; the others wait for it.
  defp open_version(%{ref: ref} = snapshot, generation) do
    tag = make_ref()

    case Native.snapshot_begin_open(ref, generation, tag) do
      :again ->
        current(snapshot)

      :wait ->
        receive do
          {^tag, :again} -> current(snapshot)
        end

      {:ok, opener} ->
        opened =
          try do
            open_file(snapshot, generation)
          catch
            kind, reason ->
              :ok = Native.snapshot_end_open(opener, 0, nil)
              :erlang.raise(kind, reason, __STACKTRACE__)
          end

        opened(snapshot, generation, opener, opened)
    end
  end

  defp opened(_snapshot, generation, opener, {:ok, version}) do
    # A handle is kept as its reference: see `current/1`.
    kept = with {:file_descriptor, Emmap.File, {ref, nil, _}} <- version, do: ref
    :ok = Native.snapshot_end_open(opener, generation, kept)
    {:ok, version}
  end

  defp opened(%{ref: ref} = snapshot, generation, opener, error) do
    :ok = Native.snapshot_end_open(opener, 0, nil)

    case Native.snapshot_generation(ref) do
      # Its file was removed, because a newer version was published.
      newer when is_integer(newer) and newer != generation -> current(snapshot)
      _ -> error
    end
  end

  defp open_file(%{ref: ref, directory: directory, open: open}, generation) do
    path = Path.join(directory, "version-#{generation}")

    with {:ok, version} <- Native.snapshot_version(ref),
         :ok <- complete(version, generation, path) do
      case open && open.(path) do
        nil ->
          Emmap.open(path)

        {:ok, _} = opened ->
          opened

        {:error, _} = error ->
          error

        other ->
          raise ArgumentError,
                "open: must return {:ok, term} or {:error, reason}, got #{inspect(other)}"
      end
    end
  end

  # The header may be that of a newer version already.
  defp complete(%{generation: generation, lost: true}, generation, _path), do: {:error, :enoent}

  defp complete(%{generation: generation, size: size}, generation, path) do
    case :file.read_file_info(path, [:raw]) do
      {:ok, info} when elem(info, 1) == size -> :ok
      {:ok, _} -> {:error, {:bad_format, :length}}
      {:error, _} = error -> error
    end
  end

  defp complete(_newer, _generation, _path), do: :ok

  @doc """
  Returns the number of the current version; 0 if nothing has been published yet. Raises `Emmap.Error` if the snapshot
  is closed.
  """
  @doc group: "Reading"
  @spec generation(snapshot) :: generation
  def generation(snapshot) do
    %{ref: ref} = snapshot = snapshot!(snapshot)

    case Native.snapshot_generation(ref) do
      {:error, reason} -> Structure.failed!(snapshot, :snapshot, :read, reason)
      generation -> generation
    end
  end

  @doc """
  Waits until the number of the current version is no longer `generation`, for at most `timeout` milliseconds. Returns
  `{:ok, number}`.

  The process uses no CPU time while it waits, as with `Emmap.wait/4`. Errors: `:etimedout`, `:closed`, `:estale`.
  """
  @doc group: "Reading"
  @spec wait(snapshot, generation, timeout) :: {:ok, generation} | failure
  def wait(snapshot, generation, timeout \\ :infinity) do
    %{ref: ref} = snapshot!(snapshot)
    Word.wait(timeout, &Native.snapshot_wait(ref, generation, &1))
  end

  @doc """
  Sends the calling process a message for each version that is published from now on, by any VM:
  `{:emmap_snapshot, subscription, generation}`.

  Returns `{:ok, subscription}`, a reference. If several versions are published in quick succession, there may be one message
  for all of them. If the snapshot is closed, or its control file is truncated, the last message is
  `{:emmap_snapshot, subscription, {:error, reason}}`. A subscription ends with `unsubscribe/1`, or when its process ends.

      iex> rates = Emmap.Snapshot.open!(Path.join(System.tmp_dir!(), "emmap_doc_subscribe"))
      iex> {:ok, subscription} = Emmap.Snapshot.subscribe(rates)
      iex> {:ok, generation} = Emmap.Snapshot.publish(rates, "EUR 1.07")
      iex> receive do
      ...>   {:emmap_snapshot, ^subscription, ^generation} -> :new_version
      ...> end
      :new_version
  """
  @doc group: "Reading"
  @spec subscribe(snapshot) :: {:ok, reference} | failure
  def subscribe(snapshot), do: Native.snapshot_subscribe(snapshot!(snapshot).ref)

  @doc "Ends a subscription, and removes its messages from the mailbox. Returns `:ok`, even if it has already ended."
  @doc group: "Reading"
  @spec unsubscribe(reference) :: :ok
  def unsubscribe(subscription) when is_reference(subscription) do
    _ = Native.snapshot_unsubscribe(subscription)
    flush(subscription)
  end

  def unsubscribe(other),
    do: raise(ArgumentError, "a subscription is a reference, got #{inspect(other)}")

  defp flush(subscription) do
    receive do
      {:emmap_snapshot, ^subscription, _} -> flush(subscription)
    after
      0 -> :ok
    end
  end

  # Publishing

  @doc """
  Publishes a new version, and returns `{:ok, number}`.

  `source` is one of:

    * a function, which is given the path of a file that does not exist yet, and creates it. If it returns `:error` or
      `{:error, reason}`, nothing is published, and `publish/3` returns that (`:error` as `{:error, :error}`)
    * iodata, the contents of the file
    * `{:file, path}` – a file that is copied

  Options:

    * `:sync` – as with `open/2`, for this publication
    * `timeout: :infinity` – how many milliseconds to wait for other publishers

  If the function raises, throws or exits, `publish/3` does the same. In this case, and after every error, the previous
  version stays current, and no unfinished file is left. After a success, the file of the previous version is removed;
  readers that have it open keep its data.

  Errors: those of `Emmap.Mutex.lock/2`, and of creating, writing, syncing and renaming a file, such as `:enospc`; `:enoent` if
  the function has not created the file; `:enodev` if it is not a regular file.
  """
  @doc group: "Publishing"
  @spec publish(snapshot, source, sync: boolean, timeout: timeout) ::
          {:ok, generation} | failure
  def publish(snapshot, source, options \\ []) do
    %{ref: ref, lock: lock, sync: sync} = snapshot = snapshot!(snapshot)
    given = OptionList.check!(options, @publish)
    source = Source.check!(source)
    timeout = Map.get(given, :timeout, :infinity)
    sync? = Map.get(given, :sync, sync)

    with :ok <- Native.snapshot_prepare(ref),
         {:ok, result} <-
           ProcessLock.with_lock(lock, timeout, &build(snapshot, source, sync?, &1), clean: true),
         do: result
  end

  # What the lock protects is complete at every moment, so its holder may fail. If the previous one died, it may have left
  # a file, or a word that does not follow the header yet.
  defp build(%{ref: ref, directory: directory}, source, sync?, received) do
    if received == :abandoned, do: Native.snapshot_tidy(ref, directory)

    # The process of a publisher that died may still write to its file.
    name = "new-#{System.os_time()}-#{System.pid()}-#{System.unique_integer()}"
    file = Path.join(directory, name)

    try do
      with :ok <- Source.write(source, file),
           do: Native.snapshot_publish(ref, directory, file, sync?)
    after
      # Renamed if it was published.
      _ = :file.delete(file, [:raw])
    end
  end

  # State

  @doc """
  Returns `{:ok, info}`:

    * `:path` – the directory
    * `:generation`, `:size` – the number of the current version, and the size of its file in bytes
    * `:synced` – whether it was published with `sync: true`
    * `:lost` – whether it was published with `sync: false`, and the machine has restarted since
    * `:publishing` – whether a process, of any VM, is publishing
  """
  @doc group: "State and maintenance"
  @spec info(snapshot) :: {:ok, map} | failure
  def info(snapshot) do
    %{ref: ref, lock: lock, directory: directory} = snapshot!(snapshot)

    with {:ok, info} <- Native.snapshot_version(ref),
         {:ok, %{taken: taken}} <- Native.lock_info(lock),
         do: {:ok, Map.merge(info, %{path: directory, publishing: taken})}
  end

  @doc """
  Starts a process that opens a snapshot and keeps it open, for a supervisor: `{Emmap.Snapshot, path: "geo", name: Geo}`.

  Options are those of `open/2`, and `:path` (required) and `:name`, an atom that all functions accept instead of the
  snapshot. If the process ends, the snapshot is closed.
  """
  @doc group: "Supervision"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: StructureOwner.start_link(__MODULE__, options, &open/2)

  @doc "The child specification of `start_link/1`."
  @doc group: "Supervision"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: StructureOwner.child_spec(__MODULE__, options)

  defp snapshot!(%__MODULE__{} = snapshot), do: snapshot

  defp snapshot!(name) when is_atom(name) and name not in [nil, true, false],
    do: StructureOwner.named!(__MODULE__, name)

  defp snapshot!(other), do: Structure.refuse!(other, __MODULE__, "a snapshot")

  defimpl Inspect do
    def inspect(%{directory: directory}, _options), do: "#Emmap.Snapshot<#{inspect(directory)}>"
  end
end
