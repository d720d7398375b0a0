defmodule Emmap.Collected do
  @moduledoc false
  # If an open is refused because of handles or live binaries that no process can reach any more, they are collected, and
  # the open is tried once more. If another program holds a lease on the file, the open is tried until it gives it up.

  # Descriptors of handles that were never closed; live binaries of a file that would be truncated.
  @reasons [:emfile, :lent]

  # A lease (fcntl(2), as Samba and NFS servers take them) ends when its holder has finished its work with the file. The
  # refused open has notified it. The kernel breaks the lease after 45 seconds (/proc/sys/fs/lease-break-time).
  @patience 10_000
  @longest_pause 50

  @spec retry((() -> answer)) :: answer when answer: term
  def retry(call) do
    case call.() do
      {:error, :eagain} -> wait(call, 1, System.monotonic_time(:millisecond) + @patience)
      answer -> collect(answer, call)
    end
  end

  # Waits here and not in native code, where it would occupy a thread that other calls need.
  defp wait(call, pause, until) do
    Process.sleep(pause)

    case call.() do
      {:error, :eagain} ->
        if System.monotonic_time(:millisecond) < until,
          do: wait(call, min(pause * 2, @longest_pause), until),
          else: {:error, :ebusy}

      answer ->
        collect(answer, call)
    end
  end

  defp collect(answer, call) do
    case answer do
      {:error, reason} when reason in @reasons ->
        :erlang.garbage_collect()
        with {:error, :lent} <- call.(), do: {:error, :ebusy}

      answer ->
        answer
    end
  end
end
