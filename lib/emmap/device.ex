defmodule Emmap.Device do
  @moduledoc """
  A process that makes a map a device: for `IO.puts/2` and `:io.format/3`, and for other nodes.

  `Emmap.device/2` starts one. A handle is of use on its own node, and only to functions that read and
  write bytes; a device speaks the protocols of an opened file, as the process that `File.open/2`
  starts does. So it takes everything that takes a pid: `IO.puts/2`, `IO.read/2`, `IO.stream/2`,
  `:io.format/3`, `:io.fread/3`, `:file.pread/3`, `File.close/1`. It can be a group leader. And it
  answers clients of any node, over Erlang distribution.

      iex> path = Path.join(System.tmp_dir!(), "emmap_device.txt")
      iex> File.write!(path, "")
      iex> {:ok, mem} = Emmap.open(path, [:write])
      iex> {:ok, device} = Emmap.device(mem, encoding: :unicode)
      iex> IO.puts(device, "Łódź")
      iex> :io.format(device, "~3..0b~n", [7])
      iex> :file.position(device, 0)
      {:ok, 0}
      iex> IO.read(device, :line)
      "Łódź\\n"
      iex> :io.fread(device, "", ~c"~d")
      {:ok, [7]}
      iex> File.close(device)
      :ok
      iex> Emmap.pread(mem, 7, 5)
      {:ok, "\\n007\\n"}

  ## The contract

    * A device has a cursor and a `close` of its own (`Emmap.dup/1`), which begins at 0. So nobody can
      move the cursor under a request, and closing the device leaves the map to others.
    * It serves one request after the other: each client's `IO.puts/2` is written whole. A client that
      stands still, and one whose node is away, hold up no other.
    * A request costs two messages, some microseconds; the same on the handle takes well below one. Where the
      handle is at hand and bytes will do, use the handle.
    * It ends with its owner, and closes its handle then. What is on the way from its clients, and
      later requests, get `{:error, :terminated}`, which `:io` gives for a dead process or node, too.
    * With `encoding: :latin1`, the default, as with `File.open/2`, a character is a byte: text above
      255 is `{:error, {:no_translation, :unicode, :latin1}}`, and what `:file` and `IO.binread/2` read and
      write are the bytes of the map.
    * With `encoding: :unicode` characters are UTF-8, as with `File.open(path, [:utf8])`. `:file` and `IO.binread/2`
      then read and write characters up to 255 as bytes, which is seldom meant: use `IO.read/2` and
      `IO.write/2` there. Bytes that are not UTF-8 are an error where they are reached.
    * What it reads are copies, on a `:direct` handle too. What a client sends is copied before it is translated, so
      a live binary is safe there.
    * A function that comes with a request (`:io.fread/3` sends one) runs in the device. Large reads and
      writes run on dirty schedulers.

  ## Beside the process of `File.open/2`

  [Requests to a device](device.md) has all of them side by side. Where the answers differ:

    1. An error is an answer, and the device lives, with its cursor where it was. The process of
       `File.open/2` ends at most errors, and its owner with it.
    2. A request that process crashes at (an encoding that there is not, characters that are none) is
       `{:error, :badarg}`.
    3. A request that is unknown is `{:error, :request}`, as the I/O protocol says, where that process says
       `{:error, {:request, request}}`. `:get_geometry` is `{:error, :enotsup}`.
    4. There is no read-ahead. `:file.truncate/1` cuts at the cursor, where that process cuts behind what it has
       read ahead; what others write to the map is seen by the next read; and invalid UTF-8 is an error
       when it is reached, not up to 8 KB before.
    5. A character that the end of the file cuts off is always an error; that process answers `:eof` when it
       happens to have read it before.
    6. A function that throws, or wants more after `:eof`, is `{:error, function}`; that process takes what was
       thrown for the answer, or asks for ever.
    7. What a map answers differently from a file: `Emmap.File` lists it.
    8. With `binary: true`, what a function makes of the end of the file is a string, too; that process gave a
       list before OTP 27.
  """
  @moduledoc since: "1.0.0-rc.0"

  use GenServer
  import Emmap.Handle, only: [handle: 2]
  alias Emmap.Device.{Characters, FileRequests, IORequests}

  @options [:mem, :encoding, :binary, :owner, :name]

  @typedoc """
    * `:encoding` – `:latin1` (default) or `:unicode`; also the others of `:file.open/2`, such as `{:utf16, :little}`
    * `:binary` – clients get strings (`true`, default), or lists of characters, as Erlang's own devices give
    * `:owner` – the process with which the device ends: by default the one that starts it
    * `:name` – a name for the device, as `GenServer` takes it
  """
  @type option ::
          {:encoding,
           :latin1 | :unicode | :utf8 | :utf16 | :utf32 | {:utf16 | :utf32, :big | :little}}
          | {:binary, boolean}
          | {:owner, pid}
          | {:name, GenServer.name()}

  @doc """
  Starts a device that is linked to the caller: `mem:` is the handle, and the other options are those
  of `t:option/0`. `{:error, :closed}` if the handle is.

      iex> {:ok, mem} = Emmap.open([:anon, size: 10])
      iex> {:ok, device} = Emmap.Device.start_link(mem: mem)
      iex> :file.pwrite(device, 8, "ab")
      :ok
      iex> :file.pread(device, 7, 10)
      {:ok, <<0, ?a, ?b>>}
  """
  @doc group: "Starting", since: "1.0.0-rc.0"
  @spec start_link([option | {:mem, Emmap.t()}]) :: {:ok, pid} | {:error, term}
  def start_link(options), do: start(options, &GenServer.start_link/3)

  @doc "As `start_link/1`, but without a link: this is what `Emmap.device/2` does."
  @doc group: "Starting", since: "1.0.0-rc.0"
  @spec start([option | {:mem, Emmap.t()}]) :: {:ok, pid} | {:error, term}
  def start(options), do: start(options, &GenServer.start/3)

  @doc """
  For a supervisor: `{Emmap.Device, mem: mem, name: MyApp.Log}`.

  The supervisor is the owner. A device that crashes is started again, at position 0, and one that a client
  closes is not (`restart: :transient`).
  """
  @doc group: "Starting", since: "1.0.0-rc.0"
  @spec child_spec([option | {:mem, Emmap.t()}]) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      restart: :transient
    }
  end

  defp start(options, start) do
    device = device!(options)

    # A closed handle is told here: a process that fails to start takes those with it that are linked.
    with {:ok, _} <- Emmap.position(device.mem, :cur) do
      # After a second without requests it gives back what it has read.
      start.(__MODULE__, device, [hibernate_after: 1_000] ++ Keyword.take(options, [:name]))
    end
  end

  defp device!(options) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "options are a keyword list, got #{inspect(options)}"
    end

    for {name, _} <- options, name not in @options do
      raise ArgumentError,
            "unknown option #{inspect(name)}; valid are #{Enum.map_join(@options, ", ", &inspect/1)}"
    end

    mem = Keyword.get(options, :mem)

    %{
      mem: mem,
      owed: nil,
      direct: match?(handle(_, root) when root != nil, mem),
      encoding: encoding!(Keyword.get(options, :encoding, :latin1)),
      binary: binary!(Keyword.get(options, :binary, true)),
      owner: owner!(Keyword.get(options, :owner, self()))
    }
  end

  defp encoding!(name) do
    case Characters.encoding(name) do
      {:ok, encoding} ->
        encoding

      :error ->
        raise ArgumentError,
              ":encoding is :latin1, :unicode, :utf16, :utf32, or {:utf16 | :utf32, :big | :little}, " <>
                "got #{inspect(name)}"
    end
  end

  defp binary!(binary?) when is_boolean(binary?), do: binary?
  defp binary!(other), do: raise(ArgumentError, ":binary is true or false, got #{inspect(other)}")

  defp owner!(owner) when is_pid(owner), do: owner
  defp owner!(other), do: raise(ArgumentError, ":owner is a pid, got #{inspect(other)}")

  @impl true
  def init(device) do
    # Here, so that the handle is of this process alone, and goes with it however it ends.
    case Emmap.dup(device.mem) do
      {:ok, mem} -> {:ok, %{device | mem: mem, owner: Process.monitor(device.owner)}}
      {:error, reason} -> {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_info({:io_request, from, reply_as, request}, device) when is_pid(from) do
    {_outcome, answer, device} = IORequests.handle(request, device)
    reply(from, {:io_reply, reply_as, answer})
    {:noreply, device}
  end

  def handle_info({:file_request, from, reply_as, :close}, device) when is_pid(from) do
    reply(from, {:file_reply, reply_as, Emmap.close(device.mem)})
    {:stop, :normal, device}
  end

  def handle_info({:file_request, from, reply_as, request}, device) when is_pid(from) do
    {answer, device} = FileRequests.handle(request, device)
    reply(from, {:file_reply, reply_as, answer})
    {:noreply, device}
  end

  def handle_info({:DOWN, owner, :process, _pid, _reason}, %{owner: owner} = device),
    do: {:stop, :normal, device}

  def handle_info(_other, device), do: {:noreply, device}

  # Nobody's request: what GenServer would do of itself is to end.
  @impl true
  def handle_call(_request, _from, device), do: {:reply, {:error, :request}, device}

  @impl true
  def handle_cast(_request, device), do: {:noreply, device}

  @impl true
  def terminate(_reason, device), do: Emmap.close(device.mem)

  # A client on a slow line must not hold up the others, and one whose node is gone must not have the
  # device look for that node.
  defp reply(from, message) when node(from) == node(), do: send(from, message)

  defp reply(from, message) do
    with :nosuspend <- :erlang.send(from, message, [:noconnect, :nosuspend]),
         do: spawn(:erlang, :send, [from, message, [:noconnect]])
  end
end
