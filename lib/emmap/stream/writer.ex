defmodule Emmap.Stream.Writer do
  @moduledoc false
  # Appends to a file or to the map of a handle, in blocks: each write past the end of a map makes
  # its file longer, which takes system calls.
  #
  # Pending data is in the process dictionary, because `Enum.into/2` discards everything
  # that was collected when something raises, and the elements before that must be in the file.

  import Emmap.Handle, only: [handle: 1]
  alias Emmap.HeapRoom

  @block 64 * 1024

  @enforce_keys [:file, :path]
  defstruct [:file, :path, elements: @block]

  # `:elements`: the maximum number in a block.
  @type t :: %__MODULE__{
          file: :file.fd() | Emmap.t(),
          path: binary | nil,
          elements: pos_integer
        }

  @spec open!(Emmap.t() | binary) :: t
  def open!(path) when is_binary(path) do
    # Appending needs no map, and the system appends each block atomically.
    case :file.open(path, [:append, :raw, :binary]) do
      {:ok, file} -> %__MODULE__{file: file, path: path, elements: HeapRoom.batch(@block)}
      {:error, reason} -> raise Emmap.Error, op: :open, path: path, reason: reason
    end
  end

  def open!(handle(ref) = mem) do
    %{flags: flags} = ok!(Emmap.Info.brief(ref), nil)
    if :write not in flags, do: failed!(:eacces, nil)
    # A separate handle, so that the caller's cursor does not move.
    %__MODULE__{file: ok!(Emmap.dup(mem), nil), path: nil, elements: HeapRoom.batch(@block)}
  end

  @spec write!(t, iodata) :: t
  def write!(writer, data) do
    # Copied now, because a live binary may have changed when its block is written. Data that is not iodata raises
    # here, and not when its block is written.
    data =
      case Emmap.Iodata.copy(data) do
        {:ok, data} -> data
        {:error, :badarg} -> raise ArgumentError, "not iodata: #{inspect(data, limit: 5)}"
        {:error, reason} -> failed!(reason, writer.path)
      end

    {waiting, count, size} = Process.get(key(writer), {[], 0, 0})
    {count, size} = {count + 1, size + byte_size(data)}
    Process.put(key(writer), {[waiting, data], count, size})
    if size >= @block or count >= writer.elements, do: flush!(writer)
    writer
  end

  @spec close!(t) :: :ok
  def close!(writer) do
    flush!(writer)
  after
    :file.close(writer.file)
  end

  defp flush!(writer) do
    case Process.delete(key(writer)) do
      nil -> :ok
      {waiting, _count, _size} -> append!(writer, waiting)
    end
  end

  defp append!(%{file: file, path: path}, data) do
    # The end is looked up each time, because others may have extended the map.
    _ = ok!(:file.position(file, :eof), path)

    case :file.write(file, data) do
      :ok -> :ok
      {:error, reason} -> failed!(reason, path)
    end
  end

  defp ok!({:ok, answer}, _path), do: answer
  defp ok!({:error, reason}, path), do: failed!(reason, path)

  defp key(%{file: {:file_descriptor, _, data}}), do: {__MODULE__, data}

  @spec failed!(Emmap.reason() | :badarg, binary | nil) :: no_return
  defp failed!(reason, path), do: raise(Emmap.Error, op: :append, path: path, reason: reason)
end
