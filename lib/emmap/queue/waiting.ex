defmodule Emmap.Queue.Waiting do
  @moduledoc false
  # Waiting for items or space: a process registers, tries once more, and gets a message when it should try again.

  alias Emmap.Native

  @doc """
  Calls `try` until it returns something other than `again`, for at most `timeout` milliseconds.
  """
  @spec retry(reference, boolean, timeout, result, (() -> result)) :: result when result: term
  def retry(ref, space?, timeout, again, try) do
    case try.() do
      ^again when timeout != 0 -> wait(ref, space?, deadline(timeout), again, try)
      result -> result
    end
  end

  defp wait(ref, space?, deadline, again, try) do
    with {:ok, ticket} <- Native.queue_wait(ref, space?) do
      # This sees everything before the registration; everything after it sends a message.
      case try.() do
        ^again ->
          receive do
            {:emmap_queue, ^ticket} -> wait(ref, space?, deadline, again, try)
          after
            left(deadline) ->
              stop(ref, space?, ticket)
              try.()
          end

        result ->
          stop(ref, space?, ticket)
          result
      end
    end
  end

  # Leaves no message in the mailbox.
  defp stop(ref, space?, ticket) do
    unless Native.queue_stop_waiting(ref, space?, ticket) do
      receive do
        {:emmap_queue, ^ticket} -> :ok
      end
    end
  end

  @doc "Waits until everything that was done so far is on the disk. All waiting processes share one sync."
  @spec durable(reference) :: :ok | {:error, term}
  def durable(ref) do
    with {:ok, ticket} <- Native.queue_durable(ref) do
      receive do
        {:emmap_queue, ^ticket, result} -> result
      end
    end
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end
