defmodule Emmap.File do
  @moduledoc """
  OTP's file contract: the callbacks that `:file`, `IO` and `File` call on a handle.

  There is nothing to call here yourself: `:file.pread(mem, 0, 10)` and `Emmap.pread(mem, 0, 10)` are
  the same. Where the answers differ from a raw file's:

    * after `close`: `{:error, :closed}`, where a raw file says `:einval`
    * writing to a read-only map: `{:error, :eacces}`, where a raw file says `:ebadf`
    * a write past the end of a map that cannot grow: `{:error, :enospc}`
    * a gap left by writing past the end has its blocks allocated, unless `:sparse`
    * any process may use a handle, where a raw file raises `:not_on_controlling_process`
  """
  @moduledoc since: "1.0.0-rc.0"

  require Record

  Record.defrecordp(
    :descriptor,
    :file_descriptor,
    Record.extract(:file_descriptor, from_lib: "kernel/include/file.hrl")
  )

  @copy_bytes 1_048_576

  @doc false
  defdelegate close(mem), to: Emmap
  @doc false
  defdelegate advise(mem, position, count, advice), to: Emmap
  @doc false
  defdelegate allocate(mem, position, count), to: Emmap
  @doc false
  defdelegate read(mem, count), to: Emmap
  @doc false
  defdelegate read_line(mem), to: Emmap
  @doc false
  defdelegate pread(mem, ranges), to: Emmap
  @doc false
  defdelegate pread(mem, position, count), to: Emmap
  @doc false
  defdelegate write(mem, data), to: Emmap
  @doc false
  defdelegate pwrite(mem, writes), to: Emmap
  @doc false
  defdelegate pwrite(mem, position, data), to: Emmap
  @doc false
  defdelegate datasync(mem), to: Emmap
  @doc false
  defdelegate sync(mem), to: Emmap
  @doc false
  defdelegate position(mem, location), to: Emmap
  @doc false
  defdelegate truncate(mem), to: Emmap

  @doc false
  # Called when both ends are maps; other copies are OTP's own loop.
  def copy(source, destination, count), do: copy(source, destination, count, 0)

  # `:infinity` is an atom, and atoms are above all integers.
  defp copy(_source, _destination, left, done) when left <= 0, do: {:ok, done}

  defp copy(source, destination, left, done) do
    step = min(left, @copy_bytes)

    with {:ok, data} <- Emmap.read(source, step),
         size = byte_size(data),
         :ok <- Emmap.write(destination, data) do
      left = if is_integer(left), do: left - size, else: left
      if size < step, do: {:ok, done + size}, else: copy(source, destination, left, done + size)
    else
      :eof -> {:ok, done}
      error -> error
    end
  end

  @doc false
  defdelegate ipread_s32bu_p32bu(mem, position, max), to: :file, as: :ipread_s32bu_p32bu_int

  @doc false
  def read_handle_info(mem, options) do
    with {:ok, info} <- brief(mem),
         {:ok, path} <- descriptor_path(info),
         do: :file.read_file_info(path, [:raw | options])
  end

  @doc false
  # The kernel sends the page cache itself, from a raw file on the same inode; what is not the
  # file's (private pages, anonymous memory) is sent by OTP's loop over reads.
  def sendfile(mem, socket, position, count, chunk_size, headers, trailers, flags) do
    with {:ok, %{flags: map_flags, offset: offset, size: size} = info} <- brief(mem),
         false <- :private in map_flags and :write in map_flags,
         true <- position <= size,
         {:ok, path} <- descriptor_path(info),
         {:ok, raw} <- :file.open(path, [:read, :raw, :binary]) do
      left = size - position
      # 0 means all there is.
      count = if count == 0, do: left, else: min(count, left)

      try do
        if count == 0,
          do: {:ok, 0},
          else:
            sendfile_raw(
              raw,
              socket,
              offset + position,
              count,
              chunk_size,
              headers,
              trailers,
              flags
            )
      after
        :file.close(raw)
      end
    else
      {:error, :closed} = error -> error
      _ -> {:error, :enotsup}
    end
  end

  defp sendfile_raw(raw, socket, position, count, chunk_size, headers, trailers, flags) do
    module = descriptor(raw, :module)
    module.sendfile(raw, socket, position, count, chunk_size, headers, trailers, flags)
  end

  @doc false
  # There is no resource of OTP's behind a map; with this answer sockets read and send.
  @spec internal_get_nif_resource(Emmap.t()) :: no_return
  def internal_get_nif_resource(_mem), do: :erlang.error(:notsup)

  defp brief({:file_descriptor, __MODULE__, %Emmap{ref: ref}}), do: Emmap.Info.brief(ref)

  # The name of the open file itself, whatever happened to its path.
  defp descriptor_path(%{fd: nil}), do: {:error, :enotsup}
  defp descriptor_path(%{fd: fd}), do: {:ok, "#{descriptor_directory()}/#{fd}"}

  defp descriptor_directory do
    case :os.type() do
      {:unix, :linux} -> "/proc/self/fd"
      _ -> "/dev/fd"
    end
  end
end
