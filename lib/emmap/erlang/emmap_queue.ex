defmodule :emmap_queue do
  @moduledoc """
  `Emmap.Queue` for Erlang, compatible with the module `emmap_queue` of the earlier library saleyn/emmap.

      {ok, Q} = emmap_queue:open("jobs.queue", 0, []),
      ok = emmap_queue:push(Q, {job, 1}),
      {job, 1} = emmap_queue:pop(Q),
      nil = emmap_queue:pop(Q),
      ok = emmap_queue:close(Q).

  `Q` is an `Emmap.Queue`: every function of that module accepts it, such as `'Elixir.Emmap.Queue':checkout(Q)`.

  ## Differences from the predecessor

  The predecessor is `emmap_queue` of saleyn/emmap. Its queue is a list of terms in a map of at most 4 GiB, changed by
  one process.

    * This queue is *shared*: any number of processes, in up to 64 VMs and programs, can use it at once. Unless it is opened with
      `shared`, the predecessor's queue is private: nothing reaches the file. The option `private` raises an error
      here.
    * *Files of the predecessor have a different format and cannot be opened*: `{error, {bad_format, predecessor}}`.
      One VM cannot load both libraries, so pop the items in a VM with the predecessor, save them in a file, and push
      them from another VM with this module.
    * Every item has a checksum. A damaged item raises an error when it is read, and the next call returns the item after it.
    * `length/1` and `is_empty/1` take constant time. The predecessor's `length/1` reads all items.
    * Space is reused as soon as it is free. `purge/1`, `pop_and_purge/1` and `try_pop_and_purge/2` exist for
      compatibility; there is nothing left to purge.
    * The `Size` of `open/3` is used only with `fixed_size`, as the limit in bytes. Without it, the file grows as needed.
    * `flush/1` waits until everything is on the disk. In the predecessor, it only starts the writing.
    * `metadata/1` has the same keys. Its positions are in the stream of all items ever pushed, not in the file, and are not
      reset when the queue is empty.
    * `try_pop/2` and `pop/3` check an item out while the function runs, so that no other process gets it. It is
      available again if the function raises an error, or if its process, VM or program ends.
    * `close/1` closes the handle for all processes. A second call returns `{error, closed}`.

  `nil` means that the queue is empty, so a `nil` item cannot be distinguished from an empty queue. A function that does
  not return `{error, Reason}` raises an exception of class `error` on failure. Its reason is the Elixir exception
  `Emmap.Error`, a map with the key `reason`. Incorrect use by the caller raises the Elixir exception `ArgumentError`.
  """

  @behaviour :gen_server

  import Kernel, except: [inspect: 1, length: 1]
  alias Emmap.{Queue, Structure}

  # As in `:emmap`: recompiled with every change of another module.
  for file <- Path.wildcard("lib/**/*.ex"), do: @external_resource(file)

  # Options of the predecessor's `open` that always apply to a queue here, or have no effect.
  @always [:create, :read, :write, :shared, :direct, :nolock, :lock]

  @typedoc "An opened queue."
  @type queue :: Queue.t()

  @typedoc "A process started by `start_link/4`."
  @type server :: :gen_server.server_ref()

  @typedoc "See `open/3`."
  @type option ::
          :auto_unlink
          | :fixed_size
          | :safe
          | :create
          | :read
          | :write
          | :shared
          | :direct
          | :lock
          | :nolock
          | Queue.option()

  # Opening and closing

  @doc """
  Opens the queue in a file, and returns `{ok, Q}` or `{error, Reason}`. Creates the file and its directory if they are
  missing.

  Options:

    * `fixed_size`: the queue takes at most `Size` bytes, including headers and padding; beyond that, `push/2` returns
      `{error, full}`. Without this option, `Size` has no effect
    * `auto_unlink`: `close/1` deletes the file
    * `safe`: terms are decoded as with `binary_to_term(Binary, [safe])`
    * those of `Emmap.Queue.open/2`, such as `{durable, true}` and `{max_size, Bytes}`
    * the atoms `create`, `read`, `write`, `shared`, `direct`, `lock`, `nolock`: accepted, but have no effect

  The reasons are those of `Emmap.Queue.open/2`, and `{bad_format, predecessor}` for a queue of the predecessor.
  """
  @spec open(:file.name_all(), non_neg_integer, [option]) :: {:ok, queue} | {:error, term}
  def open(filename, size, options) when is_integer(size) and is_list(options) do
    given = options!(size, options)
    path = Emmap.Path.bytes!(filename)

    with :ok <- :filelib.ensure_dir(path) do
      case Queue.open(path, given) do
        {:ok, queue} -> {:ok, %{queue | auto_unlink: :auto_unlink in options}}
        {:error, {:bad_format, :kind}} -> {:error, {:bad_format, kind(path)}}
        {:error, _} = error -> error
      end
    end
  end

  defp options!(size, options) do
    {pairs, atoms} = Enum.split_with(options, &is_tuple/1)
    fixed = :fixed_size in atoms

    case atoms -- [:auto_unlink, :fixed_size, :safe | @always] do
      [] ->
        :ok

      [:private | _] ->
        raise ArgumentError, "a queue is always shared: the option private is not supported"

      [other | _] ->
        raise ArgumentError, "unknown option #{Kernel.inspect(other)} of a queue"
    end

    if fixed and size < 1,
      do: raise(ArgumentError, "fixed_size needs a size of more than 0 bytes")

    # The caller's own pairs must not repeat these, because Emmap.Queue refuses options that are given twice.
    [{:safe, :safe in atoms} | if(fixed, do: [{:max_size, size}], else: [])]
    |> Enum.reject(fn {name, _} -> name == :safe and List.keymember?(pairs, :safe, 0) end)
    |> Kernel.++(pairs)
  end

  # Four big-endian numbers: size, head, tail and next tail.
  defp kind(path) do
    with {:ok, <<size::32, head::32, tail::32, next::32>>} <- first_bytes(path),
         true <- 16 <= head and head <= tail and tail <= next and next <= size do
      :predecessor
    else
      _ -> :kind
    end
  end

  defp first_bytes(path),
    do: File.open(path, [:read, :binary, :raw], &:file.read(&1, 16)) |> elem(1)

  @doc "Closes the queue for all processes that have this handle, and deletes the file if it was opened with `auto_unlink`."
  @spec close(queue) :: :ok | Queue.failure()
  def close(queue) do
    with :ok <- Queue.close(queue) do
      if queue.auto_unlink, do: File.rm(queue.path)
      :ok
    end
  end

  @doc "Returns `ok` once everything that was done so far is on the disk."
  @spec flush(queue) :: :ok | Queue.failure()
  def flush(queue), do: Queue.sync(queue)

  @doc "Drops all items, including those that are checked out, and returns `ok`."
  @spec erase(queue) :: :ok | Queue.failure()
  def erase(queue), do: Queue.clear(queue)

  # Inspecting

  @doc "Does nothing, because the space of popped items is reused automatically. Returns the same as `is_empty/1`."
  @spec purge(queue) :: boolean
  def purge(queue), do: is_empty(queue)

  @doc "Returns `true` if no item is available. Takes constant time."
  @spec is_empty(queue) :: boolean
  # credo:disable-for-next-line
  def is_empty(queue), do: Queue.empty?(queue)

  @doc "Returns how many items are available. Takes constant time."
  @spec length(queue) :: non_neg_integer
  def length(queue), do: Queue.length(queue)

  @doc """
  Returns positions in the stream of all items ever pushed, and the size of the file, in bytes.

  The keys are `head`, the position of the oldest item that was not acknowledged; `tail` and `next_tail`, both the
  position of the next item; and `size`, the size of the file. `tail - head` equals `Emmap.Queue.bytes/1`.
  """
  @spec metadata(queue) :: %{
          head: non_neg_integer,
          tail: non_neg_integer,
          next_tail: non_neg_integer,
          size: non_neg_integer
        }
  def metadata(queue) do
    {:ok, %{bytes: bytes, tail: tail, size: size}} = Queue.info(queue)
    %{head: tail - bytes, tail: tail, next_tail: tail, size: size}
  end

  # Pushing and popping

  @doc """
  Adds a term, and returns `ok`, or `{error, full}` if the queue has reached its `fixed_size` or `max_size`.
  """
  @spec push(queue, term) :: :ok | :duplicate | Queue.failure()
  def push(queue, term), do: Queue.push(queue, term)

  @doc "Same as `push/2`, but compresses the term with a level from 0 (none) to 9."
  @spec push(queue, term, 0..9) :: :ok | :duplicate | Queue.failure()
  def push(queue, term, 0), do: Queue.push(%{queue | to_binary: []}, term)

  def push(queue, term, level) when is_integer(level) and level in 1..9,
    do: Queue.push(%{queue | to_binary: [compressed: level]}, term)

  @doc "Removes the oldest term and returns it, or `nil` if the queue is empty."
  @spec pop(queue) :: term | nil
  def pop(queue), do: bare(queue, Queue.pop(queue))

  @doc "Same as `pop/1`."
  @spec pop_and_purge(queue) :: term | nil
  def pop_and_purge(queue), do: pop(queue)

  @doc """
  Removes the terms that are in the queue now, oldest first.

  `Fun(Term, State)` returns `{cont, State}` to remove the term and continue, or `{halt, State}` to leave it in the queue
  and stop. Returns the last state. If the function raises an error, its term stays in the queue.
  """
  @spec pop(queue, state, (term, state -> {:cont, state} | {:halt, state})) :: state
        when state: term
  def pop(queue, state, fun) when is_function(fun, 2), do: pop(queue, state, fun, length(queue))

  defp pop(_queue, state, _fun, 0), do: state

  defp pop(queue, state, fun, left) do
    case Queue.checkout(queue) do
      {:ok, term, receipt} ->
        case decided(queue, receipt, fn -> fun.(term, state) end) do
          {:cont, state} ->
            acknowledged!(queue, Queue.ack(queue, receipt))
            pop(queue, state, fun, left - 1)

          {:halt, state} ->
            acknowledged!(queue, Queue.nack(queue, receipt))
            state
        end

      :empty ->
        state

      {:error, reason} ->
        Structure.failed!(queue, :queue, :read, reason)
    end
  end

  # If the function does not return a decision, its term is available again.
  defp decided(queue, receipt, fun) do
    case fun.() do
      {decision, _state} = decided when decision in [:cont, :halt] -> decided
      other -> :erlang.error({:case_clause, other})
    end
  catch
    kind, reason ->
      Queue.nack(queue, receipt)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  # `:gone`: it was dropped in the meantime, by `erase/1`.
  defp acknowledged!(_queue, result) when result in [:ok, {:error, :gone}], do: :ok

  defp acknowledged!(queue, {:error, reason}),
    do: Structure.failed!(queue, :queue, :write, reason)

  @doc """
  Calls `Fun(Term)` with the oldest term, removes the term when the function returns, and returns the result of the
  function.

  Returns `nil` if the queue is empty. If the function raises an error, the term stays in the queue.
  """
  @spec try_pop(queue, (term -> result)) :: result | nil when result: term
  def try_pop(queue, fun) when is_function(fun, 1), do: bare(queue, Queue.take(queue, fun))

  @doc "Same as `try_pop/2`."
  @spec try_pop_and_purge(queue, (term -> result)) :: result | nil when result: term
  def try_pop_and_purge(queue, fun), do: try_pop(queue, fun)

  # Peeking

  @doc "Returns the oldest term without removing it, or `nil` if the queue is empty."
  @spec peek_front(queue) :: term | nil
  def peek_front(queue), do: bare(queue, Queue.peek(queue))

  @doc "Returns the newest term without removing it, or `nil` if the queue is empty."
  @spec peek_back(queue) :: term | nil
  def peek_back(queue), do: bare(queue, Queue.peek_last(queue))

  @doc """
  Folds over the terms, oldest first, without removing them.

  `Fun(Term, State)` returns `{cont, State}` to continue, or `{halt, State}` to stop. Returns the last state.
  """
  @spec peek(queue, state, (term, state -> {:cont, state} | {:halt, state})) :: state
        when state: term
  def peek(queue, state, fun) when is_function(fun, 2),
    do: Queue.walk(queue, state, fn {term, _sequence, _attempts}, state -> fun.(term, state) end)

  @doc """
  Same as `peek/3`, but newest first.

  The format can only be read forwards, so this function first records the position of every term, which takes about 16
  bytes of memory per term. Terms that others remove in the meantime are left out.
  """
  @spec rpeek(queue, state, (term, state -> {:cont, state} | {:halt, state})) :: state
        when state: term
  def rpeek(queue, state, fun) when is_function(fun, 2) do
    queue
    |> places(0, [])
    |> Enum.reduce_while(state, fn {position, sequence}, state ->
      case Queue.look(queue, position) do
        {{term, ^sequence, _attempts}, _next} -> fun.(term, state)
        _ -> {:cont, state}
      end
    end)
  end

  defp places(queue, position, found) do
    case Queue.look(queue, position) do
      :empty -> found
      {{_term, sequence, _}, next} -> places(queue, next, [{position, sequence} | found])
    end
  end

  defp bare(_queue, {:ok, term}), do: term
  defp bare(_queue, :empty), do: nil
  defp bare(queue, {:error, reason}), do: Structure.failed!(queue, :queue, :read, reason)

  # A process

  @doc """
  Opens a queue in a process with this local name, which closes the queue when it ends.

  `enqueue/2`, `dequeue/1`, `try_dequeue/2`, `inspect/1` and `info/1` accept its name or pid, even of a process on
  another node. For a process on the local node, they are provided only for compatibility: a queue needs no process.
  """
  @spec start_link(atom, :file.name_all(), non_neg_integer, [option]) :: :gen_server.start_ret()
  def start_link(name, filename, size, options) when is_list(options),
    do: :gen_server.start_link({:local, name}, __MODULE__, {filename, size, options}, [])

  @doc "Same as `push/2`, but run by the process `server`."
  @spec enqueue(server, term) :: :ok | Queue.failure()
  def enqueue(server, term), do: call(server, {:push, term})

  @doc "Same as `pop/1`, but run by the process `server`."
  @spec dequeue(server) :: term | nil
  def dequeue(server), do: call(server, :pop)

  @doc """
  Same as `try_pop/2`, but run by the process `server`.

  If the function raises, the exception is raised in the caller, and the server continues.
  """
  @spec try_dequeue(server, (term -> result)) :: result | nil when result: term
  def try_dequeue(server, fun) when is_function(fun, 1), do: call(server, {:try_pop, fun})

  @doc "Same as `peek_front/1`, but run by the process `server`."
  @spec inspect(server) :: term | nil
  def inspect(server), do: call(server, :peek)

  @doc "Same as `metadata/1`, but run by the process `server`."
  @spec info(server) :: map
  def info(server), do: call(server, :info)

  defp call(server, request) do
    case :gen_server.call(server, request, :infinity) do
      {:returned, result} -> result
      {:raised, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc false
  @impl true
  def init({filename, size, options}) do
    Process.flag(:trap_exit, true)

    case open(filename, size, options) do
      {:ok, queue} -> {:ok, queue}
      {:error, reason} -> {:stop, reason}
    end
  end

  @doc false
  @impl true
  def handle_call(request, _from, queue) do
    {:reply, {:returned, handle(request, queue)}, queue}
  catch
    kind, reason -> {:reply, {:raised, kind, reason, __STACKTRACE__}, queue}
  end

  defp handle({:push, term}, queue), do: push(queue, term)
  defp handle(:pop, queue), do: pop(queue)
  defp handle({:try_pop, fun}, queue), do: try_pop(queue, fun)
  defp handle(:peek, queue), do: peek_front(queue)
  defp handle(:info, queue), do: metadata(queue)

  @doc false
  @impl true
  def handle_cast(message, queue), do: {:stop, {:cast_not_implemented, message}, queue}

  @doc false
  @impl true
  def handle_info({:EXIT, _pid, reason}, queue), do: {:stop, reason, queue}
  def handle_info(_message, queue), do: {:noreply, queue}

  @doc false
  @impl true
  def terminate(_reason, queue), do: close(queue)
end
