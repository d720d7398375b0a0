defmodule Emmap.Test.Quiet do
  @moduledoc "Keeps out of the log what a test provokes."

  @doc "Drops what is logged with `word` in it, until the test (or all of them, in `setup_all`) has run."
  def logs(word) do
    id = String.to_atom(word)

    drop = fn event, _ ->
      if inspect(event, limit: :infinity) =~ word, do: :stop, else: :ignore
    end

    :ok = :logger.add_primary_filter(id, {drop, []})
    ExUnit.Callbacks.on_exit(fn -> :logger.remove_primary_filter(id) end)
  end
end
