defmodule Emmap.Test.FileServer do
  @moduledoc "Serves the files of one folder on 127.0.0.1, as far as a download asks; tells what was asked for."

  @doc "The port. The server ends with the caller, to whom it sends `{:asked, name}`."
  def start!(folder) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false, packet: :http_bin])

    {:ok, port} = :inet.port(listener)
    caller = self()
    server = spawn_link(fn -> receive(do: (:go -> serve(listener, folder, caller))) end)
    :ok = :gen_tcp.controlling_process(listener, server)
    send(server, :go)
    port
  end

  defp serve(listener, folder, caller) do
    {:ok, socket} = :gen_tcp.accept(listener)
    {:ok, {:http_request, :GET, {:abs_path, "/" <> name}, _}} = :gen_tcp.recv(socket, 0, 10_000)
    send(caller, {:asked, name})

    answer =
      case File.read(Path.join(folder, name)) do
        {:ok, data} -> ["HTTP/1.0 200 OK\r\nContent-Length: #{byte_size(data)}\r\n\r\n", data]
        {:error, _} -> "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"
      end

    :ok = :gen_tcp.send(socket, answer)
    :gen_tcp.shutdown(socket, :write)
    # Until the other has closed, or what was sent may be lost.
    drain(socket)
    serve(listener, folder, caller)
  end

  defp drain(socket) do
    with {:ok, _} <- :gen_tcp.recv(socket, 0, 5_000), do: drain(socket)
    :gen_tcp.close(socket)
  end
end
