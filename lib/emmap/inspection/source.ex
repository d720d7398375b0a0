defmodule Emmap.Inspection.Source do
  @moduledoc false
  # A file that is being inspected: mapped read-only, so that it cannot be changed, and so that a file
  # that is truncated meanwhile is a result.
  #
  # Its holes are not touched. They are zeros, a small file may have more of them than can be read, and
  # on some file systems (tmpfs) a page of a hole takes space on the disk once it is read through a map.

  import Emmap.Handle, only: [handle: 1]

  @enforce_keys [:mem, :path, :size]
  defstruct [:mem, :path, :size]

  @type t :: %__MODULE__{mem: Emmap.t(), path: binary, size: non_neg_integer}

  @doc "The bytes at `position`: fewer than `count` where the file ends. Raises `Emmap.Error`."
  @spec read(t, Emmap.position(), non_neg_integer) :: binary
  def read(source, position, count) do
    source |> pieces(position, min(position + count, source.size)) |> IO.iodata_to_binary()
  end

  defp pieces(_source, position, stop) when position >= stop, do: []

  defp pieces(source, position, stop) do
    case next_data(source, position) do
      {from, to} when from < stop ->
        to = min(to, stop)
        [zeros(from - position), data(source, from, to - from) | pieces(source, to, stop)]

      _hole ->
        [zeros(stop - position)]
    end
  end

  defp zeros(count), do: :binary.copy(<<0>>, count)

  defp data(source, position, count) do
    case Emmap.pread(source.mem, position, count) do
      {:ok, bytes} -> bytes
      :eof -> ""
      {:error, reason} -> failed!(source, reason)
    end
  end

  @doc """
  The first stretch of data at or after `position`, as where it starts and where it ends; `:eof` if only
  holes follow. Raises `Emmap.Error`.
  """
  @spec next_data(t, Emmap.position()) :: {Emmap.position(), Emmap.position()} | :eof
  def next_data(%{mem: handle(ref)} = source, position) do
    case Emmap.Native.next_data(ref, position) do
      {:ok, stretch} -> stretch
      :eof -> :eof
      {:error, reason} -> failed!(source, reason)
    end
  end

  @spec failed!(t, atom) :: no_return
  defp failed!(source, reason),
    do: raise(Emmap.Error, op: :read, path: source.path, reason: reason)
end
