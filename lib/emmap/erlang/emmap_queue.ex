defmodule :emmap_queue do
  @moduledoc """
  `Emmap.Queue` for Erlang, with the functions and results of the module `emmap_queue` of saleyn/emmap.

      {ok, Q} = emmap_queue:open("jobs.queue", 0, []),
      ok = emmap_queue:push(Q, {job, 1}),
      {job, 1} = emmap_queue:pop(Q),
      nil = emmap_queue:pop(Q),
      ok = emmap_queue:close(Q).

  `Q` is an `Emmap.Queue`: every function of that module takes it, such as `'Elixir.Emmap.Queue':checkout(Q)`.

  ## What differs from the predecessor

  The predecessor has one list of terms in a map, of at most 4 GiB, that one process changes.

    * The queue is *shared*: any number of processes, VMs and programs use it at once. The predecessor's is
      private unless it is opened with `shared`, so that nothing reaches the file. The option `private` is an error of the caller.
    * *Its files are another format, and are not opened*: `{error, {bad_format, predecessor}}`. To move the items, pop them with the
      predecessor and push them here.
    * Every item has a checksum. A damaged one raises an error when it is read, and the next call returns the item after it.
    * `length/1` and `is_empty/1` take constant time. The predecessor's `length/1` reads all items.
    * Space is used again as soon as it is free. `purge/1`, `pop_and_purge/1` and `try_pop_and_purge/2` are there for their
      callers, and there is nothing left for them to do.
    * The `Size` of `open/3` matters with `fixed_size` only, as the limit in bytes. Without it, the file grows as needed.
    * `flush/1` waits until everything is on the disk. The predecessor's only starts to write.
    * `metadata/1` has the same keys, with positions in the stream of all items ever pushed, and not in the file. The positions do not go
      back when the queue is empty.
    * `try_pop/2` and `pop/3` check an item out while the function runs: nobody else gets it meanwhile. It is
      available again if the function raises an error, or if its process, VM or program ends.
    * `close/1` ends the handle for all processes, and a second call returns `{error, closed}`.

  `nil` means that the queue is empty, so an item `nil` cannot be told from an empty queue. Where a function does not
  return `{error, Reason}`, a failure is an error of class `error` whose reason is Elixir's `Emmap.Error`, a map with a `reason`. An error
  of the caller is Elixir's `ArgumentError`.
  """
  @moduledoc since: "1.0.0-rc.0"

  @behaviour :gen_server

  import Kernel, except: [inspect: 1, length: 1]
  alias Emmap.{Queue, Structure}

  # As in `:emmap`: compiled with every change of another module.
  for file <- Path.wildcard("lib/**/*.ex"), do: @external_resource(file)

  # Of the predecessor's `open`: what a queue always is, or has no use for.
  @always [:create, :read, :write, :shared, :direct, :nolock, :lock]

  @typedoc "An open queue."
  @typedoc since: "1.0.0-rc.0"
  @type queue :: Queue.t()

  @typedoc "A process of `start_link/4`."
  @typedoc since: "1.0.0-rc.0"
  @type server :: :gen_server.server_ref()

  @typedoc "See `open/3`."
  @typedoc since: "1.0.0-rc.0"
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
  Opens the queue of a file: `{ok, Q}` or `{error, Reason}`. Creates the file and its directory if they are missing.

  The options:

    * `fixed_size`: the queue takes at most `Size` bytes, with headers and padding; then `push/2` returns `{error, full}`. Without it, `Size`
      has no effect
    * `auto_unlink`: `close/1` deletes the file
    * `safe`: terms are read as by `binary_to_term(Binary, [safe])`
    * those of `Emmap.Queue.open/2` that are pairs, such as `{durable, true}` and `{max_size, Bytes}`
    * `create`, `read`, `write`, `shared`, `direct`, `lock`, `nolock`: accepted, and without effect

  Reasons are those of `Emmap.Queue.open/2`, and `{bad_format, predecessor}` for a queue of the predecessor.
  """
  @doc since: "1.0.0-rc.0"
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
        raise ArgumentError, "a queue is shared, and has no option private"

      [other | _] ->
        raise ArgumentError, "unknown option #{Kernel.inspect(other)} of a queue"
    end

    if fixed and size < 1,
      do: raise(ArgumentError, "fixed_size needs a size of more than 0 bytes")

    # The caller's own pairs may not repeat these: Emmap.Queue refuses what is given twice.
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
  @doc since: "1.0.0-rc.0"
  @spec close(queue) :: :ok | Queue.failure()
  def close(queue) do
    with :ok <- Queue.close(queue) do
      if queue.auto_unlink, do: File.rm(queue.path)
      :ok
    end
  end

  @doc "Returns `ok` when everything that was done so far is on the disk."
  @doc since: "1.0.0-rc.0"
  @spec flush(queue) :: :ok | Queue.failure()
  def flush(queue), do: Queue.sync(queue)

  @doc "Drops all items, also those that are checked out: `ok`."
  @doc since: "1.0.0-rc.0"
  @spec erase(queue) :: :ok | Queue.failure()
  def erase(queue), do: Queue.clear(queue)

  # Asking

  @doc "As `is_empty/1`: the space of an empty queue is used again by itself."
  @doc since: "1.0.0-rc.0"
  @spec purge(queue) :: boolean
  def purge(queue), do: is_empty(queue)

  @doc "Whether no item can be taken. Takes constant time."
  @doc since: "1.0.0-rc.0"
  @spec is_empty(queue) :: boolean
  # credo:disable-for-next-line
  def is_empty(queue), do: Queue.empty?(queue)

  @doc "Returns how many items can be taken. Takes constant time."
  @doc since: "1.0.0-rc.0"
  @spec length(queue) :: non_neg_integer
  def length(queue), do: Queue.length(queue)

  @doc """
  Returns positions in bytes in the stream of all items ever pushed: `head`, the oldest item that was not acknowledged; `tail` and `next_tail`,
  where the next item goes; and the `size` of the file. `tail - head` is what `Emmap.Queue.bytes/1` returns.
  """
  @doc since: "1.0.0-rc.0"
  @spec metadata(queue) :: %{
          head: non_neg_integer,
          tail: non_neg_integer,
          next_tail: non_neg_integer,
          size: non_neg_integer
        }
  def metadata(queue) do
    %{bytes: bytes, tail: tail, size: size} = Queue.info(queue)
    %{head: tail - bytes, tail: tail, next_tail: tail, size: size}
  end

  # Pushing and popping

  @doc "Adds a term: `ok`, or `{error, full}` with `fixed_size`."
  @doc since: "1.0.0-rc.0"
  @spec push(queue, term) :: :ok | :duplicate | Queue.failure()
  def push(queue, term), do: Queue.push(queue, term)

  @doc "As `push/2`, compressed by a level from 0, which is none, to 9."
  @doc since: "1.0.0-rc.0"
  @spec push(queue, term, 0..9) :: :ok | :duplicate | Queue.failure()
  def push(queue, term, 0), do: Queue.push(%{queue | to_binary: []}, term)

  def push(queue, term, level) when is_integer(level) and level in 1..9,
    do: Queue.push(%{queue | to_binary: [compressed: level]}, term)

  @doc "Takes the oldest term; `nil`: the queue is empty."
  @doc since: "1.0.0-rc.0"
  @spec pop(queue) :: term | nil
  def pop(queue), do: bare(queue, Queue.pop(queue))

  @doc "As `pop/1`."
  @doc since: "1.0.0-rc.0"
  @spec pop_and_purge(queue) :: term | nil
  def pop_and_purge(queue), do: pop(queue)

  @doc """
  Takes the terms that are in the queue now, oldest first: `Fun(Term, State)` returns `{cont, State}` to take the term and go on, or
  `{halt, State}` to leave it and end. Returns the last state. If the function raises an error, its term stays in the queue.
  """
  @doc since: "1.0.0-rc.0"
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

  # Whatever the function does but return a decision, its term is available again.
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

  # Gone: it was dropped meanwhile, by `erase/1`.
  defp acknowledged!(_queue, result) when result in [:ok, {:error, :gone}], do: :ok

  defp acknowledged!(queue, {:error, reason}),
    do: Structure.failed!(queue, :queue, :write, reason)

  @doc """
  Calls `Fun(Term)` with the oldest term, takes the term when the function returns, and returns what it returned; `nil`: the queue is
  empty. If the function raises an error, the term stays in the queue.
  """
  @doc since: "1.0.0-rc.0"
  @spec try_pop(queue, (term -> result)) :: result | nil when result: term
  def try_pop(queue, fun) when is_function(fun, 1), do: bare(queue, Queue.take(queue, fun))

  @doc "As `try_pop/2`."
  @doc since: "1.0.0-rc.0"
  @spec try_pop_and_purge(queue, (term -> result)) :: result | nil when result: term
  def try_pop_and_purge(queue, fun), do: try_pop(queue, fun)

  # Looking

  @doc "Returns the oldest term, and leaves it; `nil`: the queue is empty."
  @doc since: "1.0.0-rc.0"
  @spec peek_front(queue) :: term | nil
  def peek_front(queue), do: bare(queue, Queue.peek(queue))

  @doc "Returns the newest term, and leaves it; `nil`: the queue is empty."
  @doc since: "1.0.0-rc.0"
  @spec peek_back(queue) :: term | nil
  def peek_back(queue), do: bare(queue, Queue.peek_last(queue))

  @doc """
  Folds over the terms, oldest first, and takes none: `Fun(Term, State)` returns `{cont, State}` to go on, or `{halt, State}` to end.
  Returns the last state.
  """
  @doc since: "1.0.0-rc.0"
  @spec peek(queue, state, (term, state -> {:cont, state} | {:halt, state})) :: state
        when state: term
  def peek(queue, state, fun) when is_function(fun, 2),
    do: Queue.walk(queue, state, fn {term, _sequence, _attempts}, state -> fun.(term, state) end)

  @doc """
  As `peek/3`, newest first. It first notes where each term is, in 16 bytes or so each: items of this format are found from the oldest on.
  Terms that others take meanwhile are left out.
  """
  @doc since: "1.0.0-rc.0"
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
  Opens a queue in a process with this local name, which closes it when it ends. The functions below take its name or pid, also
  of another node. On this node they are needed only for programs that have them already: a queue needs no process.
  """
  @doc since: "1.0.0-rc.0"
  @spec start_link(atom, :file.name_all(), non_neg_integer, [option]) :: :gen_server.start_ret()
  def start_link(name, filename, size, options) when is_list(options),
    do: :gen_server.start_link({:local, name}, __MODULE__, {filename, size, options}, [])

  @doc "As `push/2`, in the process."
  @doc since: "1.0.0-rc.0"
  @spec enqueue(server, term) :: :ok | Queue.failure()
  def enqueue(server, term), do: call(server, {:push, term})

  @doc "As `pop/1`, in the process."
  @doc since: "1.0.0-rc.0"
  @spec dequeue(server) :: term | nil
  def dequeue(server), do: call(server, :pop)

  @doc "As `try_pop/2`. The function runs in the process; what it raises is raised by the caller, and the process lives on."
  @doc since: "1.0.0-rc.0"
  @spec try_dequeue(server, (term -> result)) :: result | nil when result: term
  def try_dequeue(server, fun) when is_function(fun, 1), do: call(server, {:try_pop, fun})

  @doc "As `peek_front/1`, in the process."
  @doc since: "1.0.0-rc.0"
  @spec inspect(server) :: term | nil
  def inspect(server), do: call(server, :peek)

  @doc "As `metadata/1`, in the process."
  @doc since: "1.0.0-rc.0"
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
