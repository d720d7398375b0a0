defmodule Emmap do
  @moduledoc """
  Memory-mapped files whose handles are files and whose binaries are the file.

  `open/2` maps a file and returns a handle that OTP and Elixir take for a file: `:file.pread/3`,
  `IO.binread/2`, `IO.binstream/2`, `File.close/1`, `File.copy/2` work on it, and so do the functions
  of this module, which are the same and a little faster.

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

    * A handle belongs to no process: any process of the node may use it.
    * Positions and sizes are bytes; positions count from 0.
    * Results are those of `:file`: `:ok`, `{:ok, result}`, `:eof` or `{:error, posix_atom}`. After `close/1`,
      every call returns `{:error, :closed}`, also a second `close/1`. An error of the caller (an unknown option, a
      term that is not a handle of this node) raises `ArgumentError`. Where `:file` returns an error instead, so
      does this module: `{:error, :einval}` for a negative position, `{:error, :badarg}` for a list that holds
      something other than ranges, or data that is not iodata.
    * With `:lock`, the default, a `pread/3` or `pwrite/3` of any length is atomic with respect to the others
      on the same map. (A process that is killed in a write of more than a megabyte may leave a part of it.)
    * A shared, writable map of a whole file grows when it is written past its end, unless it is
      `:fixed_size`; other maps return `{:error, :enospc}`. Live binaries stay where they are. With `:append`, every
      write goes to the end of the file.
    * A read or write that fails leaves the cursor where it was. Growth that fails leaves the size of the file and its
      blocks as they were.
    * Written data survives the death of the VM, because the pages belong to the kernel. It survives a power
      failure once `sync/1` has returned `:ok`.
    * The last `close/1` releases the file descriptor, and the pages too if no live binary was made. A handle that is
      collected without a `close/1` is closed by that.
    * Copies up to 64 KiB run on the caller's scheduler; longer ones, and everything that may
      wait for a disk, on a dirty I/O scheduler. A call that has to wait for another call, or for a lock that another
      program has, waits in its process and occupies no scheduler. The VM can be stopped at any time, also while calls are
      running.

  ## Live binaries

  On a handle opened with `:direct`, `read/2`, `pread/3`, `read_line/1` and streams return binaries that *are* the
  mapped memory: they cost the same at any length, and they change when the memory changes, whichever process or
  program changes it. `view/3`, and streams with `live: true`, return them from any handle.

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

  [Live binaries](live-binaries.md) is a guide to them. A live binary keeps its pages mapped until it is collected,
  also after `close/1`, which releases only the file descriptor then. A *part* of at most 64 bytes that is taken out of
  it by matching or `binary_part/3` is an ordinary copy; so is the result of `:binary.copy/1`. `view/3` and `pread/3` of
  a short range are live at any length. Do not use a live binary as a key, or in a pattern that must stay the same.

  > #### Functions that read twice need a copy {: .warning}
  >
  > `:erlang.binary_to_term/1`, `:binary.split/2` and its relatives at one byte, `:re` with `unicode`, and parts of `:unicode`
  > crash the VM when they get a live binary and another process or program writes it, or truncates the file, at the
  > same time. No library can prevent that. `term/3` and `string/3` copy first;
  > [the guide](live-binaries.md#functions-that-read-twice) has the list.

  Another node, a socket, a port, or a file with `:delayed_write` reads a live binary after the call has returned, and gets
  the bytes of that time. If pages were lost by then, nodes are disconnected, and sockets and ports are closed.
  Pass copies there: [where the bytes are read later](live-binaries.md#where-the-bytes-are-read-later). A write of this
  module (or a `:file.copy/3` between two maps) returns the error of the map that lost the pages, and writes nothing.

  A handle opened with `:direct` holds a reference to the whole map: sending it to another
  *node* sends the file's contents. (To use a map from another node, ask a process on its own: `device/2`.)
  """
  @moduledoc since: "1.0.0-rc.0"

  import Emmap.Descriptor, only: [is_descriptor: 1]
  import Emmap.Handle, only: [handle: 1, handle: 2, alone: 0, none!: 1, ref!: 1]
  require Emmap.Bare, as: Bare
  require Emmap.Typed, as: Typed
  import Emmap.Waiting, only: [patient: 1]

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
    Search
  }

  # For `inspect/1` alone: `Emmap.Handle` has the shape of a handle.
  @enforce_keys [:ref]
  defstruct [:ref]

  @typedoc "What `open/2` returns: a `:file` handle, to be taken as opaque."
  @type t :: Handle.t()
  @typedoc "A file that is open already: the number of a descriptor, or a handle of `:file.open/2` with `:raw`, or a map."
  @type open_file :: {:fd, non_neg_integer} | :file.fd() | t
  @typedoc "A place in a map: bytes from its start, from 0."
  @type position :: non_neg_integer
  @typedoc "`:closed`, or an error of `:file`; each function lists its own."
  @type reason :: :closed | :badarg | :file.posix() | :inet.posix()
  @typedoc "Returned when the system refuses, or the handle is closed."
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
  @typedoc "Where to move the cursor to: bytes from the start, or from `:bof`, `:cur`, `:eof`; see `position/2`."
  @type location ::
          integer | :bof | :cur | :eof | {:bof, integer} | {:cur, integer} | {:eof, integer}
  @typedoc "The result of `info/1`, which explains each key."
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

  # As many bytes as a file can have.
  @all 0x7FFF_FFFF_FFFF_FFFF

  # Opening and closing

  @doc """
  Maps a file read-only and shared, or anonymous memory: `open(path)` or `open([:anon, size: n])`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4096])
      iex> Emmap.pread(mem, 4094, 10)
      {:ok, <<0, 0>>}
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open(Path.t() | :file.name_all() | open_file | Options.t()) :: {:ok, t} | failure
  def open([first | _] = options) when is_atom(first) or is_tuple(first),
    do: do_open(nil, options)

  def open(path), do: open(path, [])

  @doc """
  Maps a file. The default is `[:read, :shared]`. The most used options, of which `Emmap.Options` has all:

    * `:write` – the map can be written to, and grows when it is written past its end
    * `:create` – make the file if there is none; implies `:write`
    * `:append` – every write goes to the end of the file; implies `:write`
    * `:truncate` – begin with an empty file
    * `:direct` – reads return live binaries, which *are* the file, instead of copies
    * `:private` – written bytes stay in this map and never reach the file
    * `:fixed_size` – the map never changes its size
    * `:anon` – memory without a file: `Emmap.open([:anon, size: n])`
    * `{:size, n}` – the file is brought to at least `n` bytes
    * `{:offset, n}`, `{:length, n}` – a part of the file

  `path` is a string, a charlist, or raw bytes; it is relative to the current directory. Only
  regular files can be mapped.

  Costs a few system calls, on a dirty I/O scheduler; with `:create`, `:size` or `:length` also the
  allocation of blocks, so that a full disk is an error here and not later (`:sparse` leaves holes
  instead). An open that changes the size of the file (`:size`, `:length` with `:write`, `:truncate`, `:fit`) does so
  under the lock of growing, which other maps of the file, in any VM, also take.

  If it fails, an existing file is as it was. (A device that fails during `:truncate` may leave it empty.) A new file
  is removed, but never a file that another program has created.

  Errors:

    * `:enoent`, `:eacces`, `:erofs`, `:eisdir`, `:enametoolong`, `:enfile`, `:efbig`, `:enospc`, `:edquot`: as
      `:file.open/2`
    * `:eperm` – to be written: an immutable file (`chattr +i`), an append-only one (`chattr +a`; `:append` opens it), a
      sealed one, or `:chmod` is not allowed
    * `:enodev` – not a regular file; or the file system gives no shared map of it, as FUSE with direct I/O: open it with
      `:private`, or mount it with `direct_io_allow_mmap`
    * `:etxtbsy` – to be written: the file is a program that is running
    * `:eexist` – with `:exclusive`, the file exists; or the `:fixed` address is in use
    * `:ebusy` – this VM holds live binaries of a file that `:truncate` or `:fit` would shorten; or another program
      has kept the whole file locked for 2 seconds, or has not given up a lease on it for 10
    * `:emfile` – no more file descriptors
    * `:enomem` – not enough memory, or no more addresses or maps: some are kept for the VM, see [Limits](limits.md#sizes)
    * `:einval` – a NUL in the path; an address that is not page aligned
    * `:enotsup` – an option that this system or file system lacks; huge pages of another size than those of the file
      system

  An open that meets a lease (of Samba, an NFS server) waits in the calling process until that is given up.

  On `:emfile` and `:ebusy`, the garbage of the calling process is collected, which closes the handles in it and
  releases its live binaries, and the open is tried once more.

  In the place of a path can stand a file that is open already: `{:fd, n}`, the number of a descriptor of this VM (such as one
  that a port, a socket or another library has passed); a handle of `:file.open/2` with `:raw`; or a map. The map has a
  descriptor of its own, so either may be closed first; the caller keeps what it passed, and must not close it before the
  open has returned. It needs no name: a deleted file can be mapped, and what memfd_create has made. The file must be open
  for reading, and with `:write` also for writing, or the result is `{:error, :eacces}`; `{:error, :ebadf}` if nothing is
  open by that number. `:create`, `:exclusive`, `:chmod` and `:auto_unlink` are for paths alone.

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
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open(Path.t() | :file.name_all() | open_file, Options.t()) :: {:ok, t} | failure
  def open(path, options)

  def open(file, options) when is_descriptor(file),
    do: Descriptor.with_number(file, &do_open({:fd, &1}, options))

  def open(path, options), do: do_open(Emmap.Path.bytes!(path), options)

  @doc """
  As `open/1`, but returns the handle alone and raises `Emmap.Error` on failure.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open!(Path.t() | :file.name_all() | Options.t()) :: t
  def open!([first | _] = options) when is_atom(first) or is_tuple(first),
    do: opened!(open(options), nil)

  def open!(path), do: open!(path, [])

  @doc """
  As `open/2`, but returns the handle alone and raises `Emmap.Error` on failure.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec open!(Path.t() | :file.name_all(), Options.t()) :: t
  def open!(path, options), do: opened!(open(path, options), path)

  defp opened!({:ok, mem}, _path), do: mem

  defp opened!({:error, reason}, file) when is_nil(file) or is_descriptor(file),
    do: raise(Emmap.Error, op: :open, path: nil, reason: reason)

  defp opened!({:error, reason}, path),
    do: raise(Emmap.Error, op: :open, path: Emmap.Path.bytes!(path), reason: reason)

  defp do_open(file, options), do: do_open(Options.request!(file, options))

  defp do_open(request) do
    with {:ok, ref, root} <- Collected.retry(fn -> patient(Native.open(request)) end),
         do: {:ok, Handle.new(ref, root)}
  end

  @doc """
  Closes the handle, at once and for all processes: every later call on it returns `{:error, :closed}`.

  Other handles on the same map (`dup/1`) stay open. The last close of a map releases its file descriptor. If no live
  binary of the map was ever made (by `view/3`, on a `:direct` handle, by a live stream), it also releases the pages:
  the disk space of a deleted file is free, and the file system can be unmounted. If one was made, live binaries stay
  valid, and their pages are released when the last of them is collected.

  A call that is running in another process returns the bytes of the file, or `{:error, :closed}`; never zeros in their
  place. If such a write returns `:ok`, its data is in the file.

  Does not sync: see `sync/1`. Runs on a dirty I/O scheduler, and takes the time of unmapping. A handle that is
  collected without a close does the same; the file system's work for a large file is then done by a thread of its
  own.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec close(t) :: :ok | failure
  def close(mem), do: Native.close(ref!(mem))

  @doc """
  Returns another handle on the same map, with a cursor of its own (at 0) and a `close/1` of its own.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec dup(t) :: {:ok, t} | failure
  def dup(mem) do
    with {:ok, ref, root} <- Native.dup(ref!(mem)), do: {:ok, Handle.new(ref, root)}
  end

  @doc """
  Maps another part of a map's file: `length` bytes (0: up to the end) from byte `offset` of the *file* on.

  The window is a map of its own, with the access of the first (`:write`, `:private`, `:direct` and `:nolock`), and a cursor
  at 0. It shows the bytes that there are: fewer than `length` at the end of the file, none behind it. It never changes the
  size of the file, and so works on files of any size, also larger than the address space, and on files that were renamed
  or deleted since. `{:error, :enotsup}` for anonymous memory. To move it or to change its size, see `move_window/3`.

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
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
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
  Moves a window, or changes its size: returns `window(mem, offset, length)`, and closes `mem`.

  Live binaries of the old window stay as they are, and so do the bytes of the file. If it fails, `mem` stays open. Not
  only windows can be moved: `mem` is any map of a file.
  """
  @doc group: "Opening and closing", since: "1.0.0-rc.0"
  @spec move_window(t, position, non_neg_integer) :: {:ok, t} | failure
  def move_window(mem, offset, length) do
    with {:ok, window} <- window(mem, offset, length) do
      # Another process may have closed it meanwhile.
      _ = close(mem)
      {:ok, window}
    end
  end

  # Devices

  @doc """
  Starts a process that speaks Erlang's I/O protocol for the map, and that of `:file`: `{:ok, pid}`.

  For `IO.puts/2`, `IO.read/2`, `:io.format/3` and whatever else needs a pid, and for clients on other
  nodes. It has a cursor of its own, at 0, and ends with its owner, the caller unless `owner:` says
  another. Options: `:encoding` (`:latin1`, the default, or `:unicode`), `:binary`, `:owner`, `:name`;
  `Emmap.Device` has them, and the replies of a device. `{:error, :closed}` if the handle is closed.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> {:ok, device} = Emmap.device(mem)
      iex> IO.write(device, "written")
      iex> Emmap.pread(mem, 0, 8)
      {:ok, "written\\0"}
  """
  @doc group: "Streams and devices", since: "1.0.0-rc.0"
  @spec device(t, [Emmap.Device.option()]) :: {:ok, pid} | {:error, term}
  def device(mem, options \\ []), do: Emmap.Device.start([{:mem, mem} | options])

  # Reading

  @doc """
  Reads up to `count` bytes at `position`: fewer at the end, `:eof` at or past it.

  A copy, or a live binary on a handle opened with `:direct`. As with a file, reading 0 bytes also returns `:eof`. A
  negative position is `{:error, :einval}`. It may also be a location as `position/2` takes it, such as `{:eof, -10}`;
  what is none is `{:error, :badarg}`. Lost pages are the error of the map (`:estale`, `:enospc`, `:eio`, …)
  until `reattach/1`, which lists them.
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
  @spec pread(t, position | location, non_neg_integer) :: {:ok, binary} | :eof | failure
  # The root is asked for only where it is used, with arguments that are right: a stack trace shows arguments, and this
  # one is the whole file.
  def pread(handle(ref, root), position, count)
      when root != nil and is_integer(position) and is_integer(count) and count > alone(),
      do: Bare.data(Native.view(ref, root.(), position, count))

  def pread(handle(ref), position, count)
      when is_integer(position) and is_integer(count) and count >= 0,
      do: Bare.data(patient(Native.pread(ref, position, count)))

  def pread(handle(ref) = mem, location, count) when is_integer(count) and count >= 0 do
    with {:ok, position} <- Location.position(ref, location), do: pread(mem, position, count)
  end

  def pread(handle(_), _position, _count), do: {:error, :badarg}
  def pread(mem, _position, _count), do: none!(mem)

  @doc """
  Reads several ranges: `[{position, count}]` gives `{:ok, [binary | :eof]}`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.pread(mem, [{0, 2}, {7, 2}, {8, 2}])
      {:ok, [<<0, 0>>, <<0>>, :eof]}
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
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

  Constant time. The binary is the mapped memory itself; see "Live binaries" in `Emmap`. `:eof` at or
  past the end; `{:error, :einval}` at a negative position, such as `found - 20` near the start may be.
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
  @spec view(t, position, non_neg_integer) :: {:ok, binary} | :eof | failure
  def view(handle(ref, root), position, count)
      when root != nil and is_integer(position) and is_integer(count) and count > alone(),
      do: Bare.data(Native.view(ref, root.(), position, count))

  def view(handle(ref), position, count), do: Bare.data(Native.view(ref, nil, position, count))

  def view(mem, _position, _count), do: none!(mem)

  @doc """
  Reads up to `count` bytes at the cursor and moves it behind them; `:eof` at the end.

  Processes that read one handle at the same time never get the same bytes. A read that fails leaves the cursor where it
  was (unless another process has moved it meanwhile), so that the same bytes are read after `reattach/1`.
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
  @spec read(t, non_neg_integer) :: {:ok, binary} | :eof | failure
  def read(handle(ref, root), count)
      when root != nil and is_integer(count) and count > alone(),
      do: Bare.data(patient(Native.read(ref, root.(), count)))

  def read(handle(ref), count) when is_integer(count) and count >= 0,
    do: Bare.data(patient(Native.read(ref, nil, count)))

  def read(handle(_), _count), do: {:error, :badarg}
  def read(mem, _count), do: none!(mem)

  @doc """
  Reads from the cursor to the next newline, which is part of the line; `:eof` at the end.

  As with `:file.read_line/1`, CRLF is returned as LF. The last line may have no newline. A read that fails leaves the
  cursor where it was, as with `read/2`.
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
  @spec read_line(t) :: {:ok, binary} | :eof | failure
  def read_line(handle(ref)), do: Bare.data(patient(Native.read_line(ref, nil)))
  def read_line(mem), do: none!(mem)

  @doc """
  Decodes the term in Erlang's external format at `position`, from a copy of at most `count` bytes: `{:ok, term}`.

  Use it instead of `:erlang.binary_to_term/1` on a live binary, which kills the VM when the bytes change while they are
  decoded; see "Functions that read twice" in [Live binaries](live-binaries.md#functions-that-read-twice).

  Bytes after the term are ignored, so `count` may be more than the term takes. Bytes that are not an external term are
  `{:error, :ebadmsg}`. Other errors, and `:eof`, are those of `pread/3`.

  Decoding creates the atoms and the references to functions that the bytes name, and atoms are never collected. For a
  file that others can write, use `[:safe]`: what would create an atom or a reference to a function is then
  `{:error, :ebadmsg}`. Another option raises `ArgumentError`.

      iex> {:ok, mem} = Emmap.open([:anon, :direct, size: 64])
      iex> Emmap.pwrite(mem, 8, :erlang.term_to_binary({:station, 14.5}))
      iex> Emmap.term(mem, 8, 56)
      {:ok, {:station, 14.5}}
      iex> Emmap.term(mem, 9, 55, [:safe])
      {:error, :ebadmsg}
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
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
  Reads up to `count` bytes at `position` as a string: a copy, which is valid UTF-8.

  Use it instead of passing a live binary to `:re` and `Regex` with `unicode`, to `String.to_charlist/1` and to
  `:unicode`, which kill the VM when the bytes change meanwhile; see "Functions that read twice" in
  [Live binaries](live-binaries.md#functions-that-read-twice).

  Bytes that are not UTF-8 are `{:error, :ebadmsg}`, also where the range ends inside a character. Other errors, and `:eof`,
  are those of `pread/3`.

      iex> {:ok, mem} = Emmap.open([:anon, :direct, size: 8])
      iex> Emmap.pwrite(mem, 0, "Łódź")
      iex> Emmap.string(mem, 0, 7)
      {:ok, "Łódź"}
      iex> Emmap.string(mem, 0, 1)
      {:error, :ebadmsg}
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
  @spec string(t, position, non_neg_integer) :: {:ok, String.t()} | :eof | failure
  def string(handle(ref), position, count) do
    with bytes when is_binary(bytes) <- patient(Native.pread_copy(ref, position, count)) do
      if String.valid?(bytes), do: {:ok, bytes}, else: {:error, :ebadmsg}
    end
  end

  def string(mem, _position, _count), do: none!(mem)

  # Streams

  @doc """
  Returns a stream of the lines of a file, or of pieces of `mode` bytes; see `Emmap.Stream`.

  `source` is a path, mapped at each enumeration, or a handle. Options:

    * `trim: true` – lines without their newline (LF or CRLF)
    * `live: true` – live binaries instead of copies, which change with the file; the default on a `:direct` handle. See
      [Live lines](Emmap.Stream.html#module-live-lines), also for the functions that crash the VM on them
    * `copy: true` – copies, also of a `:direct` handle; the same as `live: false`, and the default on any other handle
      and for a path
    * `trim_bom: true` – without the mark of an encoding (BOM) at the start of the file, as `File.stream!/3` has it
    * `encoding: encoding` – lines of characters, as strings: `:utf8` (checked), `:latin1`, or `:utf16`, `:utf32`,
      `{:utf16, :little}` and the others of `t::unicode.encoding/0`. Bytes that are none raise `Emmap.Error` with
      `:ebadmsg`. Without it, lines are bytes as they are. Not for pieces, and not with `live: true`
    * `start: n`, `length: n` – only these bytes; what the range cuts off of a line is not in it

  `stream!(source, trim: true)` goes by `:line`. A bad mode or option, or `live: true` with `copy: true`, raises
  `ArgumentError` now; a file that cannot be opened raises `Emmap.Error` when the stream is enumerated.

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
  @doc group: "Streams and devices", since: "1.0.0-rc.0"
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
  Cuts a map, or the file of a path, into at most `count` streams of lines, for `Task.async_stream/3`.

  Each ends behind a newline; together they are all bytes of the map, in order, of about the same
  size. None is empty: a small map gives fewer, an empty one none. `split: byte` cuts behind
  another byte (a binary of length 1). `record: n` cuts between records of `n` bytes, and the streams are of records
  instead of lines. The other options, and whether lines are live, are those of `stream!/3`. A path
  is mapped once, when the chunks are made, and its file is released when the last of the streams is collected.

  Searches from each cut to the next newline, on a dirty CPU scheduler. Raises `Emmap.Error` when the
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
  @doc group: "Streams and devices", since: "1.0.0-rc.0"
  @spec chunks!(t | Path.t() | :file.name_all(), pos_integer, [
          Emmap.Stream.option() | {:split, <<_::8>>} | {:record, pos_integer}
        ]) ::
          [Emmap.Stream.t()]
  def chunks!(mem, count, options \\ []), do: Emmap.Stream.chunks!(mem, count, options)

  # Writing

  @doc """
  Writes `data` (iodata) at `position`.

  Past the end of a shared, writable map of a whole file, the file and the map grow; other maps return
  `{:error, :enospc}`. The bytes between the old end and `position` are zeros, and their blocks are allocated unless the
  map is `:sparse`. A program that follows the file (`tail -f`) reads the data when it arrives, and never zeros in its
  place. On a handle opened with `:append`, the data goes to the end of the file, whatever `position` is.

  If growing fails, nothing is written, and the file is as it was. If pages of the map are lost during a write, a part
  of the data may be in the file. Errors:

    * `:eacces` – the map is read-only
    * `:enospc` – the disk is full, or the map cannot grow (it is `:fixed_size`, private, a part of a file, or at its
      `:max_size`)
    * `:edquot` – the user's quota is used up; `:eperm` – the file may not be changed any more (`chattr +i`, or longer
      with `chattr +a`, or it is sealed); `:erofs` – the file system has become read-only
    * `:efbig` – above `ulimit -f`, or what the file system has
    * any of the reasons that `reattach/1` lists – pages of the map were lost; or `data` is, or contains, a live binary of a
      map that lost these pages: then nothing is written
    * `:ebusy` – another program has kept the whole file locked for 2 seconds, and the map has to grow
    * `:einval` – a negative position; `:badarg` – `data` is not iodata, or `position` none, and no location as `position/2`
      takes it; `:closed`

  Up to 64 KiB are written on the caller's scheduler. Longer writes, and those that make the file longer, run on a dirty
  I/O scheduler; growing costs some system calls.
  """
  @doc group: "Writing", since: "1.0.0-rc.0"
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
  Writes `[{position, iodata}]` in order. If one fails, those before it are done:
  `{:error, {how_many_done, reason}}`. Errors, and the effect of `:append`, are those of `pwrite/3`.
  """
  @doc group: "Writing", since: "1.0.0-rc.0"
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
  Writes `data` (iodata) at the cursor and moves the cursor behind it. Grows, and returns errors, as `pwrite/3` does.

  Processes that write to one handle at the same time write one behind the other. A write that fails leaves the cursor
  where it was, unless another process has moved it meanwhile.

  On a handle opened with `:append`, the data goes to the end of the file, wherever the cursor is: in one piece, also
  where other handles, VMs and programs append at the same time. The cursor is then at the end of the file. A full disk
  may leave the first bytes of such a write in the file.
  """
  @doc group: "Writing", since: "1.0.0-rc.0"
  @spec write(t, iodata) :: :ok | failure | {:error, :badarg}
  def write(handle(ref), data) when is_binary(data), do: patient(Native.write(ref, data))

  def write(handle(ref), data) do
    with {:ok, data} <- Iodata.flatten(data), do: patient(Native.write(ref, data))
  end

  def write(mem, _data), do: none!(mem)

  @doc """
  Moves the cursor and returns where it is: a number, `:bof`, `:cur`, `:eof`, or one of these with an
  offset, as `{:eof, -10}`.

  Past the end is allowed (a read there is `:eof`, a write grows); before the beginning is
  `{:error, :einval}`.
  """
  @doc group: "Reading", since: "1.0.0-rc.0"
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

  # As a raw file, which has 64 bits for it.
  defp move(ref, from, offset) when offset in -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF,
    do: Native.position(ref, from, offset)

  defp move(_ref, _from, _offset), do: {:error, :badarg}

  # Integers

  @typedoc "What `patomic/4` does; Erlang's names of the bit operations work too."
  @type operation ::
          :add | :sub | :xchg | :and | :or | :xor | :band | :bor | :bxor | :min | :max

  @doc """
  Changes the 64-bit integer at `position` atomically, and returns what it was before.

  The integer is signed, in the byte order of the machine. The change is sequentially
  consistent for all processes, and for all programs that map the file and use atomic
  instructions. No lock is taken; `:nolock` changes nothing here. It costs about twice as much as
  `:atomics.add/3`, and survives `kill -9`.

  `:add` and `:sub` wrap as `:atomics` does. `position` must be a multiple of 8, and all 8 bytes inside
  the map, else `{:error, :einval}`; on a map that is read-only or opened with `:append`, `{:error, :eacces}`. A value
  outside 64 bits raises `ArgumentError`.

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
  @doc group: "Integers", since: "1.0.0-rc.0"
  @spec patomic(t, position, operation, integer) :: {:ok, integer} | failure
  def patomic(handle(ref), position, :add, value),
    do: Bare.integer(Native.atomic_add(ref, position, value))

  # As `:atomics` does it, so that the same values are taken.
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
  Writes `new` at `position` if `expected` is there, atomically; returns what was there.

  It succeeded when that is `expected`. Errors as `patomic/4`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.patomic_cas(mem, 0, 0, 7)
      {:ok, 0}
      iex> Emmap.patomic_cas(mem, 0, 0, 8)
      {:ok, 7}
  """
  @doc group: "Integers", since: "1.0.0-rc.0"
  @spec patomic_cas(t, position, integer, integer) :: {:ok, integer} | failure
  def patomic_cas(handle(ref), position, expected, new),
    do: Bare.integer(Native.atomic_cas(ref, position, expected, new))

  def patomic_cas(mem, _position, _expected, _new), do: none!(mem)

  @doc "Reads the integer at `position` atomically. Errors as `patomic/4`; a read-only map will do."
  @doc group: "Integers", since: "1.0.0-rc.0"
  @spec patomic_read(t, position) :: {:ok, integer} | failure
  def patomic_read(handle(ref), position), do: Bare.integer(Native.atomic_read(ref, position))
  def patomic_read(mem, _position), do: none!(mem)

  @doc "Writes the integer at `position` atomically. Errors as `patomic/4`."
  @doc group: "Integers", since: "1.0.0-rc.0"
  @spec patomic_write(t, position, integer) :: :ok | failure
  def patomic_write(handle(ref), position, value), do: Native.atomic_write(ref, position, value)
  def patomic_write(mem, _position, _value), do: none!(mem)

  # Typed access

  @doc """
  Reads the number at `position`: an integer of 8 to 64 bits or a float of 32 or 64.

  `type` is `:u8`, `:i8`, `:u16`, `:i16`, `:u32`, `:i32`, `:u64`, `:i64`, `:f32` or `:f64`, in the byte order of the
  machine (as `patomic/4` and Nx have it, and other than `<<n::32>>`, which is big endian); or
  `{type, :big}`, `{type, :little}`, `{type, :native}`. Any position will do, aligned or not.

  NaN is returned as `:nan`, and the infinities as `:infinity` and `:neg_infinity`, as in Nx: the
  VM has no such floats. `:eof` when not all bytes of the number lie inside the map. Other errors as
  `pread/3`, and as fast as a `pread/3` of so many bytes. An unknown type raises `ArgumentError`.

  With `:lock`, the default, the number is read whole: never half of what a `put/4` or `pwrite/3` on the
  same map writes. `patomic_read/2` promises that for writes of other programs, too.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.pwrite(mem, 1, <<-2::little-32>>)
      iex> Emmap.get(mem, 1, {:i32, :little})
      {:ok, -2}
      iex> Emmap.get(mem, 1, {:u32, :big})
      {:ok, 0xFEFFFFFF}
      iex> Emmap.get(mem, 62, :f64)
      :eof
  """
  @doc group: "Typed access", since: "1.0.0-rc.0"
  @spec get(t, position, Typed.t()) :: {:ok, Typed.number_read()} | :eof | failure
  # The types of eight bytes, without a type to decode.
  def get(handle(ref), position, :u64), do: Bare.integer(patient(Native.get_u64(ref, position)))
  def get(handle(ref), position, :i64), do: Bare.integer(patient(Native.get_i64(ref, position)))
  def get(handle(ref), position, :f64), do: Bare.value(patient(Native.get_f64(ref, position)))

  def get(handle(ref), position, type),
    do: Bare.value(patient(Native.typed_get(ref, position, Typed.code(type))))

  def get(mem, _position, _type), do: none!(mem)

  @doc """
  Writes a number at `position`, in the bytes that `get/3` reads.

  Past the end the map grows, and errors are, as with `pwrite/3`; with `:append` it is `{:error, :eacces}`. A float type
  takes integers, `:nan`, `:infinity` and `:neg_infinity`, too. A value out of the type's range raises `ArgumentError`,
  with the range; the digits that an `:f32` has no room for are rounded away.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> Emmap.put(mem, 3, {:u16, :big}, 258)
      :ok
      iex> Emmap.pread(mem, 3, 2)
      {:ok, <<1, 2>>}
      iex> Emmap.put(mem, 8, :f64, :infinity)
      iex> Emmap.get(mem, 8, :f64)
      {:ok, :infinity}
  """
  @doc group: "Typed access", since: "1.0.0-rc.0"
  @spec put(t, position, Typed.t(), Typed.number_written()) :: :ok | failure
  def put(handle(ref), position, type, value) when is_integer(value) do
    code = Typed.inline_code(type)

    # Bit 3 is that of the floats.
    if Bitwise.band(code, 8) == 0,
      do: patient(Native.typed_put(ref, position, code, value)),
      else: patient(Native.typed_put(ref, position, code, Typed.value(code, value)))
  end

  def put(handle(ref), position, type, value),
    do: patient(Native.typed_put(ref, position, Typed.inline_code(type), value))

  def put(mem, _position, _type, _value), do: none!(mem)

  @doc """
  Sets `count` bytes at `position` to `byte` (0 to 255).

  As a `pwrite/3` of so many equal bytes, without making them: it grows the same maps, is atomic
  with respect to the same calls, and has the same errors. With `:append` it is `{:error, :eacces}`. Above 64 KiB it runs
  on a dirty I/O scheduler.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.fill(mem, 2, 3, ?x)
      iex> Emmap.pread(mem, 0, 8)
      {:ok, <<0, 0, "xxx", 0, 0, 0>>}
  """
  @doc group: "Typed access", since: "1.0.0-rc.0"
  @spec fill(t, position, non_neg_integer, byte) :: :ok | failure
  def fill(handle(ref), position, count, byte),
    do: patient(Native.fill(ref, position, count, byte))

  def fill(mem, _position, _count, _byte), do: none!(mem)

  @doc """
  Copies `count` bytes of the map from position `from` to position `to`; both may overlap.

  The bytes at `from` must lie inside the map, else it is `{:error, :einval}` and nothing is written. The write is as with
  `pwrite/3`: past the end the map grows. With `:append` it is `{:error, :eacces}`. Above 64 KiB it runs on a
  dirty I/O scheduler. To copy from one map to another, use `:file.copy/2` or `:file.copy/3`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 8])
      iex> Emmap.pwrite(mem, 0, "abcdef")
      iex> Emmap.copy(mem, 0, 2, 6)
      iex> Emmap.pread(mem, 0, 8)
      {:ok, "ababcdef"}
  """
  @doc group: "Typed access", since: "1.0.0-rc.0"
  @spec copy(t, position, position, non_neg_integer) :: :ok | failure
  def copy(handle(ref), from, to, count), do: patient(Native.copy(ref, from, to, count))
  def copy(mem, _from, _to, _count), do: none!(mem)

  # Searching

  @doc """
  Finds the first match of a pattern, a binary, or of any of a list of them:
  `{:ok, {position, length}}` or `:nomatch`.

  As `:binary.match/3` does, also where several match: the leftmost, and of those that begin
  there the longest. The position is one of the map, wherever the search began. Options:

    * `:start` – where to begin, in bytes; 0 if left out. At or past the end nothing matches
    * `:length` – how many bytes to look at, in which the match must lie whole; else up to the end

  Bytes are compared as they are. For a regular expression, or to ignore case, run `Regex` on a copy of the range:
  `string/3`, or lines of `stream!/3`. Do not run it on a `view/3`: with `unicode` it crashes the VM if the bytes change
  meanwhile. [Streams and large files](streams-and-large-files.md) has what to do with a match.

  A pattern used often can be prepared: `compile_pattern/1`. No pattern, an empty one, an unknown
  option raise `ArgumentError`. Lost pages and closing end a search with their errors.

  Up to 64 KiB are searched on the caller's scheduler, more on dirty CPU schedulers, some
  milliseconds at a time. The bytes are copied, block after block, into the processor's cache and
  searched there, which is about as fast as `grep`. A range that is written meanwhile is searched
  as it is when its block is copied.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one two three two")
      iex> Emmap.find(mem, "two")
      {:ok, {4, 3}}
      iex> Emmap.find(mem, ["three", "tw", "two"], start: 5)
      {:ok, {8, 5}}
      iex> Emmap.find(mem, "two", start: 5, length: 10)
      :nomatch
  """
  @doc group: "Searching", since: "1.0.0-rc.0"
  @spec find(t, Search.pattern(), Search.range()) ::
          {:ok, {position, pos_integer}} | :nomatch | failure
  def find(mem, pattern, options \\ []), do: Search.find(ref!(mem), pattern, options)

  @doc """
  Finds the last match: the one that begins last, and of several that begin there the longest.

  As `find/3` in all else; it searches from the end of the range. As the match that begins last counts, `["root", "oot"]` finds
  `"oot"`, where `find/3` and `find_all/3` find `"root"`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one two three two")
      iex> Emmap.rfind(mem, "two")
      {:ok, {14, 3}}
      iex> Emmap.rfind(mem, "two", length: 16)
      {:ok, {4, 3}}
  """
  @doc group: "Searching", since: "1.0.0-rc.0"
  @spec rfind(t, Search.pattern(), Search.range()) ::
          {:ok, {position, pos_integer}} | :nomatch | failure
  def rfind(mem, pattern, options \\ []), do: Search.rfind(ref!(mem), pattern, options)

  @doc """
  Finds all matches, in order and without overlaps, as `:binary.matches/3` does:
  `{:ok, [{position, length}]}`, an empty list when there is none.

  Options are those of `find/3`, and `:limit`, the most matches to return. Its bytes tell which of several patterns a
  match is of: `pread(mem, position, length)`. A match takes 40 bytes of the caller's heap; to go through more matches
  than should be in memory at once, use `limit:`, and continue with `start:` behind the last one.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "aaaaa b aa")
      iex> Emmap.find_all(mem, ["aa", "b"])
      {:ok, [{0, 2}, {2, 2}, {6, 1}, {8, 2}]}
      iex> Emmap.find_all(mem, "a", start: 3, limit: 2)
      {:ok, [{3, 1}, {4, 1}]}
  """
  @doc group: "Searching", since: "1.0.0-rc.0"
  @spec find_all(t, Search.pattern(), Search.range() | [{:limit, non_neg_integer}]) ::
          {:ok, [{position, pos_integer}]} | failure
  def find_all(mem, pattern, options \\ []), do: Search.find_all(ref!(mem), pattern, options)

  @doc """
  Counts the matches that `find_all/3` would return, those of several patterns together: `{:ok, count}`.
  Options as `find/3`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "one\\ntwo\\nthree\\n")
      iex> Emmap.count(mem, "\\n")
      {:ok, 3}
  """
  @doc group: "Searching", since: "1.0.0-rc.0"
  @spec count(t, Search.pattern(), Search.range()) :: {:ok, non_neg_integer} | failure
  def count(mem, pattern, options \\ []), do: Search.count(ref!(mem), pattern, options)

  @doc """
  Prepares a pattern for many searches, by any process of this node.

  Preparing one binary takes less than a microsecond, a list about one for each of its bytes, and a
  hundred bytes of memory for each. A list may have 1 MiB together, above which it raises
  `ArgumentError`; one binary may have any length.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> Emmap.pwrite(mem, 0, "GET /index")
      iex> methods = Emmap.compile_pattern(["GET ", "PUT ", "POST "])
      iex> Emmap.find(mem, methods)
      {:ok, {0, 4}}
  """
  @doc group: "Searching", since: "1.0.0-rc.0"
  @spec compile_pattern(Search.pattern()) :: Search.t()
  defdelegate compile_pattern(pattern), to: Search, as: :compile

  # Size

  @doc """
  Returns the size of the map in bytes: `{:ok, size}`. Takes nanoseconds, and does not look at the file: that is
  what `reattach/1` does, and `info/1`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4096])
      iex> Emmap.size(mem)
      {:ok, 4096}
  """
  @doc group: "Size", since: "1.0.0-rc.0"
  @spec size(t) :: {:ok, non_neg_integer} | failure
  def size(mem), do: Native.size(ref!(mem))

  @doc """
  Makes the map and its file twice as long, but at most `:max_inc_size` (default 64 MiB) longer and at most `:max_size`
  long: `{:ok, new_size}`. A file that another program has made longer keeps its length.

  A map that has reached its `:max_size` returns `{:error, :enospc}`. Other errors as `resize/2`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 100, max_size: 150])
      iex> Emmap.grow(mem)
      {:ok, 150}
      iex> Emmap.grow(mem)
      {:error, :enospc}
  """
  @doc group: "Size", since: "1.0.0-rc.0"
  @spec grow(t) :: {:ok, non_neg_integer} | failure
  def grow(mem), do: patient(Native.double(ref!(mem)))

  @doc """
  Makes the map `size` bytes long, and with it its file.

  Growing allocates blocks (unless `:sparse`) and moves nothing: live binaries stay. It never truncates: if
  another map or program has made the file longer than `size` already, it keeps that length. After
  shrinking, the file is `size` bytes long, and live binaries read zeros in place of the tail. If it fails, the size of the
  file is as it was; see [What a failure leaves](reliability.md#what-a-failure-leaves) for its blocks.

  Errors: `:eacces` (read-only, or opened with `:append`), `:enospc` (the disk is full, `:max_size` is reached, or the map
  cannot grow: it is private, part of a file, or `:fixed_size`), `:einval` (such a map cannot
  shrink), `:ebusy` (another program has kept the whole file locked for 2 seconds), `:estale` (another program
  truncated the file), `:efbig`, `:enomem`, `:edquot` (the quota is used up), `:eperm` (`chattr +i` or `+a`, a seal),
  `:erofs` (the file system has become read-only).

  On a file system without `fallocate` (ramfs, ext3, NFS before 4.2, many of FUSE) growing is slower, and with `:sparse` not
  safe from all other writers: see [Limits](limits.md#file-systems).
  """
  @doc group: "Size", since: "1.0.0-rc.0"
  @spec resize(t, non_neg_integer) :: :ok | failure
  def resize(mem, size), do: patient(Native.resize(ref!(mem), bytes!(:size, size)))

  @doc """
  Truncates (or extends) the map and its file to the cursor, also where others have made the file longer. Errors
  as `resize/2`.
  """
  @doc group: "Size", since: "1.0.0-rc.0"
  @spec truncate(t) :: :ok | failure
  def truncate(mem), do: patient(Native.truncate(ref!(mem)))

  @doc """
  Allocates disk blocks for a range, so that later writes there cannot meet a full disk. (On a copy-on-write file system
  they can: see [Limits](limits.md#file-systems).) Past the end the file and the map grow, as with `:file.allocate/3`. If it fails, the size of the file is as it was; see
  [What a failure leaves](reliability.md#what-a-failure-leaves) for its blocks.

  0 bytes are `{:error, :einval}`. On a file system without `fallocate`, a file with holes is `{:error, :enotsup}`. Other
  errors as `resize/2`.
  """
  @doc group: "Size", since: "1.0.0-rc.0"
  @spec allocate(t, position, non_neg_integer) :: :ok | failure
  def allocate(mem, position, count) do
    ref = ref!(mem)
    as_file(position, count, fn -> patient(Native.allocate(ref, position, count)) end)
  end

  # Durability

  @doc """
  Writes the map's changes to the disk and waits: `:ok` means they survive a power failure.

  With `:async`, it only starts the writing. The first sync of a new file makes its name durable too, where the file
  system can sync a directory (CIFS, vboxsf and some of FUSE cannot, which is not an error). A file that was renamed
  since needs a sync of its directory, as always.

  Maps that change no file (read-only, private, anonymous) return `:ok`. Errors: `:estale` where the file is shorter than
  the map; `:eio`, `:enospc`, `:edquot` or `:erofs` where the disk does not take the data; and the reasons
  for lost pages that `reattach/1` lists.

  A sync that failed stays failed: every later one returns the same error until `reattach/1`. The
  kernel reports pages that it could not write only once, so an `:ok` after that would mean nothing.
  """
  @doc group: "Durability", since: "1.0.0-rc.0"
  @spec sync(t, :sync | :async | {position, non_neg_integer}) :: :ok | failure
  def sync(mem, how \\ :sync)
  def sync(mem, :sync), do: Native.sync(ref!(mem), true)
  def sync(mem, :async), do: Native.sync(ref!(mem), false)
  def sync(mem, {position, count}), do: sync(mem, {position, count}, :sync)
  def sync(_mem, other), do: bad_sync!(other)

  @doc "As `sync/2`, for the pages of `{position, count}` alone."
  @doc group: "Durability", since: "1.0.0-rc.0"
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

  @doc "As `sync/1`, but without the file's times."
  @doc group: "Durability", since: "1.0.0-rc.0"
  @spec datasync(t) :: :ok | failure
  def datasync(mem), do: Native.datasync(ref!(mem))

  @doc """
  Repairs a map whose file was truncated, whose disk was full or failed, or whose file could not be written: the way out
  of every error that stays.

  Looks at the same file again, whatever its name is by now, and maps the lost pages in their old place:
  live binaries show the file's bytes again. A map of a whole file takes the size that the file has
  now, also a read-only map or one opened with `:append`, which so reads what others appended. A part of a file, and a
  `:fixed_size` map, keep their size, and return `{:error, :estale}` while the file is too short. A
  `:private` map that can be written keeps its written pages, and does not get longer. Where pages with data that is
  stored nowhere else were lost (see [Reliability](reliability.md#how-it-works)), it returns `{:error, :enomem}`.

  The bytes of lost pages are gone. A write that returned the error of an earlier fault was not done; of a write
  that met the lost page itself, that page is lost. After a sync that failed, the caller must write again the data that
  matters, and then sync. The cursor of this handle is moved to the end, if it was behind it. Memory kept by `lock_memory/1` must
  be locked again. On a map that lost nothing, it only looks at the
  size, which takes some microseconds.

  ### Why pages are lost

    * `:estale` – the file was truncated; or a network file system has lost the file
    * `:enospc` – the disk is full, and the page is in a hole, or its block is shared with a copy of the file (btrfs, XFS, ZFS)
    * `:edquot` – as `:enospc`, for the quota of the user
    * `:eperm` – the file may not be changed any more (`chattr +i`)
    * `:erofs` – the file system has become read-only after an error
    * `:etxtbsy` – the file is used for swapping
    * `:eio` – the device failed, or nothing says why the page cannot be had
    * `:enomem` – anonymous memory: there was none
    * another error, such as `:enotconn` – what a network file system, or one in user space, says of the page

  In an overlay, as the root of a container is one, the first write to a file copies it, and a map that was opened for
  reading before that shows the old file: `reattach/1` maps the copy in its place.

  When the reason has gone (space, the attribute removed), `reattach/1` returns `:ok`, and all that was acknowledged is
  there. While it stays, `reattach/1` may return `:ok`, too: pages can be read then, and the next write that needs one that
  cannot be written is the error again.

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
  @doc group: "Durability", since: "1.0.0-rc.0"
  @spec reattach(t) :: :ok | failure
  def reattach(mem), do: patient(Native.reattach(ref!(mem)))

  @doc """
  Sends the calling process a message when the map meets a fault: `{:emmap, monitor, :fault, reason}`.

  A fault is what `reattach/1` repairs: the file was truncated (`:estale`), its disk is full (`:enospc`) or failed
  (`:eio`), or memory ran out (`:enomem`). The message arrives within about 10 milliseconds, whoever meets the fault: a call of any
  process, or a live binary that is read without a call. A map that has a fault already sends the message at once. Each
  fault that follows a `reattach/1` is told again; the pages that are lost after the first until then are not.

  Returns the reference that the messages have. A process may monitor a map more than once. A monitor ends with
  `demonitor/2`, with its process, and without a message when the map is gone: its last handle closed, and its last live
  binary collected. `source` is a handle, or a `Emmap.Counters`, `Emmap.Queue` or `Emmap.Blocks`. A truncated file is
  noticed when a page that it lost is touched, or its size is looked at (`sync/1`, `info/1`, `reattach/1`).

  Whether or not a map is monitored, each such fault is also one `:warning` in the log. Its metadata has the domain
  `[:emmap]`, and `:emmap_fault`, a map of `:path`, `:position` and `:reason`. `config :emmap, log_faults: false`, set
  before the first use of Emmap (or `erl -emmap log_faults false`), turns this off.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_monitor.bin")
      iex> File.write!(path, :binary.copy("log ", 4096))
      iex> {:ok, mem} = Emmap.open(path)
      iex> monitor = Emmap.monitor(mem)
      iex> File.write!(path, "new log")
      iex> Emmap.pread(mem, 8192, 3)
      {:error, :estale}
      iex> receive do
      ...>   {:emmap, ^monitor, :fault, :estale} -> Emmap.reattach(mem)
      ...> end
      :ok
  """
  @doc group: "Durability", since: "1.0.0-rc.0"
  @spec monitor(t | Emmap.Counters.t() | Emmap.Queue.t() | Emmap.Blocks.t()) ::
          reference | {:error, :closed}
  def monitor(source) do
    with {:ok, monitor} <- Native.monitor(monitored(source)), do: monitor
  end

  defp monitored(%{__struct__: module, ref: ref})
       when module in [Emmap.Counters, Emmap.Queue, Emmap.Blocks],
       do: ref

  defp monitored(mem), do: ref!(mem)

  @doc """
  Ends a monitor of `monitor/1`, if there is one: `true`. No message is sent any more once this has returned; with
  `[:flush]`, one that was sent before is removed from the mailbox.
  """
  @doc group: "Durability", since: "1.0.0-rc.0"
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
  Tells the kernel how a range will be used (`count` 0: up to the end): `:normal`, `:sequential`,
  `:random`, `:no_reuse`, `:will_need`, `:dont_need`; another word is `{:error, :einval}`.

  `:dont_need` releases memory; written data stays, also in a private map.

  Linux has more; none of them changes the bytes that are read. Where the kernel lacks one, or it does not apply to the map, the result is
  `{:error, :einval}`, and on other systems `{:error, :enotsup}`:

    * `:cold`, `:pageout` – the pages may be, or are now, taken out of memory
    * `:hugepage`, `:nohugepage`, `:collapse` – huge pages where the kernel can, never, or now
    * `:populate_read`, `:populate_write` – brings the pages into memory, to be read, or also allocated to be written
    * `:dontdump`, `:dodump` – left out of core dumps, or not; `:dontfork`, `:dofork` – not there in child processes
    * `:mergeable`, `:unmergeable` – equal private pages may be merged

  *Two lose data*, and need a map that can be written (else `{:error, :eacces}`). They act on the pages that lie inside
  the range as a whole:

    * `:remove` – the bytes become zeros, in the file too, and its blocks are released (a hole); of shared maps
    * `:free` – the kernel may drop the bytes when it needs memory, and zeros are read; of private anonymous memory
  """
  @doc group: "Memory", since: "1.0.0-rc.0"
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

  # These do something to each page.
  @advice_of_pages [:will_need, :dont_need, :cold, :pageout, :populate_read, :populate_write]

  defp do_advise(ref, position, count, advice) when advice in @advice_of_pages do
    count = if count == 0, do: @all, else: count
    # 0 bytes would be all that follow.
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
  Reads a range from the disk into memory and waits, on a dirty I/O scheduler, in pieces of 8 MiB: a process that is killed,
  or a map that is closed, ends it after the piece.
  """
  @doc group: "Memory", since: "1.0.0-rc.0"
  @spec prefetch(t, position, non_neg_integer) :: :ok | failure
  def prefetch(mem, position, count) do
    ref = ref!(mem)

    ranged(position, count, fn ->
      Pieces.each(ref, position, count, &Native.prefetch(ref, &1, &2))
    end)
  end

  @doc """
  Makes the map read-only, for all its handles, permanently: every write that begins after this has returned is
  `{:error, :eacces}`, whether of bytes, numbers or atomics, and `Emmap.Counters`, which this also takes, raise
  `Emmap.Error` with `:eacces`. To write again, open the file again with `open/2`.

  Writes that have begun are waited for, and are in the map. Then the kernel protects the pages (mprotect), so that no
  other code of this VM can write to them either. Other maps of the file, here or in other programs, are not affected.
  What was written before can be synced.

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
  @doc group: "Memory", since: "1.0.0-rc.0"
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
  Keeps all pages of the map in memory (mlock). `{:error, :enomem}` or `:eagain` above the limit
  (`ulimit -l`), `:eperm` where it is 0: then no page of the map is kept. Pages by which the map grows later are not locked.
  """
  @doc group: "Memory", since: "1.0.0-rc.0"
  @spec lock_memory(t) :: :ok | failure
  def lock_memory(mem) do
    ref = ref!(mem)

    with {:error, _} = error <- Pieces.each(ref, 0, @all, &Native.lock_memory(ref, &1, &2)) do
      _ = Pieces.each(ref, 0, @all, &Native.unlock_memory(ref, &1, &2))
      error
    end
  end

  @doc "Undoes `lock_memory/1`."
  @doc group: "Memory", since: "1.0.0-rc.0"
  @spec unlock_memory(t) :: :ok | failure
  def unlock_memory(mem) do
    ref = ref!(mem)
    Pieces.each(ref, 0, @all, &Native.unlock_memory(ref, &1, &2))
  end

  @doc """
  Returns the state of a map. (For its size alone, `size/1`.)

    * `:path` – absolute, `nil` for an anonymous map
    * `:fd` – the file descriptor, open until the last handle is closed; `nil` for an anonymous map
    * `:size`, `:offset` – bytes of the map, and where it begins in the file
    * `:position` – the cursor of this handle
    * `:flags` – such as `[:read, :write, :shared, :lock]`; `:append` follows `:write`
    * `:growable_up_to` – bytes, `:infinity`, or `nil` when the size is fixed
    * `:page_size`, `:resident_pages` – bytes; how many of the map's pages are in memory (in a map of more than
      4,194,304 pages, which is 16 GiB, pages of the file's holes count as not in memory)
    * `:allocated` – bytes of the blocks that the whole file has on its disk; fewer than its size where it
      has holes; `nil` for an anonymous map
    * `:address_ranges` – 1, and one more for each time the map outgrew its addresses
    * `:faults`, `:fault` – how often a lost page was touched (or the file found too short), and where
      that was first since the last `reattach/1`: `{position, {:error, reason}}`, or `nil`
    * `:failed_sync` – the result of every `sync/1` since one failed: `{:error, reason}`, or `nil`

  Looks at the file, and so finds one that was truncated inside the map's last page, which raises no signal. Walks
  the page tables: a few milliseconds a gigabyte, on a dirty I/O scheduler.
  """
  @doc group: "Memory", since: "1.0.0-rc.0"
  @spec info(t) :: {:ok, info} | failure
  def info(mem), do: Info.of(ref!(mem))

  @doc """
  Whether the guard is in place, which turns the signal of a lost page (SIGBUS) into an error:

    * `:ok`
    * `:lost` – another library took the signal later: a lost page may kill the VM again
    * `:off` – switched off, by `config :emmap, guard: false` before the first use of Emmap (or
      `erl -emmap guard false`): a lost page kills the VM, and only `sync/1`, `resize/2` and
      `reattach/1`, which look at the size of the file, return an error for a truncated file

  [Reliability](reliability.md) has what it covers and what not.
  """
  @doc group: "Memory", since: "1.0.0-rc.0"
  @spec guard() :: :ok | :lost | :off
  def guard, do: Native.guard_status()

  # As `:file` does it, whose functions they are, too.
  defp as_file(position, count, call) do
    cond do
      not is_integer(position) -> Location.wrong(position)
      not is_integer(count) -> Location.wrong(count)
      true -> ranged(position, count, call)
    end
  end

  # A range as OTP takes it: a place that no file has is an answer, and no crash.
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
