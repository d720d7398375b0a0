defmodule Emmap.Counters.Dynamic do
  @moduledoc false
  # Counters whose names appear at run time: the part of `Emmap.Counters` that works on them. A name is found by the native
  # call. `indices` has the atoms that were given when the file was opened: their index, by which the native call finds the
  # counter faster, and the strings with their atoms.

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.{Counters, Native, Structure}

  # How many counters are read at once.
  @batch 1_000
  # Beyond this many names, a name that others choose could fill the disk. See `Emmap.Counters.open/3`.
  @max_names 100_000

  @type t :: Counters.t()
  @type next :: non_neg_integer | nil

  @spec max_names :: pos_integer
  def max_names, do: @max_names

  @doc "Opens the file at `path`. `wanted` has `:names`, `:stripes`, `:existing`, `:adds` and `:max_names`."
  @spec open(binary, [Counters.name()], map) :: {:ok, t} | {:error, Counters.reason()}
  def open(path, asked, wanted) do
    Structure.open(path, &patient(Native.dynamic_open(&1, wanted)), &opened(&1, &2, asked))
  end

  defp opened(path, {:ok, ref, stripes}, asked) do
    given = asked |> Enum.with_index() |> Enum.filter(fn {name, _index} -> is_atom(name) end)

    %Counters{
      ref: ref,
      path: path,
      count: nil,
      stripes: stripes,
      dynamic: true,
      indices: Map.new(given ++ for({atom, _index} <- given, do: {Atom.to_string(atom), atom}))
    }
  end

  @spec reattach(t) :: :ok | {:error, Counters.reason() | :closed}
  def reattach(counters),
    do: Structure.reattach(counters, &patient(Native.dynamic_reattach(&1)))

  @spec info(t) :: {:ok, map} | Emmap.failure()
  def info(%{ref: ref, stripes: stripes} = counters) do
    with {:ok, of_file} <- Structure.info(counters),
         {:ok, of_counters} <- Native.dynamic_info(ref),
         {:ok, pairs} <- pairs(counters) do
      names = Enum.map(pairs, &elem(&1, 0))
      more = %{names: names, write_concurrency: stripes > 1, dynamic: true}
      {:ok, of_file |> Map.merge(of_counters) |> Map.merge(more)}
    end
  end

  # One counter

  @spec add(t, Counters.key(), integer) :: :ok
  def add(%{ref: ref} = counters, key, n) do
    case patient(Native.dynamic_add(ref, name(counters, key), n)) do
      :ok -> :ok
      error -> failed!(counters, :add, key, error)
    end
  end

  @spec get(t, Counters.key()) :: integer
  def get(%{ref: ref} = counters, key) do
    case patient(Native.dynamic_get(ref, name(counters, key))) do
      value when is_integer(value) -> value
      error -> failed!(counters, :read, key, error)
    end
  end

  @spec fetch(t, term) :: {:ok, integer} | :error
  def fetch(%{ref: ref} = counters, key) when is_binary(key) or (is_atom(key) and key != nil) do
    case patient(Native.dynamic_get(ref, name(counters, key))) do
      value when is_integer(value) -> {:ok, value}
      {:error, :no_counter} -> :error
      error -> failed!(counters, :read, key, error)
    end
  end

  def fetch(_counters, _key), do: :error

  @spec put(t, Counters.key(), integer) :: :ok
  def put(%{ref: ref} = counters, key, value) do
    case patient(Native.dynamic_put(ref, name(counters, key), value)) do
      :ok -> :ok
      error -> failed!(counters, :write, key, error)
    end
  end

  @spec next(t, Counters.key(), integer) :: integer
  def next(%{ref: ref} = counters, key, n) do
    case patient(Native.dynamic_next(ref, name(counters, key), n)) do
      old when is_integer(old) -> old
      error -> failed!(counters, :add, key, error)
    end
  end

  @spec exchange(t, Counters.key(), integer) :: integer
  def exchange(%{ref: ref} = counters, key, value) do
    case patient(Native.dynamic_exchange(ref, name(counters, key), value)) do
      old when is_integer(old) -> old
      error -> failed!(counters, :write, key, error)
    end
  end

  @spec compare_exchange(t, Counters.key(), integer, integer) :: :ok | integer
  def compare_exchange(%{ref: ref} = counters, key, expected, new) do
    case patient(Native.dynamic_compare_exchange(ref, name(counters, key), expected, new)) do
      {:error, _} = error -> failed!(counters, :write, key, error)
      done -> done
    end
  end

  # All counters

  @spec count(t) :: non_neg_integer
  def count(%{ref: ref} = counters) do
    case Native.dynamic_info(ref) do
      {:ok, %{count: count}} -> count
      error -> failed!(counters, :read, nil, error)
    end
  end

  @doc """
  At most `most` names and values from the counter at `from` on, and where the next ones are. 0 is the first; `nil` is returned
  after the last.
  """
  @spec part(t, non_neg_integer, pos_integer) :: {[{Counters.name(), integer}], next}
  def part(counters, from, most) do
    case read(counters, from, most) do
      {:ok, pairs, next} -> {pairs, next}
      error -> failed!(counters, :read, nil, error)
    end
  end

  @doc "How many counters `part/3` returns at most."
  @spec batch :: pos_integer
  def batch, do: @batch

  @spec to_pairs(t) :: [{Counters.name(), integer}]
  def to_pairs(counters) do
    case pairs(counters) do
      {:ok, pairs} -> pairs
      error -> failed!(counters, :read, nil, error)
    end
  end

  @spec reset(t) :: :ok
  def reset(counters), do: reset(counters, 0)

  defp reset(_counters, nil), do: :ok

  defp reset(counters, from) do
    {pairs, next} = part(counters, from, @batch)
    Enum.each(pairs, fn {name, _value} -> put(counters, name, 0) end)
    reset(counters, next)
  end

  defp pairs(counters, from \\ 0, before \\ [])
  defp pairs(_counters, nil, before), do: {:ok, before |> Enum.reverse() |> Enum.concat()}

  defp pairs(counters, from, before) do
    with {:ok, pairs, next} <- read(counters, from, @batch),
         do: pairs(counters, next, [pairs | before])
  end

  defp read(%{ref: ref, indices: indices}, from, most) do
    with {:ok, pairs, next} <- patient(Native.dynamic_entries(ref, from, most)),
         do: {:ok, as_given(pairs, indices), next}
  end

  defp as_given(pairs, none) when none == %{}, do: pairs

  defp as_given(pairs, indices),
    do: Enum.map(pairs, fn {name, value} -> {Map.get(indices, name, name), value} end)

  # Names

  @compile {:inline, name: 2}
  defp name(%{indices: indices} = counters, name) do
    case indices do
      _ when is_binary(name) -> name
      %{^name => index} -> index
      _ -> other_name(counters, name)
    end
  end

  defp other_name(_counters, name) when is_atom(name) and name not in [nil, true, false],
    do: Atom.to_string(name)

  defp other_name(_counters, index) when is_integer(index) do
    raise ArgumentError,
          "no counter #{index}: counters of a file that was opened with dynamic: true have names, not numbers"
  end

  defp other_name(_counters, other), do: not_a_name!(other)

  @spec not_a_name!(term) :: no_return
  defp not_a_name!(other),
    do: raise(ArgumentError, "a counter's name is an atom or a string, got #{inspect(other)}")

  @spec failed!(t, atom, Counters.key() | nil, {:error, term}) :: no_return
  defp failed!(_counters, _op, key, {:error, :no_counter}),
    do: raise(ArgumentError, "no counter #{inspect(key)}: nothing was added to it yet")

  defp failed!(counters, op, key, error), do: Counters.failed!(counters, op, key, error)
end
