defmodule Emmap.Counters.Cluster do
  @moduledoc """
  Counters of several nodes, summed: each node counts in its own file.

      iex> path = Path.join(System.tmp_dir!(), "emmap_cluster.cnt")
      iex> _ = File.rm(path)
      iex> alias Emmap.Counters.Cluster
      iex> {:ok, counters} = Emmap.Counters.open(path, [:requests, :errors])
      iex> Cluster.join(:web, counters, nodes: [node()])
      :ok
      iex> Cluster.add(:web, :requests, 3)
      iex> Cluster.sum(:web, :requests)
      {:ok, 3}
      iex> Cluster.sums(:web)
      {:ok, %{requests: 3, errors: 0}}
      iex> Cluster.leave(:web)
      :ok

  If a node of the cluster is unreachable, its count is missing from the sum, and the result shows this:

      iex> alias Emmap.Counters.Cluster
      iex> {:ok, counters} = Emmap.Counters.open(Path.join(System.tmp_dir!(), "emmap_api.cnt"), 1)
      iex> Cluster.join(:api, counters, nodes: [:"b@host"])
      iex> Cluster.sum(:api, 0)
      {:partial, 0, ["b@host": :noconnection]}
      iex> Cluster.leave(:api)
      :ok

  ## The contract

    * `add/3` costs one more look-up in `:persistent_term` than `Emmap.Counters.add/3`, and needs no other node: each
      node adds to its own file. Therefore nothing is lost while nodes are unreachable. The counts of a node survive its
      death, and are in the sums again once the node has joined again.
    * `sum/3` asks all nodes that were named in `join/3` on this node, and those that were named in `join/3` on any node
      that replies. It does not matter which nodes happen to be connected. The result is `{:ok, sum}` only if all have
      replied; otherwise it is `{:partial, sum, missing}`, with the missing nodes and the reasons. An incomplete sum is
      always marked as partial. A node that was removed permanently is reported as missing until the others have joined
      again without it.
    * `sum/3` asks all nodes at once, over `:erpc`, and waits for at most `:timeout` milliseconds.
    * A sum is not a snapshot: nodes that count at the same time are not all read at the same moment.
    * For a node that has no counter of that name, the count is 0. Atoms and strings are the same names. If
      all nodes have replied and none has the counter, the call raises `ArgumentError`.
    * Each node must have its own file: a file that two nodes open is counted twice.
    * The values are 64-bit integers. The sum can be larger.
  """

  alias Emmap.{Counters, OptionList, StructureOwner}

  @typedoc "The name of the cluster, the same on all its nodes."
  @type name :: term
  @typedoc """
  Why a node's count is missing:

    * `:noconnection` – the node is unreachable
    * `:timeout` – it did not reply in time
    * `:not_joined` – it has not joined
    * `:closed`, `:estale` or another reason of `Emmap.reattach/1` – its counters are closed, or cannot be read
    * `:undef` – Emmap is missing there, or is a different version
    * `{:failed, reason}` – it failed in an unexpected way
  """
  @type why :: :noconnection | :timeout | :not_joined | :closed | :undef | atom | {:failed, term}
  @typedoc "The nodes whose counts are missing from a sum, and why."
  @type missing :: [{node, why}]
  @typedoc "`:nodes` to ask, and `:timeout` in milliseconds: see `sum/3`."
  @type option :: {:nodes, [node]} | {:timeout, timeout}

  @timeout 5_000

  @options [
    nodes: {&__MODULE__.nodes?/1, "a list of node names"},
    timeout: {&__MODULE__.timeout?/1, "milliseconds | :infinity"}
  ]

  # Joining

  @doc """
  Joins the cluster called `name`, with `counters` as this node's part of it.

  `counters` is what `Emmap.Counters.open/3` returned, or the `:name` of started counters.

  The option `:nodes` lists the nodes of the cluster, which need not be running. Joining again replaces the counters
  and the nodes. The counters are kept in `:persistent_term` until `leave/1` is called. Joining again and leaving
  cause a garbage collection of all processes.
  """
  @doc group: "Joining"
  @spec join(name, Counters.counters(), nodes: [node]) :: :ok
  def join(name, counters, options) do
    # A name stays a name: its counters may be opened again.
    _ = if is_atom(counters), do: StructureOwner.named!(Counters, counters)

    unless is_struct(counters, Counters) or is_atom(counters) do
      raise ArgumentError, "not counters of Emmap.Counters: #{inspect(counters)}"
    end

    options = options!(options, [:nodes])
    nodes = Enum.uniq([node() | Keyword.fetch!([nodes: []] |> Keyword.merge(options), :nodes)])
    :persistent_term.put({__MODULE__, name}, {counters, nodes})
  end

  @doc "Removes this node: the others then see it as `:not_joined`. The counters stay open."
  @doc group: "Joining"
  @spec leave(name) :: :ok
  def leave(name) do
    _ = :persistent_term.erase({__MODULE__, name})
    :ok
  end

  @doc "Returns the counters that this node has joined with, for use with `Emmap.Counters`, or `nil`."
  @doc group: "Joining"
  @spec counters(name) :: Counters.t() | nil
  def counters(name) do
    with {counters, _nodes} <- joined(name), do: counters
  end

  # Counting

  @doc "Adds `n` to the counter of this node, as `Emmap.Counters.add/3` does. Raises `ArgumentError` if the node has not joined."
  @doc group: "Counting"
  @spec add(name, Counters.key(), integer) :: :ok
  def add(name, key, n) do
    case joined(name) do
      {counters, _nodes} -> Counters.add(counters, key, n)
      nil -> not_joined!(name)
    end
  end

  @doc """
  Adds `n` to the counter of another node, and waits for its reply for at most `timeout` milliseconds.

  After `{:error, :not_joined}` (or `:closed`, `:estale`, `:undef`), nothing was added. After `{:error, :noconnection}`
  or `{:error, :timeout}`, it is unknown whether the node has added `n`. A counter that the node does not have raises
  `ArgumentError`.
  """
  @doc group: "Counting"
  @spec add(name, Counters.key(), integer, node, timeout) :: :ok | {:error, why}
  def add(name, key, n, node, timeout \\ @timeout) do
    _ = options!([timeout: timeout, nodes: [node]], [:timeout, :nodes])

    case ask([node], :answer_add, [name, portable(key), n], timeout) do
      [{^node, {:ok, {:ok, _told}}}] -> :ok
      [{^node, {:ok, {:none, _told}}}] -> no_counter!(name, key)
      [{^node, {:ok, {:badarg, _told}}}] -> not_64_bits!(n)
      [{^node, error}] -> error
    end
  end

  # Summing

  @doc """
  Sums a counter over all nodes: `{:ok, sum}`, or `{:partial, sum, [{node, why}]}` with the nodes whose
  counts are missing.

  Options: `:timeout`, in milliseconds (5000); `:nodes`, to ask nodes other than those named in `join/3`, for example
  on a node that has not joined itself.
  """
  @doc group: "Summing"
  @spec sum(name, Counters.key(), [option]) :: {:ok, integer} | {:partial, integer, missing}
  def sum(name, key, options \\ []) do
    {values, missing} = collect(name, :answer_get, [name, portable(key)], options)
    counted = Enum.reject(values, &(&1 == :none))
    if counted == [] and missing == [], do: no_counter!(name, key)
    answer(Enum.sum(counted), missing)
  end

  @doc """
  Sums all counters over all nodes, as `sum/3` does, and returns the sums in a map by name or index.

  Names are atoms if this node has opened them as atoms, otherwise strings.
  """
  @doc group: "Summing"
  @spec sums(name, [option]) ::
          {:ok, %{Counters.key() => integer}} | {:partial, %{Counters.key() => integer}, missing}
  def sums(name, options \\ []) do
    {values, missing} = collect(name, :answer_all, [name], options)
    here = names_here(counters(name))

    values
    |> Enum.reduce(%{}, &Map.merge(&1, &2, fn _key, one, other -> one + other end))
    |> Map.new(fn {key, sum} -> {Map.get(here, key, key), sum} end)
    |> answer(missing)
  end

  defp answer(sum, []), do: {:ok, sum}
  defp answer(sum, missing), do: {:partial, sum, Enum.sort(missing)}

  # Collecting

  # All values, and the nodes without one. Each reply contains the nodes that the node was given: a node that has
  # joined since, or that was named only on some nodes, is asked too.
  defp collect(name, function, arguments, options) do
    options = options!(options, [:nodes, :timeout])
    timeout = Keyword.get(options, :timeout, @timeout)
    deadline = if timeout == :infinity, do: :infinity, else: now() + timeout
    collect(nodes!(name, options), MapSet.new(), function, arguments, deadline, [], [])
  end

  defp collect([], _asked, _function, _arguments, _deadline, values, missing),
    do: {values, missing}

  defp collect(nodes, asked, function, arguments, deadline, values, missing) do
    answers = ask(nodes, function, arguments, left(deadline))
    asked = Enum.into(nodes, asked)
    here = for {_node, {:ok, {value, _told}}} <- answers, do: value
    away = for {node, {:error, why}} <- answers, do: {node, why}
    told = for {_node, {:ok, {_value, told}}} <- answers, node <- told, do: node
    more = told |> Enum.uniq() |> Enum.reject(&(&1 in asked))
    collect(more, asked, function, arguments, deadline, here ++ values, away ++ missing)
  end

  defp now, do: System.monotonic_time(:millisecond)
  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - now(), 0)

  defp ask(nodes, function, arguments, timeout) do
    answers = :erpc.multicall(nodes, __MODULE__, function, arguments, timeout)
    Enum.zip(nodes, Enum.map(answers, &why/1))
  end

  defp why({:ok, {:error, _} = error}), do: error
  defp why({:ok, answer}), do: {:ok, answer}
  defp why({:error, {:erpc, why}}), do: {:error, why}
  defp why({:error, {:exception, :undef, _stack}}), do: {:error, :undef}
  defp why({_class, reason}), do: {:error, {:failed, reason}}

  # The request to a node, which replies with its values and the nodes that it was given. Names are sent as strings,
  # because the atoms of one node may not exist on another.

  @typep answer :: {term, [node]} | {:error, why}

  @doc false
  @spec answer_get(name, Counters.key()) :: answer
  def answer_get(name, key) do
    answering(name, fn counters ->
      if has?(counters, key), do: Counters.get(counters, key), else: :none
    end)
  end

  @doc false
  @spec answer_all(name) :: answer
  def answer_all(name) do
    answering(name, fn counters ->
      Map.new(Counters.to_map(counters), fn {key, value} -> {portable(key), value} end)
    end)
  end

  @doc false
  @spec answer_add(name, Counters.key(), term) :: answer
  def answer_add(name, key, n) do
    answering(name, fn counters ->
      if adds?(counters, key), do: added(counters, key, n), else: :none
    end)
  end

  defp added(counters, key, n) do
    Counters.add(counters, key, n)
  rescue
    ArgumentError -> if has?(counters, key), do: :badarg, else: :none
  end

  defp answering(name, answer) do
    case joined(name) do
      {counters, nodes} -> {answer.(counters), nodes}
      nil -> {:error, :not_joined}
    end
  rescue
    error in Emmap.Error -> {:error, error.reason}
  end

  defp has?(%{dynamic: true} = counters, key), do: Counters.fetch(counters, key) != :error
  defp has?(%{count: count}, index) when is_integer(index), do: index in 0..(count - 1)//1
  defp has?(%{indices: indices}, name), do: is_map_key(indices, name)

  # Adding to an unknown name may add the counter, and otherwise raises.
  defp adds?(%{dynamic: true}, key), do: is_binary(key)
  defp adds?(counters, key), do: has?(counters, key)

  defp portable(key) when is_integer(key), do: key
  defp portable(key) when is_atom(key) or is_binary(key), do: to_string(key)

  defp portable(other) do
    raise ArgumentError, "a counter is an index or a name, got #{inspect(other)}"
  end

  # The names as this node has them, by the names that the nodes use.
  defp names_here(%Counters{names: [_ | _] = names}), do: Map.new(names, &{to_string(&1), &1})

  defp names_here(%Counters{dynamic: true, indices: indices}),
    do: for({text, atom} <- indices, is_binary(text), into: %{}, do: {text, atom})

  defp names_here(_counters), do: %{}

  defp joined(name) do
    with {counters, nodes} when is_atom(counters) <-
           :persistent_term.get({__MODULE__, name}, nil),
         %Counters{} = counters <- StructureOwner.find(Counters, counters),
         do: {counters, nodes}
  end

  defp nodes!(name, options) do
    with nil <- options[:nodes], nil <- joined(name) do
      not_joined!(name)
    else
      {_counters, nodes} -> nodes
      [] -> raise ArgumentError, "a sum needs at least one node: the list of nodes is empty"
      nodes -> Enum.uniq(nodes)
    end
  end

  # Checks the options that a function takes: those named in `taken`.
  defp options!(options, taken) do
    _ = OptionList.check!(options, Keyword.take(@options, taken))
    options
  end

  @doc false
  def nodes?(nodes), do: is_list(nodes) and Enum.all?(nodes, &is_atom/1)
  @doc false
  def timeout?(timeout), do: timeout == :infinity or (is_integer(timeout) and timeout >= 0)

  @spec not_joined!(name) :: no_return
  defp not_joined!(name),
    do: raise(ArgumentError, "this node has not joined the counters #{inspect(name)}")

  @spec no_counter!(name, Counters.key()) :: no_return
  defp no_counter!(name, key),
    do: raise(ArgumentError, "no node of #{inspect(name)} has a counter #{inspect(key)}")

  @spec not_64_bits!(term) :: no_return
  defp not_64_bits!(n),
    do: raise(ArgumentError, "not an integer that fits in 64 bits: #{inspect(n)}")
end
