defmodule Emmap.Queue do
  @moduledoc """
  A queue in a file: first in, first out. Any number of processes, in several VMs and programs (on Linux, up to 64), can use it
  at once, and it survives `kill -9`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.queue")
      iex> _ = File.rm(path)
      iex> {:ok, q} = Emmap.Queue.open(path)
      iex> Emmap.Queue.push(q, {:event, 1})
      :ok
      iex> Emmap.Queue.push(q, {:event, 2})
      :ok
      iex> Emmap.Queue.length(q)
      2
      iex> Emmap.Queue.pop(q)
      {:ok, {:event, 1}}
      iex> {:ok, item, receipt} = Emmap.Queue.checkout(q)
      iex> item
      {:event, 2}
      iex> Emmap.Queue.ack(q, receipt)
      :ok
      iex> Emmap.Queue.pop(q)
      :empty
      iex> Emmap.Queue.close(q)
      :ok

  ## The contract

    * The queue has neither an owner process nor a server. Every function may be called by any process, in any VM that
      has opened the file. If a participant (a process, VM or program that uses the file) dies, at whatever instruction,
      the others continue.
    * A push whose call has returned survives the death of the process and of the VM. It survives a power failure once a
      sync has covered it, which `durable: true` or `sync/1` ensures.
    * Unless there is a power failure, an item that was popped or acknowledged is not delivered again. After a power
      failure, items that were popped or acknowledged since the last sync may be delivered again. If an item is checked
      out and the process, VM or program that holds it ends, the item is immediately available again, at its place in
      the order.
    * A queue can be opened in whatever state it was left. After `kill -9`, opening takes constant time. After a reboot,
      opening checks the items that were not synced and drops the incompletely written items at the end; `info/1`
      reports how many bytes.
    * An item is a term of up to 1 GiB (1,073,741,824 bytes) in the external term format, or, with `format: :binary`,
      a binary.

  A queue is `Enumerable`: the functions of `Enum` and `Stream` return the available items, oldest first, without
  removing them. It is `Collectable`: `Enum.into(items, q)` pushes the items.

  ## Live payloads

  With `format: :binary, direct: true`, payloads of more than 64 bytes are returned as live binaries, which are the bytes
  in the file and not a copy of them:

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_direct.queue")
      iex> q = Emmap.Queue.open!(path, format: :binary, direct: true)
      iex> Emmap.Queue.clear(q)
      iex> Emmap.Queue.push(q, :binary.copy("frame", 100_000))
      iex> {:ok, frame} = Emmap.Queue.pop(q)
      iex> byte_size(frame)
      500_000
      iex> {:ok, %{pinned: pinned}} = Emmap.Queue.info(q)
      iex> pinned > 500_000
      true

    * The bytes do not change while this VM uses the binary or a part of it, even after `ack/2`, `clear/1` and
      `close/1`, and even if the item was dropped to make room. No VM or program reuses their space.
    * The space of all items that were pushed after the oldest live payload is not reused either. **While a process
      keeps a live payload, the file grows with each push**, even beyond `:max_size`, which counts only items. To keep a
      payload for a long time, use `:binary.copy/1`.
    * The garbage collector releases payloads. An idle process may need an explicit `:erlang.garbage_collect/1`.
      When a VM ends, its payloads are released. `info/1` shows how much is `:pinned`.
    * A VM participates in the queue until its last live payload is collected, even after `close/1`. (On systems where
      only one VM can have a queue open, the others get `:ebusy` until then.)
    * The checksum is checked when a payload is returned. If another program truncates the file later, the payload
      reads as zeros.
    * Items that were pushed by a handle with `format: :term`, and dead letters (items that were set aside after
      `:max_attempts` deliveries), are copies.

  ## Return values

  Functions that return a plain value (`length/1`, `empty?/1`, `bytes/1`, `dead_letters/1`, the functions of `Enum`) raise
  `Emmap.Error` on an error. All other functions return it.

  A function that finds no item returns `:empty`. System errors are `{:error, reason}` with a POSIX atom or `:closed`.
  Errors of lost pages, which `Emmap.reattach/1` lists, persist until `reattach/1` is called. There are also:

    * `{:error, :full}` – the queue has reached its `:max_size`
    * `{:error, :gone}` – the receipt is no longer valid
    * `{:error, {:corrupt, position}}` – the item at this position (in bytes, from the first item ever pushed) is damaged.
      The call has moved past it: the next call returns the next intact item.

  ## Costs

  A push, a pop, a checkout and an acknowledgement each hold the lock of the queue for less than a microsecond.
  `length/1` and `bytes/1` take constant time and no lock. Space is reused when no reader needs it any more, so the file of
  a queue that stays short does not grow.
  """

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Native, Structure, StructureOwner}
  alias Emmap.Queue.{Options, Waiting}

  @dead_letters 32

  @enforce_keys [:ref, :path]
  defstruct [
    :ref,
    :path,
    :reader,
    cursor: 0,
    term: 1,
    to_binary: [],
    to_term: [:safe],
    max_size: -1,
    full: :error,
    durable: false,
    max_attempts: 0,
    # Only for `:emmap_queue`: closing deletes the file.
    auto_unlink: false
  ]

  @typedoc "An opened queue, or a reader of it, valid in every process of this node. `:path` and `:reader` may be read."
  @type t :: %__MODULE__{}
  @typedoc "A queue, or the name that it was started with: see `start_link/1`."
  @type queue :: t | atom
  @typedoc "Identifies one delivery of one item; `ack/3` and `nack/2` take it."
  @type receipt :: {non_neg_integer, pos_integer, non_neg_integer}
  @typedoc "Why a call failed: see \"Return values\"."
  @type failure ::
          {:error, :file.posix() | :closed | :full | :gone | {:corrupt, non_neg_integer}}
  @typedoc "Why a file is not opened: see `open/2`."
  @type bad_format :: :kind | :version | :endianness | :length | :checksum
  @typedoc "Why the file cannot be opened: see `open/2`."
  @type reason :: :file.posix() | {:bad_format, bad_format} | :eusers
  @typedoc "See `open/2`."
  @type option ::
          {:format, :term | :binary}
          | {:direct, boolean}
          | {:compressed, 0..9}
          | {:safe, boolean}
          | {:max_size, pos_integer | :infinity}
          | {:full, :error | :block | :drop_oldest}
          | {:durable, boolean}
          | {:max_attempts, pos_integer | :infinity}
          | {:segment_size, pos_integer}
          | {:create, boolean}

  # Opening and closing

  @doc """
  Opens the queue in a file, and creates the file if it does not exist. The directory must exist.

  Options, with their defaults. They apply to this handle unless noted otherwise:

    * `format: :term` – items are terms. With `:binary`, items are binaries, stored as they are
    * `direct: false` – with `true` and `format: :binary`, payloads are live binaries: see "Live payloads"
    * `compressed: 0` – the compression level of terms, 0 to 9
    * `safe: true` – terms are decoded as with `:erlang.binary_to_term(binary, [:safe])`: an item with an unknown atom or
      an external function raises `ArgumentError`, and is lost if it was popped
    * `max_size: :infinity` – the maximum size of the queue in bytes, as `bytes/1` counts them, for pushes by this handle
    * `full: :error` – what a push does at `:max_size`: `:error` returns `{:error, :full}`; `:block` waits, up to the
      `:timeout` of the push; `:drop_oldest` drops the oldest items, and `info/1` counts them
    * `durable: false` – with `true`, a push and an acknowledgement return only once they are on the disk
    * `max_attempts: :infinity` – the number of deliveries without an acknowledgement after which an item is set aside: see
      `dead_letters/1`
    * `create: true` – with `false`, the file must exist, or the result is `{:error, :enoent}`
    * `segment_size: 262_144` – for a new file: the file grows and is recycled in segments of this many bytes

  Errors:

    * those of `Emmap.open/2`
    * `{:bad_format, why}` – not a queue file (`:kind`), of an unknown `:version`, from a machine of the other
      `:endianness`, shorter than its header says (`:length`), or with both headers damaged (`:checksum`)
    * `:eusers` – 64 programs have the queue open
    * `:ebusy` – on systems other than Linux, only one VM at a time can have a queue open
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), [option]) :: {:ok, t} | {:error, reason}
  def open(path, options \\ []) do
    path = Emmap.Path.bytes!(path)
    given = Options.open!(options)

    wanted = %{
      segment_size: Map.get(given, :segment_size),
      existing: not Map.get(given, :create, true),
      direct: Map.get(given, :direct, false)
    }

    Structure.open(path, &patient(Native.queue_open(&1, wanted)), fn path, {:ok, ref} ->
      configured(%__MODULE__{ref: ref, path: path}, given)
    end)
  end

  @doc "Same as `open/2`, but returns only the queue and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), [option]) :: t
  def open!(path, options \\ []), do: path |> open(options) |> Structure.opened!(:queue, path)

  defp configured(queue, given) do
    level = Map.get(given, :compressed, 0)

    %{
      queue
      | term: if(Map.get(given, :format, :term) == :term, do: 1, else: 0),
        to_binary: if(level > 0, do: [compressed: level], else: []),
        to_term: if(Map.get(given, :safe, true), do: [:safe], else: []),
        max_size: unless_infinity(Map.get(given, :max_size, :infinity), -1),
        full: Map.get(given, :full, :error),
        durable: Map.get(given, :durable, false),
        max_attempts: unless_infinity(Map.get(given, :max_attempts, :infinity), 0)
    }
  end

  defp unless_infinity(:infinity, instead), do: instead
  defp unless_infinity(number, _instead), do: number

  @doc """
  Closes the queue for all processes that hold this handle. Each later call fails with `:closed`: functions
  that return a plain value raise `Emmap.Error`, and the others return `{:error, :closed}`.

  Items that these processes have checked out are available to others. All items are in the file; to have them on the
  disk, call `sync/1` first. Live payloads do not change.
  """
  @doc group: "Opening and closing"
  @spec close(queue) :: :ok | failure
  def close(queue), do: patient(Native.queue_close(queue!(queue).ref))

  @doc """
  Returns `:ok` once everything that any participant has done so far is on the disk.
  """
  @doc group: "Opening and closing"
  @spec sync(queue) :: :ok | failure
  def sync(queue), do: patient(Native.queue_sync(queue!(queue).ref))

  @doc """
  Repairs a queue whose file was truncated or whose disk failed, after the file has been restored: see `Emmap.reattach/1`.
  """
  @doc group: "Opening and closing"
  @spec reattach(queue) :: :ok | {:error, reason | :closed}
  def reattach(queue), do: Structure.reattach(queue!(queue), &Native.queue_reattach/1)

  @doc """
  Returns the state of the queue as a map.

  Its keys are:

    * `:path`, `:size` (of the file, in bytes), `:faults` (how often a lost page was accessed)
    * `:length`, `:checked_out`, `:dead_letters` – numbers of items; `:bytes` – see `bytes/1`
    * `:tail` – the position that the next pushed item will have, in bytes from the first item ever pushed
    * `:pinned` – bytes of the file that live payloads of any VM keep from being reused: from the oldest of them to `:tail`
    * `:dropped` – the number of items dropped by `full: :drop_oldest`
    * `:readers` – a map for each reader: `:name`, `:length`, `:checked_out`, `:max_lag` (0 for none), `:lost` (items
      skipped because of `:max_lag`)
    * `:recovered` – `nil`, or what the last open after a reboot found: `:items`, and `:dropped_bytes`, the size of the
      incompletely written items at the end
    * `:segment_size` – in bytes
  """
  @doc group: "Opening and closing"
  @spec info(queue) :: {:ok, map} | failure
  def info(queue) do
    queue = queue!(queue)

    with {:ok, of_queue} <- patient(Native.queue_info(queue.ref)),
         {:ok, of_file} <- Structure.info(queue) do
      {recoveries, info} = Map.pop!(of_queue, :recoveries)
      {recovered, info} = Map.split(info, [:recovered_items, :dropped_bytes])

      recovered =
        if recoveries > 0,
          do: %{items: recovered.recovered_items, dropped_bytes: recovered.dropped_bytes}

      {:ok, of_file |> Map.merge(info) |> Map.put(:recovered, recovered)}
    end
  end

  # Pushing

  @doc """
  Adds an item at the end of the queue.

  Options:

    * `durable: true` – returns only once the item is on the disk; the default is the option of `open/2`. All waiting
      processes share one sync
    * `id: {producer, number}` – drops the item, and returns `:duplicate`, if this producer has already pushed this
      number or a higher one. `producer` is any term. A queue remembers up to 1,024 producers; a push by another one
      returns `{:error, :eusers}`
    * `timeout: milliseconds` – with `full: :block`, how long to wait for space before `{:error, :full}` is returned;
      the default is `:infinity`

  Raises `ArgumentError` if the queue has `format: :binary` and the item is not a binary. For an item larger than 1 GiB,
  the result is `{:error, :emsgsize}`.
  """
  @doc group: "Pushing"
  @spec push(queue, term, durable: boolean, id: {term, non_neg_integer}, timeout: timeout) ::
          :ok | :duplicate | failure
  def push(queue, item, options \\ [])

  def push(%__MODULE__{max_size: -1, durable: false, ref: ref, term: term} = queue, item, []),
    do: patient(Native.queue_push(ref, payload(queue, item), term))

  def push(queue, item, options) do
    queue = queue!(queue)
    given = Options.push!(options)
    payload = payload(queue, item)
    timeout = if queue.full == :block, do: Map.get(given, :timeout, :infinity), else: 0

    pushed =
      Waiting.retry(queue.ref, true, timeout, {:error, :full}, fn ->
        push_as(queue, payload, Map.get(given, :id))
      end)

    durably(queue, pushed, Map.get(given, :durable, queue.durable))
  end

  defp push_as(queue, payload, id) do
    {producer, number} = identity(id)
    drop = if queue.full == :drop_oldest, do: 1, else: 0

    patient(
      Native.queue_push_as(queue.ref, payload, queue.term, queue.max_size, drop, producer, number)
    )
  end

  # A producer in another language computes the MD5 of its name.
  defp identity(nil), do: {<<>>, 0}
  defp identity({producer, number}) when is_binary(producer), do: {:erlang.md5(producer), number}

  defp identity({producer, number}),
    do: {:erlang.md5(:erlang.term_to_binary(producer, minor_version: 2)), number}

  defp durably(queue, result, true) when result in [:ok, :duplicate] do
    with :ok <- Waiting.durable(queue.ref), do: result
  end

  defp durably(_queue, result, _durable), do: result

  defp payload(%{term: 1, to_binary: []}, item), do: :erlang.term_to_binary(item)
  defp payload(%{term: 1, to_binary: options}, item), do: :erlang.term_to_binary(item, options)
  defp payload(%{term: 0}, item) when is_binary(item), do: item

  defp payload(%{term: 0}, item),
    do: raise(ArgumentError, "the items of this queue are binaries, got #{inspect(item)}")

  @doc """
  Adds items in order, and returns `{:ok, n}`, the number of items.

  With `durable: true`, one sync covers all of them. If the call fails, it returns `{:error, reason, n}`, where `n` is the
  number of items that were pushed.
  """
  @doc group: "Pushing"
  @spec push_many(queue, Enumerable.t(), durable: boolean, timeout: timeout) ::
          {:ok, non_neg_integer} | {:error, term, non_neg_integer}
  def push_many(queue, items, options \\ []) do
    queue = queue!(queue)
    given = Options.push!(options)
    timeout = if queue.full == :block, do: Map.get(given, :timeout, :infinity), else: 0

    with {:ok, count} <- push_all(queue, items, timeout) do
      case durably(queue, :ok, Map.get(given, :durable, queue.durable)) do
        :ok -> {:ok, count}
        {:error, reason} -> {:error, reason, count}
      end
    end
  end

  # The most that one call may push at once.
  @chunk_items 500
  @chunk_bytes 65_536

  # Each call takes as much of the list as it may.
  defp push_all(%{term: 0} = queue, items, timeout) when is_list(items) do
    case Enum.find(items, &(not is_binary(&1))) do
      nil -> push_chunk(queue, items, timeout, 0)
      wrong -> payload(queue, wrong)
    end
  end

  defp push_all(queue, items, timeout) do
    pushed =
      Enum.reduce_while(items, {[], 0, 0, 0}, fn item, {payloads, items, bytes, count} ->
        payload = payload(queue, item)
        {payloads, items, bytes} = {[payload | payloads], items + 1, bytes + byte_size(payload)}

        if items == @chunk_items or bytes >= @chunk_bytes do
          case push_chunk(queue, Enum.reverse(payloads), timeout, count) do
            {:ok, count} -> {:cont, {[], 0, 0, count}}
            error -> {:halt, error}
          end
        else
          {:cont, {payloads, items, bytes, count}}
        end
      end)

    case pushed do
      {payloads, _items, _bytes, count} ->
        push_chunk(queue, Enum.reverse(payloads), timeout, count)

      error ->
        error
    end
  end

  defp push_chunk(_queue, [], _timeout, count), do: {:ok, count}

  defp push_chunk(queue, payloads, timeout, count) do
    case push_payloads(queue, payloads) do
      {0, {:error, :full}} when timeout != 0 ->
        full = {0, {:error, :full}}
        try = fn -> push_payloads(queue, payloads) end
        waited = Waiting.retry(queue.ref, true, timeout, full, try)
        pushed_chunk(queue, payloads, timeout, count, waited)

      pushed ->
        pushed_chunk(queue, payloads, timeout, count, pushed)
    end
  end

  defp pushed_chunk(queue, payloads, timeout, count, pushed) do
    case pushed do
      {n, :ok} ->
        push_chunk(queue, Enum.drop(payloads, n), timeout, count + n)

      {n, {:error, :full}} when n > 0 and timeout != 0 ->
        push_chunk(queue, Enum.drop(payloads, n), timeout, count + n)

      {n, {:error, reason}} ->
        {:error, reason, count + n}

      {:error, reason} ->
        {:error, reason, count}
    end
  end

  defp push_payloads(queue, payloads) do
    drop = if queue.full == :drop_oldest, do: 1, else: 0
    patient(Native.queue_push_many(queue.ref, payloads, queue.term, queue.max_size, drop))
  end

  # Popping

  @doc """
  Removes the oldest item and returns it. If the item must not be lost when this process dies, use `checkout/2`.
  """
  @doc group: "Popping"
  @spec pop(queue) :: {:ok, term} | :empty | failure
  def pop(%__MODULE__{ref: ref, cursor: cursor} = queue) do
    case patient(Native.queue_pop(ref, cursor)) do
      {payload} -> {:ok, :erlang.binary_to_term(payload, queue.to_term)}
      payload when is_binary(payload) -> {:ok, payload}
      other -> other
    end
  end

  def pop(queue), do: pop(queue!(queue))

  @doc """
  Same as `pop/1`, but waits up to `timeout` milliseconds for an item. A waiting process uses no CPU.
  """
  @doc group: "Popping"
  @spec pop(queue, timeout) :: {:ok, term} | :empty | failure
  def pop(queue, timeout) do
    queue = queue!(queue)
    Waiting.retry(queue.ref, false, Options.timeout!(timeout), :empty, fn -> pop(queue) end)
  end

  @doc """
  Removes and returns up to `:max_items` items (default 1,000), with a total size of at most `:max_bytes` (default 1
  MiB).

  Returns `{:ok, items}`, oldest first and with at least one item, or `:empty`.

  `:timeout` (default 0) is how many milliseconds to wait for the first item. A damaged item ends the batch and is
  reported by the next call.
  """
  @doc group: "Popping"
  @spec pop_many(queue, max_items: pos_integer, max_bytes: pos_integer, timeout: timeout) ::
          {:ok, [term, ...]} | :empty | failure
  def pop_many(queue, options \\ []) do
    queue = queue!(queue)

    batch(queue, options, fn items, bytes, more ->
      patient(Native.queue_pop_many(queue.ref, queue.cursor, items, bytes, more))
    end)
    |> each_item(&payload_item(queue, &1))
  end

  defp each_item({:ok, items}, fun), do: {:ok, Enum.map(items, fun)}
  defp each_item(other, _fun), do: other

  defp payload_item(queue, {payload}), do: :erlang.binary_to_term(payload, queue.to_term)
  defp payload_item(_queue, payload), do: payload

  # Each call of `take` returns as much as it may while it holds the lock.
  defp batch(queue, options, take) do
    given = Options.pop_many!(options)
    {items, bytes} = {Map.get(given, :max_items, 1000), Map.get(given, :max_bytes, 1_048_576)}
    timeout = Map.get(given, :timeout, 0)
    first = fn -> take.(items, bytes, 0) end

    case Waiting.retry(queue.ref, false, timeout, :empty, first) do
      {taken, sum} when is_list(taken) ->
        more(take, items - Kernel.length(taken), bytes - sum, taken)

      other ->
        other
    end
  end

  defp more(take, items, bytes, taken) when items > 0 and bytes > 0 do
    case take.(items, bytes, 1) do
      {again, sum} when is_list(again) ->
        more(take, items - Kernel.length(again), bytes - sum, taken ++ again)

      _ ->
        {:ok, taken}
    end
  end

  defp more(_take, _items, _bytes, taken), do: {:ok, taken}

  @doc "Returns the oldest item without removing it."
  @doc group: "Popping"
  @spec peek(queue) :: {:ok, term} | :empty | failure
  def peek(queue) do
    queue = queue!(queue)
    item(queue, patient(Native.queue_peek(queue.ref, queue.cursor)))
  end

  @doc "Returns the newest item without removing it."
  @doc group: "Popping"
  @spec peek_last(queue) :: {:ok, term} | :empty | failure
  def peek_last(queue) do
    queue = queue!(queue)
    item(queue, patient(Native.queue_peek_last(queue.ref, queue.cursor)))
  end

  defp item(queue, {payload}), do: {:ok, :erlang.binary_to_term(payload, queue.to_term)}
  defp item(_queue, payload) when is_binary(payload), do: {:ok, payload}
  defp item(_queue, other), do: other

  # At-least-once delivery

  @doc """
  Checks out the oldest item, and returns `{:ok, item, receipt}`.

  The item stays in the queue until `ack/3` is called, and no other process gets it in the meantime. It is available
  again, at its place in the order, after `nack/2`, or when this process, its VM or its program ends.

  With `:max_items` or `:max_bytes`, it returns a batch, `{:ok, [{item, receipt}]}`, like `pop_many/2`. `:timeout`
  (default 0) is how many milliseconds to wait for the first item.

  On a full disk, at least 24 items of a queue (and of each reader) can be checked out at the same time; beyond that,
  the result may be `{:error, :enospc}`. On a full disk, an item that has used up its `:max_attempts` cannot be set
  aside and is delivered again.
  """
  @doc group: "At-least-once delivery"
  @spec checkout(queue, max_items: pos_integer, max_bytes: pos_integer, timeout: timeout) ::
          {:ok, term, receipt} | {:ok, [{term, receipt}, ...]} | :empty | failure
  def checkout(queue, options \\ [])

  def checkout(%__MODULE__{ref: ref, cursor: cursor} = queue, []) do
    case patient(Native.queue_check_out(ref, cursor, queue.max_attempts)) do
      {{payload}, sequence, attempts, claim} ->
        {:ok, :erlang.binary_to_term(payload, queue.to_term), {sequence, attempts, claim}}

      {payload, sequence, attempts, claim} ->
        {:ok, payload, {sequence, attempts, claim}}

      other ->
        other
    end
  end

  def checkout(queue, options) do
    queue = queue!(queue)

    case Map.new(options) do
      given when is_map_key(given, :max_items) or is_map_key(given, :max_bytes) ->
        batch(queue, options, fn items, bytes, more ->
          patient(
            Native.queue_check_out_many(
              queue.ref,
              queue.cursor,
              queue.max_attempts,
              items,
              bytes,
              more
            )
          )
        end)
        |> each_item(fn {payload, sequence, attempts, claim} ->
          {payload_item(queue, payload), {sequence, attempts, claim}}
        end)

      _ ->
        timeout = Map.get(Options.pop_many!(options), :timeout, 0)
        Waiting.retry(queue.ref, false, timeout, :empty, fn -> checkout(queue, []) end)
    end
  end

  @doc """
  Acknowledges the item of a receipt, or of each receipt in a list, so that it is not delivered again.

  Returns `{:error, :gone}` if the receipt is no longer valid, because the item was acknowledged or released before,
  or dropped to make room. If some receipts of a list are no longer valid, the items of the others are still
  acknowledged.

  With `durable: true`, once the call has returned, the item is not delivered again even after a power failure.
  """
  @doc group: "At-least-once delivery"
  @spec ack(queue, receipt | [receipt], durable: boolean) :: :ok | failure
  def ack(queue, receipts, options \\ [])

  def ack(
        %__MODULE__{ref: ref, cursor: cursor, durable: false},
        {sequence, attempts, claim},
        []
      ),
      do: patient(Native.queue_acknowledge(ref, cursor, sequence, attempts, claim))

  def ack(queue, receipts, options) do
    queue = queue!(queue)
    durable? = Map.get(Options.ack!(options), :durable, queue.durable)
    receipts = List.wrap(receipts)

    acknowledged =
      receipts
      |> Enum.chunk_every(@chunk_items)
      |> each(&patient(Native.queue_acknowledge_many(queue.ref, queue.cursor, &1)))

    if durable? and acknowledged in [:ok, {:error, :gone}] do
      sequences = for {sequence, _, _} <- receipts, do: sequence

      # Also written to the stream: after a crash, an acknowledgement that has returned is found, and any other may be.
      with :ok <- patient(Native.queue_record(queue.ref, queue.cursor, sequences)),
           :ok <- Waiting.durable(queue.ref),
           do: acknowledged
    else
      acknowledged
    end
  end

  @doc """
  Makes the item of a receipt, or of each receipt in a list, available again at its place in the order.

  Returns `{:error, :gone}` as `ack/3` does.
  """
  @doc group: "At-least-once delivery"
  @spec nack(queue, receipt | [receipt]) :: :ok | failure
  def nack(queue, receipts) do
    queue = queue!(queue)

    each(List.wrap(receipts), fn {sequence, attempts, claim} ->
      patient(Native.queue_release(queue.ref, queue.cursor, sequence, attempts, claim))
    end)
  end

  # Acts on all of them, and returns the first error.
  defp each(receipts, act) do
    Enum.reduce(receipts, :ok, fn receipt, result ->
      case act.(receipt) do
        :ok -> result
        error when result == :ok -> error
        _ -> result
      end
    end)
  end

  @doc "Returns how many times the item of this receipt has been delivered, including the delivery that the receipt belongs to."
  @doc group: "At-least-once delivery"
  @spec attempts(receipt) :: pos_integer
  def attempts(receipt)
  def attempts({_sequence, attempts, _claim}), do: attempts

  @doc """
  Checks out an item, calls `fun` with it, acknowledges it when `fun` returns, and returns `{:ok, result}`.

  If `fun` raises, throws or exits, the item is available again, and the exception is raised again.

      iex> q = Emmap.Queue.open!(Path.join(System.tmp_dir!(), "emmap_doc_take.queue"))
      iex> Emmap.Queue.clear(q)
      iex> Emmap.Queue.push(q, 20)
      iex> Emmap.Queue.take(q, fn n -> n + 1 end)
      {:ok, 21}
      iex> Emmap.Queue.take(q, fn n -> n + 1 end)
      :empty
  """
  @doc group: "At-least-once delivery"
  @spec take(queue, (term -> result)) :: {:ok, result} | :empty | failure when result: term
  def take(queue, fun) when is_function(fun, 1) do
    queue = queue!(queue)

    with {:ok, item, receipt} <- checkout(queue) do
      result =
        try do
          fun.(item)
        catch
          kind, reason ->
            nack(queue, receipt)
            :erlang.raise(kind, reason, __STACKTRACE__)
        end

      with :ok <- ack(queue, receipt), do: {:ok, result}
    end
  end

  @doc """
  Returns the items that were set aside after `:max_attempts` deliveries, oldest first, each with its number of attempts.
  """
  @doc group: "At-least-once delivery"
  @spec dead_letters(queue) :: [{term, pos_integer}]
  def dead_letters(queue) do
    queue = %{queue!(queue) | cursor: @dead_letters}

    queue
    |> walk([], fn {item, _sequence, attempts}, all -> {:cont, [{item, attempts} | all]} end)
    |> Enum.reverse()
  end

  @doc "Removes the oldest item that was set aside and returns it."
  @doc group: "At-least-once delivery"
  @spec pop_dead_letter(queue) :: {:ok, term} | :empty | failure
  def pop_dead_letter(queue), do: pop(%{queue!(queue) | cursor: @dead_letters})

  # Readers

  @doc """
  Returns the reader with this name, and creates it if it does not exist.

  A reader has its own cursor. It sees every item that is pushed after it was created, no matter what others take. All
  functions that take items accept a reader. A queue can have up to 31 readers; creating another one returns
  `{:error, :eusers}`.

  Space is reused once all readers have passed it, so the slowest reader determines the size of the file. With
  `max_lag:`, in bytes, a reader that falls further behind skips the oldest items, and `info/1` counts them.

  A name has 1 to 62 bytes. A reader is stored in the file and exists until `delete_reader/2` is called.
  """
  @doc group: "Readers"
  @spec reader(queue, String.t(), max_lag: pos_integer | :infinity) :: {:ok, t} | failure
  def reader(queue, name, options \\ []) do
    queue = queue!(queue)
    lag = options |> Options.reader!() |> Map.get(:max_lag, :infinity) |> unless_infinity(0)

    with {:ok, cursor} <- patient(Native.queue_reader(queue.ref, name!(name), lag)),
         do: {:ok, %{queue | cursor: cursor, reader: name}}
  end

  @doc "Deletes a reader. Returns `{:error, :gone}` if no reader has this name."
  @doc group: "Readers"
  @spec delete_reader(queue, String.t()) :: :ok | failure
  def delete_reader(queue, name),
    do: patient(Native.queue_delete_reader(queue!(queue).ref, name!(name)))

  defp name!(name) when is_binary(name) and byte_size(name) in 1..62, do: name

  defp name!(name),
    do:
      raise(
        ArgumentError,
        "the name of a reader must be a string of 1 to 62 bytes, got #{inspect(name)}"
      )

  # Inspecting

  @doc "Returns how many items are available. Items that are checked out are not counted. Takes constant time."
  @doc group: "State and maintenance"
  @spec length(queue) :: non_neg_integer
  def length(queue) do
    queue = queue!(queue)

    case Native.queue_lengths(queue.ref, queue.cursor) do
      {available, _checked_out} when is_integer(available) -> available
      {:error, reason} -> Structure.failed!(queue, :queue, :read, reason)
    end
  end

  @doc "Returns `true` if no item is available. Takes constant time."
  @doc group: "State and maintenance"
  @spec empty?(queue) :: boolean
  def empty?(queue), do: __MODULE__.length(queue) == 0

  @doc """
  Returns how many bytes of the file lie between the oldest unacknowledged item and the newest, including headers
  and padding. Takes constant time.
  """
  @doc group: "State and maintenance"
  @spec bytes(queue) :: non_neg_integer
  def bytes(queue) do
    queue = queue!(queue)

    case patient(Native.queue_bytes(queue.ref)) do
      bytes when is_integer(bytes) -> bytes
      {:error, reason} -> Structure.failed!(queue, :queue, :read, reason)
    end
  end

  @doc "Drops all items of this handle's queue or reader, including those that are checked out. The items of other readers are kept."
  @doc group: "State and maintenance"
  @spec clear(queue) :: :ok | failure
  def clear(queue) do
    queue = queue!(queue)
    patient(Native.queue_clear(queue.ref, queue.cursor))
  end

  @doc """
  Copies all intact items of a damaged queue to the queue at `path`. The queue itself is not changed.

  Returns `{:ok, %{items: copied, damaged: places}}`, the numbers of copied items and of damaged places.
  """
  @doc group: "State and maintenance"
  @spec salvage(queue, Path.t() | :file.name_all()) ::
          {:ok, %{items: non_neg_integer, damaged: non_neg_integer}} | {:error, term}
  def salvage(queue, path) do
    queue = queue!(queue)

    with {:ok, copy} <- open(path) do
      try do
        salvage(queue, copy, 0, %{items: 0, damaged: 0})
      after
        close(copy)
      end
    end
  end

  defp salvage(queue, copy, position, found) do
    case patient(Native.queue_look(queue.ref, queue.cursor, position)) do
      :empty ->
        {:ok, found}

      {{payload}, _sequence, _attempts, next} ->
        with :ok <- patient(Native.queue_push(copy.ref, payload, 1)),
             do: salvage(queue, copy, next, %{found | items: found.items + 1})

      {payload, _sequence, _attempts, next} ->
        with :ok <- patient(Native.queue_push(copy.ref, payload, 0)),
             do: salvage(queue, copy, next, %{found | items: found.items + 1})

      {:error, {:corrupt, damaged}} ->
        next = patient(Native.queue_after_damage(queue.ref, queue.cursor, damaged))

        case next do
          {:error, _} = error -> error
          next -> salvage(queue, copy, next, %{found | damaged: found.damaged + 1})
        end

      {:error, _} = error ->
        error
    end
  end

  # Enumerating

  @doc false
  # Calls `fun` with `{item, sequence, attempts}` of each available item, and an accumulator.
  def walk(queue, acc, fun), do: walk(queue, 0, acc, fun)

  defp walk(queue, position, acc, fun) do
    case look(queue, position) do
      :empty ->
        acc

      {found, next} ->
        case fun.(found, acc) do
          {:cont, acc} -> walk(queue, next, acc, fun)
          {:halt, acc} -> acc
        end
    end
  end

  @doc false
  # The first available item at or after a position, and where the next item begins. Skips damaged items.
  def look(%__MODULE__{} = queue, position) do
    case patient(Native.queue_look(queue.ref, queue.cursor, position)) do
      :empty ->
        :empty

      {{payload}, sequence, attempts, next} ->
        {{:erlang.binary_to_term(payload, queue.to_term), sequence, attempts}, next}

      {payload, sequence, attempts, next} ->
        {{payload, sequence, attempts}, next}

      {:error, {:corrupt, damaged}} ->
        look(queue, patient(Native.queue_after_damage(queue.ref, queue.cursor, damaged)))

      {:error, reason} ->
        Structure.failed!(queue, :queue, :read, reason)
    end
  end

  # Supervision

  @doc """
  Starts a process that keeps the queue open for as long as it lives, for use in a supervision tree.

  The options are those of `open/2`, and:

    * `:path` – the file, required
    * `:name` – an atom that each function accepts instead of the queue, at the cost of a look-up in `:persistent_term`

  The process is not involved in any call.
  """
  @doc group: "Supervision"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: StructureOwner.start_link(__MODULE__, options, &open/2)

  @doc "Returns a child specification for `start_link/1`. Its id is the `:name`, or else the `:path`."
  @doc group: "Supervision"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: StructureOwner.child_spec(__MODULE__, options)

  defp queue!(%__MODULE__{} = queue), do: queue

  defp queue!(name) when is_atom(name), do: StructureOwner.named!(__MODULE__, name)

  defp queue!(other), do: Structure.refuse!(other, __MODULE__, "a queue")

  defimpl Enumerable do
    # Items that others take while these functions run may be missing.
    def count(_queue), do: {:error, __MODULE__}
    def member?(_queue, _item), do: {:error, __MODULE__}
    def slice(_queue), do: {:error, __MODULE__}
    def reduce(queue, acc, fun), do: next(queue, 0, acc, fun)

    defp next(_queue, _position, {:halt, acc}, _fun), do: {:halted, acc}

    defp next(queue, position, {:suspend, acc}, fun),
      do: {:suspended, acc, &next(queue, position, &1, fun)}

    defp next(queue, position, {:cont, acc}, fun) do
      case Emmap.Queue.look(queue, position) do
        :empty -> {:done, acc}
        {{item, _sequence, _attempts}, next} -> next(queue, next, fun.(item, acc), fun)
      end
    end
  end

  defimpl Collectable do
    def into(queue), do: {queue, &push/2}

    defp push(queue, {:cont, item}) do
      case Emmap.Queue.push(queue, item) do
        {:error, reason} -> Emmap.Structure.failed!(queue, :queue, :write, reason)
        _ -> queue
      end
    end

    defp push(queue, :done), do: queue
    defp push(_queue, :halt), do: :ok
  end

  defimpl Inspect do
    def inspect(%{path: path, reader: reader} = queue, _opts) do
      "#Emmap.Queue<#{Kernel.inspect(path)}#{reader && ", reader: #{Kernel.inspect(reader)}"}, length: #{Emmap.Queue.length(queue)}>"
    rescue
      error in Emmap.Error -> "#Emmap.Queue<#{Kernel.inspect(path)}, #{error.reason}>"
      ArgumentError -> "#Emmap.Queue<#{Kernel.inspect(path)}, not of this node>"
    end
  end
end
