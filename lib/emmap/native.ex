defmodule Emmap.Native do
  @moduledoc false
  # The NIF stubs and their loading, nothing else. `native/emmap_nif` has the other side, with the
  # scheduler of each function beside its definition.

  @on_load :load

  @type handle :: reference()
  @type root :: binary() | nil
  @type failure :: {:error, atom()}
  @type data :: {:ok, binary()} | :eof | failure()

  @doc false
  def load do
    path = Application.app_dir(:emmap, "priv/native/emmap_nif")
    :erlang.load_nif(String.to_charlist(path), 0)
  end

  # Hot: on the caller's scheduler, or moved to dirty I/O by the size of the copy.
  @spec pread(handle, integer, non_neg_integer) :: data
  def pread(_handle, _position, _count), do: not_loaded()
  @spec view(handle, root, integer, non_neg_integer) :: data
  def view(_handle, _root, _position, _count), do: not_loaded()
  @spec pwrite(handle, integer, binary) :: :ok | failure
  def pwrite(_handle, _position, _data), do: not_loaded()
  @spec read(handle, root, non_neg_integer) :: data
  def read(_handle, _root, _count), do: not_loaded()
  @spec read_line(handle, root) :: data
  def read_line(_handle, _root), do: not_loaded()
  @spec write(handle, binary) :: :ok | failure
  def write(_handle, _data), do: not_loaded()
  @spec position(handle, 0..2, integer) :: {:ok, non_neg_integer} | failure
  def position(_handle, _whence, _offset), do: not_loaded()

  # Cold.
  @spec open(map) :: {:ok, handle, root} | failure
  def open(_request), do: not_loaded()
  @spec dup(handle) :: {:ok, handle, root} | failure
  def dup(_handle), do: not_loaded()
  @spec close(handle) :: :ok | failure
  def close(_handle), do: not_loaded()
  @spec resize(handle, non_neg_integer) :: :ok | failure
  def resize(_handle, _size), do: not_loaded()
  @spec doubled_size(handle) :: {:ok, non_neg_integer} | failure
  def doubled_size(_handle), do: not_loaded()
  @spec truncate(handle) :: :ok | failure
  def truncate(_handle), do: not_loaded()
  @spec sync(handle, boolean) :: :ok | failure
  def sync(_handle, _wait), do: not_loaded()
  @spec sync_range(handle, non_neg_integer, non_neg_integer, boolean) :: :ok | failure
  def sync_range(_handle, _position, _count, _wait), do: not_loaded()
  @spec datasync(handle) :: :ok | failure
  def datasync(_handle), do: not_loaded()
  @spec advise(handle, non_neg_integer, non_neg_integer, atom) :: :ok | failure
  def advise(_handle, _position, _count, _advice), do: not_loaded()
  @spec allocate(handle, non_neg_integer, non_neg_integer) :: :ok | failure
  def allocate(_handle, _position, _count), do: not_loaded()
  @spec prefetch(handle, non_neg_integer, non_neg_integer) :: :ok | failure
  def prefetch(_handle, _position, _count), do: not_loaded()
  @spec lock_memory(handle) :: :ok | failure
  def lock_memory(_handle), do: not_loaded()
  @spec unlock_memory(handle) :: :ok | failure
  def unlock_memory(_handle), do: not_loaded()
  @spec info(handle) :: {:ok, map} | failure
  def info(_handle), do: not_loaded()
  @spec guard_status() :: :ok | :lost | :off
  def guard_status(), do: not_loaded()
  @spec live() :: {non_neg_integer, non_neg_integer}
  def live(), do: not_loaded()

  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
