defmodule :emmap do
  @moduledoc """
  `Emmap` for Erlang: the same maps, options and results.

      {ok, Mem} = emmap:open("data.bin", [read, write, direct]),
      {ok, Bin} = file:pread(Mem, 100, 40),
      ok = emmap:pwrite(Mem, 100, <<"hello">>),
      ok = file:close(Mem).

  ## Block storage

  `init_block_storage/2` and the functions after it keep blocks of one size in a map, with the functions, results and *files* of saleyn/emmap.
  Files are used as they are, and the predecessor can go on with them. So its limits stay:

    * 262,144 blocks, each at an address from 0 to 262,143. The addresses of a new storage are 0, 4096, 8192, …, 258048, 64, 4160, ….
    * Blocks have no checksums. After a power failure, any block may be damaged.
    * Within one VM, any number of processes and handles use a storage at once. *A VM or program that changes it must be the only one that uses
      it*: the format has no lock. Whatever they do, no VM crashes.
    * A map shows the blocks that lie inside it. It must begin at the same byte of the file each time, and should have all of the file.

  `Emmap.Blocks` has none of these limits, and a format of its own; `Emmap.Blocks.import/3` copies a storage to it.

      {ok, Mem} = emmap:open("blocks.bin", 0, 4096, [create]),
      ok = emmap:init_block_storage(Mem, 5),
      0 = emmap:store_block(Mem, <<"first">>),
      4096 = emmap:store_block(Mem, <<"other">>),
      <<"first">> = emmap:read_block(Mem, 0),
      [{4096, <<"other">>}, {0, <<"first">>}] = emmap:read_blocks(Mem),
      true = emmap:free_block(Mem, 0),
      eof = emmap:read_block(Mem, 0).

  ## Errors

  Paths are strings or binaries. An error of the caller (an unknown option, a term that is not a
  handle) is an error of class `error` whose reason is Elixir's `ArgumentError`, a map with a `message`. In the functions of block storage it
  is `badarg`, as in saleyn/emmap.
  """
  @moduledoc since: "1.0.0-rc.0"

  import Emmap.BadArgument, only: [badarg: 3]
  import Emmap.Handle, only: [handle: 1, ref!: 1]
  require Emmap.Bare, as: Bare
  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.Native

  # Compiled with every change of another module: mix.exs says why, where it makes `h/2` work.
  for file <- Path.wildcard("lib/**/*.ex"), do: @external_resource(file)

  @typedoc "A map: a handle that `file` takes for a file."
  @typedoc since: "1.0.0-rc.0"
  @type mem :: Emmap.t()

  @doc """
  Maps a whole file, read-only and shared; or memory without a file: `open([anon, {size, 4096}])`.
  """
  @doc since: "1.0.0-rc.0"
  @spec open(:file.name_all() | Emmap.open_file() | Emmap.Options.t()) ::
          {:ok, mem} | Emmap.failure()
  def open(file_or_options), do: Emmap.open(file_or_options)

  @doc """
  Maps a file: `{ok, Mem}` or `{error, Posix}`. `Mem` is a handle that `file` takes for an opened file.

  The most used options:

    * none: shared and read-only
    * `write`; `create`, which implies it, with `{size, N}`
    * `append`: every write goes to the end of the file, also where other handles and programs append; implies `write`
    * `direct`: reads, and lines of `fold_lines/3`, are live binaries and copy nothing
    * `private`; `fixed_size`; `{max_size, N}`

  `h('Elixir.Emmap.Options')` has all of them, and `ht('Elixir.Emmap.Options', option)` their types; errors are those of
  `Emmap.open/2`. With `anon`, no file is opened, and the name is ignored. `fit` is that of `open/4`.
  """
  @doc since: "1.0.0-rc.0"
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
  Maps `length` bytes of `file` from `offset` on; a length of 0 is all up to the end. With
  `create` or `write`, a shorter file is brought to `offset + length`; without, the map is as long as there are bytes.
  Position 0 of the map is byte `offset` of the file. With `private`, the file stays as it is.

  A map with a length does not grow when it is written past its end (`{error, enospc}`): for that, use `open/2` with
  `{size, N}`. `grow/1` and `resize/2` make it longer only if it is all of the file: its offset is 0, and it reaches to the end of
  the file when it is opened. Else they are `{error, enospc}`. `append` takes no offset and no length other than 0.

  With `fit`, and an offset of 0, the map has at least `length` bytes, and all of a file that is longer, as in saleyn/emmap. (The `fit` of
  `Emmap.open/2` truncates such a file; here, nothing does but `truncate` and `resize/2`.)
  """
  @doc since: "1.0.0-rc.0"
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

  @doc "As `Emmap.window/3`: another part of a map's file, `{ok, Window}`."
  @doc since: "1.0.0-rc.0"
  @spec window(mem, non_neg_integer, non_neg_integer) :: {:ok, mem} | Emmap.failure()
  defdelegate window(mem, offset, length), to: Emmap

  @doc "As `Emmap.move_window/3`: `{ok, Window}`, and `mem` is closed."
  @doc since: "1.0.0-rc.0"
  @spec move_window(mem, non_neg_integer, non_neg_integer) :: {:ok, mem} | Emmap.failure()
  defdelegate move_window(mem, offset, length), to: Emmap

  @doc """
  As `Emmap.close/1`: ends the handle for all processes, and releases the file descriptor, and the memory unless there
  are live binaries.
  """
  @doc since: "1.0.0-rc.0"
  @spec close(mem) :: :ok | Emmap.failure()
  defdelegate close(mem), to: Emmap

  @doc "As `Emmap.pread/3`."
  @doc since: "1.0.0-rc.0"
  @spec pread(mem, non_neg_integer, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate pread(mem, position, count), to: Emmap

  @doc "As `Emmap.pwrite/3`: with `append`, at the end of the file, whatever `position` is."
  @doc since: "1.0.0-rc.0"
  @spec pwrite(mem, non_neg_integer, iodata) :: :ok | {:error, atom}
  defdelegate pwrite(mem, position, data), to: Emmap

  @doc "As `Emmap.read/2`."
  @doc since: "1.0.0-rc.0"
  @spec read(mem, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read(mem, count), to: Emmap

  @doc "As `Emmap.read_line/1`."
  @doc since: "1.0.0-rc.0"
  @spec read_line(mem) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read_line(mem), to: Emmap

  @doc "As `Emmap.term/4`: the term in a copy of at most `count` bytes, `{ok, Term}`."
  @doc since: "1.0.0-rc.0"
  @spec term(mem, non_neg_integer, non_neg_integer) :: {:ok, term} | :eof | Emmap.failure()
  defdelegate term(mem, position, count), to: Emmap

  @doc "As `Emmap.term/4`: `term(Mem, Position, Count, [safe])`."
  @doc since: "1.0.0-rc.0"
  @spec term(mem, non_neg_integer, non_neg_integer, [:safe]) ::
          {:ok, term} | :eof | Emmap.failure()
  defdelegate term(mem, position, count, options), to: Emmap

  @doc "As `Emmap.string/3`: a copy that is valid UTF-8, `{ok, Binary}`."
  @doc since: "1.0.0-rc.0"
  @spec string(mem, non_neg_integer, non_neg_integer) ::
          {:ok, binary} | :eof | Emmap.failure()
  defdelegate string(mem, position, count), to: Emmap

  @doc "As `Emmap.position/2`."
  @doc since: "1.0.0-rc.0"
  @spec position(mem, Emmap.location()) :: {:ok, non_neg_integer} | {:error, atom}
  defdelegate position(mem, location), to: Emmap

  @doc "The size of the map in bytes: `{ok, Size}`."
  @doc since: "1.0.0-rc.0"
  @spec size(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate size(mem), to: Emmap

  @doc "As `Emmap.grow/1`: doubles the map, or adds `max_inc_size` if that is less: `{ok, NewSize}`."
  @doc since: "1.0.0-rc.0"
  @spec grow(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate grow(mem), to: Emmap

  @doc "The name of `grow/1` in saleyn/emmap."
  @doc since: "1.0.0-rc.0"
  @spec resize(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  def resize(mem), do: Emmap.grow(mem)

  @doc "Makes the map `size` bytes long: `{ok, Size}`."
  @doc since: "1.0.0-rc.0"
  @spec resize(mem, non_neg_integer) :: {:ok, non_neg_integer} | Emmap.failure()
  def resize(mem, size) do
    with :ok <- Emmap.resize(mem, size), do: {:ok, size}
  end

  @doc "Starts writing the map's changes to the disk and does not wait; `file:sync/1` waits."
  @doc since: "1.0.0-rc.0"
  @spec flush(mem) :: :ok | Emmap.failure()
  def flush(mem), do: Emmap.sync(mem, :async)

  @doc "As `Emmap.reattach/1`: repairs a map whose file was truncated or whose disk failed."
  @doc since: "1.0.0-rc.0"
  @spec reattach(mem) :: :ok | Emmap.failure()
  defdelegate reattach(mem), to: Emmap

  @doc "As `Emmap.make_read_only/1`: later writes are `{error, eacces}`."
  @doc since: "1.0.0-rc.0"
  @spec make_read_only(mem | counters) :: :ok | Emmap.failure()
  defdelegate make_read_only(mem), to: Emmap

  @doc """
  As `Emmap.monitor/1`: the calling process gets `{emmap, Monitor, fault, Reason}` when the map meets a fault.
  """
  @doc since: "1.0.0-rc.0"
  @spec monitor(mem | Emmap.Counters.t() | Emmap.Queue.t() | Emmap.Blocks.t()) ::
          reference | {:error, :closed}
  defdelegate monitor(source), to: Emmap

  @doc "As `Emmap.demonitor/2`: `true`."
  @doc since: "1.0.0-rc.0"
  @spec demonitor(reference) :: true
  defdelegate demonitor(monitor), to: Emmap

  @doc "As `Emmap.demonitor/2`: `demonitor(Monitor, [flush])`."
  @doc since: "1.0.0-rc.0"
  @spec demonitor(reference, [:flush]) :: true
  defdelegate demonitor(monitor, options), to: Emmap

  @doc "As `Emmap.info/1`."
  @doc since: "1.0.0-rc.0"
  @spec info(mem) :: {:ok, Emmap.info()} | Emmap.failure()
  defdelegate info(mem), to: Emmap

  # Devices

  @doc "As `Emmap.device/2`, but clients get lists of characters, as from Erlang's own devices."
  @doc since: "1.0.0-rc.0"
  @spec device(mem) :: {:ok, pid} | {:error, term}
  def device(mem), do: device(mem, [])

  @doc """
  As `Emmap.device/2`, but clients get lists of characters unless `binary` is in the options:
  `emmap:device(Mem, [binary, {encoding, unicode}])`.
  """
  @doc since: "1.0.0-rc.0"
  @spec device(mem, [:binary | Emmap.Device.option()]) :: {:ok, pid} | {:error, term}
  def device(mem, options) do
    options = for option <- options, do: if(option == :binary, do: {:binary, true}, else: option)
    Emmap.device(mem, Keyword.put_new(options, :binary, false))
  end

  # Lines

  @doc """
  Folds over the lines of a map or a file, as `Emmap.stream!/3` returns them: `Fun(Line, Acc)`.

  Lines are copies. On a map opened with `direct` they are live binaries: copy a line (`binary:copy/1`) before you keep
  it, or pass it to a function that reads twice, such as `binary:split(Line, <<";">>)`. For copies of such a map, use
  `'Elixir.Emmap':'stream!'(Mem, [{copy, true}])` and Elixir's `Enum`. Errors of the system raise
  `'Elixir.Emmap.Error'`.
  """
  @doc since: "1.0.0-rc.0"
  @spec fold_lines(mem | :file.name_all(), (binary, acc -> acc), acc) :: acc when acc: term
  def fold_lines(source, fun, acc) when is_function(fun, 2),
    do: source |> Emmap.stream!() |> Enum.reduce(acc, fun)

  @doc "How many lines a map or a file has."
  @doc since: "1.0.0-rc.0"
  @spec count_lines(mem | :file.name_all()) :: non_neg_integer
  def count_lines(source), do: source |> Emmap.stream!() |> Enum.count()

  # Integers

  @doc "As `Emmap.patomic/4`: `{ok, Old}`."
  @doc since: "1.0.0-rc.0"
  @spec patomic(mem, non_neg_integer, Emmap.operation(), integer) ::
          {:ok, integer} | Emmap.failure()
  defdelegate patomic(mem, position, operation, value), to: Emmap

  @operations [:add, :sub, :and, :or, :xor, :xchg]

  for operation <- @operations do
    @doc "`patomic(Mem, Position, #{operation}, Value)`: `{ok, Old}`."
    @doc since: "1.0.0-rc.0"
    @spec unquote(:"patomic_#{operation}")(mem, non_neg_integer, integer) ::
            {:ok, integer} | Emmap.failure()
    # To go by way of `Emmap` costs a tenth of the time. It has no `sub` in native code.
    if operation != :sub do
      def unquote(:"patomic_#{operation}")(handle(ref), position, value),
        do: Bare.integer(Native.unquote(:"atomic_#{operation}")(ref, position, value))
    end

    def unquote(:"patomic_#{operation}")(mem, position, value),
      do: Emmap.patomic(mem, position, unquote(operation), value)
  end

  @doc "Compare and exchange: `{ok, Old}`, which is `Expected` when it succeeded."
  @doc since: "1.0.0-rc.0"
  @spec patomic_cas(mem, non_neg_integer, integer, integer) :: {:ok, integer} | Emmap.failure()
  def patomic_cas(handle(ref), position, expected, new),
    do: Bare.integer(Native.atomic_cas(ref, position, expected, new))

  def patomic_cas(mem, position, expected, new),
    do: Emmap.patomic_cas(mem, position, expected, new)

  @doc "`{ok, Value}`."
  @doc since: "1.0.0-rc.0"
  @spec patomic_read_integer(mem, non_neg_integer) :: {:ok, integer} | Emmap.failure()
  def patomic_read_integer(handle(ref), position),
    do: Bare.integer(Native.atomic_read(ref, position))

  def patomic_read_integer(mem, position), do: Emmap.patomic_read(mem, position)

  @doc "`ok`."
  @doc since: "1.0.0-rc.0"
  @spec patomic_write_integer(mem, non_neg_integer, integer) :: :ok | Emmap.failure()
  def patomic_write_integer(mem, position, value), do: Emmap.patomic_write(mem, position, value)

  # Searching

  @doc "As `Emmap.find/3`: `{ok, {Position, Length}} | nomatch`."
  @doc since: "1.0.0-rc.0"
  @spec find(mem, Emmap.Search.pattern()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate find(mem, pattern), to: Emmap

  @doc "As `Emmap.find/3`: `find(Mem, [Pattern, Other], [{start, 10}, {length, 100}])`."
  @doc since: "1.0.0-rc.0"
  @spec find(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate find(mem, pattern, options), to: Emmap

  @doc "As `Emmap.rfind/3`: the last match."
  @doc since: "1.0.0-rc.0"
  @spec rfind(mem, Emmap.Search.pattern()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate rfind(mem, pattern), to: Emmap

  @doc "As `Emmap.rfind/3`: the last match."
  @doc since: "1.0.0-rc.0"
  @spec rfind(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, {non_neg_integer, pos_integer}} | :nomatch | Emmap.failure()
  defdelegate rfind(mem, pattern, options), to: Emmap

  @doc "As `Emmap.find_all/3`: `{ok, [{Position, Length}]}`."
  @doc since: "1.0.0-rc.0"
  @spec find_all(mem, Emmap.Search.pattern()) ::
          {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  defdelegate find_all(mem, pattern), to: Emmap

  @doc "As `Emmap.find_all/3`, with `{limit, N}` besides `{start, N}` and `{length, N}`."
  @doc since: "1.0.0-rc.0"
  @spec find_all(
          mem,
          Emmap.Search.pattern(),
          Emmap.Search.range() | [{:limit, non_neg_integer}]
        ) :: {:ok, [{non_neg_integer, pos_integer}]} | Emmap.failure()
  defdelegate find_all(mem, pattern, options), to: Emmap

  @doc "As `Emmap.count/3`: `{ok, Count}`."
  @doc since: "1.0.0-rc.0"
  @spec count(mem, Emmap.Search.pattern()) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate count(mem, pattern), to: Emmap

  @doc "As `Emmap.count/3`: `{ok, Count}`."
  @doc since: "1.0.0-rc.0"
  @spec count(mem, Emmap.Search.pattern(), Emmap.Search.range()) ::
          {:ok, non_neg_integer} | Emmap.failure()
  defdelegate count(mem, pattern, options), to: Emmap

  @doc "As `Emmap.compile_pattern/1`."
  @doc since: "1.0.0-rc.0"
  @spec compile_pattern(Emmap.Search.pattern()) :: Emmap.Search.t()
  defdelegate compile_pattern(pattern), to: Emmap

  # Typed access

  @doc "As `Emmap.get/3`: `get(Mem, Position, {u32, big})`."
  @doc since: "1.0.0-rc.0"
  @spec get(mem, non_neg_integer, Emmap.Typed.t()) ::
          {:ok, Emmap.Typed.number_read()} | :eof | Emmap.failure()
  defdelegate get(mem, position, type), to: Emmap

  @doc "As `Emmap.put/4`."
  @doc since: "1.0.0-rc.0"
  @spec put(mem, non_neg_integer, Emmap.Typed.t(), Emmap.Typed.number_written()) ::
          :ok | Emmap.failure()
  defdelegate put(mem, position, type, value), to: Emmap

  @doc "As `Emmap.fill/4`."
  @doc since: "1.0.0-rc.0"
  @spec fill(mem, non_neg_integer, non_neg_integer, byte) :: :ok | Emmap.failure()
  defdelegate fill(mem, position, count, byte), to: Emmap

  @doc "As `Emmap.copy/4`: from one position of the map to another."
  @doc since: "1.0.0-rc.0"
  @spec copy(mem, non_neg_integer, non_neg_integer, non_neg_integer) :: :ok | Emmap.failure()
  defdelegate copy(mem, from, to, count), to: Emmap

  # Block storage

  @most_blocks 262_144
  @most_block_bytes 0xFFFF_FFFF

  @typedoc "Where a block is in a block storage: 0 to 262,143."
  @typedoc since: "1.0.0-rc.0"
  @type address :: non_neg_integer

  @doc """
  Makes an empty block storage in a map, for blocks of `size` bytes (1 to 4,294,967,295): `ok`. A storage that the map has is emptied. To use
  one that is there, call nothing.
  """
  @doc since: "1.0.0-rc.0"
  @spec init_block_storage(mem, pos_integer) :: :ok | Emmap.failure()
  def init_block_storage(mem, size) when is_integer(size) and size in 1..@most_block_bytes,
    do: patient(Native.block_storage_init(ref!(mem), size))

  def init_block_storage(mem, size),
    do: badarg([mem, size], 2, "the size must be an integer from 1 to #{@most_block_bytes}")

  @doc """
  Stores a block at the first free place and returns its address, or `{error, full}`. The file grows if it must, as by `grow/1`;
  `{error, enospc}` if it cannot. Data of another size than that of the storage is `badarg`.
  """
  @doc since: "1.0.0-rc.0"
  @spec store_block(mem, binary) :: address | {:error, :full} | Emmap.failure()
  def store_block(mem, data) when is_binary(data) do
    case patient(Native.block_storage_store(ref!(mem), data)) do
      :badarg -> badarg([mem, data], 2, "the data must be as long as a block of the storage")
      result -> result
    end
  end

  def store_block(mem, data), do: badarg([mem, data], 2, "the data must be a binary")

  @doc """
  Returns the data of a block, or `eof` if the address is not in use. On a map opened with `direct` it is a live binary, which
  changes when the address is used again.
  """
  @doc since: "1.0.0-rc.0"
  @spec read_block(mem, address) :: binary | :eof | Emmap.failure()
  def read_block(mem, address) when is_integer(address) and address >= 0 do
    case patient(Native.block_storage_read(ref!(mem), address)) do
      :badarg -> badarg([mem, address], 1, "the map is too short for a block storage")
      result -> result
    end
  end

  def read_block(mem, address),
    do: badarg([mem, address], 2, "the address must be a non-negative integer")

  @doc "Ends the use of a block: `true`, or `false` if the address is not in use."
  @doc since: "1.0.0-rc.0"
  @spec free_block(mem, address) :: boolean | Emmap.failure()
  def free_block(mem, address) when is_integer(address) and address >= 0 do
    case patient(Native.block_storage_free(ref!(mem), address)) do
      :badarg -> badarg([mem, address], 1, "the map is too short for a block storage")
      result -> result
    end
  end

  def free_block(mem, address),
    do: badarg([mem, address], 2, "the address must be a non-negative integer")

  @doc """
  Returns all blocks as they are at one moment, `[{Address, Data}]`, *the last one of the file first*. Calls that change the storage wait
  meanwhile. All of them are in memory at once: for a large storage, use `read_blocks/3`.
  """
  @doc since: "1.0.0-rc.0"
  @spec read_blocks(mem) :: [{address, binary}] | Emmap.failure()
  def read_blocks(mem) do
    case patient(Native.block_storage_read_from(ref!(mem), 0, @most_blocks, 0)) do
      {blocks, _} when is_list(blocks) -> blocks
      :badarg -> badarg([mem], 1, "the map is too short for a block storage")
      error -> error
    end
  end

  @doc """
  Returns at most `count` blocks in the order of the file, from `start` on, and where to go on: `{[{Address, Data}], Continuation | eof}`, *the
  last block first*. Begin with 0, and pass each continuation as the next `start`, until it is `eof`. The list may be shorter than `count`, and
  empty, only together with `eof`.
  """
  @doc since: "1.0.0-rc.0"
  @spec read_blocks(mem, address, pos_integer) ::
          {[{address, binary}], address | :eof} | Emmap.failure()
  def read_blocks(mem, start, count)
      when is_integer(start) and start >= 0 and is_integer(count) and count > 0 do
    case patient(Native.block_storage_read_from(ref!(mem), start, count, 0)) do
      :badarg -> badarg([mem, start, count], 1, "the map is too short for a block storage")
      result -> result
    end
  end

  def read_blocks(mem, start, count) when is_integer(start) and start >= 0,
    do: badarg([mem, start, count], 3, "the count must be a positive integer")

  def read_blocks(mem, start, count),
    do: badarg([mem, start, count], 2, "the start must be 0 or a continuation")

  @doc """
  Repairs a storage that the predecessor has left in the middle of a change, or whose file was truncated: `ok`. What is left here by a process
  or VM that was killed needs no repair.

  Blocks that end behind the end of the map are taken for lost. So a map of a part of the file, or one whose file others have made longer,
  is `{error, einval}`: see `reattach/1`.
  """
  @doc since: "1.0.0-rc.0"
  @spec repair_block_storage(mem) :: :ok | Emmap.failure()
  def repair_block_storage(mem) do
    case patient(Native.block_storage_repair(ref!(mem), 0, @most_blocks)) do
      :badarg -> badarg([mem], 1, "the map is too short for a block storage")
      {:error, _} = error -> error
      _ -> :ok
    end
  end

  @doc """
  As `repair_block_storage/1`, in steps: looks at `count` places, from `start` on, and returns where to go on, or `eof`. Begin with 0.
  """
  @doc since: "1.0.0-rc.0"
  @spec repair_block_storage(mem, address, pos_integer) :: address | :eof | Emmap.failure()
  def repair_block_storage(mem, start, count)
      when is_integer(start) and start >= 0 and is_integer(count) and count > 0 do
    case patient(Native.block_storage_repair(ref!(mem), start, count)) do
      :badarg -> badarg([mem, start, count], 1, "the map is too short for a block storage")
      result -> result
    end
  end

  def repair_block_storage(mem, start, count) when is_integer(start) and start >= 0,
    do: badarg([mem, start, count], 3, "the count must be a positive integer")

  def repair_block_storage(mem, start, count),
    do: badarg([mem, start, count], 2, "the start must be 0 or a continuation")

  # Counters

  @typedoc "Open counters, from `open_counters/2`."
  @typedoc since: "1.0.0-rc.0"
  @type counters :: Emmap.Counters.t()

  @doc "Opens the counters of a file, one at least; raises if it cannot."
  @doc since: "1.0.0-rc.0"
  @spec open_counters(:file.name_all()) :: counters
  def open_counters(file), do: open_counters(file, 1)

  @doc "Opens at least `count` counters, numbered from 0; or counters with names. Raises if it cannot."
  @doc since: "1.0.0-rc.0"
  @spec open_counters(:file.name_all(), non_neg_integer | [atom]) :: counters
  def open_counters(file, count), do: Emmap.Counters.open!(file, count)

  @doc "As `Emmap.Counters.close/1`."
  @doc since: "1.0.0-rc.0"
  @spec close_counters(counters) :: :ok | Emmap.failure()
  def close_counters(counters), do: Emmap.Counters.close(counters)

  @doc "Adds 1 and returns the value before."
  @doc since: "1.0.0-rc.0"
  @spec inc_counter(counters, Emmap.Counters.key()) :: integer
  def inc_counter(counters, key), do: Emmap.Counters.next(counters, key, 1)

  @doc "Adds `count` and returns the value before."
  @doc since: "1.0.0-rc.0"
  @spec inc_counter(counters, Emmap.Counters.key(), integer) :: integer
  def inc_counter(counters, key, count), do: Emmap.Counters.next(counters, key, count)

  @doc "Subtracts 1 and returns the value before."
  @doc since: "1.0.0-rc.0"
  @spec dec_counter(counters, Emmap.Counters.key()) :: integer
  def dec_counter(counters, key), do: dec_counter(counters, key, 1)

  @doc "Subtracts `count` and returns the value before."
  @doc since: "1.0.0-rc.0"
  @spec dec_counter(counters, Emmap.Counters.key(), integer) :: integer
  def dec_counter(counters, key, count),
    do: Emmap.Counters.next(counters, key, Emmap.Counters.negated(count))

  @doc "Sets the counter and returns the value before."
  @doc since: "1.0.0-rc.0"
  @spec set_counter(counters, Emmap.Counters.key(), integer) :: integer
  def set_counter(counters, key, value), do: Emmap.Counters.exchange(counters, key, value)

  @doc "Returns the value."
  @doc since: "1.0.0-rc.0"
  @spec read_counter(counters, Emmap.Counters.key()) :: integer
  def read_counter(counters, key), do: Emmap.Counters.get(counters, key)

  @doc """
  Folds over all counters in one read: `fold_counters(Counters, Fun, Acc)`, where
  `Fun(IndexOrName, Value, Acc)` gives the next `Acc`.
  """
  @doc since: "1.0.0-rc.0"
  @spec fold_counters(counters, (Emmap.Counters.key(), integer, acc -> acc), acc) :: acc
        when acc: term
  def fold_counters(%Emmap.Counters{} = counters, fun, acc) when is_function(fun, 3) do
    counters
    |> Emmap.Counters.to_pairs()
    |> Enum.reduce(acc, fn {key, value}, acc -> fun.(key, value, acc) end)
  end

  # Counters of several nodes

  @doc "As `Emmap.Counters.Cluster.join/3`: `join_counters(Name, Counters, Nodes)`."
  @doc since: "1.0.0-rc.0"
  @spec join_counters(Emmap.Counters.Cluster.name(), counters, [node]) :: :ok
  def join_counters(name, counters, nodes),
    do: Emmap.Counters.Cluster.join(name, counters, nodes: nodes)

  @doc "As `Emmap.Counters.Cluster.leave/1`."
  @doc since: "1.0.0-rc.0"
  @spec leave_counters(Emmap.Counters.Cluster.name()) :: :ok
  def leave_counters(name), do: Emmap.Counters.Cluster.leave(name)

  @doc "As `Emmap.Counters.Cluster.sum/2`: `{ok, Sum}` or `{partial, Sum, [{Node, Why}]}`."
  @doc since: "1.0.0-rc.0"
  @spec sum_counter(Emmap.Counters.Cluster.name(), Emmap.Counters.key()) ::
          {:ok, integer} | {:partial, integer, Emmap.Counters.Cluster.missing()}
  def sum_counter(name, key), do: Emmap.Counters.Cluster.sum(name, key)

  @doc "As `Emmap.Counters.Cluster.sums/1`."
  @doc since: "1.0.0-rc.0"
  @spec sum_counters(Emmap.Counters.Cluster.name()) ::
          {:ok, map} | {:partial, map, Emmap.Counters.Cluster.missing()}
  def sum_counters(name), do: Emmap.Counters.Cluster.sums(name)

  # Inspecting

  @doc """
  As `Emmap.Inspection.file/2`: the contents of a file, and whether it is sound, as a map. Nothing is changed.
  """
  @doc since: "1.0.0-rc.0"
  @spec inspect_file(:file.name_all()) :: {:ok, Emmap.Inspection.report()} | Emmap.failure()
  def inspect_file(file), do: Emmap.Inspection.file(file)

  @doc "Prints what `inspect_file/1` finds: `ok`."
  @doc since: "1.0.0-rc.0"
  @spec print_file(:file.name_all()) :: :ok | Emmap.failure()
  def print_file(file) do
    with {:ok, report} <- inspect_file(file), do: IO.puts(Emmap.Inspection.text(report))
  end
end
