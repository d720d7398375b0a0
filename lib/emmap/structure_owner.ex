defmodule Emmap.StructureOwner do
  @moduledoc false
  # Keeps a structure open for as long as it lives, and gives it a name.

  use GenServer

  alias Emmap.{OptionList, Structure}

  @doc "`open` is given the path and the options that are left."
  @spec start_link(module, keyword, (path, keyword -> {:ok, Structure.t()} | {:error, term})) ::
          GenServer.on_start()
        when path: Path.t() | :file.name_all()
  def start_link(module, options, open) do
    OptionList.once!(options)
    {name, options} = Keyword.pop(options, :name)
    {path, options} = Keyword.pop(options, :path)

    unless path,
      do: raise(ArgumentError, "path: is required, the file of #{inspect(module)}")

    unless is_atom(name),
      do: raise(ArgumentError, "name: must be an atom, got #{inspect(name)}")

    GenServer.start_link(__MODULE__, {module, fn -> open.(path, options) end, name})
  end

  @spec child_spec(module, keyword) :: Supervisor.child_spec()
  def child_spec(module, options) do
    OptionList.once!(options)
    id = options[:name] || options[:path]
    %{id: {module, id}, start: {module, :start_link, [options]}}
  end

  @doc "The structure that was started with a name."
  @spec named!(module, atom) :: Structure.t()
  def named!(module, name) do
    case find(module, name) do
      nil ->
        raise ArgumentError, "no #{inspect(module)} is started with the name #{inspect(name)}"

      structure ->
        structure
    end
  end

  @doc "The structure that was started with a name, or `nil`."
  @spec find(module, atom) :: Structure.t() | nil
  def find(module, name), do: :persistent_term.get({module, name}, nil)

  @impl true
  def init({module, open, name}) do
    Process.flag(:trap_exit, true)

    if name,
      do: alone({module, name}, fn -> start_named(module, open, name) end),
      else: start(module, open.(), nil)
  end

  # Of several owners that start at once, each finds those before it.
  defp alone(id, start), do: :global.trans({{__MODULE__, id}, self()}, start, [node()])

  # Another file under the same name would take the calls of this one.
  defp start_named(module, open, name) do
    owner = :persistent_term.get({__MODULE__, module, name}, nil)

    if owner && Process.alive?(owner),
      do: {:stop, {:already_started, owner}},
      else: start(module, open.(), name)
  end

  defp start(module, {:ok, structure}, name) do
    if name do
      :persistent_term.put({module, name}, structure)
      :persistent_term.put({__MODULE__, module, name}, self())
    end

    {:ok, {module, structure, name}}
  end

  defp start(_module, {:error, reason}, _name), do: {:stop, reason}

  @impl true
  def terminate(_reason, {module, structure, name}) do
    if name do
      :persistent_term.erase({module, name})
      :persistent_term.erase({__MODULE__, module, name})
    end

    module.close(structure)
  end
end
