defmodule Emmap.Queue.Owner do
  @moduledoc false
  # Has a queue open for as long as it lives, and gives it a name.

  use GenServer

  alias Emmap.Queue

  def start_link(options) do
    {name, options} = Keyword.pop(options, :name)
    {path, options} = Keyword.pop(options, :path)

    unless path,
      do: raise(ArgumentError, "path: is required, the file of the queue")

    unless is_atom(name),
      do: raise(ArgumentError, "name: must be an atom, got #{inspect(name)}")

    GenServer.start_link(__MODULE__, {path, options, name})
  end

  @impl true
  def init({path, options, name}) do
    Process.flag(:trap_exit, true)

    case Queue.open(path, options) do
      {:ok, queue} ->
        if name, do: :persistent_term.put({Queue, name}, queue)
        {:ok, {queue, name}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  @impl true
  def terminate(_reason, {queue, name}) do
    if name, do: :persistent_term.erase({Queue, name})
    Queue.close(queue)
  end
end
