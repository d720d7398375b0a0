defmodule Emmap.Stream.Writer do
  @moduledoc false
  # Appends to a file or to the map of a handle, in blocks: each write past the end of a map makes
  # its file longer, which takes system calls.
  #
  # What waits to be written stands in the process dictionary, because `Enum.into/2` forgets all
  # that was collected when something raises, and what came before must be in the file then.

  import Emmap.Handle, only: [handle: 1]
  alias Emmap.HeapRoom

  @block 64 * 1024

  @enforce_keys [:file, :path]
  defstruct [:file, :path, elements: @block]

  # `:elements`: how many a block has at most.
  @type t :: %__MODULE__{
          file: :file.fd() | Emmap.t(),
          path: binary | nil,
          elements: pos_integer
        }

  @spec open!(Emmap.t() | binary) :: t
  def open!(path) when is_binary(path) do
    # No map is needed to append, and a file moves every block to its end itself.
    case :file.open(path, [:append, :raw, :binary]) do
      {:ok, file} -> %__MODULE__{file: file, path: path, elements: HeapRoom.batch(@block)}
      {:error, reason} -> raise Emmap.Error, op: :open, path: path, reason: reason
    end
  end

  def open!(handle(ref) = mem) do
    %{flags: flags} = ok!(Emmap.Info.brief(ref), nil)
    if :write not in flags, do: failed!(:eacces, nil)
    # A handle of our own: its cursor moves, the caller's does not.
    %__MODULE__{file: ok!(Emmap.dup(mem), nil), path: nil, elements: HeapRoom.batch(@block)}
  end

  @spec write!(t, iodata) :: t
  def write!(writer, data) do
    # Copied now: a live binary may be another one by the time that its block is written. What is not iodata raises
    # here, and not with the block it would be in.
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
    # The end is looked up each time: somebody else may have made the map longer.
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
