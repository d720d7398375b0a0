defmodule :emmap do
  @moduledoc """
  `Emmap` for Erlang, with the same maps and almost the same options and results.

      {ok, Mem} = emmap:open("data.bin", [read, write, direct]),
      {ok, Bin} = file:pread(Mem, 100, 40),
      ok = emmap:pwrite(Mem, 100, <<"hello">>),
      ok = file:close(Mem).

  ## Block stores

  `init_block_storage/2` and the functions after it store fixed-size blocks in a map. Their names, results and *file
  format* are those of saleyn/emmap, the earlier library that Emmap replaces. Its files can be used without conversion,
  and saleyn/emmap can continue to use them afterwards. The same limits apply:

    * 262,144 blocks, each at an address from 0 to 262,143. A new block store assigns its addresses in the order 0,
      4096, …, 258048, 64, 4160 and so on.
    * Blocks have no checksums. After a power failure, any block may be damaged.
    * Within one VM, any number of processes and handles can use a block store at once. *A VM or program that changes it
      must be the only one that uses it*, because the format has no lock. Breaking this rule can damage the data, but
      never crashes a VM.
    * A map shows the blocks that are inside it. It must begin at the same byte of the file each time, and should cover the
      whole file.

  `Emmap.Blocks` has none of these limits, but a different format; `Emmap.Blocks.import/3` copies a block store to it.

      {ok, Mem} = emmap:open("blocks.bin", 0, 4096, [create]),
      ok = emmap:init_block_storage(Mem, 5),
      0 = emmap:store_block(Mem, <<"first">>),
      4096 = emmap:store_block(Mem, <<"other">>),
      <<"first">> = emmap:read_block(Mem, 0),
      [{4096, <<"other">>}, {0, <<"first">>}] = emmap:read_blocks(Mem),
      true = emmap:free_block(Mem, 0),
      eof = emmap:read_block(Mem, 0).

  ## Errors

  Incorrect use by the caller (an unknown option, a term that is not a handle) raises an exception of class `error`.
  Its reason is the Elixir exception `ArgumentError`, a map with the key `message`. In the functions of block stores,
  the reason is `badarg`, as in saleyn/emmap.
  """

  import Emmap.BadArgument, only: [badarg: 3]
  import Emmap.Handle, only: [handle: 1, ref!: 1]
  require Emmap.Bare, as: Bare
  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.Native

  # Recompiled with every change of another module. mix.exs explains why, where it makes `h/2` work.
  for file <- Path.wildcard("lib/**/*.ex"), do: @external_resource(file)

  @typedoc "A map: a handle that `file` accepts as an opened file."
  @type mem :: Emmap.t()

  @doc """
  Maps a whole file, read-only and shared, or memory without a file, as in `open([anon, {size, 4096}])`.
  """
  @spec open(:file.name_all() | Emmap.open_file() | Emmap.Options.t()) ::
          {:ok, mem} | Emmap.failure()
  def open(file_or_options), do: Emmap.open(file_or_options)

  @doc """
  Maps a file, and returns `{ok, Mem}` or `{error, Posix}`. `Mem` is a handle that `file` accepts as an opened file.

  The path is a string or a binary.

  The most common options:

    * `[]`: shared and read-only
    * `write`: the map can be written to
    * `create`: creates the file if necessary; implies `write`; usually with `{size, N}`
    * `append`: every write goes to the end of the file, even if other handles and programs append at the same time; implies
      `write`
    * `direct`: reads, and lines of `fold_lines/3`, are live binaries and copy nothing
    * `private`: writes stay in this map and never change the file
    * `fixed_size`: the map never changes its size
    * `{max_size, N}`: the map never grows beyond `N` bytes

  In the Erlang shell, `h('Elixir.Emmap.Options')` shows all of them, and `ht('Elixir.Emmap.Options', option)` their
  types. The errors are those of `Emmap.open/2`. With `anon`, no file is opened, and the name is ignored. `fit` has
  the meaning described in `open/4`.
  """
  @spec open(:file.name_all() | Emmap.open_file(), Emmap.Options.t()) ::
          {:ok, mem} | Emmap.failure()
  def open(file, options) do
    cond do
      not is_list(options) -> Emmap.open(file, options)
      :anon in options -> Emmap.open(options)
      true -> Emmap.open(file, without_fit(options))
    end
  end

  @doc """
  Maps `length` bytes of `file` starting at byte `offset`. A length of 0 means everything up to the end of the file.

  With `create` or `write`, a shorter file is extended to `offset + length`; otherwise, the map covers the bytes that
  exist. Position 0 of the map is byte `offset` of the file. With `private`, the file does not change.

  A map with a length does not grow when it is written past its end (`{error, enospc}`); for that, use `open/2` with
  `{size, N}`. `grow/1` and `resize/2` extend it only if it covers the whole file: its offset is 0, and it reaches the end
  of the file when it is opened. Otherwise they return `{error, enospc}`. `append` does not accept an offset or length other
  than 0.

  With `fit` and an offset of 0, the map has at least `length` bytes, and covers all of a longer file, as in
  saleyn/emmap. (In `Emmap.open/2`, `fit` truncates such a file. In this module, only the option `truncate`,
  `truncate/1` and `resize/2` shorten a file.)
  """
  @spec open(
          :file.name_all() | Emmap.open_file(),
          non_neg_integer,
          non_neg_integer,
          Emmap.Options.t()
        ) ::
          {:ok, mem} | Emmap.failure()
  def open(file, offset, length, options) when is_list(options) do
    if :anon in options,
      do: Emmap.open(options ++ if(length == 0, do: [], else: [size: length])),
      else: Emmap.open(file, without_fit(options) ++ part(offset, length, options))
  end

  defp without_fit(options), do: Enum.reject(options, &(&1 == :fit))

  defp part(offset, length, options) do
    changes_size = :private not in options and (:write in options or :create in options)

    cond do
      length == 0 or offset > 0 or :fit not in options ->
        for {name, n} <- [offset: offset, length: length], n != 0, do: {name, n}

      changes_size ->
        [size: length]

      true ->
        []
    end
  end

  @doc "Same as `Emmap.window/3`. Maps another part of a map's file, and returns `{ok, Window}`."
  @spec window(mem, non_neg_integer, non_neg_integer) :: {:ok, mem} | Emmap.failure()
  defdelegate window(mem, offset, length), to: Emmap

  @doc "Same as `Emmap.move_window/3`. Returns `{ok, Window}` and closes `mem`."
  @spec move_window(mem, non_neg_integer, non_neg_integer) :: {:ok, mem} | Emmap.failure()
  defdelegate move_window(mem, offset, length), to: Emmap

  @doc """
  Same as `Emmap.close/1`. Closes the handle for all processes.

  If it is the last handle on the map, this releases the file descriptor and, unless a live binary of the map was made,
  the memory.
  """
  @spec close(mem) :: :ok | Emmap.failure()
  defdelegate close(mem), to: Emmap

  @doc "Same as `Emmap.pread/3`."
  @spec pread(mem, non_neg_integer, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate pread(mem, position, count), to: Emmap

  @doc "Same as `Emmap.pread/2`: several ranges, `[{Position, Count}]`."
  @spec pread(mem, [{Emmap.position() | Emmap.location(), non_neg_integer}]) ::
          {:ok, [binary | :eof]} | Emmap.failure()
  defdelegate pread(mem, ranges), to: Emmap

  @doc "Same as `Emmap.view/1`: a whole file or map as one live binary, `{ok, Binary}`."
  @spec view(mem | Emmap.open_file() | :file.name_all()) :: {:ok, binary} | Emmap.failure()
  defdelegate view(source), to: Emmap

  @doc "Same as `Emmap.view/3`: a live binary, from any handle."
  @spec view(mem, non_neg_integer, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate view(mem, position, count), to: Emmap

  @doc "Same as `Emmap.pwrite/3`. With `append`, it writes at the end of the file, whatever `position` is."
  @spec pwrite(mem, non_neg_integer, iodata) :: :ok | {:error, atom}
  defdelegate pwrite(mem, position, data), to: Emmap

  @doc "Same as `Emmap.pwrite/2`: `[{Position, Data}]`, in order."
  @spec pwrite(mem, [{Emmap.position() | Emmap.location(), iodata}]) ::
          :ok | {:error, atom | {non_neg_integer, atom}}
  defdelegate pwrite(mem, writes), to: Emmap

  @doc "Same as `Emmap.write/2`: writes at the cursor."
  @spec write(mem, iodata) :: :ok | {:error, atom}
  defdelegate write(mem, data), to: Emmap

  @doc "Same as `Emmap.read/2`."
  @spec read(mem, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read(mem, count), to: Emmap

  @doc "Same as `Emmap.read_line/1`."
  @spec read_line(mem) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read_line(mem), to: Emmap

  @doc "Same as `Emmap.term/4`. Decodes the term in a copy of at most `count` bytes, and returns `{ok, Term}`."
  @spec term(mem, non_neg_integer, non_neg_integer) :: {:ok, term} | :eof | Emmap.failure()
  defdelegate term(mem, position, count), to: Emmap

  @doc "Same as `Emmap.term/4`, called as `term(Mem, Position, Count, [safe])`."
  @spec term(mem, non_neg_integer, non_neg_integer, [:safe]) ::
          {:ok, term} | :eof | Emmap.failure()
  defdelegate term(mem, position, count, options), to: Emmap

  @doc "Same as `Emmap.string/3`. Returns `{ok, Binary}`, a copy that is valid UTF-8."
  @spec string(mem, non_neg_integer, non_neg_integer) ::
          {:ok, binary} | :eof | Emmap.failure()
  defdelegate string(mem, position, count), to: Emmap

  @doc "Same as `Emmap.position/2`."
  @spec position(mem, Emmap.location()) :: {:ok, non_neg_integer} | {:error, atom}
  defdelegate position(mem, location), to: Emmap

  @doc "Returns `{ok, Size}`, the size of the map in bytes."
  @spec size(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate size(mem), to: Emmap

  @doc "Same as `Emmap.grow/1`. Doubles the map, or adds `max_inc_size` if that is less, and returns `{ok, NewSize}`."
  @spec grow(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate grow(mem), to: Emmap

  @doc "Same as `grow/1`, which saleyn/emmap calls `resize/1`."
  @spec resize(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  def resize(mem), do: Emmap.grow(mem)

  @doc "Changes the size of the map to `size` bytes, and returns `{ok, Size}`."
  @spec resize(mem, non_neg_integer) :: {:ok, non_neg_integer} | Emmap.failure()
  def resize(mem, size) do
    with :ok <- Emmap.resize(mem, size), do: {:ok, size}
  end

  @doc "Same as `Emmap.truncate/1`: the map and its file end at the cursor."
  @spec truncate(mem) :: :ok | Emmap.failure()
  defdelegate truncate(mem), to: Emmap

  @doc "Same as `Emmap.allocate/3`: allocates disk blocks for a range."
  @spec allocate(mem, non_neg_integer, non_neg_integer) :: :ok | Emmap.failure()
  defdelegate allocate(mem, position, count), to: Emmap

  @doc "Starts writing the map's changes to the disk and does not wait. To wait, use `file:sync/1`."
  @spec flush(mem) :: :ok | Emmap.failure()
  def flush(mem), do: Emmap.sync(mem, :async)

  @doc "Same as `Emmap.sync/1`: writes the map's changes to the disk and waits."
  @spec sync(mem) :: :ok | Emmap.failure()
  defdelegate sync(mem), to: Emmap

  @doc "Same as `Emmap.sync/2`: `sync(Mem, async)`, or the pages of a range, `sync(Mem, {Position, Count})`."
  @spec sync(mem, :sync | :async | {non_neg_integer, non_neg_integer}) :: :ok | Emmap.failure()
  defdelegate sync(mem, how), to: Emmap

  @doc "Same as `Emmap.sync/3`: the pages of a range, `sync` or `async`."
  @spec sync(mem, {non_neg_integer, non_neg_integer}, :sync | :async) :: :ok | Emmap.failure()
  defdelegate sync(mem, range, how), to: Emmap

  @doc "Same as `Emmap.datasync/1`."
  @spec datasync(mem) :: :ok | Emmap.failure()
  defdelegate datasync(mem), to: Emmap

  @doc "Same as `Emmap.reattach/1`: repairs a map whose file was truncated or whose disk failed."
  @spec reattach(mem) :: :ok | Emmap.failure()
  defdelegate reattach(mem), to: Emmap

  @doc "Same as `Emmap.make_read_only/1`. Later writes return `{error, eacces}`."
  @spec make_read_only(mem | counters) :: :ok | Emmap.failure()
  defdelegate make_read_only(mem), to: Emmap

  @doc """
  Same as `Emmap.monitor/1`. Returns `{ok, Monitor}`; the calling process gets `{emmap, Monitor, fault, Reason}` when a
  fault occurs on the map.
  """
  @spec monitor(mem | Emmap.Counters.t() | Emmap.Queue.t() | Emmap.Blocks.t()) ::
          {:ok, reference} | {:error, :closed}
  defdelegate monitor(source), to: Emmap

  @doc "Same as `Emmap.demonitor/2`. Returns `true`."
  @spec demonitor(reference) :: true
  defdelegate demonitor(monitor), to: Emmap

  @doc "Same as `Emmap.demonitor/2`, called as `demonitor(Monitor, [flush])`."
  @spec demonitor(reference, [:flush]) :: true
  defdelegate demonitor(monitor, options), to: Emmap

  @doc "Same as `Emmap.info/1`."
  @spec info(mem) :: {:ok, Emmap.info()} | Emmap.failure()
  defdelegate info(mem), to: Emmap

  @doc "Same as `Emmap.dup/1`. Returns `{ok, Mem}`, another handle on the same map."
  @spec dup(mem) :: {:ok, mem} | Emmap.failure()
  defdelegate dup(mem), to: Emmap

  @doc "Same as `Emmap.advise/4`."
  @spec advise(mem, non_neg_integer, non_neg_integer, Emmap.advice()) :: :ok | Emmap.failure()
  defdelegate advise(mem, position, count, advice), to: Emmap

  @doc "Same as `Emmap.prefetch/3`."
  @spec prefetch(mem, non_neg_integer, non_neg_integer) :: :ok | Emmap.failure()
  defdelegate prefetch(mem, position, count), to: Emmap

  @doc "Same as `Emmap.lock_memory/1`: keeps all pages in memory."
  @spec lock_memory(mem) :: :ok | Emmap.failure()
  defdelegate lock_memory(mem), to: Emmap

  @doc "Same as `Emmap.unlock_memory/1`."
  @spec unlock_memory(mem) :: :ok | Emmap.failure()
  defdelegate unlock_memory(mem), to: Emmap

  @doc "Same as `Emmap.guard/0`."
  @spec guard() :: :ok | :lost | :off
  defdelegate guard, to: Emmap

  # Devices

  @doc "Same as `Emmap.device/2`, but clients get lists of characters, as from Erlang's own devices."
  @spec device(mem) :: {:ok, pid} | {:error, term}
  def device(mem), do: device(mem, [])

  @doc """
  Same as `Emmap.device/2`, but clients get lists of characters unless the options contain `binary`:
  `emmap:device(Mem, [binary, {encoding, unicode}])`.
  """
  @spec device(mem, [:binary | Emmap.Device.option()]) :: {:ok, pid} | {:error, term}
  def device(mem, options) do
    options = for option <- options, do: if(option == :binary, do: {:binary, true}, else: option)
    Emmap.device(mem, Keyword.put_new(options, :binary, false))
  end

  # Lines

  @doc """
  Folds over the lines of a map or a file, as `Emmap.stream!/3` returns them, with `Fun(Line, Acc)`.

  Lines are copies, except on a map opened with `direct`, where they are live binaries: copy a line (`binary:copy/1`)
  before you keep it or pass it to a [function that reads twice](live-binaries.md#functions-that-read-twice). For
  copies from such a map, use `'Elixir.Emmap':'stream!'(Mem, [{copy, true}])` and Elixir's `Enum`. System errors raise
  `'Elixir.Emmap.Error'`.
  """
  @spec fold_lines(mem | :file.name_all(), (binary, acc -> acc), acc) :: acc when acc: term
  def fold_lines(source, fun, acc) when is_function(fun, 2),
    do: source |> Emmap.stream!() |> Enum.reduce(acc, fun)

  @doc "Returns how many lines a map or a file has."
  @spec count_lines(mem | :file.name_all()) :: non_neg_integer
  def count_lines(source), do: source |> Emmap.stream!() |> Enum.count()

  # Integers

  @doc "Same as `Emmap.patomic/4`. Returns `{ok, Old}`."
  @spec patomic(mem, non_neg_integer, Emmap.operation(), integer) ::
          {:ok, integer} | Emmap.failure()
  defdelegate patomic(mem, position, operation, value), to: Emmap

  @operations [:add, :sub, :and, :or, :xor, :xchg]

  for operation <- @operations do
    # Three of them are reserved words in Erlang.
    atom = if operation in [:and, :or, :xor], do: "'#{operation}'", else: operation
    @doc "Same as `patomic(Mem, Position, #{atom}, Value)`. Returns `{ok, Old}`."
    @spec unquote(:"patomic_#{operation}")(mem, non_neg_integer, integer) ::
            {:ok, integer} | Emmap.failure()
    # A call through `Emmap` would take a tenth of the time more. The native code has no `sub`.
    if operation != :sub do
      def unquote(:"patomic_#{operation}")(handle(ref), position, value),
        do: Bare.integer(Native.unquote(:"atomic_#{operation}")(ref, position, value))
    end

    def unquote(:"patomic_#{operation}")(mem, position, value),
      do: Emmap.patomic(mem, position, unquote(operation), value)
  end

  @doc """
  Sets the integer at `position` to `new` if it equals `expected`, atomically (compare-and-exchange).

  As in saleyn/emmap, returns `{true, Old}` if the integer equalled `expected` and was set, and `{false, Old}`
  otherwise.
  """
  @spec patomic_cas(mem, non_neg_integer, integer, integer) ::
          {boolean, integer} | Emmap.failure()
  def patomic_cas(mem, position, expected, new) do
    case Emmap.patomic_cas(mem, position, expected, new) do
      :ok -> {true, expected}
      {:error, _} = error -> error
      old -> {false, old}
    end
  end

  @doc "Reads the integer at `position` atomically, and returns `{ok, Value}`."
  @spec patomic_read_integer(mem, non_neg_integer) :: {:ok, integer} | Emmap.failure()
  def patomic_read_integer(handle(ref), position),
    do: Bare.integer(Native.atomic_read(ref, position))

  def patomic_read_integer(mem, position), do: Emmap.patomic_read(mem, position)

  @doc "Writes the integer at `position` atomically, and returns `ok`."
  @spec patomic_write_integer(mem, non_neg_integer, integer) :: :ok | Emmap.failure()
  def patomic_write_integer(mem, position, value), do: Emmap.patomic_write(mem, position, value)

  @doc "Same as `Emmap.wait/4`, without a timeout. Returns `{ok, Value}`."
  @spec wait(mem, non_neg_integer, integer) :: {:ok, integer} | Emmap.failure()
  defdelegate wait(mem, position, expected), to: Emmap

  @doc "Same as `Emmap.wait/4`. Returns `{ok, Value}`, or `{error, etimedout}` after `Timeout` milliseconds."
  @spec wait(mem, non_neg_integer, integer, timeout) :: {:ok, integer} | Emmap.failure()
  defdelegate wait(mem, position, expected, timeout), to: Emmap

  @doc "Same as `Emmap.notify/2`."
  @spec notify(mem, non_neg_integer) :: :ok | Emmap.failure()
  defdelegate notify(mem, position), to: Emmap

  # Searching

  @doc "Same as `Emmap.find/3`. Returns `{ok, {Position, Length}}` or `nomatch`."
  @spec find(mem, Emmap.Search.pattern()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate find(mem, pattern), to: Emmap

  @doc "Same as `Emmap.find/3`, called as `find(Mem, [Pattern, Other], [{start, 10}, {length, 100}])`."
  @spec find(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate find(mem, pattern, options), to: Emmap

  @doc "Same as `Emmap.rfind/3`. Finds the last match."
  @spec rfind(mem, Emmap.Search.pattern()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate rfind(mem, pattern), to: Emmap

  @doc "Same as `Emmap.rfind/3`. Finds the last match."
  @spec rfind(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate rfind(mem, pattern, options), to: Emmap

  @doc "Same as `Emmap.find_all/3`. Returns `{ok, [{Position, Length}]}`."
  @spec find_all(mem, Emmap.Search.pattern()) ::
          {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  defdelegate find_all(mem, pattern), to: Emmap

  @doc "Same as `Emmap.find_all/3`, with the options `{limit, N}`, `{start, N}` and `{length, N}`."
  @spec find_all(
          mem,
          Emmap.Search.pattern(),
          Emmap.Search.range() | [{:limit, non_neg_integer}]
        ) :: {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  defdelegate find_all(mem, pattern, options), to: Emmap

  @doc "Same as `Emmap.count/3`. Returns `{ok, Count}`."
  @spec count(mem, Emmap.Search.pattern()) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate count(mem, pattern), to: Emmap

  @doc "Same as `Emmap.count/3`. Returns `{ok, Count}`."
  @spec count(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, non_neg_integer} | Emmap.failure()
  defdelegate count(mem, pattern, options), to: Emmap

  @doc "Same as `Emmap.compile_pattern/1`."
  @spec compile_pattern(Emmap.Search.pattern()) :: Emmap.Search.t()
  defdelegate compile_pattern(pattern), to: Emmap

  # Bytes and numbers

  @doc "Same as `Emmap.get/3`, called as `get(Mem, Position, {u32, big})`."
  @spec get(mem, non_neg_integer, Emmap.Typed.t()) ::
          {:ok, Emmap.Typed.number_read()} | :eof | Emmap.failure()
  defdelegate get(mem, position, type), to: Emmap

  @doc "Same as `Emmap.put/4`."
  @spec put(mem, non_neg_integer, Emmap.Typed.t(), Emmap.Typed.number_written()) ::
          :ok | Emmap.failure()
  defdelegate put(mem, position, type, value), to: Emmap

  @doc "Same as `Emmap.fill/4`."
  @spec fill(mem, non_neg_integer, non_neg_integer, byte) :: :ok | Emmap.failure()
  defdelegate fill(mem, position, count, byte), to: Emmap

  @doc "Same as `Emmap.copy/4`: copies from one position of the map to another."
  @spec copy(mem, non_neg_integer, non_neg_integer, non_neg_integer) :: :ok | Emmap.failure()
  defdelegate copy(mem, from, to, count), to: Emmap

  # Block storage

  @most_blocks 262_144
  @most_block_bytes 0xFFFF_FFFF

  @typedoc "The address of a block in a block store: 0 to 262,143."
  @type address :: non_neg_integer

  @doc """
  Initializes an empty block store in a map, for blocks of `size` bytes (1 to 4,294,967,295), and returns `ok`.

  It removes all blocks of a block store that the map already has. An existing block store needs no initialization.
  """
  @spec init_block_storage(mem, pos_integer) :: :ok | Emmap.failure()
  def init_block_storage(mem, size) when is_integer(size) and size in 1..@most_block_bytes,
    do: patient(Native.block_storage_init(ref!(mem), size))

  def init_block_storage(mem, size),
    do: badarg([mem, size], 2, "the size must be an integer from 1 to #{@most_block_bytes}")

  @doc """
  Stores a block at the first free address and returns the address, or `{error, full}`.

  If necessary, the file grows as with `grow/1`; if it cannot, the result is `{error, enospc}`. If the size of the data
  is not the block size, the call fails with `badarg`.
  """
  @spec store_block(mem, binary) :: address | {:error, :full} | Emmap.failure()
  def store_block(mem, data) when is_binary(data) do
    case patient(Native.block_storage_store(ref!(mem), data)) do
      :badarg -> badarg([mem, data], 2, "the data must be as long as a block of the storage")
      result -> result
    end
  end

  def store_block(mem, data), do: badarg([mem, data], 2, "the data must be a binary")

  @doc """
  Returns the data of a block, or `eof` if the address is not in use.

  On a map opened with `direct`, the data is a live binary, which changes when the address is reused.
  """
  @spec read_block(mem, address) :: binary | :eof | Emmap.failure()
  def read_block(mem, address) when is_integer(address) and address >= 0 do
    case patient(Native.block_storage_read(ref!(mem), address)) do
      :badarg -> badarg([mem, address], 1, "the map is too short for a block store")
      result -> result
    end
  end

  def read_block(mem, address),
    do: badarg([mem, address], 2, "the address must be a non-negative integer")

  @doc "Frees a block, and returns `true`, or `false` if the address is not in use."
  @spec free_block(mem, address) :: boolean | Emmap.failure()
  def free_block(mem, address) when is_integer(address) and address >= 0 do
    case patient(Native.block_storage_free(ref!(mem), address)) do
      :badarg -> badarg([mem, address], 1, "the map is too short for a block store")
      result -> result
    end
  end

  def free_block(mem, address),
    do: badarg([mem, address], 2, "the address must be a non-negative integer")

  @doc """
  Returns a snapshot of all blocks as `[{Address, Data}]`, *in reverse file order*.

  Calls that change the block store wait until it is done. All blocks are in memory at once; for a large block store,
  use `read_blocks/3`.
  """
  @spec read_blocks(mem) :: [{address, binary}] | Emmap.failure()
  def read_blocks(mem) do
    case patient(Native.block_storage_read_from(ref!(mem), 0, @most_blocks, 0)) do
      {blocks, _} when is_list(blocks) -> blocks
      :badarg -> badarg([mem], 1, "the map is too short for a block store")
      error -> error
    end
  end

  @doc """
  Returns up to `count` blocks from `start` on, and the place to continue from.

  The result is `{[{Address, Data}], Continuation | eof}`. *Successive calls follow the file order, but the blocks
  within a returned list are in reverse order.*

  Begin with 0, and pass each continuation as the next `start`, until it is `eof`. The list may be shorter than `count`. It
  is empty only together with `eof`.
  """
  @spec read_blocks(mem, address, pos_integer) ::
          {[{address, binary}], address | :eof} | Emmap.failure()
  def read_blocks(mem, start, count)
      when is_integer(start) and start >= 0 and is_integer(count) and count > 0 do
    case patient(Native.block_storage_read_from(ref!(mem), start, count, 0)) do
      :badarg -> badarg([mem, start, count], 1, "the map is too short for a block store")
      result -> result
    end
  end

  def read_blocks(mem, start, count) when is_integer(start) and start >= 0,
    do: badarg([mem, start, count], 3, "the count must be a positive integer")

  def read_blocks(mem, start, count),
    do: badarg([mem, start, count], 2, "the start must be 0 or a continuation")

  @doc """
  Repairs a block store that saleyn/emmap left in the middle of a change, or whose file was truncated, and returns `ok`.

  After a process or VM that uses this module was killed, no repair is needed.

  Blocks that end past the end of the map are treated as lost. Therefore, on a map of a part of the file, or of a file
  that others have extended, the result is `{error, einval}`: see `reattach/1`.
  """
  @spec repair_block_storage(mem) :: :ok | Emmap.failure()
  def repair_block_storage(mem) do
    case patient(Native.block_storage_repair(ref!(mem), 0, @most_blocks)) do
      :badarg -> badarg([mem], 1, "the map is too short for a block store")
      {:error, _} = error -> error
      _ -> :ok
    end
  end

  @doc """
  Same as `repair_block_storage/1`, but in steps. Checks `count` places from `start` on, and returns the place to
  continue from, or `eof`.

  Begin with 0.
  """
  @spec repair_block_storage(mem, address, pos_integer) :: address | :eof | Emmap.failure()
  def repair_block_storage(mem, start, count)
      when is_integer(start) and start >= 0 and is_integer(count) and count > 0 do
    case patient(Native.block_storage_repair(ref!(mem), start, count)) do
      :badarg -> badarg([mem, start, count], 1, "the map is too short for a block store")
      result -> result
    end
  end

  def repair_block_storage(mem, start, count) when is_integer(start) and start >= 0,
    do: badarg([mem, start, count], 3, "the count must be a positive integer")

  def repair_block_storage(mem, start, count),
    do: badarg([mem, start, count], 2, "the start must be 0 or a continuation")

  # Counters

  @typedoc "A set of opened counters, from `open_counters/2`."
  @type counters :: Emmap.Counters.t()

  @doc "Opens the counters in a file, which is created with one counter if necessary. Raises an error on failure."
  @spec open_counters(:file.name_all()) :: counters
  def open_counters(file), do: open_counters(file, 1)

  @doc "Opens at least `count` counters, numbered from 0, or counters with names. Raises an error on failure."
  @spec open_counters(:file.name_all(), non_neg_integer | [atom]) :: counters
  def open_counters(file, count), do: Emmap.Counters.open!(file, count)

  @doc """
  Opens counters with the options of `Emmap.Counters.open/3`. Raises an error on failure.

  `open_counters(File, [], [{dynamic, true}])` opens counters whose names appear at run time. Their names are binaries:
  `inc_counter(C, <<"GET /users">>)`.
  """
  @spec open_counters(:file.name_all(), non_neg_integer | [atom | binary], [
          Emmap.Counters.option()
        ]) :: counters
  def open_counters(file, count, options), do: Emmap.Counters.open!(file, count, options)

  @doc "Same as `Emmap.Counters.close/1`."
  @spec close_counters(counters) :: :ok | Emmap.failure()
  def close_counters(counters), do: Emmap.Counters.close(counters)

  @doc "Adds 1 and returns the previous value."
  @spec inc_counter(counters, Emmap.Counters.key()) :: integer
  def inc_counter(counters, key), do: Emmap.Counters.next(counters, key, 1)

  @doc "Adds `count` and returns the previous value."
  @spec inc_counter(counters, Emmap.Counters.key(), integer) :: integer
  def inc_counter(counters, key, count), do: Emmap.Counters.next(counters, key, count)

  @doc "Subtracts 1 and returns the previous value."
  @spec dec_counter(counters, Emmap.Counters.key()) :: integer
  def dec_counter(counters, key), do: dec_counter(counters, key, 1)

  @doc "Subtracts `count` and returns the previous value."
  @spec dec_counter(counters, Emmap.Counters.key(), integer) :: integer
  def dec_counter(counters, key, count),
    do: Emmap.Counters.next(counters, key, Emmap.Counters.negated(count))

  @doc "Sets the counter and returns the previous value."
  @spec set_counter(counters, Emmap.Counters.key(), integer) :: integer
  def set_counter(counters, key, value), do: Emmap.Counters.exchange(counters, key, value)

  @doc "Returns the value."
  @spec read_counter(counters, Emmap.Counters.key()) :: integer
  def read_counter(counters, key), do: Emmap.Counters.get(counters, key)

  @doc """
  Folds over all counters, reading one after the other, with `Fun(IndexOrName, Value, Acc)`, which returns the next
  `Acc`.
  """
  @spec fold_counters(counters, (Emmap.Counters.key(), integer, acc -> acc), acc) :: acc
        when acc: term
  def fold_counters(%Emmap.Counters{} = counters, fun, acc) when is_function(fun, 3) do
    counters
    |> Emmap.Counters.to_pairs()
    |> Enum.reduce(acc, fn {key, value}, acc -> fun.(key, value, acc) end)
  end

  # Counters of several nodes

  @doc "Same as `Emmap.Counters.Cluster.join/3`, called as `join_counters(Name, Counters, Nodes)`."
  @spec join_counters(Emmap.Counters.Cluster.name(), counters, [node]) :: :ok
  def join_counters(name, counters, nodes),
    do: Emmap.Counters.Cluster.join(name, counters, nodes: nodes)

  @doc "Same as `Emmap.Counters.Cluster.leave/1`."
  @spec leave_counters(Emmap.Counters.Cluster.name()) :: :ok
  def leave_counters(name), do: Emmap.Counters.Cluster.leave(name)

  @doc "Same as `Emmap.Counters.Cluster.sum/2`. Returns `{ok, Sum}` or `{partial, Sum, [{Node, Why}]}`."
  @spec sum_counter(Emmap.Counters.Cluster.name(), Emmap.Counters.key()) ::
          {:ok, integer} | {:partial, integer, Emmap.Counters.Cluster.missing()}
  def sum_counter(name, key), do: Emmap.Counters.Cluster.sum(name, key)

  @doc "Same as `Emmap.Counters.Cluster.sums/1`."
  @spec sum_counters(Emmap.Counters.Cluster.name()) ::
          {:ok, map} | {:partial, map, Emmap.Counters.Cluster.missing()}
  def sum_counters(name), do: Emmap.Counters.Cluster.sums(name)

  # Inspecting

  @doc """
  Same as `Emmap.Inspection.file/2`: returns `{ok, Report}`, which describes the contents of a file and tells whether
  it is intact. Changes nothing.
  """
  @spec inspect_file(:file.name_all()) :: {:ok, Emmap.Inspection.report()} | Emmap.failure()
  def inspect_file(file), do: Emmap.Inspection.file(file)

  @doc "Prints the result of `inspect_file/1` as text, and returns `ok`."
  @spec print_file(:file.name_all()) :: :ok | Emmap.failure()
  def print_file(file) do
    with {:ok, report} <- inspect_file(file), do: IO.puts(Emmap.Inspection.text(report))
  end
end
