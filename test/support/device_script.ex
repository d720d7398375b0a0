defmodule Emmap.Test.DeviceScript do
  @moduledoc """
  Runs the same code on a device of `:file.open/2` and on a device of Emmap, on two copies of a file.
  """

  defmodule Seen do
    @moduledoc "The results of one of them, and the state it left: the bytes of the file, the cursor, whether it is alive."
    defstruct [:answer, :bytes, :cursor, :alive]
  end

  @doc """
  `code` is run with `d` bound to the device and `other` to the path of another file, and the helpers
  below imported. Options: `:encoding`, `:binary`, `:access` (`:read` for a file that is not written).
  """
  def both(directory, content, code, options) do
    {run(directory, content, code, options, &theirs/2),
     run(directory, content, code, options, &ours/2)}
  end

  defp run(directory, content, code, options, open) do
    path = Path.join(directory, "file")
    other = Path.join(directory, "other")
    File.write!(path, content)
    File.write!(other, "other\n")
    {:ok, device} = open.(path, options)
    answer = answer(code, device, other)
    # A process that ends after its reply gets the time for that.
    alive = not match?({:error, :terminated}, io(device, :getopts))
    cursor = if alive, do: elem(:file.position(device, :cur), 1)
    :file.close(device)
    %Seen{answer: answer, bytes: File.read!(path), cursor: cursor, alive: alive}
  end

  @prelude "import Emmap.Test.DeviceScript, only: [io: 2, file: 2, leader: 2]\n"

  defp answer(code, device, other) do
    {answer, _} = Code.eval_string(@prelude <> code, d: device, other: other)
    answer
  rescue
    error -> {:raised, raised(error)}
  end

  defp raised(%ErlangError{original: reason}), do: "`ErlangError` with `#{inspect(reason)}`"
  defp raised(%module{}), do: "`#{inspect(module)}`"

  @doc "Opens a file as `File.open/2` does."
  def theirs(path, options) do
    access = if options[:access] == :read, do: [:read], else: [:read, :write]
    mode = if Keyword.get(options, :binary, true), do: [:binary], else: []
    :file.open(path, access ++ mode ++ [encoding: Keyword.get(options, :encoding, :latin1)])
  end

  @doc "Maps it and starts a device."
  def ours(path, options) do
    map = if options[:access] == :read, do: [], else: [:write]
    mem = Emmap.open!(path, map ++ Keyword.get(options, :map, []))
    Emmap.device(mem, Keyword.take(options, [:encoding, :binary]))
  end

  @doc "Sends a request of the I/O protocol as it is."
  def io(device, request), do: ask(device, :io_request, :io_reply, request)

  @doc "Sends a request of `:file` as it is."
  def file(device, request), do: ask(device, :file_request, :file_reply, request)

  defp ask(device, request_tag, reply_tag, request) do
    monitor = Process.monitor(device)
    send(device, {request_tag, self(), monitor, request})

    receive do
      {^reply_tag, ^monitor, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, _, _, _} ->
        {:error, :terminated}
    end
  end

  @doc "Runs `fun` with the device as group leader."
  def leader(device, fun) do
    before = Process.group_leader()
    Process.group_leader(self(), device)

    try do
      fun.()
    after
      Process.group_leader(self(), before)
    end
  end
end
