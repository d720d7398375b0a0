defmodule Emmap.Blocks do
  @moduledoc """
  A block store: fixed-size blocks in a file. The address of a block changes only when the file is compacted. Any number of
  processes, in several VMs and programs (on Linux, up to 64), can use the file at once, and it is intact after `kill
  -9`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.blocks")
      iex> _ = File.rm(path)
      iex> {:ok, blocks} = Emmap.Blocks.open(path, block_size: 16)
      iex> Emmap.Blocks.store(blocks, "sixteen bytes...")
      {:ok, 0}
      iex> Emmap.Blocks.store(blocks, "and 16 more.....")
      {:ok, 1}
      iex> Emmap.Blocks.read(blocks, 0)
      {:ok, "sixteen bytes..."}
      iex> Emmap.Blocks.free(blocks, 0)
      :ok
      iex> Emmap.Blocks.store(blocks, "the lowest free.")
      {:ok, 0}
      iex> Enum.to_list(blocks)
      [{0, "the lowest free."}, {1, "and 16 more....."}]
      iex> Emmap.Blocks.count(blocks)
      2
      iex> Emmap.Blocks.close(blocks)
      :ok

  ## The contract

    * The file has neither an owner process nor a server. Every function may be called by any process, in any VM that
      has opened the file. If a participant (a process, VM or program that uses the file) dies, at whatever instruction,
      the others continue.
    * `store/2` uses the lowest free address. Addresses are integers from 0, of up to 64 bits.
    * The effect of a `store/2`, `write/3` or `free/2` that has returned survives the death of the process and of the
      VM. It survives a power failure once a later `sync/1` has returned `:ok`. After a power failure, blocks that were
      stored since the last sync are gone, and `info/1` counts them. A block that was replaced since then has either its
      old or its new data, never parts of both. A block that was freed since then may be in use again.
    * A block that a sync has covered keeps its place on the disk until the next sync: if it is freed, its address is not
      reused before that. The address of a block that no sync has covered can be reused immediately.
    * `count/1` is always exact, even after participants have died.
    * Each block has a checksum. A call that reads a damaged block returns `{:error, {:corrupt, address}}`. The other
      blocks stay readable. Reads take no lock.

  ## Return values

  If an address is not in use, the result is `{:error, :enoent}`. Other system errors are `{:error, reason}` with a
  POSIX atom or `:closed`. Data whose length is not `:block_size` raises `ArgumentError`.

  ## Costs

  Storing, reading and freeing take constant time, regardless of the number of blocks. In addition to the data, the
  file needs 4.5 bytes per block, allocated for 32,256 blocks at a time. It grows by one eighth at a time, but by at
  least 64 KiB and at most 64 MiB. Opening takes constant time after `kill -9`: the kernel still has the file's pages
  in memory, and their state is valid after every instruction. After a clean close, the file agrees with its last
  sync, and the first open checks this. The first open after a reboot rebuilds the state. The check and the rebuild
  read half a byte per block.

  Calls with blocks of more than 64 KiB run on dirty schedulers.
  """

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Native, OptionList, Structure, StructureOwner}

  @enforce_keys [:ref, :path, :block_size]
  defstruct [:ref, :path, :block_size, pad: false, direct: false]

  @typedoc "An opened block store, valid in every process of this node. `:path` and `:block_size` may be read."
  @type t :: %__MODULE__{}
  @typedoc "An opened block store, or the name that it was started with: see `start_link/1`."
  @type blocks :: t | atom
  @typedoc "The number of a block, from 0."
  @type address :: non_neg_integer
  @typedoc "Why a call failed: see \"Return values\"."
  @type failure :: {:error, :file.posix() | :closed | {:corrupt, address}}
  @typedoc "Why a file is not opened: see `open/2`."
  @type bad_format :: :kind | :version | :endianness | :length | :checksum
  @typedoc "Why the file cannot be opened: see `open/2`."
  @type reason ::
          :file.posix() | {:bad_format, bad_format} | {:other_block_size, pos_integer} | :eusers
  @typedoc "See `open/2`."
  @type option ::
          {:block_size, pos_integer}
          | {:pad, boolean}
          | {:direct, boolean}
          | {:create, boolean}

  @most_bytes 1_073_741_824
  @options [
    block_size: {&__MODULE__.size?/1, "a number of bytes, 1 to #{@most_bytes} (1 GiB)"},
    pad: {&is_boolean/1, "true | false"},
    direct: {&is_boolean/1, "true | false"},
    create: {&is_boolean/1, "true | false"}
  ]

  @doc false
  def size?(size), do: size in 1..@most_bytes

  # Opening and closing

  @doc """
  Opens the block store in a file, and creates the file if it does not exist. The directory must exist.

  Options, with their defaults:

    * `:block_size` – the length of each block in bytes, 1 to 1,073,741,824. Required for a new file. Without it, the file
      must exist, or the result is `{:error, :enoent}`
    * `pad: false` – with `true`, shorter data is padded with zeros
    * `direct: false` – with `true`, `read/2` returns blocks of more than 64 bytes as live binaries, in constant time. These
      are the bytes in the file, and change when the block is written to or its address is reused. Their checksum is not
      checked. A block that the last sync has covered, and that was written to since, is copied
    * `create: true` – with `false`, the file must exist

  Errors:

    * those of `Emmap.open/2`
    * `{:other_block_size, bytes}` – the blocks of the file have this size
    * `{:bad_format, why}` – as with `Emmap.Queue.open/2`
    * `:eusers` – 64 programs have the file open
    * `:ebusy` – on systems other than Linux, only one VM at a time can have the file open
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), [option]) :: {:ok, t} | {:error, reason}
  def open(path, options \\ []) do
    path = Emmap.Path.bytes!(path)
    given = OptionList.check!(options, @options)

    wanted = %{
      block_size: Map.get(given, :block_size),
      existing: not Map.get(given, :create, true)
    }

    Structure.open(path, &patient(Native.blocks_open(&1, wanted)), fn path, {:ok, ref, size} ->
      %__MODULE__{
        ref: ref,
        path: path,
        block_size: size,
        pad: Map.get(given, :pad, false),
        direct: Map.get(given, :direct, false)
      }
    end)
  end

  @doc "Same as `open/2`, but returns only the block store and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), [option]) :: t
  def open!(path, options \\ []), do: path |> open(options) |> Structure.opened!(:blocks, path)

  @doc """
  Closes the block store for all processes that hold this handle. Each later call fails with `:closed`: functions that return a plain value raise
  `Emmap.Error`, and the others return `{:error, :closed}`.

  When the last handle in a VM is closed, the file is first synced; if that fails, its error is returned.
  """
  @doc group: "Opening and closing"
  @spec close(blocks) :: :ok | failure
  def close(blocks), do: patient(Native.blocks_close(blocks!(blocks).ref))

  @doc """
  Returns `:ok` once everything that any participant has done so far is on the disk.

  All waiting processes share one sync.

  It writes to the disk in two steps: first the blocks, then the record of which blocks are covered. After a sync has
  failed, each later one returns the same error until `reattach/1` is called.
  """
  @doc group: "Opening and closing"
  @spec sync(blocks) :: :ok | failure
  def sync(blocks), do: patient(Native.blocks_sync(blocks!(blocks).ref))

  @doc """
  Repairs a block store whose file was truncated or whose disk failed, after the file has been restored: see
  `Emmap.reattach/1`.
  """
  @doc group: "Opening and closing"
  @spec reattach(blocks) :: :ok | {:error, reason | :closed}
  def reattach(blocks), do: Structure.reattach(blocks!(blocks), &Native.blocks_reattach/1)

  @doc """
  Returns the state of the block store as a map.

  Its keys are:

    * `:path`, `:size` (of the file, in bytes), `:faults` (how often a lost page was accessed)
    * `:block_size` in bytes, `:count`, `:capacity` – see `count/1` and `capacity/1`
    * `:replaced` – how many blocks were written to and are stored separately until the next sync
    * `:recovered` – `nil`, or what the last open after a reboot found: `:kept`, the number of blocks kept, and
      `:dropped`, the number of blocks that no sync had covered
  """
  @doc group: "Opening and closing"
  @spec info(blocks) :: {:ok, map} | failure
  def info(blocks) do
    blocks = blocks!(blocks)

    with {:ok, of_blocks} <- patient(Native.blocks_info(blocks.ref)),
         {:ok, of_file} <- Structure.info(blocks) do
      {recoveries, info} = Map.pop!(of_blocks, :recoveries)
      {recovered, info} = Map.split(info, [:kept, :dropped])
      recovered = if recoveries > 0, do: recovered

      {:ok, of_file |> Map.merge(info) |> Map.put(:recovered, recovered)}
    end
  end

  # Blocks

  @doc """
  Stores a block at the lowest free address, and returns the address.

  Errors: `:enospc` if the disk is full, `:edquot` if the user's quota is used up, and the reasons for lost pages that
  `Emmap.reattach/1` lists, which persist until `reattach/1` is called.
  """
  @doc group: "Blocks"
  @spec store(blocks, binary) :: {:ok, address} | failure
  def store(%__MODULE__{ref: ref, block_size: size}, data)
      when is_binary(data) and byte_size(data) == size do
    case patient(Native.blocks_store(ref, data)) do
      address when is_integer(address) -> {:ok, address}
      error -> error
    end
  end

  def store(blocks, data) do
    blocks = blocks!(blocks)
    store(blocks, data!(blocks, data))
  end

  @doc """
  Stores blocks in order, and returns their addresses.

  If the call fails, it returns `{:error, reason, addresses}` with the addresses of the blocks that were stored.
  """
  @doc group: "Blocks"
  @spec store_many(blocks, Enumerable.t()) :: {:ok, [address]} | {:error, term, [address]}
  def store_many(blocks, data) do
    blocks = blocks!(blocks)

    if is_list(data) do
      # All are checked before the first one is stored.
      in_order(store_chunk(blocks, Enum.map(data, &data!(blocks, &1)), []))
    else
      data
      |> Stream.chunk_every(500)
      |> Enum.reduce_while({:ok, []}, fn chunk, {:ok, stored} ->
        case store_chunk(blocks, Enum.map(chunk, &data!(blocks, &1)), stored) do
          {:ok, _} = stored -> {:cont, stored}
          error -> {:halt, error}
        end
      end)
      |> in_order()
    end
  end

  defp store_chunk(_blocks, [], stored), do: {:ok, stored}

  defp store_chunk(blocks, chunk, stored) do
    case patient(Native.blocks_store_many(blocks.ref, chunk)) do
      {addresses, :ok} ->
        stored = Enum.reverse(addresses, stored)
        store_chunk(blocks, Enum.drop(chunk, length(addresses)), stored)

      {addresses, {:error, reason}} ->
        {:error, reason, Enum.reverse(addresses, stored)}

      {:error, reason} ->
        {:error, reason, stored}
    end
  end

  defp in_order({:ok, stored}), do: {:ok, Enum.reverse(stored)}
  defp in_order({:error, reason, stored}), do: {:error, reason, Enum.reverse(stored)}

  @doc """
  Returns the data of a block. With `direct: true`, it is a live binary: see `open/2`.

  Errors: `:enoent` if the address is not in use, `{:corrupt, address}` if the block is damaged.
  """
  @doc group: "Blocks"
  @spec read(blocks, address) :: {:ok, binary} | failure
  def read(%__MODULE__{ref: ref, direct: false}, address),
    do: data(patient(Native.blocks_read(ref, address)))

  def read(%__MODULE__{ref: ref, direct: true}, address),
    do: data(patient(Native.blocks_view(ref, address)))

  def read(blocks, address), do: blocks |> blocks!() |> read(address)

  defp data(data) when is_binary(data), do: {:ok, data}
  defp data(error), do: error

  @doc """
  Replaces the data of a block.

  The block has either its old or its new data, never parts of both. This holds even if a participant dies or the
  power fails, and for processes that read the block at the same time.

  The data is written twice; for a block that the last sync covered, the second write is done by the next sync. There is
  room for 262,144 bytes of such blocks (at least 2, at most 1,024 blocks). When it is used up, the call does a sync, on a
  dirty scheduler.

  Errors: `:enoent` if the address is not in use.
  """
  @doc group: "Blocks"
  @spec write(blocks, address, binary) :: :ok | failure
  def write(blocks, address, data) do
    blocks = blocks!(blocks)
    patient(Native.blocks_write(blocks.ref, address, data!(blocks, data)))
  end

  @doc """
  Frees a block, so that its address can be reused, immediately or after the next sync (see "The contract").

  Errors: `:enoent` if the address is not in use.
  """
  @doc group: "Blocks"
  @spec free(blocks, address) :: :ok | failure
  def free(%__MODULE__{ref: ref}, address), do: patient(Native.blocks_free(ref, address))
  def free(blocks, address), do: blocks |> blocks!() |> free(address)

  @doc """
  Returns whether the address is in use.

  Raises `Emmap.Error` if the block store is closed or its file was truncated.
  """
  @doc group: "Blocks"
  @spec used?(blocks, address) :: boolean
  def used?(blocks, address) do
    blocks = blocks!(blocks)

    case patient(Native.blocks_is_used(blocks.ref, address)) do
      {:error, reason} -> Structure.failed!(blocks, :blocks, :read, reason)
      used? -> used?
    end
  end

  @doc """
  Returns how many blocks are in use, in constant time.

  Raises `Emmap.Error` if the block store is closed or its file was truncated.
  """
  @doc group: "Blocks"
  @spec count(blocks) :: non_neg_integer
  def count(blocks) do
    blocks = blocks!(blocks)

    case Native.blocks_count(blocks.ref) do
      {:error, reason} -> Structure.failed!(blocks, :blocks, :read, reason)
      count -> count
    end
  end

  @doc """
  Returns how many blocks, used or free, the file can hold without growing.

  Raises `Emmap.Error` if the block store is closed or its file was truncated.
  """
  @doc group: "Blocks"
  @spec capacity(blocks) :: non_neg_integer
  def capacity(blocks) do
    case info(blocks) do
      {:ok, %{capacity: capacity}} -> capacity
      {:error, reason} -> Structure.failed!(blocks!(blocks), :blocks, :read, reason)
    end
  end

  # The whole file

  @doc """
  Compares each block with its checksum, and returns `{:ok, %{blocks: n, damaged: addresses}}`.

  It reads the whole file, in steps. Others may use the file at the same time.
  """
  @doc group: "The whole file"
  @spec check(blocks) ::
          {:ok, %{blocks: non_neg_integer, damaged: [address]}} | failure
  def check(blocks), do: check_from(blocks!(blocks), 0, 0, [])

  defp check_from(_blocks, nil, count, damaged),
    do: {:ok, %{blocks: count, damaged: damaged |> Enum.reverse() |> List.flatten()}}

  defp check_from(blocks, from, count, damaged) do
    with {:ok, more, some, next} <- patient(Native.blocks_check(blocks.ref, from)),
         do: check_from(blocks, next, count + more, [some | damaged])
  end

  @doc """
  Releases the disk space after the last block, and returns `{:ok, bytes}`.

  The file keeps its length, because other programs have mapped it, but it takes less space on the disk (`du`). Blocks that
  were freed since the last sync count as used if that sync has covered them.

  Errors: `:eopnotsupp` or `:enotsup` if the file system does not support holes.
  """
  @doc group: "The whole file"
  @spec trim(blocks) :: {:ok, non_neg_integer} | failure
  def trim(blocks), do: patient(Native.blocks_trim(blocks!(blocks).ref))

  @doc """
  Moves the blocks with the highest addresses to the lowest free ones, until all blocks are below all free addresses.

  Returns `{:ok, moves}`, the number of moved blocks. The call first syncs the file.

  For each block, it calls `moved.(from, to)` when both addresses have the data, so that the caller can update its
  references. Then it frees the old address. If the function raises, or the VM is killed, both addresses stay in use.
  The caller must make sure that no process writes to a block while it is being moved.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_compact.blocks")
      iex> _ = File.rm(path)
      iex> blocks = Emmap.Blocks.open!(path, block_size: 1)
      iex> {:ok, _} = Emmap.Blocks.store_many(blocks, ["a", "b", "c", "d"])
      iex> :ok = Emmap.Blocks.free(blocks, 0)
      iex> Emmap.Blocks.compact(blocks, fn 3, 0 -> :ok end)
      {:ok, 1}
      iex> Enum.to_list(blocks)
      [{0, "d"}, {1, "b"}, {2, "c"}]
  """
  @doc group: "The whole file"
  @spec compact(blocks, (address, address -> term)) :: {:ok, non_neg_integer} | failure
  def compact(blocks, moved) when is_function(moved, 2) do
    blocks = blocks!(blocks)
    with :ok <- sync(blocks), do: move_last(blocks, moved, 0xFFFF_FFFF_FFFF_FFFF, 0)
  end

  defp move_last(blocks, moved, below, count) do
    with {:ok, last} when last != nil <- patient(Native.blocks_last(blocks.ref, below)),
         {:ok, data} <- data(patient(Native.blocks_read(blocks.ref, last))),
         {:ok, address} <- store(%{blocks | pad: false}, data) do
      if address < last do
        moved.(last, address)
        with :ok <- free(blocks, last), do: move_last(blocks, moved, last, count + 1)
      else
        with :ok <- free(blocks, address), do: {:ok, count}
      end
    else
      {:ok, nil} -> {:ok, count}
      # Freed in the meantime.
      {:error, :enoent} -> move_last(blocks, moved, below, count)
      error -> error
    end
  end

  # Another format

  @doc """
  Copies all blocks from a block store at `path` that was written by the earlier library, saleyn/emmap.

  The destination `to` is an opened `Emmap.Blocks`, or the path of a file, which is created if necessary and closed at
  the end. (Emmap replaces saleyn/emmap.)

  Returns `{:ok, %{old => new}}`, which maps each address in the old file to the new address. By then, the destination
  file has been synced.

  The old file is only read. It must not be changed during the call. A block store that was not closed needs no repair
  before the import. (To continue using such a file unchanged, see the module `:emmap`.)

  Options:

    * `addresses: :same` – (default) a block keeps its address, which must be free in `to`. The old addresses are far
      apart, so the file gets room for as many blocks as the highest address requires, usually 262,144
    * `addresses: :new` – a block gets the lowest free address, as with `store/2`. The blocks are copied in the order of
      the old file, which assigns its addresses in the order 0, 4096, …, 258048, 64, 4160 and so on

  If the import fails, `to` may contain some of the blocks: start again with a new file.

  Errors:

    * those of `Emmap.open/2` and `Emmap.Blocks.open/2`
    * `{:bad_format, :kind}` – the old file is not a block store of at most 64³ blocks, or its blocks are larger than 1
      GiB
    * `{:bad_format, :length}` – the old file was truncated
    * `{:other_block_size, bytes}` – the blocks of `to` have this size
    * `:eexist` – an address is already in use in `to`

  In this example, the file is created by `:emmap`, which can still write the old format:

      iex> old = Path.join(System.tmp_dir!(), "emmap_doc_old.storage")
      iex> new = Path.join(System.tmp_dir!(), "emmap_doc_imported.blocks")
      iex> _ = {File.rm(old), File.rm(new)}
      iex> {:ok, mem} = :emmap.open(old, 0, 4096, [:create])
      iex> :ok = :emmap.init_block_storage(mem, 4)
      iex> {:emmap.store_block(mem, "zero"), :emmap.store_block(mem, "next")}
      {0, 4096}
      iex> Emmap.Blocks.import(old, new)
      {:ok, %{0 => 0, 4096 => 4096}}
      iex> new |> Emmap.Blocks.open!() |> Enum.to_list()
      [{0, "zero"}, {4096, "next"}]
  """
  @doc group: "Opening and closing"
  @spec import(Path.t() | :file.name_all(), blocks | Path.t() | :file.name_all(), [
          {:addresses, :same | :new}
        ]) :: {:ok, %{address => address}} | {:error, term}
  def import(path, to, options \\ []) do
    to = if is_binary(to) or is_list(to), do: to, else: blocks!(to)
    Emmap.Blocks.Import.run(path, to, options)
  end

  # Supervision

  @doc """
  Starts a process that keeps the block store in the file `:path` open for as long as it lives.

  With `:name`, an atom, every function accepts the name instead of the block store. The other options are those of
  `open/2`.
  """
  @doc group: "Supervision"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: StructureOwner.start_link(__MODULE__, options, &open/2)

  @doc "Returns a child specification for `start_link/1`. Its id is the `:name`, or else the `:path`."
  @doc group: "Supervision"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: StructureOwner.child_spec(__MODULE__, options)

  @doc false
  def read_from(blocks, from, to, most) do
    case patient(Native.blocks_read_from(blocks.ref, from, to, most)) do
      {:error, reason} -> Structure.failed!(blocks, :blocks, :read, reason)
      some -> some
    end
  end

  defp data!(%{block_size: size}, data) when is_binary(data) and byte_size(data) == size,
    do: data

  defp data!(%{block_size: size, pad: true}, data)
       when is_binary(data) and byte_size(data) < size,
       do: [data, <<0::size(size - byte_size(data))-unit(8)>>] |> IO.iodata_to_binary()

  defp data!(%{block_size: size, pad: pad}, data) when is_binary(data) do
    allowed = if pad, do: "at most #{size}", else: "#{size}"
    hint = if byte_size(data) < size, do: "; with pad: true, shorter data is padded with zeros"
    raise ArgumentError, "a block has #{allowed} bytes, got #{byte_size(data)}#{hint}"
  end

  defp data!(_blocks, other),
    do: raise(ArgumentError, "the data of a block is a binary, got #{inspect(other)}")

  defp blocks!(%__MODULE__{} = blocks), do: blocks
  defp blocks!(name) when is_atom(name), do: StructureOwner.named!(__MODULE__, name)
  defp blocks!(other), do: Structure.refuse!(other, __MODULE__, "blocks")

  defimpl Enumerable do
    # Reads some blocks at a time. Blocks that others store while it runs may or may not be included.
    def count(blocks), do: {:ok, Emmap.Blocks.count(blocks)}
    def member?(_blocks, _item), do: {:error, __MODULE__}
    def slice(_blocks), do: {:error, __MODULE__}

    def reduce(blocks, acc, fun),
      do: next(blocks, [], {0, Emmap.Blocks.capacity(blocks)}, acc, fun)

    defp next(_blocks, _some, _rest, {:halt, acc}, _fun), do: {:halted, acc}

    defp next(blocks, some, rest, {:suspend, acc}, fun),
      do: {:suspended, acc, &next(blocks, some, rest, &1, fun)}

    defp next(_blocks, [], {to, to}, {:cont, acc}, _fun), do: {:done, acc}

    defp next(blocks, [], {from, to}, acc, fun) do
      {some, from} = Emmap.Blocks.read_from(blocks, from, to, Emmap.HeapRoom.batch(500))
      next(blocks, some, {from, to}, acc, fun)
    end

    defp next(blocks, [{_address, {:error, reason}} | _], _rest, _acc, _fun),
      do: Emmap.Structure.failed!(blocks, :blocks, :read, reason)

    defp next(blocks, [block | some], rest, {:cont, acc}, fun),
      do: next(blocks, some, rest, fun.(block, acc), fun)
  end

  defimpl Inspect do
    def inspect(%{path: path, block_size: size} = blocks, _opts) do
      "#Emmap.Blocks<#{Kernel.inspect(path)}, #{Emmap.Blocks.count(blocks)} of #{size} bytes>"
    rescue
      error in Emmap.Error ->
        "#Emmap.Blocks<#{Kernel.inspect(path)}, #{Kernel.inspect(error.reason)}>"

      ArgumentError ->
        "#Emmap.Blocks<#{Kernel.inspect(path)}, not of this node>"
    end
  end
end
