defmodule Emmap.Device.FileRequests do
  @moduledoc false
  # The requests that `:file` sends to a pid. Bytes come and go as characters of latin1.

  alias Emmap.Device.{IORequests, Reader}

  @spec handle(term, Reader.source()) :: term
  def handle(request, device) do
    perform(request, device)
  rescue
    # Numbers that are none, and the like.
    _ in [ArgumentError, FunctionClauseError] -> {:error, :badarg}
  end

  # As `file_io_server` does it, these two move the cursor.

  defp perform({:pread, at, count}, device) do
    Reader.unmoved(device, fn ->
      with {:ok, _} <- Emmap.position(device.mem, at),
           do: Reader.characters(device, count, :latin1)
    end)
  end

  defp perform({:pwrite, at, data}, device) do
    Reader.unmoved(device, fn ->
      with {:ok, _} <- Emmap.position(device.mem, at), do: IORequests.put(data, :latin1, device)
    end)
  end

  defp perform({:position, at}, device), do: Emmap.position(device.mem, at)
  defp perform(:truncate, device), do: Emmap.truncate(device.mem)
  defp perform(:sync, device), do: Emmap.sync(device.mem)
  defp perform(:datasync, device), do: Emmap.datasync(device.mem)

  defp perform({:advise, at, count, advice}, device),
    do: Emmap.advise(device.mem, at, count, advice)

  defp perform({:allocate, at, count}, device), do: Emmap.allocate(device.mem, at, count)

  defp perform({:read_handle_info, options}, device),
    do: Emmap.File.read_handle_info(device.mem, options)

  defp perform(_unknown, _device), do: {:error, :request}
end
