defmodule Emmap.Collected do
  @moduledoc false
  # An open that is refused because of handles or live binaries that no process can reach any more is tried once
  # more, after they were collected. One that another program must give the file up for (a lease) is tried until it has.

  # Descriptors of handles that were never closed; live binaries of a file that is to be truncated.
  @reasons [:emfile, :lent]

  # A lease (fcntl(2), as Samba and NFS servers take them) ends when its holder has done what it wants to do first. The
  # refused open has told it. The kernel takes the lease away after 45 seconds (/proc/sys/fs/lease-break-time).
  @patience 10_000
  @longest_pause 50

  @spec retry((() -> answer)) :: answer when answer: term
  def retry(call) do
    case call.() do
      {:error, :eagain} -> wait(call, 1, System.monotonic_time(:millisecond) + @patience)
      answer -> collect(answer, call)
    end
  end

  # Here, and not in the native code, where it would occupy a thread that others wait for.
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
