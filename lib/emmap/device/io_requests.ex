defmodule Emmap.Device.IORequests do
  @moduledoc false
  # The requests of the I/O protocol, and the replies to them.

  # A client on this node may send live binaries. They are copied before they are translated, and
  # before a function of the client gets them.

  import Emmap.Copied
  alias Emmap.Device.{Characters, Reader}

  # `:error` stops a list of requests. A result `{:error, _}` of the request itself does not.
  @type outcome :: {:ok | :error, term, Reader.source()}

  @spec handle(term, Reader.source()) :: outcome
  def handle({:put_chars, encoding, characters}, device),
    do: in_encoding(encoding, device, &put(characters, &1, device))

  def handle({:put_chars, encoding, module, function, arguments}, device) do
    in_encoding(encoding, device, fn encoding ->
      case called(module, function, arguments) do
        {:ok, characters} when is_list(characters) or is_binary(characters) ->
          put(characters, encoding, device)

        _ ->
          {:error, function}
      end
    end)
  end

  # The prompt is ignored, because it is for terminals.
  def handle({:get_chars, encoding, _prompt, count}, device),
    do: in_encoding(encoding, device, &Reader.characters(device, count, &1))

  def handle({:get_line, encoding, _prompt}, device),
    do: in_encoding(encoding, device, &Reader.line(device, &1))

  def handle({:get_until, encoding, _prompt, module, function, arguments}, device),
    do: in_encoding(encoding, device, &until(device, &1, module, function, arguments))

  def handle({:setopts, options}, device) when is_list(options), do: set(options, %{}, device)

  def handle(:getopts, device),
    do: {:ok, [binary: device.binary, encoding: device.encoding], device}

  def handle({:get_geometry, _what}, device), do: {:error, {:error, :enotsup}, device}

  def handle({:requests, requests}, device) when is_list(requests),
    do: each(requests, {:ok, :ok, device})

  # The requests of nodes before R13: everything is Latin-1.

  def handle({:put_chars, characters}, device),
    do: handle({:put_chars, :latin1, characters}, device)

  def handle({:put_chars, module, function, arguments}, device),
    do: handle({:put_chars, :latin1, module, function, arguments}, device)

  def handle({:get_chars, prompt, count}, device),
    do: handle({:get_chars, :latin1, prompt, count}, device)

  def handle({:get_line, prompt}, device), do: handle({:get_line, :latin1, prompt}, device)

  def handle({:get_until, prompt, module, function, arguments}, device),
    do: handle({:get_until, :latin1, prompt, module, function, arguments}, device)

  def handle(_unknown, device), do: {:error, {:error, :request}, device}

  @doc "Writes characters at the cursor."
  @spec put(term, Characters.encoding(), Reader.source()) :: :ok | {:error, term}
  def put(characters, encoding, device) do
    with {:ok, bytes} <- translated(characters, encoding, device.encoding),
         do: Emmap.write(device.mem, bytes)
  end

  # Bytes are not translated, because the write reads them only once.
  defp translated(characters, :latin1, :latin1),
    do: Characters.translate(characters, :latin1, :latin1)

  defp translated(characters, from, to), do: Characters.translate(copied(characters), from, to)

  defp in_encoding(name, device, request) do
    with {:ok, encoding} <- Characters.encoding(name) do
      case Reader.unmoved(device, fn -> request.(encoding) end) do
        {{:ok, answer}, device} -> {:ok, answer, device}
        {{:error, _} = error, device} -> {:error, error, device}
        {{:failed, answer}, device} -> {:error, answer, device}
        {answer, device} -> {:ok, answer, device}
      end
    else
      :error -> {:error, {:error, :badarg}, device}
    end
  end

  # A function of the client, which may do anything.
  defp called(module, function, arguments) do
    {:ok, apply(module, function, copied(arguments))}
  catch
    _kind, _reason -> :failed
  end

  defp until(device, to, module, function, arguments) do
    arguments = copied(arguments)
    Reader.until(device, to, &apply(module, function, [&1, &2 | arguments]))
  catch
    _kind, _reason -> {:error, function}
  else
    {:stuck, continuation} -> {:failed, stuck(module, function, continuation)}
    answer -> answer
  end

  # A scan error includes the position, as in `file_io_server`, whose `format_error/1` expects the reason in this form.
  defp stuck(:erl_scan, :tokens, continuation) when continuation != [] do
    location = :erl_scan.continuation_location(continuation)
    {:error, {location, :file_io_server, :invalid_unicode}, location}
  end

  defp stuck(_module, function, _continuation), do: {:error, function}

  defp each([], outcome), do: outcome
  defp each([request | rest], {:ok, _answer, device}), do: each(rest, handle(request, device))
  defp each(_improper, {:ok, _answer, device}), do: {:error, {:error, :request}, device}
  defp each(_rest, outcome), do: outcome

  # Sets all options or none. Of duplicates, the first counts, as in OTP's property lists.
  defp set([], changes, device), do: {:ok, :ok, Map.merge(device, changes)}

  defp set([option | rest], changes, device) do
    case option(option) do
      {:error, _} = error -> {:error, error, device}
      change -> set(rest, Map.merge(change, changes), device)
    end
  end

  defp set(_improper, _changes, device), do: {:error, {:error, :enotsup}, device}

  defp option(:binary), do: %{binary: true}
  defp option(:list), do: %{binary: false}
  defp option({:binary, binary?}) when is_boolean(binary?), do: %{binary: binary?}
  defp option({:list, list?}) when is_boolean(list?), do: %{binary: not list?}
  defp option(name) when name in [:latin1, :unicode], do: option({:encoding, name})

  defp option({:encoding, name}) do
    case Characters.encoding(name) do
      {:ok, encoding} -> %{encoding: encoding}
      :error -> {:error, :badarg}
    end
  end

  defp option(_other), do: {:error, :enotsup}
end
