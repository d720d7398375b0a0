defmodule Emmap.Word do
  @moduledoc false
  # Waits for a word of a map to change: a native thread waits on behalf of the process, and sends it a message.

  alias Emmap.{Native, OptionList}

  @longest 0xFFFF_FFFF

  @spec wait(reference, integer, integer, timeout) :: {:ok, integer} | Emmap.failure()
  def wait(ref, position, expected, timeout),
    do: wait(timeout, &Native.word_wait(ref, position, expected, &1))

  @doc "`request` is given the tag of the message."
  @spec wait(timeout, (reference -> integer | {:ok, reference} | Emmap.failure())) ::
          {:ok, integer} | Emmap.failure()
  def wait(timeout, request) do
    timeout!(timeout)
    # Created here, so that the VM does not search the older messages.
    tag = make_ref()

    case request.(tag) do
      {:ok, waiter} ->
        receive do
          {^tag, result} -> result
        after
          timeout ->
            if Native.word_cancel(waiter) do
              {:error, :etimedout}
            else
              receive do
                {^tag, result} -> result
              end
            end
        end

      value when is_integer(value) ->
        {:ok, value}

      {:error, _} = error ->
        error
    end
  end

  @doc "Raises unless a `receive` accepts this timeout."
  @spec timeout!(term) :: :ok
  def timeout!(timeout) when timeout == :infinity or timeout in 0..@longest, do: :ok

  def timeout!(other),
    do: OptionList.wrong!(:timeout, other, "milliseconds, 0 to #{@longest}, or :infinity")
end
