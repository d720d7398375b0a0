defmodule Emmap.StructureOwner do
  @moduledoc false
  # Keeps a structure open for as long as it lives, and gives it a name.

  use GenServer

  alias Emmap.Structure

  @spec start_link(module, keyword) :: GenServer.on_start()
  def start_link(module, options) do
    {name, options} = Keyword.pop(options, :name)
    {path, options} = Keyword.pop(options, :path)

    unless path,
      do: raise(ArgumentError, "path: is required, the file of #{inspect(module)}")

    unless is_atom(name),
      do: raise(ArgumentError, "name: must be an atom, got #{inspect(name)}")

    GenServer.start_link(__MODULE__, {module, path, options, name})
  end

  @doc "The structure that was started with a name."
  @spec named!(module, atom) :: Structure.t()
  def named!(module, name) do
    case :persistent_term.get({module, name}, nil) do
      nil ->
        raise ArgumentError, "no #{inspect(module)} is started with the name #{inspect(name)}"

      structure ->
        structure
    end
  end

  @impl true
  def init({module, path, options, name}) do
    Process.flag(:trap_exit, true)

    case module.open(path, options) do
      {:ok, structure} ->
        if name, do: :persistent_term.put({module, name}, structure)
        {:ok, {module, structure, name}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  @impl true
  def terminate(_reason, {module, structure, name}) do
    if name, do: :persistent_term.erase({module, name})
    module.close(structure)
  end
end
