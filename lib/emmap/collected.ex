defmodule Emmap.Collected do
  @moduledoc false
  # What is refused because of handles or live binaries that nobody can reach any more is tried once more, after they
  # were collected.

  # Descriptors of handles that were never closed; live binaries of a file that is to be truncated.
  @reasons [:emfile, :ebusy]

  @spec retry((() -> answer)) :: answer when answer: term
  def retry(call) do
    case call.() do
      {:error, reason} when reason in @reasons ->
        :erlang.garbage_collect()
        call.()

      answer ->
        answer
    end
  end
end
