defmodule Emmap.Blocks do
  @moduledoc """
  A store of blocks of one size in a file. A block has an address that never changes. Any number of processes, VMs and
  programs can use the file at once, and it is intact after `kill -9`.

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
      has opened the file, and each participant may die at any instruction: the others go on.
    * `store/2` uses the lowest free address. Addresses are integers from 0, of up to 64 bits.
    * A store, a write and a free whose call has returned survive the death of the process and of the VM. They survive a power
      failure once a `sync/1` has covered them. After a power failure, what was stored since the last sync is gone and is counted in `info/1`;
      a block that was replaced since then has its new data or its old data, never parts of both; a block that was freed since then may be
      in use again.
    * A block that a sync has covered keeps its place on the disk until the next sync: when it is freed, its address is not
      used again before that. Where `sync/1` is never called, every address can be used again at once.
    * `count/1` is exact, whoever died.
    * Each block has a checksum. A damaged block is `{:error, {:corrupt, address}}` from the call that reads it; the others stay readable.
      Reads take no lock.

  ## Return values

  An address that is not in use is `{:error, :enoent}`. Other errors of the system are `{:error, reason}` with a POSIX atom, or `:closed`.
  Data whose length is not `:block_size` raises `ArgumentError`.

  ## Costs

  Storing, reading and freeing take constant time, whatever the number of blocks. The file has 4.5 bytes for each block in addition to its
  data, in groups of 32,256 blocks; it grows in steps of an eighth, from 64 KiB to 64 MiB. Opening takes constant time after `kill -9`;
  after a reboot or a clean close it reads half a byte for each block.

  Calls with blocks of more than 64 KiB run on dirty schedulers.
  """
  @moduledoc since: "1.0.0-rc.0"

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Native, OptionList, Structure, StructureOwner}

  @enforce_keys [:ref, :path, :block_size]
  defstruct [:ref, :path, :block_size, pad: false, direct: false]

  @typedoc "Open blocks. They are valid in every process of this node; `:path` and `:block_size` may be read."
  @type t :: %__MODULE__{}
  @typedoc "Blocks, or the name that they were started with: see `start_link/1`."
  @type blocks :: t | atom
  @typedoc "The number of a block, from 0."
  @type address :: non_neg_integer
  @typedoc "Why a call failed: see \"Return values\"."
  @type failure :: {:error, :file.posix() | :closed | {:corrupt, address}}
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
  Opens the blocks of a file, and creates the file if there is none. The directory must exist.

  Options:

    * `:block_size` – the length of each block in bytes, 1 to 1,073,741,824. Required for a new file; without it, the file must exist,
      or the result is `{:error, :enoent}`
    * `pad: false` – `true`: shorter data is padded with zeros
    * `direct: false` – `true`: `read/2` returns live binaries of blocks of more than 64 bytes, in constant time: the bytes in the file, which
      change when the block is written to or its address is used again. Their checksum is not compared. A block that was written to since the
      last sync, and that the sync before had covered, is copied
    * `create: true` – `false`: the file must exist

  Errors: those of `Emmap.open/2`; `{:other_block_size, bytes}` if the blocks of the file have this size; `{:bad_format, why}` as `Emmap.Queue.open/2`;
  `:eusers` if 64 programs have the file open. On systems other than Linux, one VM at a time can have the file open; the others get `:ebusy`.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open(Path.t() | :file.name_all(), [option]) :: {:ok, t} | {:error, term}
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

  @doc "As `open/2`, but returns the blocks alone and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open!(Path.t() | :file.name_all(), [option]) :: t
  def open!(path, options \\ []), do: path |> open(options) |> Structure.opened!(:blocks, path)

  @doc """
  Closes the blocks for all processes that hold this handle: each later call returns `{:error, :closed}`. The last handle of a VM does a
  `sync/1` first, and returns its error.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec close(blocks) :: :ok | failure
  def close(blocks), do: patient(Native.blocks_close(blocks!(blocks).ref))

  @doc """
  Returns `:ok` when everything that was done so far, by any participant, is on the disk. One sync serves all processes that wait.

  It writes the file twice: first the blocks, then which of them are covered. A failed sync stays failed: each later one returns the same
  error until `reattach/1`.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec sync(blocks) :: :ok | failure
  def sync(blocks), do: patient(Native.blocks_sync(blocks!(blocks).ref))

  @doc """
  Repairs blocks whose file was truncated or whose disk failed, once the file is whole again: see `Emmap.reattach/1`.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec reattach(blocks) :: :ok | {:error, term}
  def reattach(blocks), do: Structure.reattach(blocks!(blocks), &Native.blocks_reattach/1)

  @doc """
  Returns what is known of the blocks:

    * `:path`, `:size` of the file in bytes, `:faults` (pages that were lost)
    * `:block_size` in bytes, `:count`, `:capacity`: see `count/1` and `capacity/1`
    * `:replaced` – how many blocks were written to and are in a place of their own until the next sync
    * `:recovered` – `nil`, or what the last open after a reboot found: `:kept`, and `:dropped`, the blocks that no sync had covered
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec info(blocks) :: map
  def info(blocks) do
    blocks = blocks!(blocks)

    case patient(Native.blocks_info(blocks.ref)) do
      {:ok, info} ->
        {recoveries, info} = Map.pop!(info, :recoveries)
        {recovered, info} = Map.split(info, [:kept, :dropped])

        blocks
        |> Structure.info(:blocks)
        |> Map.merge(info)
        |> Map.put(:recovered, if(recoveries > 0, do: recovered))

      {:error, reason} ->
        Structure.failed!(blocks, :blocks, :read, reason)
    end
  end

  # Blocks

  @doc """
  Stores a block at the lowest free address, and returns that.

  Errors: `:enospc` if the disk is full, `:edquot` if the quota of the user is used up, and the reasons for lost pages that
  `Emmap.reattach/1` lists, until `reattach/1`.
  """
  @doc group: "Blocks", since: "1.0.0-rc.0"
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
  Stores blocks in order, and returns their addresses. A call that fails has stored the first ones: `{:error, reason, addresses}`.
  """
  @doc group: "Blocks", since: "1.0.0-rc.0"
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
  Returns the data of a block. With `direct: true` it is live: see `open/2`.

  Errors: `:enoent` if the address is not in use, `{:corrupt, address}` if the block is damaged.
  """
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec read(blocks, address) :: {:ok, binary} | failure
  def read(%__MODULE__{ref: ref, direct: false}, address),
    do: data(patient(Native.blocks_read(ref, address)))

  def read(%__MODULE__{ref: ref, direct: true}, address),
    do: data(patient(Native.blocks_view(ref, address)))

  def read(blocks, address), do: blocks |> blocks!() |> read(address)

  defp data(data) when is_binary(data), do: {:ok, data}
  defp data(error), do: error

  @doc """
  Gives a block new data. The block has its old data or its new data, never parts of both: whoever dies, after a power failure, and for a
  process that reads it meanwhile.

  Costs: the data is written twice; of a block that the last sync covered, the second time by the next sync. There is room for 262,144 bytes of such blocks
  (at least 2, at most 1,024 blocks); when it is used up, the call does a sync, on a dirty scheduler.

  Errors: `:enoent` if the address is not in use.
  """
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec write(blocks, address, binary) :: :ok | failure
  def write(blocks, address, data) do
    blocks = blocks!(blocks)
    patient(Native.blocks_write(blocks.ref, address, data!(blocks, data)))
  end

  @doc """
  Ends the use of a block: its address can be used again, at once or after the next sync (see \"The contract\").

  Errors: `:enoent` if the address is not in use.
  """
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec free(blocks, address) :: :ok | failure
  def free(%__MODULE__{ref: ref}, address), do: patient(Native.blocks_free(ref, address))
  def free(blocks, address), do: blocks |> blocks!() |> free(address)

  @doc "Returns whether the address is in use. Raises `Emmap.Error` if the blocks are closed, or their file was truncated."
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec used?(blocks, address) :: boolean
  def used?(blocks, address) do
    blocks = blocks!(blocks)

    case patient(Native.blocks_is_used(blocks.ref, address)) do
      {:error, reason} -> Structure.failed!(blocks, :blocks, :read, reason)
      used? -> used?
    end
  end

  @doc "Returns how many blocks are in use, in constant time. Raises as `used?/2`."
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec count(blocks) :: non_neg_integer
  def count(blocks) do
    blocks = blocks!(blocks)

    case Native.blocks_count(blocks.ref) do
      {:error, reason} -> Structure.failed!(blocks, :blocks, :read, reason)
      count -> count
    end
  end

  @doc "Returns how many blocks the file has room for without growing, used or not. Raises as `used?/2`."
  @doc group: "Blocks", since: "1.0.0-rc.0"
  @spec capacity(blocks) :: non_neg_integer
  def capacity(blocks), do: info(blocks).capacity

  # The whole file

  @doc """
  Compares each block with its checksum: `{:ok, %{blocks: n, damaged: addresses}}`. It reads the whole file, in steps; others may use it
  meanwhile.
  """
  @doc group: "The whole file", since: "1.0.0-rc.0"
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
  Gives the room of the file after the last block to the disk: `{:ok, bytes}`. The file keeps its length, because other programs have maps of
  it; what it takes on the disk is less (`du`). Blocks that were freed count as used until the next sync, if a sync has covered them.

  Errors: `:eopnotsupp` or `:enotsup` where the file system has no holes.
  """
  @doc group: "The whole file", since: "1.0.0-rc.0"
  @spec trim(blocks) :: {:ok, non_neg_integer} | failure
  def trim(blocks), do: patient(Native.blocks_trim(blocks!(blocks).ref))

  @doc """
  Moves blocks to lower free addresses, the last block first, until there is none: `{:ok, moves}`. It begins with a `sync/1`.

  For each block, `moved.(from, to)` is called when both addresses have its data, so that the caller can update its references; then the old
  address is freed. If the function raises, or the VM is killed, both addresses stay in use. Nobody may write to a block while it is moved.

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
  @doc group: "The whole file", since: "1.0.0-rc.0"
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
      # Freed meanwhile.
      {:error, :enoent} -> move_last(blocks, moved, below, count)
      error -> error
    end
  end

  # Another format

  @doc """
  Copies the blocks of a block storage of saleyn/emmap, in the file `path`, to `to`: open blocks, or the path of a file, which is created if there
  is none and closed again. The result is the address of each block by its address in the old file, `{:ok, %{old => new}}`. By then a `sync/1`
  has covered the blocks.

  The old file is only read. Nobody may change it meanwhile. A storage that was not closed needs no repair for this. (To go on using such a file
  as it is, see the module `:emmap`.)

  Options:

    * `addresses: :same` – a block keeps its address, which must be free in `to`. The old addresses are far apart: the file gets room for
      as many blocks as the highest address says, mostly 262,144
    * `addresses: :new` – a block gets the lowest free address, as by `store/2`. The blocks come in the order of the old file, in which
      the addresses are 0, 4096, 8192, …, 258048, 64, 4160, …

  If it fails, `to` may have some of the blocks: begin again with a new file.

  Errors: those of `Emmap.open/2` and `open/2`; `{:bad_format, :kind}` if the old file is not a block storage of at most 64³ blocks, or its
  blocks have more than 1 GiB; `{:bad_format, :length}` if it was truncated; `{:other_block_size, bytes}` if the blocks of `to` have this size;
  `:eexist` if an address is in use in `to`.

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
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec import(Path.t() | :file.name_all(), blocks | Path.t() | :file.name_all(), [
          {:addresses, :same | :new}
        ]) :: {:ok, %{address => address}} | {:error, term}
  def import(path, to, options \\ []) do
    to = if is_binary(to) or is_list(to), do: to, else: blocks!(to)
    Emmap.Blocks.Import.run(path, to, options)
  end

  # Supervision

  @doc """
  Opens the blocks of the file `:path` and keeps them open for as long as the process lives; with `:name`, an atom, every function takes the
  name instead of the blocks. The other options are those of `open/2`.
  """
  @doc group: "Supervision", since: "1.0.0-rc.0"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: StructureOwner.start_link(__MODULE__, options)

  @doc "A child specification for `start_link/1`. Its id is the `:name`, or else the `:path`."
  @doc group: "Supervision", since: "1.0.0-rc.0"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    id = options[:name] || options[:path]
    %{id: {__MODULE__, id}, start: {__MODULE__, :start_link, [options]}}
  end

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
    # Some blocks at a time: what others store meanwhile may be there or not.
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
