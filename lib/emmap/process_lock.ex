defmodule Emmap.ProcessLock do
  @moduledoc false
  # A lock that processes of any program hold: see native/emmap_core/src/process_lock.rs.

  alias Emmap.{Native, Word}

  @type received :: :ok | :abandoned
  @type failure :: {:error, :closed | :file.posix() | :inet.posix()}

  @spec lock(reference, timeout) :: received | failure
  def lock(ref, timeout) do
    :ok = Word.timeout!(timeout)
    # Created here, so that the VM does not search the older messages.
    tag = make_ref()

    case Native.lock_request(ref, tag, timeout != 0) do
      {:wait, number} ->
        receive do
          {^tag, result} -> received(ref, number, result)
        after
          timeout ->
            if Native.lock_cancel(ref, number) do
              {:error, :etimedout}
            else
              receive do
                {^tag, result} -> received(ref, number, result)
              end
            end
        end

      :taken ->
        {:error, :etimedout}

      result ->
        result
    end
  end

  defp received(ref, number, {:error, _} = error) do
    :ok = Native.lock_forget(ref, number)
    error
  end

  defp received(_ref, _number, result), do: result

  @spec try_lock(reference) :: received | failure
  def try_lock(ref) do
    case Native.lock_request(ref, make_ref(), false) do
      :taken -> {:error, :ebusy}
      result when result in [:ok, :abandoned] -> result
      {:error, _} = error -> error
    end
  end

  @doc "`clean?`: what the lock protects is consistent."
  @spec unlock(reference, boolean) :: :ok | failure
  def unlock(ref, clean?), do: Native.lock_release(ref, clean?)

  @doc "If `fun` does not return, the lock is released as abandoned, unless `clean: true`."
  @spec with_lock(reference, timeout, (received -> result), keyword) :: {:ok, result} | failure
        when result: term
  def with_lock(ref, timeout, fun, options \\ []) do
    case lock(ref, timeout) do
      {:error, _} = error ->
        error

      received ->
        try do
          fun.(received)
        catch
          kind, reason ->
            _ = unlock(ref, Keyword.get(options, :clean, false))
            :erlang.raise(kind, reason, __STACKTRACE__)
        else
          result -> with :ok <- unlock(ref, true), do: {:ok, result}
        end
    end
  end
end
