defmodule Emmap.Mutex do
  @moduledoc """
  A lock in a file, for processes of several VMs that change the same data. It is released when its holder dies.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.mutex")
      iex> {:ok, mutex} = Emmap.Mutex.open(path)
      iex> Emmap.Mutex.with_lock(mutex, fn -> :changed end)
      {:ok, :changed}
      iex> Emmap.Mutex.lock(mutex)
      :ok
      iex> Task.await(Task.async(fn -> Emmap.Mutex.try_lock(mutex) end))
      {:error, :ebusy}
      iex> Emmap.Mutex.unlock(mutex)
      :ok

  ## The contract

    * Of all processes of all VMs that have the file open, at most one has the lock. The holder is the process that
      called `lock/2`; no other process can release it.
    * If the holder ends without releasing the lock, for whatever reason (`exit/1`, a kill, the death of the VM by `kill
      -9`, or a reboot), the next process receives it as `:abandoned`. What the lock protects may then be half changed.
      The process repairs it, and calls `unlock/1`, after which the lock is received as `:ok` again. If it dies too, the
      next process also receives `:abandoned`.
    * Processes of one VM receive the lock in the order in which they asked for it. If processes of several VMs wait, a VM
      passes the lock on among its processes at most 16 times before other VMs can take it.
    * Waiting uses no CPU time: a waiting process is in a `receive` for a message with a unique reference, and can be
      killed. A native thread of its VM sleeps until the lock is released, or its holder's program dies. (Before Linux
      5.16 and on other systems, it checks every 20 milliseconds.)
    * The lock is not reentrant: if the holder calls `lock/2` again, the result is `{:error, :edeadlk}`.

  The mutex has a file of its own, of 16 KiB, which must not be deleted while it is in use. The data may be anywhere: in
  maps, in other files, in a database. Up to 64 VMs can have the file open (on systems other than Linux, one). Nothing
  enforces the lock: every program that changes the data has to use it.

  If no other process waits, a lock and an unlock together cost a few microseconds, and no system call. To change a
  single integer, `Emmap.patomic/4` is faster and needs no lock.
  """

  alias Emmap.{Native, OptionList, ProcessLock, Structure, StructureOwner}

  @enforce_keys [:ref, :path]
  defstruct [:ref, :path]

  @typedoc "An opened mutex, valid in every process of this node."
  @type t :: %__MODULE__{ref: reference, path: binary}
  @typedoc "An opened mutex, or the name that it was started with: see `start_link/1`."
  @type mutex :: t | atom
  @typedoc "`:abandoned`: the previous holder ended without releasing the lock."
  @type received :: :ok | :abandoned
  @typedoc "Why a call failed: see the functions."
  @type failure :: {:error, :closed | :file.posix() | :inet.posix()}
  @typedoc "Why a file is not opened: see `open/2`."
  @type reason ::
          :file.posix()
          | :eusers
          | {:bad_format, :kind | :version | :endianness | :length | :checksum}

  @options [create: {&is_boolean/1, "true | false"}]

  @doc """
  Opens the mutex in a file, and creates the file if it does not exist. The directory must exist. Returns `{:ok, mutex}`.

  Options:

    * `create: true` – with `false`, the file must exist

  Errors:

    * those of `Emmap.open/2`
    * `{:bad_format, why}` – as with `Emmap.Queue.open/2`
    * `:eusers` – 64 programs have the file open
    * `:ebusy` – on systems other than Linux, only one VM at a time can have the file open
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), create: boolean) :: {:ok, t} | {:error, reason}
  def open(path, options \\ []) do
    given = OptionList.check!(options, @options)
    existing? = not Map.get(given, :create, true)

    Structure.open(
      Emmap.Path.bytes!(path),
      &Native.mutex_open(&1, existing?),
      fn path, {:ok, ref} -> %__MODULE__{ref: ref, path: path} end
    )
  end

  @doc "Same as `open/2`, but returns only the mutex and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), create: boolean) :: t
  def open!(path, options \\ []), do: Structure.opened!(open(path, options), :mutex, path)

  @doc """
  Closes the mutex. If a process holds the lock that it received with this handle, the lock is abandoned; processes that
  wait with this handle get `{:error, :closed}`.
  """
  @doc group: "Opening and closing"
  @spec close(mutex) :: :ok | {:error, :closed}
  def close(mutex), do: Native.lock_close(ref!(mutex))

  @doc """
  Acquires the lock. Waits for it for at most `timeout` milliseconds. Returns `:ok`, or `:abandoned` if its previous
  holder ended without releasing it.

  Errors:

    * `:etimedout` – the time has passed
    * `:edeadlk` – the caller has the lock already
    * `:closed` – the mutex is closed, before the call or while it waits
    * `:estale` – the file was truncated. After all handles of this VM were closed, the file can be opened again
    * `:eagain` – no thread could be started
  """
  @doc group: "Locking"
  @spec lock(mutex, timeout) :: received | failure
  def lock(mutex, timeout \\ :infinity), do: ProcessLock.lock(ref!(mutex), timeout)

  @doc """
  Acquires the lock if no process has it. Otherwise, the result is `{:error, :ebusy}`. Other results are those of
  `lock/2`.
  """
  @doc group: "Locking"
  @spec try_lock(mutex) :: received | failure
  def try_lock(mutex), do: ProcessLock.try_lock(ref!(mutex))

  @doc """
  Releases the lock. With this call, the holder declares that the data is consistent.

  If another process has the lock, or none, the result is `{:error, :eperm}`.
  """
  @doc group: "Locking"
  @spec unlock(mutex) :: :ok | failure
  def unlock(mutex), do: ProcessLock.unlock(ref!(mutex), true)

  @doc """
  Acquires the lock, calls `fun`, and releases the lock. Returns `{:ok, result_of_fun}`.

  A `fun` of one argument gets `:ok` or `:abandoned`, as `lock/2` returns it. If `fun` raises, throws or exits, the lock is
  abandoned, as if the process had died there. Errors are those of `lock/2`; then `fun` is not called.

      iex> mutex = Emmap.Mutex.open!(Path.join(System.tmp_dir!(), "emmap_doc_with.mutex"))
      iex> catch_error(Emmap.Mutex.with_lock(mutex, fn -> raise "halfway" end))
      %RuntimeError{message: "halfway"}
      iex> Emmap.Mutex.with_lock(mutex, fn
      ...>   :abandoned -> :repaired
      ...>   :ok -> :nothing_to_repair
      ...> end)
      {:ok, :repaired}
  """
  @doc group: "Locking"
  @spec with_lock(mutex, timeout, (() -> result) | (received -> result)) ::
          {:ok, result} | failure
        when result: term
  def with_lock(mutex, timeout \\ :infinity, fun)

  def with_lock(mutex, timeout, fun) when is_function(fun, 1),
    do: ProcessLock.with_lock(ref!(mutex), timeout, fun)

  def with_lock(mutex, timeout, fun) when is_function(fun, 0),
    do: ProcessLock.with_lock(ref!(mutex), timeout, fn _received -> fun.() end)

  def with_lock(_mutex, _timeout, other),
    do: raise(ArgumentError, "a function of 0 or 1 arguments, got #{inspect(other)}")

  @doc """
  Returns `{:ok, info}`: the `:path`, whether a process of any VM has the lock (`:taken`), and how many processes of this VM
  wait (`:waiting`).
  """
  @doc group: "State and maintenance"
  @spec info(mutex) ::
          {:ok, %{path: binary, taken: boolean, waiting: non_neg_integer}} | failure
  def info(mutex) do
    %{ref: ref, path: path} = mutex!(mutex)
    with {:ok, info} <- Native.lock_info(ref), do: {:ok, Map.put(info, :path, path)}
  end

  @doc """
  Starts a process that opens a mutex and keeps it open, for a supervisor: `{Emmap.Mutex, path: "orders.mutex", name: Orders}`.

  Options are those of `open/2`, and `:path` (required) and `:name`, an atom that all functions accept instead of the
  mutex. If the process ends, the mutex is closed.
  """
  @doc group: "Supervision"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: StructureOwner.start_link(__MODULE__, options, &open/2)

  @doc "The child specification of `start_link/1`."
  @doc group: "Supervision"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: StructureOwner.child_spec(__MODULE__, options)

  defp ref!(mutex), do: mutex!(mutex).ref

  defp mutex!(%__MODULE__{} = mutex), do: mutex

  defp mutex!(name) when is_atom(name) and name not in [nil, true, false],
    do: StructureOwner.named!(__MODULE__, name)

  defp mutex!(other), do: Structure.refuse!(other, __MODULE__, "a mutex")

  defimpl Inspect do
    def inspect(%{path: path}, _options), do: "#Emmap.Mutex<#{inspect(path)}>"
  end
end
