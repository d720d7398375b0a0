defmodule Emmap.File do
  @moduledoc """
  OTP's file interface: the callbacks that `:file`, `IO` and `File` call on a handle.

  You do not call this module directly: `:file.pread(mem, 0, 10)` and `Emmap.pread(mem, 0, 10)` do the same. The
  differences from a raw file are:

    * after `close`, calls return `{:error, :closed}`, whereas calls on a raw file return `{:error, :einval}`
    * writing to a read-only map returns `{:error, :eacces}`, whereas writing to a raw file returns `{:error, :ebadf}`
    * with `:append`, writes work as for a raw file opened with `:append`, but `:file.truncate/1` and
      `:file.allocate/3` return `{:error, :eacces}`
    * a write past the end of a map that cannot grow returns `{:error, :enospc}`
    * `:file.read_file_info/1,2` returns the metadata of the file, even for a map of a part of it; for anonymous memory,
      it returns `{:error, :enotsup}`
    * if a write past the end leaves a gap, the blocks of the gap are allocated, unless the map is `:sparse`
    * a read or write that fails does not move the cursor
    * `:file.copy/2` and `:file.copy/3` between two maps return the error of the source or the destination, and write
      nothing in place of lost pages. If the source ends early, the count in `{:ok, count}` is less than requested
    * any process may use a handle, whereas a raw file raises `:not_on_controlling_process`
  """

  import Emmap.Handle, only: [handle: 1, handle: 2, alone: 0]
  require Record
  import Emmap.Waiting, only: [patient: 1, patient: 2]
  alias Emmap.Native

  Record.defrecordp(
    :descriptor,
    :file_descriptor,
    Record.extract(:file_descriptor, from_lib: "kernel/include/file.hrl")
  )

  Record.defrecordp(
    :file_info,
    Record.extract(:file_info, from_lib: "kernel/include/file.hrl")
  )

  alias Emmap.Native

  @copy_bytes 1_048_576

  @doc false
  defdelegate close(mem), to: Emmap
  @doc false
  defdelegate advise(mem, position, count, advice), to: Emmap
  @doc false
  defdelegate allocate(mem, position, count), to: Emmap
  # The common forms of the hot calls, as in `Emmap`, without the detour through it.
  @doc false
  def read(handle(ref, nil), count) when is_integer(count) and count >= 0,
    do: patient(Native.read(ref, nil, count), :data)

  def read(mem, count), do: Emmap.read(mem, count)

  @doc false
  def read_line(handle(ref)), do: patient(Native.read_line(ref, nil), :data)
  def read_line(mem), do: Emmap.read_line(mem)

  @doc false
  defdelegate pread(mem, ranges), to: Emmap

  @doc false
  def pread(handle(ref, root), position, count)
      when is_integer(position) and is_integer(count) and count >= 0 and
             (root == nil or count <= alone()),
      do: patient(Native.pread(ref, position, count), :data)

  def pread(mem, position, count), do: Emmap.pread(mem, position, count)

  @doc false
  def write(handle(ref), data) when is_binary(data), do: patient(Native.write(ref, data))
  def write(mem, data), do: Emmap.write(mem, data)

  @doc false
  defdelegate pwrite(mem, writes), to: Emmap

  @doc false
  def pwrite(handle(ref), position, data) when is_binary(data) and is_integer(position),
    do: patient(Native.pwrite(ref, position, data))

  def pwrite(mem, position, data), do: Emmap.pwrite(mem, position, data)
  @doc false
  defdelegate datasync(mem), to: Emmap
  @doc false
  defdelegate sync(mem), to: Emmap
  @doc false
  defdelegate position(mem, location), to: Emmap
  @doc false
  defdelegate truncate(mem), to: Emmap

  @doc false
  # Called if both ends are maps. Other copies use OTP's own loop.
  def copy(source, destination, count), do: copy(source, destination, count, 0)

  # `:infinity` is an atom, and an atom is greater than any integer.
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
  def ipread_s32bu_p32bu(mem, position, max) when is_integer(position),
    do: :file.ipread_s32bu_p32bu_int(mem, position, max)

  def ipread_s32bu_p32bu(_mem, _position, _max), do: {:error, :badarg}

  @doc false
  # The result is that of a raw file. The NIF uses the descriptor that the handle holds. It does not return the
  # number, because the number may belong to another file once the handle is collected or closed.
  def read_handle_info(handle(ref), options) do
    time = time_option(options)

    with {:ok, info} <- Native.file_info(ref) do
      {:ok,
       file_info(
         size: info.size,
         type: :regular,
         access: info.access,
         atime: from_posix(info.atime, time),
         mtime: from_posix(info.mtime, time),
         ctime: from_posix(info.ctime, time),
         mode: info.mode,
         links: info.links,
         major_device: info.major_device,
         minor_device: info.minor_device,
         inode: info.inode,
         uid: info.uid,
         gid: info.gid
       )}
    end
  catch
    :throw, :badarg -> {:error, :badarg}
  end

  # The first `:time` counts. Unknown options are ignored.
  defp time_option([{:time, time} | _]), do: time
  defp time_option([_ | rest]), do: time_option(rest)
  defp time_option([]), do: :local

  defp from_posix(seconds, :posix), do: seconds

  defp from_posix(seconds, time) when time in [:universal, :local] do
    universal = :erlang.posixtime_to_universaltime(seconds)
    if time == :local, do: :erlang.universaltime_to_localtime(universal), else: universal
  rescue
    # A time that OTP's calendar does not support.
    ArgumentError -> throw(:badarg)
  end

  defp from_posix(_seconds, _other), do: throw(:badarg)

  @doc false
  # The kernel sends from the page cache, through a raw file on the same inode. Data that is not in the
  # file (private pages, anonymous memory) is sent by OTP's loop of reads.
  def sendfile(mem, socket, position, count, chunk_size, headers, trailers, flags) do
    with {:ok, %{flags: map_flags, offset: offset, size: size}} <- brief(mem),
         false <- :private in map_flags and :write in map_flags,
         true <- position <= size,
         {:ok, raw} <- open_again(mem) do
      left = size - position
      # 0 means up to the end.
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
  # A map has no resource of OTP. With this result, sockets fall back to reads and sends.
  @spec internal_get_nif_resource(Emmap.t()) :: no_return
  def internal_get_nif_resource(_mem), do: :erlang.error(:notsup)

  defp brief(handle(ref)), do: Emmap.Info.brief(ref)

  # A raw file on the same inode, even if its path has changed. Until the raw file is open, the
  # descriptor keeps its number; the call of `descriptor_close` also keeps the descriptor alive until then.
  defp open_again(handle(ref)), do: Emmap.Collected.retry(fn -> raw_file(ref) end)

  defp raw_file(ref) do
    with {:ok, descriptor, number} <- Native.descriptor_open(ref) do
      try do
        :file.open("#{descriptor_directory()}/#{number}", [:read, :raw, :binary])
      after
        Native.descriptor_close(descriptor)
      end
    end
  end

  defp descriptor_directory do
    case :os.type() do
      {:unix, :linux} -> "/proc/self/fd"
      _ -> "/dev/fd"
    end
  end
end
