defmodule :emmap do
  @moduledoc """
  `Emmap` for Erlang: the same maps, options and answers.

      {ok, Mem} = emmap:open("data.bin", [read, write, direct]),
      {ok, Bin} = file:pread(Mem, 100, 40),
      ok = emmap:pwrite(Mem, 100, <<"hello">>),
      ok = file:close(Mem).

  Paths are strings or binaries. What the caller did wrong (an unknown option, a term that is no
  handle) is an error of class `error` whose reason is Elixir's `ArgumentError`, a map with a `message`.
  """

  @type mem :: Emmap.t()

  @doc "As `Emmap.open/2`."
  @spec open(:file.name_all(), Emmap.Options.t()) :: {:ok, mem} | Emmap.failure()
  def open(file, options), do: Emmap.open(file, options)

  @doc """
  Maps `length` bytes of `file` from `offset` on; a length of 0 is all up to the end. With
  `create` or `write`, a shorter file is brought to `offset + length`.
  """
  @spec open(:file.name_all(), non_neg_integer, non_neg_integer, Emmap.Options.t()) ::
          {:ok, mem} | Emmap.failure()
  def open(_file, _offset, length, [:anon | _] = options),
    do: Emmap.open(options ++ [size: length])

  def open(file, offset, length, options) when is_list(options),
    do: Emmap.open(file, options ++ [offset: offset, length: length])

  @doc "As `Emmap.close/1`."
  @spec close(mem) :: :ok | Emmap.failure()
  defdelegate close(mem), to: Emmap

  @doc "As `Emmap.pread/3`."
  @spec pread(mem, non_neg_integer, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate pread(mem, position, count), to: Emmap

  @doc "As `Emmap.pwrite/3`."
  @spec pwrite(mem, non_neg_integer, iodata) :: :ok | {:error, atom}
  defdelegate pwrite(mem, position, data), to: Emmap

  @doc "As `Emmap.read/2`."
  @spec read(mem, non_neg_integer) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read(mem, count), to: Emmap

  @doc "As `Emmap.read_line/1`."
  @spec read_line(mem) :: {:ok, binary} | :eof | Emmap.failure()
  defdelegate read_line(mem), to: Emmap

  @doc "As `Emmap.position/2`."
  @spec position(mem, Emmap.location()) :: {:ok, non_neg_integer} | {:error, atom}
  defdelegate position(mem, location), to: Emmap

  @doc "Doubles the map, or adds `max_inc_size` if that is less: `{ok, NewSize}`."
  @spec resize(mem) :: {:ok, non_neg_integer} | Emmap.failure()
  defdelegate resize(mem), to: Emmap

  @doc "Makes the map `size` bytes long: `{ok, Size}`."
  @spec resize(mem, non_neg_integer) :: {:ok, non_neg_integer} | Emmap.failure()
  def resize(mem, size) do
    with :ok <- Emmap.resize(mem, size), do: {:ok, size}
  end

  @doc "Starts writing the map's changes to the disk and does not wait; `file:sync/1` waits."
  @spec flush(mem) :: :ok | Emmap.failure()
  def flush(mem), do: Emmap.sync(mem, :async)

  @doc "As `Emmap.info/1`."
  @spec info(mem) :: {:ok, Emmap.info()} | Emmap.failure()
  defdelegate info(mem), to: Emmap
end
