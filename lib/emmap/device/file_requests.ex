defmodule Emmap.Device.FileRequests do
  @moduledoc false
  # The requests that `:file` sends to a pid. Bytes are sent as Latin-1 characters.

  alias Emmap.Device.{IORequests, Reader}

  @spec handle(term, Reader.source()) :: {term, Reader.source()}
  def handle(request, device) when request == :truncate, do: at_cursor(request, device)

  def handle(request, device) when elem(request, 0) in [:pread, :pwrite, :position],
    do: at_cursor(request, device)

  def handle(request, device), do: {perform(request, device), device}

  defp at_cursor(request, device),
    do: Reader.unmoved(device, fn -> perform(request, device) end)

  defp perform(request, device) do
    answer(request, device)
  rescue
    # Invalid numbers and the like.
    _ in [ArgumentError, FunctionClauseError] -> {:error, :badarg}
  end

  # These two move the cursor, as in `file_io_server`.

  defp answer({:pread, at, count}, device) do
    with {:ok, _} <- Emmap.position(device.mem, at), do: Reader.characters(device, count, :latin1)
  end

  defp answer({:pwrite, at, data}, device) do
    with {:ok, _} <- Emmap.position(device.mem, at), do: IORequests.put(data, :latin1, device)
  end

  defp answer({:position, at}, device), do: Emmap.position(device.mem, at)
  defp answer(:truncate, device), do: Emmap.truncate(device.mem)
  defp answer(:sync, device), do: Emmap.sync(device.mem)
  defp answer(:datasync, device), do: Emmap.datasync(device.mem)

  defp answer({:advise, at, count, advice}, device),
    do: Emmap.advise(device.mem, at, count, advice)

  defp answer({:allocate, at, count}, device), do: Emmap.allocate(device.mem, at, count)

  defp answer({:read_handle_info, options}, device),
    do: Emmap.File.read_handle_info(device.mem, options)

  defp answer(_unknown, _device), do: {:error, :request}
end
