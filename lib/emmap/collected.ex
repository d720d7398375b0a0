defmodule Emmap.Collected do
  @moduledoc false
  # If an open is refused because of handles or live binaries that no process can reach any more, they are collected, and
  # the open is tried again. If another program holds a lease on the file, the open is tried until it gives it up.

  # Descriptors and addresses of handles that were never closed; live binaries of a file that would be truncated.
  @reasons [:emfile, :enfile, :enomem, :lent]

  # The VM calls destructors some time after the collection, each after the one of the resource that referred to its own,
  # and a large map is released on another thread.
  @pauses [1, 2, 4, 8, 16, 32, 64]

  # A lease (fcntl(2), as Samba and NFS servers take them) ends when its holder has finished its work with the file. The
  # refused open has notified it. The kernel breaks the lease after 45 seconds (/proc/sys/fs/lease-break-time).
  @patience 10_000
  @longest_pause 50

  @first %{reasons: @reasons, pauses: nil, until: nil, pause: 1}

  @doc "Returns what `call` returns, once it is not refused for any of the reasons above. `more` are other reasons to collect."
  @spec retry((() -> answer), [atom]) :: answer when answer: term
  def retry(call, more \\ []) do
    case call.() do
      {:error, _} = refused -> again(refused, call, %{@first | reasons: more ++ @reasons})
      answer -> answer
    end
  end

  # Waits here and not in native code, where it would occupy a thread that other calls need.
  defp again({:error, :eagain}, call, %{until: until, pause: pause} = state) do
    until = until || now() + @patience

    if now() < until do
      sleep(pause)
      again(call.(), call, %{state | until: until, pause: min(pause * 2, @longest_pause)})
    else
      {:error, :ebusy}
    end
  end

  defp again({:error, reason} = refused, call, %{reasons: reasons, pauses: pauses} = state) do
    cond do
      not :lists.member(reason, reasons) ->
        refused

      pauses == nil ->
        :erlang.garbage_collect()
        again(call.(), call, %{state | pauses: @pauses})

      pauses != [] ->
        sleep(hd(pauses))
        again(call.(), call, %{state | pauses: tl(pauses)})

      reason == :lent ->
        {:error, :ebusy}

      true ->
        refused
    end
  end

  defp again(answer, _call, _state), do: answer

  # Without descriptors, no module can be loaded, not even Elixir's own.
  defp sleep(milliseconds) do
    receive after: (milliseconds -> :ok)
  end

  defp now, do: :erlang.monotonic_time(:millisecond)
end
