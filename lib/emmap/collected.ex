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

  @spec retry((() -> answer)) :: answer when answer: term
  def retry(call) do
    case call.() do
      {:error, :eagain} -> wait(call, 1, now() + @patience)
      answer -> collect(answer, call)
    end
  end

  # Waits here and not in native code, where it would occupy a thread that other calls need.
  defp wait(call, pause, until) do
    sleep(pause)

    case call.() do
      {:error, :eagain} ->
        if now() < until,
          do: wait(call, min(pause * 2, @longest_pause), until),
          else: {:error, :ebusy}

      answer ->
        collect(answer, call)
    end
  end

  defp collect({:error, reason}, call) when reason in @reasons do
    :erlang.garbage_collect()
    collected(call.(), call, @pauses)
  end

  defp collect(answer, _call), do: answer

  defp collected({:error, reason}, call, [pause | pauses]) when reason in [:eagain | @reasons] do
    sleep(pause)
    collected(call.(), call, pauses)
  end

  defp collected({:error, reason}, _call, []) when reason in [:eagain, :lent],
    do: {:error, :ebusy}

  defp collected(answer, _call, _pauses), do: answer

  # Without descriptors, no module can be loaded, not even Elixir's own.
  defp sleep(milliseconds) do
    receive after: (milliseconds -> :ok)
  end

  defp now, do: :erlang.monotonic_time(:millisecond)
end
