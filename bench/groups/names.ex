defmodule Bench.Groups.Names do
  @moduledoc false
  # Counters whose names appear at run time, compared with counters of fixed names, with ETS, and with a map of `:counters`.
  import Bench
  alias Emmap.Counters

  # Elements of a tuple, so that each call has another name.
  @names 1000

  loop(empty(names, n), do: _ = name(names, n))
  loop(add(it, names, n), do: :ok = Counters.add(it, name(names, n), 1))
  loop(add_one(it, name, n), do: :ok = Counters.add(it, name, 1))
  loop(get(it, names, n), do: _ = Counters.get(it, name(names, n)))
  loop(ets(it, names, n), do: _ = :ets.update_counter(it, name(names, n), 1))
  loop(ets_new(it, names, n), do: _ = ets_add(it, name(names, n)))
  loop(ets_get(it, names, n), do: _ = :ets.lookup_element(it, name(names, n), 2))

  def title, do: "Counters by name"

  defp name(names, n), do: elem(names, rem(n, @names))
  # As a metrics library adds to a name that may be new.
  defp ets_add(table, name), do: :ets.update_counter(table, name, 1, {name, 0})

  def run(folder) do
    [adds, atoms, gets] = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    [
      {:note,
       "A dynamic file finds the name in one native call, without a lock: it computes the hash of the name, reads a slot and compares the name. With names given at open, the name is first looked up in an Elixir map in the handle."},
      adds,
      headline(
        adds,
        :fixed,
        "dynamic Counters.add, compared with names given at open",
        {:at_most, 1.5}
      ),
      headline(
        adds,
        :ets_new,
        ":ets.update_counter/4 by name, compared with dynamic Counters.add",
        {:at_least, 1.0}
      ),
      atoms,
      headline(
        atoms,
        :fixed,
        "dynamic Counters.add by an atom, compared with Counters.add by name",
        {
          :at_most,
          1.5
        }
      ),
      gets,
      {:note,
       "**New names.** A round adds names that do not exist yet, to a new file or table. It includes the growth of the file and of its table of names."},
      new(folder)
    ]
  end

  @doc "Of several VMs."
  def calls(folder) do
    file = &Path.join(folder, &1)
    list = for n <- 1..@names, do: "GET /users/#{n}"
    names = List.to_tuple(list)
    dynamic = Counters.open!(file.("dynamic"), list, dynamic: true)
    fixed = Counters.open!(file.("fixed"), list)
    few = Counters.open!(file.("few"), [:requests, :errors], dynamic: true)
    few_fixed = Counters.open!(file.("few_fixed"), [:requests, :errors])
    striped = Counters.open!(file.("striped"), list, dynamic: true, write_concurrency: true)
    ets = :ets.new(:bench_names, [:public, write_concurrency: true])
    :ets.insert(ets, for(name <- list, do: {name, 0}))

    adds =
      compare(
        "add 1 to one of 1,000 names",
        [
          side(:dynamic, "Emmap.Counters.add, dynamic: true", &add(dynamic, names, &1)),
          side(:fixed, "Emmap.Counters.add, names given at open", &add(fixed, names, &1)),
          side(:striped, "dynamic: true, write_concurrency: true", &add(striped, names, &1)),
          side(:ets, ":ets.update_counter/3", &ets(ets, names, &1)),
          side(:ets_new, ":ets.update_counter/4, with a default", &ets_new(ets, names, &1))
        ],
        empty: &empty(names, &1),
        seconds: 4
      )

    atoms =
      compare(
        "add 1 by an atom given at open",
        [
          side(:dynamic, "Emmap.Counters.add, dynamic: true", &add_one(few, :errors, &1)),
          side(:fixed, "Emmap.Counters.add", &add_one(few_fixed, :errors, &1))
        ],
        empty: &empty(names, &1),
        seconds: 2
      )

    gets =
      compare(
        "read one of 1,000 names",
        [
          side(:dynamic, "Emmap.Counters.get, dynamic: true", &get(dynamic, names, &1)),
          side(:fixed, "Emmap.Counters.get, names given at open", &get(fixed, names, &1)),
          side(:ets, ":ets.lookup_element", &ets_get(ets, names, &1))
        ],
        empty: &empty(names, &1),
        seconds: 2
      )

    :ets.delete(ets)
    [adds, atoms, gets]
  end

  defp new(folder) do
    count = amount(50_000)
    list = for n <- 1..count, do: "GET /new/users/#{n}"

    open = fn ->
      path = Path.join(folder, "new#{System.unique_integer([:positive])}")
      {path, Counters.open!(path, dynamic: true, max_names: count)}
    end

    close = fn {path, counters} -> Counters.close(counters) && File.rm!(path) end
    table = fn -> :ets.new(:bench_new, [:public, write_concurrency: true]) end

    compare("add #{thousands(count)} new names", [
      once(
        :dynamic,
        "Emmap.Counters.add, dynamic: true",
        fn {_path, counters} -> Enum.each(list, &Counters.add(counters, &1, 1)) end,
        setup: open,
        teardown: close
      ),
      once(:ets, ":ets.update_counter/4", fn table -> Enum.each(list, &ets_add(table, &1)) end,
        setup: table,
        teardown: &:ets.delete/1
      )
    ])
  end
end
