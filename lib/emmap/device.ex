defmodule Emmap.Device do
  @moduledoc """
  A process that makes a map usable as an I/O device: for `IO.puts/2` and `:io.format/3`, and for other nodes.

  `Emmap.device/2` starts one. A handle works only on its own node, and only with functions that read and write bytes. A
  device speaks the protocols of an opened file, as the process that `File.open/2` starts does. Therefore it works with
  everything that takes a pid: `IO.puts/2`, `IO.read/2`, `IO.stream/2`, `:io.format/3`, `:io.fread/3`, `:file.pread/3`,
  `File.close/1`. It can be a group leader, and it serves clients on any node, over Erlang distribution.

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

    * A device has its own cursor, which begins at 0, and its own `close` (see `Emmap.dup/1`). Therefore no other
      process can move the cursor during a request, and closing the device does not close the map for others.
    * It serves one request after the other, so each client's `IO.puts/2` is written as a whole. A client that
      has stopped, or whose node is unreachable, does not delay the others.
    * A request takes two messages, and a few microseconds in total. The same call on the handle takes far less than one
      microsecond. If you have the handle and need only bytes, use the handle.
    * A device ends with its owner, and then closes its handle. Pending and later requests
      return `{:error, :terminated}`, as `:io` returns for a dead process or node.
    * With `encoding: :latin1`, the default, a character is a byte, as with `File.open/2`. For characters above 255, the
      result is `{:error, {:no_translation, :unicode, :latin1}}`. `:file` and `IO.binread/2` read and write the bytes of
      the map.
    * With `encoding: :unicode`, characters are UTF-8, as with `File.open(path, [:utf8])`. `:file` and `IO.binread/2`
      then read and write characters up to 255 as bytes, which is rarely intended: use `IO.read/2` and `IO.write/2`
      instead. Bytes that are not UTF-8 cause an error when they are reached.
    * Reads return copies, even on a `:direct` handle. Data from a client is copied before it is translated, so a
      client on the same node can safely send live binaries.
    * A function in a request (`:io.fread/3` sends one) runs in the device. Large reads and
      writes run on dirty schedulers.

  ## Differences from a device of `File.open/2`

  The page [Requests to a device](device.md) compares the replies to all requests. In this list of the differences,
  *the OTP device* is the process that `File.open/2` starts:

    1. An error is returned to the client. The device continues, with its cursor unchanged. The OTP device ends on
       most errors, which also ends its owner.
    2. Requests that crash the OTP device (an encoding that does not exist, or invalid characters) return
       `{:error, :badarg}`.
    3. An unknown request returns `{:error, :request}`, as the I/O protocol specifies; the OTP device returns
       `{:error, {:request, request}}`. `:get_geometry` returns `{:error, :enotsup}`.
    4. The device does not read ahead. `:file.truncate/1` truncates at the cursor, whereas the OTP device truncates
       after the data that it has read ahead. The next read sees what others write to the map. Invalid UTF-8 is an
       error when it is reached, not up to 8 KiB before.
    5. An incomplete character at the end of the file is always an error. The OTP device returns `:eof` if it has
       already read the incomplete character ahead.
    6. If the function of a request throws, or asks for more after `:eof`, the request returns `{:error, function}`,
       where `function` is its name. The OTP device uses the thrown value as the result, or calls the function forever.
    7. Maps differ from files as described in `Emmap.File`.
    8. With `binary: true`, the characters that a function in a request returns are a string even at the end of the
       file. Before OTP 27, the OTP device returned a list.
  """

  # Without `use GenServer`, whose child_spec/1 names its argument `init_arg`.
  @behaviour GenServer
  import Emmap.Handle, only: [handle: 2]
  alias Emmap.Device.{Characters, FileRequests, IORequests}
  alias Emmap.OptionList

  @options [
    # A term that is not a handle is refused by the first call with it.
    mem: {&__MODULE__.any?/1, "a handle"},
    encoding:
      {&__MODULE__.encoding?/1,
       ":latin1 | :unicode | :utf8 | :utf16 | :utf32 | {:utf16 | :utf32, :big | :little}"},
    binary: {&is_boolean/1, "true | false"},
    owner: {&is_pid/1, "a pid"},
    # `GenServer` checks it.
    name: {&__MODULE__.any?/1, "a name"}
  ]

  @typedoc """
    * `:encoding` – `:latin1` (default) or `:unicode`; also the others of `:file.open/2`, such as `{:utf16, :little}`
    * `:binary` – whether clients get strings (`true`, the default) or lists of characters (`false`), as from Erlang's
      own devices
    * `:owner` – the process with which the device ends; by default, the process that starts it
    * `:name` – a name for the device, as for a `GenServer`
  """
  @type option ::
          {:encoding,
           :latin1 | :unicode | :utf8 | :utf16 | :utf32 | {:utf16 | :utf32, :big | :little}}
          | {:binary, boolean}
          | {:owner, pid}
          | {:name, GenServer.name()}

  @doc """
  Starts a device that is linked to the caller.

  The option `:mem` is the handle; the other options are those of `t:option/0`. Returns `{:error, :closed}` if the
  handle is closed.

      iex> {:ok, mem} = Emmap.open([:anon, size: 10])
      iex> {:ok, device} = Emmap.Device.start_link(mem: mem)
      iex> :file.pwrite(device, 8, "ab")
      :ok
      iex> :file.pread(device, 7, 10)
      {:ok, <<0, ?a, ?b>>}
  """
  @doc group: "Starting"
  @spec start_link([option | {:mem, Emmap.t()}]) :: {:ok, pid} | {:error, term}
  def start_link(options), do: start(options, &GenServer.start_link/3)

  @doc "Starts a device without a link; otherwise the same as `start_link/1`. `Emmap.device/2` calls it."
  @doc group: "Starting"
  @spec start([option | {:mem, Emmap.t()}]) :: {:ok, pid} | {:error, term}
  def start(options), do: start(options, &GenServer.start/3)

  @doc """
  Returns a child specification, for `{Emmap.Device, mem: mem, name: MyApp.Log}` in a supervisor.

  The supervisor is the owner. A device that crashes is restarted at position 0. A device that a client
  closes is not restarted (`restart: :transient`).
  """
  @doc group: "Starting"
  @spec child_spec([option | {:mem, Emmap.t()}]) :: Supervisor.child_spec()
  def child_spec(options) do
    OptionList.once!(options)

    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      restart: :transient
    }
  end

  defp start(options, start) do
    device = device!(options)

    # A closed handle is detected here, because a process that fails to start also ends the processes linked to it.
    with {:ok, _} <- Emmap.position(device.mem, :cur) do
      # After a second without requests, it releases the memory of what it has read.
      start.(__MODULE__, device, [hibernate_after: 1_000] ++ Keyword.take(options, [:name]))
    end
  end

  defp device!(options) do
    given = OptionList.check!(options, @options)
    mem = Map.get(given, :mem)
    {:ok, encoding} = given |> Map.get(:encoding, :latin1) |> Characters.encoding()

    %{
      mem: mem,
      owed: nil,
      direct: match?(handle(_, root) when root != nil, mem),
      encoding: encoding,
      binary: Map.get(given, :binary, true),
      owner: Map.get(given, :owner, self())
    }
  end

  @doc false
  def any?(_value), do: true
  @doc false
  def encoding?(name), do: Characters.encoding(name) != :error

  @impl true
  def init(device) do
    # Opened here, so that the handle belongs only to this process and is released however the process ends.
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

  # An unknown message: by default, a GenServer would end.
  @impl true
  def handle_call(_request, _from, device), do: {:reply, {:error, :request}, device}

  @impl true
  def handle_cast(_request, device), do: {:noreply, device}

  @impl true
  def terminate(_reason, device), do: Emmap.close(device.mem)

  # A slow client must not delay the others, and an unreachable client must not make the device
  # connect to its node.
  defp reply(from, message) when node(from) == node(), do: send(from, message)

  defp reply(from, message) do
    with :nosuspend <- :erlang.send(from, message, [:noconnect, :nosuspend]),
         do: spawn(:erlang, :send, [from, message, [:noconnect]])
  end
end
