defmodule Emmap.Collected do
  @moduledoc false
  # An open that is refused because of handles or live binaries that no process can reach any more is tried once
  # more, after they were collected.

  # Descriptors of handles that were never closed; live binaries of a file that is to be truncated.
  @reasons [:emfile, :lent]

  @spec retry((() -> answer)) :: answer when answer: term
  def retry(call) do
    case call.() do
      {:error, reason} when reason in @reasons ->
        :erlang.garbage_collect()
        with {:error, :lent} <- call.(), do: {:error, :ebusy}

      answer ->
        answer
    end
  end
end
