defmodule Emmap do
  @moduledoc """
  Memory-mapped files. A handle works as a file handle, and a read can return a binary that is the mapped memory itself.

  `open/2` maps a file and returns a handle that OTP and Elixir accept as a file: `:file.pread/3`,
  `IO.binread/2`, `IO.binstream/2`, `File.close/1` and `File.copy/2` work on it. The functions of this
  module do the same and are slightly faster.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.bin")
      iex> File.write!(path, "hello, world")
      iex> {:ok, mem} = Emmap.open(path, [:read, :write])
      iex> Emmap.pread(mem, 7, 5)
      {:ok, "world"}
      iex> :ok = Emmap.pwrite(mem, 7, "there")
      iex> IO.binread(mem, 12)
      "hello, there"
      iex> File.close(mem)
      :ok
      iex> File.read!(path)
      "hello, there"

  ## The contract

    * A handle belongs to no process: any process on the node can use it.
    * Positions and sizes are in bytes. Positions count from 0.
    * Functions return what `:file` returns: `:ok`, `{:ok, result}`, `:eof` or `{:error, posix_atom}`. After `close/1`, every call fails with `:closed`, including a second `close/1`: functions that end in `!` raise
      `Emmap.Error`, and the others return `{:error, :closed}` (`pwrite/2`: `{:error, {0, :closed}}`). Incorrect use (an unknown
      option, a term that is not a handle of this node) raises `ArgumentError`. Where `:file` returns an error instead
      of raising, this module returns it too: `{:error, :einval}` for a negative position, and `{:error, :badarg}` for
      a `pread/2` list with an element that is not a range, or for data that is not iodata.
    * With `:lock`, the default, a `pread/3` or `pwrite/3` of any length is atomic with respect to every other
      `pread/3` and `pwrite/3` on the same map. (If a process is killed during a write of more than 1 MiB, only part
      of the data may have been written.)
    * A shared, writable map of a whole file grows when it is written past its end, unless it was opened with
      `:fixed_size` or `:length`. On other writable maps, and on anonymous memory, a write past the end returns `{:error, :enospc}`. Growing does not move
      live binaries (see below).
    * With `:append`, every write goes to the end of the file.
    * A read or write that fails does not move the cursor. If growing fails, the size of the file does not change
      (except with `:append`); some blocks past its end may stay allocated (see
      [What a failure leaves behind](reliability.md#what-a-failure-leaves-behind)).
    * Written data survives the death of the VM, because the pages belong to the kernel. It survives a power
      failure once `sync/1` has returned `:ok`.
    * Closing the last handle on a map releases the file descriptor and, if no live binary of the map was ever made, the
      pages. Otherwise the pages are released when the last live binary is collected. Garbage collection closes a handle
      that was not closed.
    * Copies of up to 64 KiB run on the caller's scheduler, and wait there if the disk has to read a page first
      (`prefetch/3` avoids this). Longer copies, and other calls that may wait for a disk, run on a dirty I/O scheduler;
      long searches, and the long lines and chunks of a stream, on a dirty CPU scheduler. A call that has to wait for
      another call, or for a lock that another program holds, suspends only the calling process and occupies no
      scheduler. The VM can be stopped at any time, even while calls are running.

  ## Live binaries

  On a handle opened with `:direct`, `read/2`, `pread/3`, `read_line/1` and streams return binaries that *are* the
  mapped memory. Creating one takes the same time whatever its length. Its bytes change when the memory changes, no
  matter which process or program changes it. `view/3`, and streams with `live: true`, return live binaries from any
  handle.

      iex> path = Path.join(System.tmp_dir!(), "emmap_live.bin")
      iex> File.write!(path, "one two")
      iex> {:ok, mem} = Emmap.open(path, [:write, :direct])
      iex> {:ok, live} = Emmap.pread(mem, 4, 3)
      iex> Emmap.pwrite(mem, 4, "ten")
      iex> live
      "ten"
      iex> Emmap.close(mem)
      iex> live
      "ten"

  See the guide [Live binaries](live-binaries.md). A live binary keeps its pages mapped until it is collected, even
  after `close/1`; in that case, `close/1` releases only the file descriptor. The results of `view/3`, and of `read/2`,
  `pread/3` and `read_line/1` on a `:direct` handle, are live however short they are. (A line that ends in CRLF is a copy.) A *part* of at most 64 bytes that
  is taken out of a live binary by matching or `binary_part/3` is an ordinary copy, and so is the result of
  `:binary.copy/1`. Do not use a live binary as a key of a map or of an ETS table.

  > #### Functions that read twice need a copy {: .warning}
  >
  > Some functions read their argument twice, and can crash the VM if a live binary changes, or its file is truncated,
  > while they run. Among them are `:erlang.binary_to_term/1`, `:binary.split/2` and related functions with a one-byte
  > pattern, `:re` with `unicode`, and parts of `:unicode`. No library can prevent this. `term/3` and `string/3` copy
  > first. [The guide](live-binaries.md#functions-that-read-twice) lists the functions.

  If a live binary is sent to another node, a socket or a port, or written to a file opened with `:delayed_write`, its
  bytes are read only after that call has returned, as they are then. If pages of the map were
  [lost](reliability.md#lost-pages) in the meantime (for example because the file was truncated), the node is
  disconnected, or the socket or port is closed. Pass copies to these destinations; the section
  [Where the bytes are read later](live-binaries.md#where-the-bytes-are-read-later) lists them. A write made with this
  module whose data is a live binary with lost pages writes nothing and returns the error of that binary's map. A
  `:file.copy/3` between two maps returns the error of the source if its pages are lost.

  A handle opened with `:direct` holds a reference to the whole map, so sending it to another
  *node* sends the contents of the file. To use a map from another node, use `device/2`.
  """

  import Emmap.Descriptor, only: [is_descriptor: 1]
  import Emmap.Handle, only: [handle: 1, handle: 2, alone: 0, none!: 1, ref!: 1]
  require Emmap.Bare, as: Bare
  require Emmap.Typed, as: Typed
  import Emmap.Waiting, only: [patient: 1, patient: 2]

  alias Emmap.{
    Collected,
    Descriptor,
    Handle,
    Info,
    Iodata,
    Location,
    Native,
    Options,
    Pieces,
    Search,
    Word
  }

  # Only for `inspect/1`: `Emmap.Handle` has the shape of a handle.
  @enforce_keys [:ref]
  defstruct [:ref]

  @typedoc "What `open/2` returns: a `:file` handle. Treat it as opaque."
  @type t :: Handle.t()
  @typedoc "A file that is already open: a descriptor number, a handle of `:file.open/2` with `:raw`, or a map."
  @type open_file :: {:fd, non_neg_integer} | :file.fd() | t
  @typedoc "A position in a map, in bytes from its start, counted from 0."
  @type position :: non_neg_integer
  @typedoc "`:closed`, or an error of `:file`. Each function lists its errors."
  @type reason :: :closed | :badarg | :file.posix() | :inet.posix()
  @typedoc "Returned when the system refuses the operation, or the handle is closed."
  @type failure :: {:error, reason}
  @typedoc "How a range will be used: see `advise/4`."
  @type advice ::
          :normal
          | :sequential
          | :random
          | :no_reuse
          | :will_need
          | :dont_need
          | :cold
          | :pageout
          | :hugepage
          | :nohugepage
          | :collapse
          | :dontdump
          | :dodump
          | :dontfork
          | :dofork
          | :mergeable
          | :unmergeable
          | :populate_read
          | :populate_write
          | :free
          | :remove
  @typedoc "Where to move the cursor: bytes from the start, or from `:bof`, `:cur` or `:eof`; see `position/2`."
  @type location ::
          integer | :bof | :cur | :eof | {:bof, integer} | {:cur, integer} | {:eof, integer}
  @typedoc "The result of `info/1`, which describes each key."
  @type info :: %{
          path: Path.t() | nil,
          fd: non_neg_integer | nil,
          size: non_neg_integer,
          offset: non_neg_integer,
          position: position,
          flags: [atom],
          growable_up_to: non_neg_integer | :infinity | nil,
          page_size: pos_integer,
          resident_pages: non_neg_integer,
          allocated: non_neg_integer | nil,
          address_ranges: pos_integer,
          faults: non_neg_integer,
          fault: {position, failure} | nil,
          failed_sync: failure | nil
        }

  # The largest size that a file can have.
  @all 0x7FFF_FFFF_FFFF_FFFF

  # Opening and closing

  @doc """
  Maps a file read-only and shared, or anonymous memory: `open(path)` or `open([:anon, size: n])`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4096])
      iex> Emmap.pread(mem, 4094, 10)
      {:ok, <<0, 0>>}
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all() | open_file | Options.t()) :: {:ok, t} | failure
  def open([first | _] = options) when is_atom(first) or is_tuple(first),
    do: do_open(nil, options)

  def open(path), do: open(path, [])

  @doc """
  Maps a file with the given options; the default is `[:read, :shared]`.

  The most common options (`Emmap.Options` lists all of them):

    * `:write` – the map can be written to, and grows when it is written past its end
    * `:create` – creates the file if it does not exist; implies `:write`
    * `:append` – every write goes to the end of the file; implies `:write`
    * `:truncate` – starts with an empty file
    * `:direct` – reads return live binaries, which *are* the mapped memory, instead of copies
    * `:private` – writes stay in this map and never reach the file
    * `:fixed_size` – the map never changes its size
    * `:anon` – memory without a file: `Emmap.open([:anon, size: n])`
    * `{:size, n}` – extends the file to at least `n` bytes
    * `{:offset, n}`, `{:length, n}` – maps a part of the file; such a map does not grow when it is written past its end

  `path` is a string, or anything else that `t::file.name_all/0` allows: raw bytes, a charlist, an atom, or a deep list of
  these. The characters of a list are encoded as the VM encodes file names (`:file.native_name_encoding/0`). A path is
  relative to the current directory. Only regular files can be mapped.

  An open costs a few system calls, on a dirty I/O scheduler. With `:create`, `:size` or `:length` it also allocates
  blocks, so that a full disk is an error here and not later (`:sparse` leaves holes instead). An open that changes
  the size of the file (`:size`, `:length` with `:write`, `:truncate`, `:fit`) holds a lock while it does so (the
  growth lock). Other maps of the file, in any VM, take the same lock when they change its size.

  If an open fails, an existing file is unchanged. (A device that fails during `:truncate` may leave it empty.) A new
  file is removed, but never a file that another program has created.

  Errors:

    * `:enoent`, `:eacces`, `:erofs`, `:eisdir`, `:enametoolong`, `:enfile`, `:efbig`, `:enospc`, `:edquot` – as with
      `:file.open/2`
    * `:eperm` – opened for writing: the file is immutable (`chattr +i`), append-only (`chattr +a`; `:append` opens it) or
      sealed; or `:chmod` is not permitted
    * `:enodev` – not a regular file; or the file system (such as FUSE with direct I/O) does not support shared maps:
      open the file with `:private`, or mount the file system with `direct_io_allow_mmap`
    * `:etxtbsy` – opened for writing: the file is a program that is running
    * `:eexist` – with `:exclusive`, the file exists; or the `:fixed` address is in use
    * `:ebusy` – this VM holds live binaries of a file that `:truncate` or `:fit` would shorten; or another program has
      kept the whole file locked for 2 seconds, or has not given up its lease on the file within 10 seconds
    * `:emfile` – no more file descriptors
    * `:enomem` – not enough memory, address space or memory-map entries, of which some are reserved for the VM: see
      [Limits](limits.md#sizes)
    * `:einval` – a NUL in the path; or an address that is not page-aligned
    * `:enotsup` – an option that this system or file system does not support; or huge pages of a size other than that of
      the file system

  If another program (Samba, an NFS server) holds a lease on the file, the open suspends the calling process until the
  lease is given up, for at most 10 seconds.

  On `:emfile`, `:enfile` and `:enomem`, on `:ebusy` because of live binaries and on `:eexist` because of a `:fixed` address,
  the calling process is garbage-collected, which closes its unused handles and releases its unused live binaries. The open
  is then tried again for 130 ms.

  Instead of a path, you can pass a file that is already open: `{:fd, n}`, where `n` is a file descriptor of this VM
  (for example one received from a port, a socket or another library); a handle of `:file.open/2` with `:raw`; or a
  map. The new map has its own descriptor, so either may be closed first. The caller keeps what it passed, and must
  not close it before the open has returned. The file needs no name: deleted files and files made by `memfd_create`
  can be mapped. The file must be open for reading, and with `:write` also for writing; otherwise the result is
  `{:error, :eacces}`. If no file is open under that number, the result is `{:error, :ebadf}`. `:create`,
  `:exclusive`, `:chmod` and `:auto_unlink` work only with paths.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_fd.bin")
      iex> {:ok, file} = :file.open(path, [:read, :write, :raw])
      iex> :ok = :file.write(file, "hello")
      iex> {:ok, mem} = Emmap.open(file, [:write])
      iex> :ok = :file.close(file)
      iex> Emmap.pread(mem, 0, 5)
      {:ok, "hello"}

  With `:append`, every write goes to the end of the file:

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_append.log")
      iex> File.write!(path, "one\\n")
      iex> {:ok, log} = Emmap.open(path, [:append])
      iex> File.write!(path, "two, by others\\n", [:append])
      iex> :ok = Emmap.write(log, "three\\n")
      iex> Emmap.pread(log, 0, 100)
      {:ok, "one\\ntwo, by others\\nthree\\n"}
      iex> Emmap.put(log, 0, :u8, ?X)
      {:error, :eacces}
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all() | open_file, Options.t()) :: {:ok, t} | failure
  def open(path, options)

  def open(file, options) when is_descriptor(file),
    do: Descriptor.with_number(file, &do_open({:fd, &1}, options))

  def open(path, options), do: do_open(Emmap.Path.bytes!(path), options)

  @doc """
  Maps a file, calls `fun` with the handle, and closes the handle, as `File.open/3` does. Returns
  `{:ok, result_of_fun}`.

  The handle is closed even if `fun` raises, throws or exits. Errors are those of `open/2`; then `fun` is not called. Live
  binaries that `fun` returns stay valid.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_fun.bin")
      iex> _ = File.rm(path)
      iex> Emmap.open(path, [:create, size: 16], &Emmap.patomic(&1, 8, :add, 5))
      {:ok, {:ok, 0}}
      iex> Emmap.open(path, [:read], &IO.binread(&1, 16))
      {:ok, <<0::64, 5::native-64>>}
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all() | open_file, Options.t(), (t -> result)) ::
          {:ok, result} | failure
        when result: term
  def open(path, options, fun) when is_function(fun, 1) do
    with {:ok, mem} <- open(path, options), do: {:ok, closing(mem, fun)}
  end

  defp closing(mem, fun) do
    fun.(mem)
  after
    # `fun` may have closed it.
    _ = close(mem)
  end

  @doc """
  Same as `open/1`, but returns only the handle and raises `Emmap.Error` on failure.
  """
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all() | open_file | Options.t()) :: t
  def open!([first | _] = options) when is_atom(first) or is_tuple(first),
    do: opened!(open(options), nil)

  def open!(path), do: open!(path, [])

  @doc """
  Same as `open/2`, but returns only the handle and raises `Emmap.Error` on failure.
  """
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all() | open_file, Options.t()) :: t
  def open!(path, options), do: opened!(open(path, options), path)

  @doc """
  Same as `open/3`, but returns only the result of `fun` and raises `Emmap.Error` on failure.
  """
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all() | open_file, Options.t(), (t -> result)) :: result
        when result: term
  def open!(path, options, fun) when is_function(fun, 1),
    do: path |> open!(options) |> closing(fun)

  defp opened!({:ok, mem}, _path), do: mem

  defp opened!({:error, reason}, file), do: not_opened!(reason, file)

  @spec not_opened!(reason, term) :: no_return
  defp not_opened!(reason, file) when is_nil(file) or is_descriptor(file),
    do: raise(Emmap.Error, op: :open, path: nil, reason: reason)

  defp not_opened!(reason, path),
    do: raise(Emmap.Error, op: :open, path: Emmap.Path.bytes!(path), reason: reason)

  defp do_open(file, options), do: do_open(Options.request!(file, options))

  defp do_open(request) do
    # The addresses of a closed map are released when its handle is collected.
    more = if request.fixed, do: [:eexist], else: []

    with {:ok, ref, root} <- Collected.retry(fn -> patient(Native.open(request)) end, more),
         do: {:ok, Handle.new(ref, root)}
  end

  @doc """
  Closes the handle immediately and for all processes: every later call on it returns `{:error, :closed}`.

  Other handles on the same map (see `dup/1`) stay open. Closing the last handle on a map releases the file descriptor.
  If no live binary of the map was ever made (by `view/3`, on a `:direct` handle, or by a live stream), it also releases
  the pages: the disk space of a deleted file is freed, and the file system can be unmounted. Otherwise, live binaries
  stay valid, and their pages are released when the last of them is collected.

  A call that is running in another process returns either the bytes of the file or `{:error, :closed}`, never zeros in
  place of the bytes. If the call is a write and returns `:ok`, its data is in the file.

  `close/1` does not sync; see `sync/1`. It runs on a dirty I/O scheduler and takes as long as unmapping takes. A
  handle that was not closed is closed by garbage collection; for a large map, a separate thread then does the
  unmapping.
  """
  @doc group: "Opening and closing"
  @spec close(t) :: :ok | failure
  def close(mem), do: Native.close(ref!(mem))

  @doc """
  Returns another handle on the same map, with its own cursor (at 0) and its own `close/1`.
  """
  @doc group: "Opening and closing"
  @spec dup(t) :: {:ok, t} | failure
  def dup(mem) do
    with {:ok, ref, root} <- Native.dup(ref!(mem)), do: {:ok, Handle.new(ref, root)}
  end

  @doc """
  Maps another part of a map's file: `length` bytes starting at byte `offset` of the *file*.

  A length of 0 means everything up to the end of the file. The window is a separate map. It has the same access as
  `mem` (`:write`, `:private`, `:direct` and `:nolock`) and a cursor at 0. It shows the bytes that exist: fewer than
  `length` if the file ends earlier, and none past the end of the file. It never changes the size of the file. A
  window works on files of any size, including files larger than the address space, and on files that have been
  renamed or deleted since they were opened. For anonymous memory, the result is `{:error, :enotsup}`. To move a
  window or change its size, see `move_window/3`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_window.bin")
      iex> File.write!(path, "onetwothree")
      iex> {:ok, mem} = Emmap.open(path, [:write])
      iex> {:ok, window} = Emmap.window(mem, 3, 3)
      iex> Emmap.pread(window, 0, 10)
      {:ok, "two"}
      iex> {:ok, window} = Emmap.move_window(window, 6, 100)
      iex> Emmap.pread(window, 0, 10)
      {:ok, "three"}
      iex> File.read!(path)
      "onetwothree"
  """
  @doc group: "Opening and closing"
  @spec window(t, position, non_neg_integer) :: {:ok, t} | failure
  def window(mem, offset, length) do
    ref = ref!(mem)

    ranged(offset, length, fn ->
      with {:ok, %{flags: flags}} <- Info.brief(ref),
           do: Descriptor.with_number(mem, &open_window(&1, flags, offset, length))
    end)
  end

  defp open_window(number, flags, offset, length) do
    kept = if :append in flags, do: [:direct, :nolock], else: [:write, :private, :direct, :nolock]
    options = [:fixed_size, offset: offset, length: length] ++ Enum.filter(kept, &(&1 in flags))
    do_open(%{Options.request!({:fd, number}, options) | keep_size: true})
  end

  @doc """
  Moves a window, or changes its size: returns `window(mem, offset, length)` and closes `mem`.

  Live binaries of the old window stay valid and still show the old part of the file. The bytes of the file do not
  change. If the call fails, `mem` stays open. `mem` can be any map of a file, not only a window.
  """
  @doc group: "Opening and closing"
  @spec move_window(t, position, non_neg_integer) :: {:ok, t} | failure
  def move_window(mem, offset, length) do
    with {:ok, window} <- window(mem, offset, length) do
      # Another process may have closed it in the meantime.
      _ = close(mem)
      {:ok, window}
    end
  end

  # Devices

  @doc """
  Starts a process that serves Erlang's I/O protocol and the protocol of `:file` for the map, and returns `{:ok, pid}`.

  Use it for `IO.puts/2`, `IO.read/2`, `:io.format/3` and everything else that needs a pid, and for clients on other
  nodes. The device has its own cursor, at 0. It ends with its owner, which is the caller unless `owner:` names
  another process. Options: `:encoding` (`:latin1`, the default, or `:unicode`), `:binary`, `:owner`, `:name`.
  `Emmap.Device` describes them and the replies of a device. Returns `{:error, :closed}` if the handle is closed.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> {:ok, device} = Emmap.device(mem)
      iex> IO.write(device, "written")
      iex> Emmap.pread(mem, 0, 8)
      {:ok, "written\\0"}
  """
  @doc group: "Streams and devices"
  @spec device(t, [Emmap.Device.option()]) :: {:ok, pid} | {:error, term}
  def device(mem, options \\ []), do: Emmap.Device.start([{:mem, mem} | options])

  # Reading

  @doc """
  Reads up to `count` bytes at `position`. Returns fewer if the map ends before that, and `:eof` if `position` is at or
  past the end.

  The result is a copy, or a live binary on a handle opened with `:direct`. As with a file, reading 0 bytes also
  returns `:eof`. With a negative position, the result is `{:error, :einval}`. `position` may also be a location as in
  `position/2`, such as `{:eof, -10}`; anything else returns `{:error, :badarg}`. Reading lost pages returns the error
  of the map (`:estale`, `:enospc`, `:eio`, …) until `reattach/1` is called. `reattach/1` lists these errors.
  """
  @doc group: "Reading"
  @spec pread(t, position | location, non_neg_integer) :: {:ok, binary} | :eof | failure
  # The root is requested only where it is used, and only with valid arguments: a stack trace shows arguments, and this
  # one is the whole file.
  def pread(handle(ref, root), position, count)
      when root != nil and is_integer(position) and is_integer(count) and count > alone(),
      do: Bare.data(Native.view(ref, root.(), position, count))

  def pread(handle(ref), position, count)
      when is_integer(position) and is_integer(count) and count >= 0,
      do: patient(Native.pread(ref, position, count), :data)

  def pread(handle(ref) = mem, location, count) when is_integer(count) and count >= 0 do
    with {:ok, position} <- Location.position(ref, location), do: pread(mem, position, count)
  end

  def pread(handle(_), _position, _count), do: {:error, :badarg}
  def pread(mem, _position, _count), do: none!(mem)

  @doc """
  Reads several ranges, given as `[{position, count}]`, and returns `{:ok, [binary | :eof]}`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.pread(mem, [{0, 2}, {7, 2}, {8, 2}])
      {:ok, [<<0, 0>>, <<0>>, :eof]}
  """
  @doc group: "Reading"
  @spec pread(t, [{position | location, non_neg_integer}]) :: {:ok, [binary | :eof]} | failure
  def pread(handle(_) = mem, ranges) when is_list(ranges), do: pread_list(mem, ranges, [])
  def pread(handle(_), _ranges), do: {:error, :badarg}
  def pread(mem, _ranges), do: none!(mem)

  defp pread_list(_mem, [], done), do: {:ok, Enum.reverse(done)}

  defp pread_list(mem, [{position, count} | rest], done) when is_integer(count) and count >= 0 do
    case pread(mem, position, count) do
      {:ok, data} -> pread_list(mem, rest, [data | done])
      :eof -> pread_list(mem, rest, [:eof | done])
      error -> error
    end
  end

  defp pread_list(_mem, [{_position, count} | _], _done), do: Location.wrong(count)
  defp pread_list(_mem, _other, _done), do: {:error, :badarg}

  @doc """
  Returns up to `count` bytes at `position` as a live binary, from any handle.

  Takes constant time. The binary is the mapped memory itself; see "Live binaries" in `Emmap`. Returns `:eof` if
  `position` is at or past the end, and `{:error, :einval}` if it is negative.
  """
  @doc group: "Reading"
  @spec view(t, position, non_neg_integer) :: {:ok, binary} | :eof | failure
  def view(handle(ref, root), position, count)
      when root != nil and is_integer(position) and is_integer(count) and count > alone(),
      do: Bare.data(Native.view(ref, root.(), position, count))

  def view(handle(ref), position, count), do: Bare.data(Native.view(ref, nil, position, count))

  def view(mem, _position, _count), do: none!(mem)

  @doc """
  Returns a whole file, or a whole map, as one live binary: `{:ok, binary}`.

  `source` is a handle, or a path or an open file, which is then mapped read-only. The call takes constant time, plus
  a few system calls for a path. The binary has the size that the file or map has at the time of the call. The pages
  of a path stay mapped until the binary is collected; its file descriptor is closed at once. An empty file is an
  empty binary. Errors of a path are those of `open/2`; errors of a handle are those of `view/3`. The binary is live:
  see "Live binaries" in `Emmap`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_view.bin")
      iex> File.write!(path, "the whole file")
      iex> Emmap.view(path)
      {:ok, "the whole file"}
      iex> {:ok, mem} = Emmap.open(path)
      iex> Emmap.view(mem)
      {:ok, "the whole file"}
  """
  @doc group: "Reading"
  @spec view(t | open_file | Path.t() | :file.name_all()) :: {:ok, binary} | failure
  def view(source)

  def view(handle(_) = mem) do
    with {:ok, size} <- size(mem),
         :eof <- view(mem, 0, size),
         do: {:ok, ""}
  end

  def view(source) do
    with {:ok, result} <- open(source, [], &view/1), do: result
  end

  @doc """
  Same as `view/1`, but returns only the binary and raises `Emmap.Error` on failure.
  """
  @doc group: "Reading"
  @spec view!(t | open_file | Path.t() | :file.name_all()) :: binary
  def view!(source) do
    case view(source) do
      {:ok, binary} -> binary
      {:error, reason} -> not_opened!(reason, source)
    end
  end

  @doc """
  Reads up to `count` bytes at the cursor and moves the cursor past them. Returns `:eof` at the end.

  Processes that read from one handle at the same time never get the same bytes. A read that fails does not move the
  cursor (unless another process has moved it in the meantime), so the same bytes are read after `reattach/1`.
  """
  @doc group: "Reading"
  @spec read(t, non_neg_integer) :: {:ok, binary} | :eof | failure
  def read(handle(ref, root), count)
      when root != nil and is_integer(count) and count > alone(),
      do: patient(Native.read(ref, root.(), count), :data)

  def read(handle(ref), count) when is_integer(count) and count >= 0,
    do: patient(Native.read(ref, nil, count), :data)

  def read(handle(_), _count), do: {:error, :badarg}
  def read(mem, _count), do: none!(mem)

  @doc """
  Reads from the cursor up to and including the next newline. Returns `:eof` at the end.

  As with `:file.read_line/1`, CRLF is returned as LF. The last line may have no newline. As with `read/2`, a read that
  fails does not move the cursor.
  """
  @doc group: "Reading"
  @spec read_line(t) :: {:ok, binary} | :eof | failure
  def read_line(handle(ref)), do: patient(Native.read_line(ref, nil), :data)
  def read_line(mem), do: none!(mem)

  @doc """
  Decodes the term in Erlang's external format at `position`, from a copy of at most `count` bytes, and returns
  `{:ok, term}`.

  Use it instead of `:erlang.binary_to_term/1` on a live binary, which is one of the
  [functions that read twice](live-binaries.md#functions-that-read-twice).

  Bytes after the term are ignored, so `count` may be larger than the term. If the bytes are not an external term, the
  result is `{:error, :ebadmsg}`. Other errors, and `:eof`, are as with `pread/3`.

  Decoding creates the atoms and the function references that the bytes name, and atoms are never collected. For a file
  that others can write, use `[:safe]`: if the bytes would create an atom or a function reference, the result is then
  `{:error, :ebadmsg}`. Any other option raises `ArgumentError`.

      iex> {:ok, mem} = Emmap.open([:anon, :direct, size: 64])
      iex> Emmap.pwrite(mem, 8, :erlang.term_to_binary({:station, 14.5}))
      iex> Emmap.term(mem, 8, 56)
      {:ok, {:station, 14.5}}
      iex> Emmap.term(mem, 9, 55, [:safe])
      {:error, :ebadmsg}
  """
  @doc group: "Reading"
  @spec term(t, position, non_neg_integer, [:safe]) :: {:ok, term} | :eof | failure
  def term(mem, position, count, options \\ [])

  def term(handle(ref), position, count, options) do
    options = term_options!(options)

    with bytes when is_binary(bytes) <- patient(Native.pread_copy(ref, position, count)),
         do: decoded(bytes, options)
  end

  def term(mem, _position, _count, _options), do: none!(mem)

  defp term_options!(options) when options in [[], [:safe]], do: options

  defp term_options!(other) do
    raise ArgumentError, "options are a list, and valid is :safe, got #{inspect(other)}"
  end

  defp decoded(bytes, options) do
    {:ok, :erlang.binary_to_term(bytes, options)}
  rescue
    _ in [ArgumentError, SystemLimitError] -> {:error, :ebadmsg}
  end

  @doc """
  Reads up to `count` bytes at `position` as a string: a copy that is valid UTF-8.

  Use it instead of passing a live binary to `:re` and `Regex` with `unicode`, to `String.to_charlist/1` or to
  `:unicode`, which are among the [functions that read twice](live-binaries.md#functions-that-read-twice).

  If the bytes are not valid UTF-8, or the range ends inside a character, the result is `{:error, :ebadmsg}`. Other
  errors, and `:eof`, are as with `pread/3`.

      iex> {:ok, mem} = Emmap.open([:anon, :direct, size: 8])
      iex> Emmap.pwrite(mem, 0, "Łódź")
      iex> Emmap.string(mem, 0, 7)
      {:ok, "Łódź"}
      iex> Emmap.string(mem, 0, 1)
      {:error, :ebadmsg}
  """
  @doc group: "Reading"
  @spec string(t, position, non_neg_integer) :: {:ok, String.t()} | :eof | failure
  def string(handle(ref), position, count) do
    with bytes when is_binary(bytes) <- patient(Native.pread_copy(ref, position, count)) do
      if String.valid?(bytes), do: {:ok, bytes}, else: {:error, :ebadmsg}
    end
  end

  def string(mem, _position, _count), do: none!(mem)

  # Streams

  @doc """
  Returns a stream of the lines of a file, or, if `mode` is a number, of chunks of that many bytes; see `Emmap.Stream`.

  `source` is a handle, or a path that is mapped at each enumeration. Options (by default, none is set):

    * `trim: true` – lines without their newline (LF or CRLF)
    * `live: true` – live binaries, which change with the file, instead of copies; the default on a `:direct` handle.
      See [Live lines](Emmap.Stream.html#module-live-lines)
    * `copy: true` – copies, even from a `:direct` handle. Same as `live: false`, and the default on any other handle
      and for a path
    * `trim_bom: true` – without the byte order mark (BOM) at the start of the file, as with `File.stream!/3`
    * `encoding: encoding` – the encoding of the file; its lines are converted to strings. Valid are `:utf8` (the lines
      are only checked), `:latin1`, `:utf16`, `:utf32`, `{:utf16, :little}` and the others of `t::unicode.encoding/0`.
      Invalid bytes raise `Emmap.Error` with `:ebadmsg`. Without this option, lines are the unchanged bytes. Not for
      chunks of bytes, and not with `live: true`
    * `start: n`, `length: n` – only this range of bytes; lines are truncated at its ends

  The mode may be left out: `stream!(source, trim: true)` streams lines. An invalid mode or option, or `live: true`
  with `copy: true`, raises `ArgumentError` immediately. A file that cannot be opened raises `Emmap.Error` when the
  stream is enumerated.

      iex> {:ok, mem} = Emmap.open([:anon, size: 12])
      iex> :ok = Emmap.pwrite(mem, 0, "one\\ntwo\\nfour")
      iex> Enum.to_list(Emmap.stream!(mem, :line, trim: true, start: 4))
      ["two", "four"]
      iex> Enum.to_list(Emmap.stream!(mem, 5))
      ["one\\nt", "wo\\nfo", "ur"]
      iex> {:ok, large} = Emmap.open([:anon, size: 4096])
      iex> [live] = Enum.to_list(Emmap.stream!(large, 4096, live: true))
      iex> :ok = Emmap.pwrite(large, 0, "written later")
      iex> binary_part(live, 0, 13)
      "written later"
  """
  @doc group: "Streams and devices"
  @spec stream!(
          t | Path.t() | :file.name_all(),
          Emmap.Stream.mode() | [Emmap.Stream.option()],
          [Emmap.Stream.option()]
        ) :: Emmap.Stream.t()
  def stream!(source, mode \\ :line, options \\ [])

  def stream!(source, options, []) when is_list(options),
    do: Emmap.Stream.new!(source, :line, options)

  def stream!(source, mode, options), do: Emmap.Stream.new!(source, mode, options)

  @doc """
  Splits a map, or the file at a path, into at most `count` streams of lines, for `Task.async_stream/3`.

  Each stream except the last ends after a newline. Together, the streams contain all bytes of the map, in order, and
  they have about the same size. No stream is empty: for a small map there are fewer streams, and for an empty map the
  result is `[]`. `split: byte` splits after the given byte (a binary of length 1) instead of a newline. `record: n`
  splits between records of `n` bytes, and the streams return records instead of lines. The other options, and whether
  lines are live, are as with `stream!/3`. A path is mapped once, when the chunks are made, and its file is released
  when the last of the streams is collected.

  Each split is a search for the next newline, on a dirty CPU scheduler. Raises `Emmap.Error` if the
  handle is closed or pages of the map were lost.

      iex> {:ok, mem} = Emmap.open([:anon, size: 12])
      iex> :ok = Emmap.pwrite(mem, 0, "one\\ntwo\\nfour")
      iex> chunks = Emmap.chunks!(mem, 2)
      iex> chunks |> Task.async_stream(&Enum.to_list/1) |> Enum.map(fn {:ok, lines} -> lines end)
      [["one\\n", "two\\n"], ["four"]]
      iex> Enum.map(chunks, & &1.start)
      [0, 8]
      iex> mem |> Emmap.chunks!(2, record: 4) |> Enum.map(&Enum.to_list/1)
      [["one\\n"], ["two\\n", "four"]]
  """
  @doc group: "Streams and devices"
  @spec chunks!(t | Path.t() | :file.name_all(), pos_integer, [
          Emmap.Stream.option() | {:split, <<_::8>>} | {:record, pos_integer}
        ]) ::
          [Emmap.Stream.t()]
  def chunks!(mem, count, options \\ []), do: Emmap.Stream.chunks!(mem, count, options)

  # Writing

  @doc """
  Writes `data` (iodata) at `position`.

  If the data extends past the end of a map that grows when it is written to (a shared, writable map of a whole file, without `:fixed_size`
  or `:length`), the file and the map grow. On other maps, such a write returns `{:error, :enospc}`. The bytes between
  the old end and `position` are zeros, and their blocks are allocated unless the map is `:sparse`. A program that
  follows the file (`tail -f`) reads the data when it arrives, and never zeros in its place. On a handle opened with
  `:append`, the data goes to the end of the file, no matter what `position` is.

  If growing fails, nothing is written, except that a write with `:append` may leave its first bytes; see [What a failure leaves behind](reliability.md#what-a-failure-leaves-behind).
  If pages of the map are lost during a write, part of the data may be in the file. Errors:

    * `:eacces` – the map is read-only
    * `:enospc` – the disk is full, or a write cannot make the map grow (it is private, anonymous, a part of a file, opened
      with `:fixed_size` or `:length`, or at its `:max_size`)
    * `:edquot` – the user's quota is used up
    * `:eperm` – the file can no longer be changed (`chattr +i`), or can no longer be extended (`chattr +a`, a seal)
    * `:erofs` – the file system has become read-only
    * `:efbig` – above `ulimit -f`, or above the largest file size of the file system
    * any of the reasons that `reattach/1` lists – pages of the map were lost; or `data` is or contains a live binary
      whose own map lost pages, in which case nothing is written
    * `:ebusy` – the map has to grow, and another program has kept the whole file locked for 2 seconds
    * `:einval` – a negative position
    * `:badarg` – `data` is not iodata, or `position` is neither a number nor a location as in `position/2`
    * `:closed` – the handle is closed

  Writes of up to 64 KiB run on the caller's scheduler. Longer writes, and writes that make the file longer, run on a
  dirty I/O scheduler. Growing costs a few system calls.
  """
  @doc group: "Writing"
  @spec pwrite(t, position | location, iodata) :: :ok | failure | {:error, :badarg}
  def pwrite(handle(ref), position, data) when is_binary(data) and is_integer(position),
    do: patient(Native.pwrite(ref, position, data))

  def pwrite(handle(ref), location, data) do
    with {:ok, position} <- Location.position(ref, location),
         {:ok, data} <- Iodata.flatten(data),
         do: patient(Native.pwrite(ref, position, data))
  end

  def pwrite(mem, _position, _data), do: none!(mem)

  @doc """
  Writes `[{position, iodata}]` in order.

  If one write fails, the writes before it are done, and the result is `{:error, {how_many_done, reason}}`. Errors, and
  the effect of `:append`, are as with `pwrite/3`.
  """
  @doc group: "Writing"
  @spec pwrite(t, [{position | location, iodata}]) ::
          :ok | {:error, :badarg | {non_neg_integer, reason | :badarg}}
  def pwrite(handle(_) = mem, writes) when is_list(writes), do: pwrite_list(mem, writes, 0)
  def pwrite(handle(_), _writes), do: {:error, :badarg}
  def pwrite(mem, _writes), do: none!(mem)

  defp pwrite_list(_mem, [], _done), do: :ok

  defp pwrite_list(mem, [{position, data} | rest], done) do
    with {:ok, data} <- Iodata.flatten(data),
         :ok <- pwrite(mem, position, data) do
      pwrite_list(mem, rest, done + 1)
    else
      # As with a raw file, data that is not iodata fails the whole call.
      {:error, :badarg} -> {:error, :badarg}
      {:error, reason} -> {:error, {done, reason}}
    end
  end

  defp pwrite_list(_mem, _other, _done), do: {:error, :badarg}

  @doc """
  Writes `data` (iodata) at the cursor and moves the cursor past it. Growth and errors are as with `pwrite/3`.

  Processes that write to one handle at the same time write one after the other. A write that fails does not move the
  cursor, unless another process has moved it in the meantime.

  On a handle opened with `:append`, the data goes to the end of the file, no matter where the cursor is. It is written in
  one piece, even when other handles, VMs and programs append at the same time. The cursor is then at the end of the file.
  If the disk is full, the first bytes of such a write may be left in the file.
  """
  @doc group: "Writing"
  @spec write(t, iodata) :: :ok | failure | {:error, :badarg}
  def write(handle(ref), data) when is_binary(data), do: patient(Native.write(ref, data))

  def write(handle(ref), data) do
    with {:ok, data} <- Iodata.flatten(data), do: patient(Native.write(ref, data))
  end

  def write(mem, _data), do: none!(mem)

  @doc """
  Moves the cursor and returns `{:ok, new_position}`.

  `location` is a number, or `:bof`, `:cur` or `:eof`, alone or with an offset, such as `{:eof, -10}`.

  The cursor may be past the end (a read there returns `:eof`, and a write grows the map). With a location before the
  beginning, the result is `{:error, :einval}`.
  """
  @doc group: "Reading"
  @spec position(t, location) :: {:ok, position} | {:error, :einval | :badarg | :closed}
  def position(mem, location)
  def position(handle(ref), offset) when is_integer(offset), do: move(ref, 0, offset)
  def position(handle(ref), :bof), do: Native.position(ref, 0, 0)
  def position(handle(ref), :cur), do: Native.position(ref, 1, 0)
  def position(handle(ref), :eof), do: Native.position(ref, 2, 0)
  def position(handle(ref), {:bof, n}) when is_integer(n), do: move(ref, 0, n)
  def position(handle(ref), {:cur, n}) when is_integer(n), do: move(ref, 1, n)
  def position(handle(ref), {:eof, n}) when is_integer(n), do: move(ref, 2, n)
  def position(handle(_), _other), do: {:error, :badarg}
  def position(mem, _location), do: none!(mem)

  # As with a raw file, whose positions have 64 bits.
  defp move(ref, from, offset) when offset in -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF,
    do: Native.position(ref, from, offset)

  defp move(_ref, _from, _offset), do: {:error, :badarg}

  # Atomic integers

  @typedoc "The operation of `patomic/4`. Erlang's names for the bit operations (`:band`, `:bor`, `:bxor`) also work."
  @type operation ::
          :add | :sub | :xchg | :and | :or | :xor | :band | :bor | :bxor | :min | :max

  @doc """
  Changes the 64-bit integer at `position` atomically, and returns its previous value.

  The integer is signed, in the byte order of the machine. The change is sequentially
  consistent for all processes, and for all programs that map the file and use atomic
  instructions. It takes no lock, so `:nolock` makes no difference. It takes two to three times
  as long as `:atomics.add/3`, and survives `kill -9`.

  `:add` and `:sub` wrap as `:atomics` does. `position` must be a multiple of 8, and all 8 bytes must be inside the map;
  otherwise the result is `{:error, :einval}`. On a map that is read-only or opened with `:append`, the result is
  `{:error, :eacces}`. A value that does not fit in 64 bits raises `ArgumentError`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.patomic(mem, 8, :add, 5)
      {:ok, 0}
      iex> Emmap.patomic(mem, 8, :max, 40)
      {:ok, 5}
      iex> Emmap.patomic(mem, 8, :xchg, 1)
      {:ok, 40}
      iex> Emmap.patomic(mem, 4, :add, 1)
      {:error, :einval}
  """
  @doc group: "Atomic integers"
  @spec patomic(t, position, operation, integer) :: {:ok, integer} | failure
  def patomic(handle(ref), position, :add, value),
    do: Bare.integer(Native.atomic_add(ref, position, value))

  # The same as `:atomics` does, so that it accepts the same values.
  def patomic(handle(ref), position, :sub, value) when is_integer(value),
    do: Bare.integer(Native.atomic_add(ref, position, -value))

  def patomic(handle(ref), position, :sub, value),
    do: Bare.integer(Native.atomic_add(ref, position, value))

  def patomic(handle(ref), position, :xchg, value),
    do: Bare.integer(Native.atomic_xchg(ref, position, value))

  def patomic(handle(ref), position, :and, value),
    do: Bare.integer(Native.atomic_and(ref, position, value))

  def patomic(handle(ref), position, :or, value),
    do: Bare.integer(Native.atomic_or(ref, position, value))

  def patomic(handle(ref), position, :xor, value),
    do: Bare.integer(Native.atomic_xor(ref, position, value))

  def patomic(handle(ref), position, :band, value),
    do: Bare.integer(Native.atomic_and(ref, position, value))

  def patomic(handle(ref), position, :bor, value),
    do: Bare.integer(Native.atomic_or(ref, position, value))

  def patomic(handle(ref), position, :bxor, value),
    do: Bare.integer(Native.atomic_xor(ref, position, value))

  def patomic(handle(ref), position, :min, value),
    do: Bare.integer(Native.atomic_min(ref, position, value))

  def patomic(handle(ref), position, :max, value),
    do: Bare.integer(Native.atomic_max(ref, position, value))

  def patomic(handle(_), _position, operation, _value) do
    raise ArgumentError,
          "unknown operation #{inspect(operation)}; valid are " <>
            ":add, :sub, :xchg, :and, :or, :xor, :band, :bor, :bxor, :min, :max"
  end

  def patomic(mem, _position, _operation, _value), do: none!(mem)

  @doc """
  Sets the integer at `position` to `new` if it equals `expected`, atomically (compare-and-exchange).

  Returns `:ok`, or the current integer if it differs from `expected`, as `:atomics.compare_exchange/4` and
  `Emmap.Counters.compare_exchange/4` do. Errors are as with `patomic/4`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.patomic_cas(mem, 0, 0, 7)
      :ok
      iex> Emmap.patomic_cas(mem, 0, 0, 8)
      7
  """
  @doc group: "Atomic integers"
  @spec patomic_cas(t, position, integer, integer) :: :ok | integer | failure
  def patomic_cas(handle(ref), position, expected, new) do
    case Native.atomic_cas(ref, position, expected, new) do
      ^expected -> :ok
      other -> other
    end
  end

  def patomic_cas(mem, _position, _expected, _new), do: none!(mem)

  @doc """
  Reads the integer at `position` atomically. Also works on a read-only map. Other errors are as with `patomic/4`.
  """
  @doc group: "Atomic integers"
  @spec patomic_read(t, position) :: {:ok, integer} | failure
  def patomic_read(handle(ref), position), do: Bare.integer(Native.atomic_read(ref, position))
  def patomic_read(mem, _position), do: none!(mem)

  @doc "Writes the integer at `position` atomically. Errors are as with `patomic/4`."
  @doc group: "Atomic integers"
  @spec patomic_write(t, position, integer) :: :ok | failure
  def patomic_write(handle(ref), position, value), do: Native.atomic_write(ref, position, value)
  def patomic_write(mem, _position, _value), do: none!(mem)

  @doc """
  Waits until the integer at `position` differs from `expected`, and returns the new value: `{:ok, value}`.

  The integer may be changed by any process or program that maps the file. `wait/4` notices a change when the one that
  made it calls `notify/2` afterwards; `patomic/4`, `patomic_write/3` and other writes do not notify by themselves. If
  the integer differs from `expected` at the time of the call, it returns immediately. It does not return for a
  notification without a change, and it may miss a change if the integer is soon set back to `expected`: use a number
  that only grows.

  `timeout` is in milliseconds, or `:infinity`. The process waits in a `receive` for a message with a unique reference,
  whatever the length of its mailbox: it uses no CPU time, it can be killed, and no message is left in its mailbox. One
  native thread of the VM waits on behalf of all processes, for up to 63 integers; further threads are started for more
  integers. (Before Linux 5.16, each integer needs a thread. On systems other than Linux, the thread checks the integer
  every 5 milliseconds.) Also works on a read-only map.

  Errors:

    * `{:error, :etimedout}` – the time has passed
    * `{:error, :closed}` – the handle is closed, before the call or while it waits
    * `{:error, :estale}` – the file was truncated. While the call waits, a truncated file is noticed as with `monitor/1`
    * `{:error, :einval}` – `position` is not a multiple of 8, or not inside the map (any more)
    * `{:error, :eagain}` – no thread could be started

  [Sharing](sharing.md#waiting-for-a-change) describes how programs in other languages wait and notify.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> task = Task.async(fn -> Emmap.wait(mem, 8, 0, 5_000) end)
      iex> Emmap.patomic(mem, 8, :add, 7)
      {:ok, 0}
      iex> Emmap.notify(mem, 8)
      :ok
      iex> Task.await(task)
      {:ok, 7}
      iex> Emmap.wait(mem, 8, 7, 10)
      {:error, :etimedout}
  """
  @doc group: "Atomic integers"
  @spec wait(t, position, integer, timeout) :: {:ok, integer} | failure
  def wait(mem, position, expected, timeout \\ :infinity)

  def wait(handle(ref), position, expected, timeout),
    do: Word.wait(ref, position, expected, timeout)

  def wait(mem, _position, _expected, _timeout), do: none!(mem)

  @doc """
  Wakes all processes and programs that wait for the integer at `position` to change: see `wait/4`.

  Call it after the change. Costs one system call, whether or not any process waits. Returns `:ok`. Also works on a
  read-only map. Other errors are as with `patomic/4`.
  """
  @doc group: "Atomic integers"
  @spec notify(t, position) :: :ok | failure
  def notify(handle(ref), position), do: Native.word_notify(ref, position)
  def notify(mem, _position), do: none!(mem)

  # Bytes and numbers

  @doc """
  Reads the number at `position`: an integer of 8 to 64 bits, or a float of 32 or 64 bits.

  `type` is `:u8`, `:i8`, `:u16`, `:i16`, `:u32`, `:i32`, `:u64`, `:i64`, `:f32` or `:f64`, in the byte order of the
  machine (as in `patomic/4` and Nx, but unlike `<<n::32>>`, which is big endian); or
  `{type, :big}`, `{type, :little}`, `{type, :native}`. The position need not be aligned.

  NaN is returned as `:nan`, and the infinities as `:infinity` and `:neg_infinity`, as in Nx, because the
  VM has no such floats. Returns `:eof` if not all bytes of the number are inside the map. Other errors are as with
  `pread/3`, and the call takes as long as a `pread/3` of the same number of bytes. An unknown type raises
  `ArgumentError`.

  With `:lock`, the default, the number is read as a whole: never a mixture of the bytes before and after a `put/4` or
  `pwrite/3` on the same map. `patomic_read/2` guarantees this for writes of other programs, too.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.pwrite(mem, 1, <<-2::little-32>>)
      iex> Emmap.get(mem, 1, {:i32, :little})
      {:ok, -2}
      iex> Emmap.get(mem, 1, {:u32, :big})
      {:ok, 0xFEFFFFFF}
      iex> Emmap.get(mem, 62, :f64)
      :eof
  """
  @doc group: "Bytes and numbers"
  @spec get(t, position, Typed.t()) :: {:ok, Typed.number_read()} | :eof | failure
  # The types of eight bytes have their own calls, which need not decode a type.
  def get(handle(ref), position, :u64), do: patient(Native.get_u64(ref, position), :integer)
  def get(handle(ref), position, :i64), do: patient(Native.get_i64(ref, position), :integer)
  def get(handle(ref), position, :f64), do: patient(Native.get_f64(ref, position), :value)

  def get(handle(ref), position, type),
    do: patient(Native.typed_get(ref, position, Typed.code(type)), :value)

  def get(mem, _position, _type), do: none!(mem)

  @doc """
  Writes a number at `position`, in the format that `get/3` reads.

  As with `pwrite/3`, a number past the end grows the map, and the errors are the same. With `:append`, the result is
  `{:error, :eacces}`. A float type also accepts integers, `:nan`, `:infinity` and `:neg_infinity`. A value outside the
  range of the type raises `ArgumentError` with the range. For `:f32`, the value is rounded to the nearest 32-bit float.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.put(mem, 3, {:u16, :big}, 258)
      :ok
      iex> Emmap.pread(mem, 3, 2)
      {:ok, <<1, 2>>}
      iex> Emmap.put(mem, 8, :f64, :infinity)
      iex> Emmap.get(mem, 8, :f64)
      {:ok, :infinity}
  """
  @doc group: "Bytes and numbers"
  @spec put(t, position, Typed.t(), Typed.number_written()) :: :ok | failure
  def put(handle(ref), position, type, value) when is_integer(value) do
    code = Typed.inline_code(type)

    # Bit 3 marks the floats.
    if Bitwise.band(code, 8) == 0,
      do: patient(Native.typed_put(ref, position, code, value)),
      else: patient(Native.typed_put(ref, position, code, Typed.value(code, value)))
  end

  def put(handle(ref), position, type, value),
    do: patient(Native.typed_put(ref, position, Typed.inline_code(type), value))

  def put(mem, _position, _type, _value), do: none!(mem)

  @doc """
  Sets `count` bytes at `position` to `byte` (0 to 255).

  Same as a `pwrite/3` of `count` equal bytes, without building them: it grows the same maps, is atomic
  with respect to the same calls, and has the same errors. With `:append`, the result is `{:error, :eacces}`. Above
  64 KiB it runs on a dirty I/O scheduler.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.fill(mem, 2, 3, ?x)
      iex> Emmap.pread(mem, 0, 8)
      {:ok, <<0, 0, "xxx", 0, 0, 0>>}
  """
  @doc group: "Bytes and numbers"
  @spec fill(t, position, non_neg_integer, byte) :: :ok | failure
  def fill(handle(ref), position, count, byte),
    do: patient(Native.fill(ref, position, count, byte))

  def fill(mem, _position, _count, _byte), do: none!(mem)

  @doc """
  Copies `count` bytes of the map from position `from` to position `to`; the ranges may overlap.

  The bytes at `from` must be inside the map; otherwise the result is `{:error, :einval}` and nothing is written. As
  with `pwrite/3`, a copy past the end grows the map. With `:append`, the result is `{:error, :eacces}`. Above 64 KiB it
  runs on a dirty I/O scheduler. To copy from one map to another, use `:file.copy/2` or `:file.copy/3`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.pwrite(mem, 0, "abcdef")
      iex> Emmap.copy(mem, 0, 2, 6)
      iex> Emmap.pread(mem, 0, 8)
      {:ok, "ababcdef"}
  """
  @doc group: "Bytes and numbers"
  @spec copy(t, position, position, non_neg_integer) :: :ok | failure
  def copy(handle(ref), from, to, count), do: patient(Native.copy(ref, from, to, count))
  def copy(mem, _from, _to, _count), do: none!(mem)

  # Searching

  @doc """
  Finds the first match of a pattern, which is a binary or a list of binaries. Returns `{:ok, {position, length}}` or
  `:nomatch`.

  Chooses among several matches as `:binary.match/3` does: the leftmost, and of those that begin at the same position, the
  longest. The position counts from the start of the map, no matter where the search began. Options:

    * `:start` – where to begin, in bytes; the default is 0. If it is at or past the end, nothing matches
    * `:length` – how many bytes to search; the whole match must be inside them. The default is up to the end

  Bytes are compared as they are. For a regular expression, or to ignore case, run `Regex` on a copy, read with
  `string/3` or `stream!/3`, and [never on a live binary](live-binaries.md#functions-that-read-twice). See
  [Streams and large files](streams-and-large-files.md) for what to do with a match.

  If you use a pattern often, prepare it with `compile_pattern/1`. An empty list, an empty pattern or an unknown
  option raises `ArgumentError`. If pages are lost or the map is closed, the search ends with the error.

  Up to 64 KiB are searched on the caller's scheduler; more are searched on dirty CPU schedulers, a few milliseconds
  at a time. The bytes are searched in blocks, each of which is first copied to a small buffer. This is about as fast
  as `grep`. If the range is written to during the search, each block is searched as it was when it was copied.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one two three two")
      iex> Emmap.find(mem, "two")
      {:ok, {4, 3}}
      iex> Emmap.find(mem, ["three", "tw", "two"], start: 5)
      {:ok, {8, 5}}
      iex> Emmap.find(mem, "two", start: 5, length: 10)
      :nomatch
  """
  @doc group: "Searching"
  @spec find(t, Search.pattern(), Search.range()) ::
          {:ok, {position, pos_integer}} | :nomatch | failure
  def find(mem, pattern, options \\ []), do: Search.find(ref!(mem), pattern, options)

  @doc """
  Finds the last match: the one that begins last, and of several that begin at the same position, the longest.

  It searches from the end of the range; otherwise it works as `find/3` does. Because the match that begins last counts,
  `["root", "oot"]` finds `"oot"`, whereas `find/3` and `find_all/3` find `"root"`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one two three two")
      iex> Emmap.rfind(mem, "two")
      {:ok, {14, 3}}
      iex> Emmap.rfind(mem, "two", length: 16)
      {:ok, {4, 3}}
  """
  @doc group: "Searching"
  @spec rfind(t, Search.pattern(), Search.range()) ::
          {:ok, {position, pos_integer}} | :nomatch | failure
  def rfind(mem, pattern, options \\ []), do: Search.rfind(ref!(mem), pattern, options)

  @doc """
  Finds all matches, in order and without overlaps, as `:binary.matches/3` does, and returns
  `{:ok, [{position, length}]}`.

  The list is empty if nothing matches.

  The options are those of `find/3`, and `:limit`, the maximum number of matches to return. To see which of several
  patterns matched, read the bytes: `pread(mem, position, length)`. A match takes 40 bytes of the caller's heap. To process
  more matches than should be in memory at once, use `limit:` and continue with `start:` after the last one.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "aaaaa b aa")
      iex> Emmap.find_all(mem, ["aa", "b"])
      {:ok, [{0, 2}, {2, 2}, {6, 1}, {8, 2}]}
      iex> Emmap.find_all(mem, "a", start: 3, limit: 2)
      {:ok, [{3, 1}, {4, 1}]}
  """
  @doc group: "Searching"
  @spec find_all(t, Search.pattern(), Search.range() | [{:limit, non_neg_integer}]) ::
          {:ok, [{position, pos_integer}]} | failure
  def find_all(mem, pattern, options \\ []), do: Search.find_all(ref!(mem), pattern, options)

  @doc """
  Counts the matches that `find_all/3` would return, for all patterns together, and returns `{:ok, count}`.

  The options are those of `find/3`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one\\ntwo\\nthree\\n")
      iex> Emmap.count(mem, "\\n")
      {:ok, 3}
  """
  @doc group: "Searching"
  @spec count(t, Search.pattern(), Search.range()) :: {:ok, non_neg_integer} | failure
  def count(mem, pattern, options \\ []), do: Search.count(ref!(mem), pattern, options)

  @doc """
  Prepares a pattern for many searches. Any process on this node can use the result.

  Preparing one binary of up to 1 KiB takes less than a microsecond. Preparing a list takes about one microsecond and
  100 bytes of memory for each of its bytes. A list may contain up to 1,048,576 patterns, of at most 1 MiB each and 16
  MiB in total; above that, the call raises `ArgumentError`. A single binary may have any length.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "GET /index")
      iex> methods = Emmap.compile_pattern(["GET ", "PUT ", "POST "])
      iex> Emmap.find(mem, methods)
      {:ok, {0, 4}}
  """
  @doc group: "Searching"
  @spec compile_pattern(Search.pattern()) :: Search.t()
  defdelegate compile_pattern(pattern), to: Search, as: :compile

  # Size

  @doc """
  Returns `{:ok, size}`, the size of the map in bytes.

  The call takes nanoseconds and does not look at the file, unlike `reattach/1` and `info/1`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4096])
      iex> Emmap.size(mem)
      {:ok, 4096}
  """
  @doc group: "Size"
  @spec size(t) :: {:ok, non_neg_integer} | failure
  def size(mem), do: Native.size(ref!(mem))

  @doc """
  Doubles the size of the map and its file, but adds no more than `:max_inc_size` (default 64 MiB) and does not exceed
  `:max_size`.

  Returns `{:ok, new_size}`. If another program has already made the file longer than the new size, the file keeps its
  length, and the map adopts that length (up to `:max_size`).

  If the map has reached its `:max_size`, the result is `{:error, :enospc}`. Other errors are as with `resize/2`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 100, max_size: 150])
      iex> Emmap.grow(mem)
      {:ok, 150}
      iex> Emmap.grow(mem)
      {:error, :enospc}
  """
  @doc group: "Size"
  @spec grow(t) :: {:ok, non_neg_integer} | failure
  def grow(mem), do: patient(Native.double(ref!(mem)))

  @doc """
  Changes the size of the map and its file to `size` bytes.

  Growing allocates blocks (unless `:sparse`) and does not move live binaries. Growing never truncates: if another map
  or program has already made the file longer than `size`, the file keeps its length. After shrinking, the file is
  `size` bytes long, and live binaries read as zeros past the new end. If the call fails, the size of the file is
  unchanged; for its blocks, see [What a failure leaves behind](reliability.md#what-a-failure-leaves-behind).

  Errors:

    * `:eacces` – the map is read-only, or opened with `:append`
    * `:enospc` – the disk is full, `:max_size` is reached, or the map cannot grow (it is private, a part of a file, or
      `:fixed_size`)
    * `:einval` – `size` is less than the size of the map, and the map cannot grow: such a map cannot shrink either
    * `:ebusy` – another program has kept the whole file locked for 2 seconds
    * `:estale` – another program truncated the file
    * `:edquot` – the user's quota is used up
    * `:eperm` – the file has the attribute `chattr +i` or `+a`, or a seal
    * `:erofs` – the file system has become read-only
    * `:efbig` – as with `pwrite/3`
    * `:enomem` – as with `open/2`

  On a file system without `fallocate` (ramfs, ext3, NFS before 4.2, many FUSE file systems), growing is slower and,
  with `:sparse`, not protected against every other writer: see [Limits](limits.md#file-systems).
  """
  @doc group: "Size"
  @spec resize(t, non_neg_integer) :: :ok | failure
  def resize(mem, size), do: patient(Native.resize(ref!(mem), bytes!(:size, size)))

  @doc """
  Truncates (or extends) the map and its file to the position of the cursor, even if others have made the file longer.

  Errors are as with `resize/2`.
  """
  @doc group: "Size"
  @spec truncate(t) :: :ok | failure
  def truncate(mem), do: patient(Native.truncate(ref!(mem)))

  @doc """
  Allocates disk blocks for a range, so that later writes to the range cannot fail because the disk is full.

  (On a copy-on-write file system, they can still fail: see [Limits](limits.md#file-systems).) If the range extends
  past the end, the file and the map grow, as with `:file.allocate/3`. If the call fails, the size of the file is
  unchanged; for its blocks, see [What a failure leaves behind](reliability.md#what-a-failure-leaves-behind).

  With a count of 0, the result is `{:error, :einval}`; for a file with holes on a file system without `fallocate`, it
  is `{:error, :enotsup}`. Other errors are as with `resize/2`.
  """
  @doc group: "Size"
  @spec allocate(t, position, non_neg_integer) :: :ok | failure
  def allocate(mem, position, count) do
    ref = ref!(mem)
    as_file(position, count, fn -> patient(Native.allocate(ref, position, count)) end)
  end

  # Durability

  @doc """
  Writes the map's changes to the disk and waits until they are there. After `:ok`, they survive a power failure.

  With `:async`, the call only starts the writing. With `{position, count}` instead of `how`, only the pages of that
  range are written. The first sync of a new file also makes its name durable, if the file system can sync a directory
  (CIFS, vboxsf and some FUSE file systems cannot; this is not an error). After a file is renamed, its directory must
  be synced separately, as with any file.

  Maps that never change a file (read-only, private, anonymous) return `:ok`. Errors: `:estale` if the file is shorter
  than the map; `:eio`, `:enospc`, `:edquot` or `:erofs` if the disk does not accept the data; and the reasons
  for lost pages that `reattach/1` lists.

  After a sync has failed, every later sync returns the same error until `reattach/1` is called. The kernel reports a
  page that it could not write, but only once, so a later `:ok` would not mean that the data is on the disk.
  """
  @doc group: "Durability"
  @spec sync(t, :sync | :async | {position, non_neg_integer}) :: :ok | failure
  def sync(mem, how \\ :sync)
  def sync(mem, :sync), do: Native.sync(ref!(mem), true)
  def sync(mem, :async), do: Native.sync(ref!(mem), false)
  def sync(mem, {position, count}), do: sync(mem, {position, count}, :sync)
  def sync(_mem, other), do: bad_sync!(other)

  @doc "Same as `sync/2`, but only for the pages of `range`, which is `{position, count}`."
  @doc group: "Durability"
  @spec sync(t, {position, non_neg_integer}, :sync | :async) :: :ok | failure
  def sync(mem, range, how)

  def sync(mem, {position, count}, how) when how in [:sync, :async] do
    ref = ref!(mem)
    ranged(position, count, fn -> Native.sync_range(ref, position, count, how == :sync) end)
  end

  def sync(_mem, _range, other), do: bad_sync!(other)

  @spec bad_sync!(term) :: no_return
  defp bad_sync!(other) do
    raise ArgumentError,
          "sync takes :sync, :async or {position, count}, got #{inspect(other)}"
  end

  @doc "Same as `sync/1`, but does not write the file's timestamps."
  @doc group: "Durability"
  @spec datasync(t) :: :ok | failure
  def datasync(mem), do: Native.datasync(ref!(mem))

  @doc """
  Repairs a map after its file was truncated, or after its disk was full, failed or refused writes.

  Once a call has returned the error of a lost page, every later call that reads or writes the map returns the same error, even for
  other pages, until `reattach/1` is called. `info/1` shows it as `:fault`.

  It looks at the same file again, even if the file was renamed, and maps the lost pages again at the same addresses, so
  live binaries show what the file contains now. A map of a whole file adopts the current size of the file. This
  includes read-only maps and maps opened with `:append`, which in this way read what others appended. A map of a part
  of a file, or with `:fixed_size`, keeps its size; the result is `{:error, :estale}` while the file is too short. A
  `:private` map that can be written keeps its written pages and does not grow. If pages of a private or anonymous map
  were lost that had been written, so that their data is stored nowhere else (see
  [Reliability](reliability.md#how-it-works)), it returns `{:error, :enomem}`.

  Data that existed only in a lost page, such as what was in the truncated part of the file, is gone. A write that
  returned the error of an earlier fault was not done. A write that itself accessed a lost page has lost the data in
  that page. After a failed sync, write the data that matters again, and then sync. If the cursor of this handle was
  past the end, it is moved to the end. Memory locked by `lock_memory/1` must be locked again. On a map that lost no
  pages, the call only looks at the size of the file, which takes a few microseconds.

  ### Why pages are lost

    * `:estale` – the file was truncated, or a network file system has lost the file
    * `:enospc` – the disk is full, and the page is in a hole, or shares its block with a copy of the file (btrfs, XFS, ZFS)
    * `:edquot` – as `:enospc`, but for the user's quota
    * `:eperm` – the file can no longer be changed (`chattr +i`)
    * `:erofs` – the file system has become read-only after an error
    * `:etxtbsy` – the file is used as swap space
    * `:eio` – the device failed, or the cause is unknown
    * `:enomem` – anonymous memory: no memory was available
    * any other error, such as `:enotconn` – the error that a network file system, or one in user space, returned

  On an overlay file system, such as the root of a container, the first write to a file copies it. A map that was opened
  for reading before that still shows the old file; `reattach/1` maps the copy in its place.

  Once the cause is removed (free space is available, the attribute is cleared), `reattach/1` returns `:ok`. After
  causes such as a full disk, the data of every write that returned `:ok` is in the map. `reattach/1` may also return
  `:ok` while the cause persists: pages can then be read, and the next write to a page that cannot be written returns
  the error again.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_reattach.bin")
      iex> File.write!(path, :binary.copy("log ", 4096))
      iex> {:ok, mem} = Emmap.open(path)
      iex> File.write!(path, "new log")
      iex> Emmap.pread(mem, 8192, 3)
      {:error, :estale}
      iex> Emmap.reattach(mem)
      :ok
      iex> Emmap.pread(mem, 0, 100)
      {:ok, "new log"}
  """
  @doc group: "Durability"
  @spec reattach(t) :: :ok | failure
  def reattach(mem), do: patient(Native.reattach(ref!(mem)))

  @doc """
  Sends the calling process the message `{:emmap, monitor, :fault, reason}` when a fault occurs on the map.

  A fault is a condition that `reattach/1` repairs: the file was truncated (`:estale`), its disk is full (`:enospc`)
  or failed (`:eio`), or memory ran out (`:enomem`). The message arrives within about 10 milliseconds, whether the
  fault was hit by a call or by code that reads a live binary. If the map already has a fault, the message is sent
  immediately. After one message, no more are sent until `reattach/1` is called; the next fault then causes another.

  Returns `{:ok, monitor}`, the reference that the messages contain. A process may monitor a map more than once. A
  monitor ends with `demonitor/2`, when its process ends, or, without a message, when the map is released (its last
  handle is closed and its last live binary collected). `source` is a handle, an `Emmap.Counters`, an `Emmap.Queue` or
  an `Emmap.Blocks`. A truncated file is noticed when one of its lost pages is accessed, or when a call checks its size
  (`sync/1`, `info/1`, `resize/2` and `reattach/1` do).

  Each such fault is also logged once as a `:warning`, whether or not the map is monitored. The metadata contains the
  domain `[:emmap]` and `:emmap_fault`, an Elixir map with the keys `:path`, `:position` and `:reason`. To turn this
  off, set `config :emmap, log_faults: false` before the first use of Emmap (or start with
  `erl -emmap log_faults false`).

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_monitor.bin")
      iex> File.write!(path, :binary.copy("log ", 4096))
      iex> {:ok, mem} = Emmap.open(path)
      iex> {:ok, monitor} = Emmap.monitor(mem)
      iex> File.write!(path, "new log")
      iex> Emmap.pread(mem, 8192, 3)
      {:error, :estale}
      iex> receive do
      ...>   {:emmap, ^monitor, :fault, :estale} -> Emmap.reattach(mem)
      ...> end
      :ok
  """
  @doc group: "Durability"
  @spec monitor(t | Emmap.Counters.t() | Emmap.Queue.t() | Emmap.Blocks.t()) ::
          {:ok, reference} | {:error, :closed}
  def monitor(source), do: Native.monitor(monitored(source))

  defp monitored(%{__struct__: module, ref: ref})
       when module in [Emmap.Counters, Emmap.Queue, Emmap.Blocks],
       do: ref

  defp monitored(mem), do: ref!(mem)

  @doc """
  Ends a monitor started by `monitor/1`, if it exists, and returns `true`.

  After this has returned, no more messages are sent. With `[:flush]`, messages that were sent before are removed from the
  mailbox.
  """
  @doc group: "Durability"
  @spec demonitor(reference, [:flush]) :: true
  def demonitor(monitor, options \\ [])

  def demonitor(monitor, options) when is_reference(monitor) and options in [[], [:flush]] do
    _ = Native.demonitor(monitor)
    if options == [:flush], do: flush(monitor), else: true
  end

  def demonitor(monitor, options) when options in [[], [:flush]],
    do: raise(ArgumentError, "a monitor is a reference, got #{inspect(monitor)}")

  def demonitor(_monitor, options),
    do: raise(ArgumentError, "options are a list, and valid is :flush, got #{inspect(options)}")

  defp flush(monitor) do
    receive do
      {:emmap, ^monitor, :fault, _reason} -> flush(monitor)
    after
      0 -> true
    end
  end

  # Memory

  @memory_advice [:cold, :pageout, :hugepage, :nohugepage, :collapse, :dontdump, :dodump] ++
                   [:dontfork, :dofork, :mergeable, :unmergeable, :populate_read, :populate_write] ++
                   [:free, :remove]

  @doc """
  Tells the kernel how a range will be used.

  A `count` of 0 means everything up to the end. On every system, the advice can be `:normal`, `:sequential`,
  `:random`, `:no_reuse`, `:will_need` or `:dont_need`. An unknown advice value returns `{:error, :einval}`.

  `:dont_need` releases memory; written data is kept, even in a private map.

  Linux supports further advice values. If the kernel does not support one of them, or it does not apply to the map,
  the result is `{:error, :einval}`; on other systems, it is `{:error, :enotsup}`. The following values do not change
  the bytes that are read:

    * `:cold`, `:pageout` – the pages may be reclaimed early, or are reclaimed now
    * `:hugepage`, `:nohugepage`, `:collapse` – use huge pages where possible, never, or now
    * `:populate_read`, `:populate_write` – load the pages into memory for reading, or also allocate them for writing
    * `:dontdump`, `:dodump` – exclude the range from core dumps, or include it
    * `:dontfork`, `:dofork` – exclude the range from child processes, or include it
    * `:mergeable`, `:unmergeable` – allow the kernel to merge equal private pages, or not

  *Two further values lose data*, and need a map that can be written (otherwise `{:error, :eacces}`). They act only on
  pages that are entirely inside the range:

    * `:remove` – for shared maps: the bytes become zeros, in the file too, and their blocks are released (a hole)
    * `:free` – for private anonymous memory: the kernel may drop the bytes when it needs memory; they then read as zeros
  """
  @doc group: "Memory"
  @spec advise(t, position, non_neg_integer, advice) :: :ok | failure
  def advise(mem, position, count, advice)
      when advice in [:normal, :sequential, :random, :no_reuse, :will_need, :dont_need] do
    ref = ref!(mem)
    as_file(position, count, fn -> do_advise(ref, position, count, advice) end)
  end

  def advise(mem, position, count, advice) when advice in @memory_advice do
    ref = ref!(mem)
    as_file(position, count, fn -> do_advise(ref, position, count, advice) end)
  end

  def advise(mem, _position, _count, _advice) do
    _ = ref!(mem)
    {:error, :einval}
  end

  # Advice that does work for each page.
  @advice_of_pages [:will_need, :dont_need, :cold, :pageout, :populate_read, :populate_write]

  defp do_advise(ref, position, count, advice) when advice in @advice_of_pages do
    count = if count == 0, do: @all, else: count
    # To the kernel, a count of 0 means up to the end.
    call = fn
      _position, 0 -> advise_at_once(ref, @all, 1, advice)
      position, count -> advise_at_once(ref, position, count, advice)
    end

    Pieces.each(ref, position, count, call)
  end

  defp do_advise(ref, position, count, advice), do: advise_at_once(ref, position, count, advice)

  defp advise_at_once(ref, position, count, advice) when advice in @memory_advice,
    do: Native.advise_memory(ref, position, count, advice)

  defp advise_at_once(ref, position, count, advice),
    do: Native.advise(ref, position, count, advice)

  @doc """
  Reads a range from the disk into memory and waits for it, on a dirty I/O scheduler.

  The range is read in pieces of 8 MiB. If the process is killed or the map is closed, the call ends after the current
  piece.
  """
  @doc group: "Memory"
  @spec prefetch(t, position, non_neg_integer) :: :ok | failure
  def prefetch(mem, position, count) do
    ref = ref!(mem)

    ranged(position, count, fn ->
      Pieces.each(ref, position, count, &Native.prefetch(ref, &1, &2))
    end)
  end

  @doc """
  Makes the map read-only, for all its handles, permanently.

  Every write that begins after this call has returned (bytes, numbers or atomic integers) fails with
  `{:error, :eacces}`. This function also accepts an `Emmap.Counters`; functions that change its counters then raise
  `Emmap.Error` with `:eacces`. To write again, open the file again with `open/2`.

  The call waits for writes that have begun, and their data is in the map. The kernel then protects the pages (mprotect),
  so that no other code of this VM can write to them either. Other maps of the file, in this VM or in other programs, are
  not affected. Data that was written before can still be synced.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4096])
      iex> :ok = Emmap.pwrite(mem, 0, "constant")
      iex> Emmap.make_read_only(mem)
      :ok
      iex> Emmap.pwrite(mem, 0, "variable")
      {:error, :eacces}
      iex> Emmap.patomic(mem, 0, :add, 1)
      {:error, :eacces}
      iex> Emmap.pread(mem, 0, 8)
      {:ok, "constant"}
  """
  @doc group: "Memory"
  @spec make_read_only(t | Emmap.Counters.t()) :: :ok | failure
  def make_read_only(mem)

  def make_read_only(%{__struct__: Emmap.Counters, ref: ref}), do: do_make_read_only(ref)
  def make_read_only(mem), do: do_make_read_only(ref!(mem))

  defp do_make_read_only(ref) do
    with :ok <- Native.refuse_writes(ref) do
      Emmap.Schedulers.await()
      patient(Native.protect(ref))
    end
  end

  @doc """
  Keeps all pages of the map in memory (mlock).

  Above the limit (`ulimit -l`), it returns `{:error, :enomem}` or `{:error, :eagain}`; if the limit is 0,
  `{:error, :eperm}`. In these cases, no page of the map is locked. Pages by which the map grows later are not locked.
  """
  @doc group: "Memory"
  @spec lock_memory(t) :: :ok | failure
  def lock_memory(mem) do
    ref = ref!(mem)

    with {:error, _} = error <- Pieces.each(ref, 0, @all, &Native.lock_memory(ref, &1, &2)) do
      _ = Pieces.each(ref, 0, @all, &Native.unlock_memory(ref, &1, &2))
      error
    end
  end

  @doc "Undoes `lock_memory/1`."
  @doc group: "Memory"
  @spec unlock_memory(t) :: :ok | failure
  def unlock_memory(mem) do
    ref = ref!(mem)
    Pieces.each(ref, 0, @all, &Native.unlock_memory(ref, &1, &2))
  end

  @doc """
  Returns the state of a map. (If you need only its size, use `size/1`.)

    * `:path` – absolute, `nil` for an anonymous map
    * `:fd` – the file descriptor, open until the last handle is closed; `nil` for an anonymous map
    * `:size`, `:offset` – the size of the map, and where it begins in the file, in bytes
    * `:position` – the cursor of this handle
    * `:flags` – the options that take no value: those that the map was opened with and those that they imply, such as
      `[:read, :write, :create, :shared, :lock]`. After `make_read_only/1`, `:write` and `:append` are not among them
    * `:growable_up_to` – the size in bytes up to which the map can grow, `:infinity`, or `nil` if the size is fixed
    * `:page_size`, `:resident_pages` – the page size in bytes, and how many of the map's pages are in memory (in a map of
      more than 4,194,304 pages, which is 16 GiB, pages in holes of the file count as not in memory)
    * `:allocated` – the size in bytes of the blocks that the whole file has on disk, which is less than the size of the
      file if it has holes; `nil` for an anonymous map
    * `:address_ranges` – 1, plus one for each time the map outgrew the address range that was reserved for it
    * `:faults`, `:fault` – how often a lost page was accessed (or the file was found too short), and where
      this first happened since the last `reattach/1`: `{position, {:error, reason}}`, or `nil`
    * `:failed_sync` – the error that every `sync/1` returns because an earlier one failed, `{:error, reason}`, or
      `nil`

  This call looks at the file. So it also detects that the file was truncated inside the map's last page, which raises no
  signal. It walks the page tables, which takes a few milliseconds per gigabyte on a dirty I/O scheduler.
  """
  @doc group: "Memory"
  @spec info(t) :: {:ok, info} | failure
  def info(mem), do: Info.of(ref!(mem))

  @doc """
  Tells whether the guard is in place. The guard turns the signal of a lost page (SIGBUS) into an error.

  The result is one of:

    * `:ok` – the guard is in place
    * `:lost` – another library has replaced the signal handler: a lost page may crash the VM
    * `:off` – switched off by `config :emmap, guard: false` before the first use of Emmap (or
      `erl -emmap guard false`): a lost page crashes the VM, and a truncated file is noticed only by the calls that
      check its size: `sync/1`, `info/1`, `resize/2` and `reattach/1`

  [Reliability](reliability.md) describes what the guard covers.
  """
  @doc group: "Memory"
  @spec guard() :: :ok | :lost | :off
  def guard, do: Native.guard_status()

  # As `:file` checks them: `advise/4` and `allocate/3` are also called through `:file`.
  defp as_file(position, count, call) do
    cond do
      not is_integer(position) -> Location.wrong(position)
      not is_integer(count) -> Location.wrong(count)
      true -> ranged(position, count, call)
    end
  end

  # As in OTP, a position that no file can have returns an error and does not raise.
  defp ranged(position, count, call) when is_integer(position) and is_integer(count) do
    if position in 0..0x7FFF_FFFF_FFFF_FFFF and count in 0..0x7FFF_FFFF_FFFF_FFFF,
      do: call.(),
      else: {:error, :einval}
  end

  defp ranged(position, count, _call) do
    raise ArgumentError,
          "position and count are integers, in bytes, got #{inspect(position)} and #{inspect(count)}"
  end

  defp bytes!(_name, n) when is_integer(n) and n >= 0 and n < 0x8000_0000_0000_0000, do: n

  defp bytes!(name, other) do
    raise ArgumentError,
          "#{name} is an integer number of bytes, 0 to 2^63 - 1, got #{inspect(other)}"
  end
end
