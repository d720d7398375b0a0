defmodule Emmap.Counters do
  @moduledoc """
  Counters in a file, shared by all processes and programs that open it. They survive `kill -9`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.cnt")
      iex> _ = File.rm(path)
      iex> {:ok, c} = Emmap.Counters.open(path, [:requests, :errors])
      iex> Emmap.Counters.add(c, :requests, 2)
      :ok
      iex> Emmap.Counters.add_get(c, :errors, 1)
      1
      iex> c[:requests]
      2
      iex> Enum.to_list(c)
      [requests: 2, errors: 1]
      iex> Emmap.Counters.close(c)
      :ok
      iex> {:ok, c} = Emmap.Counters.open(path, [:requests, :errors, :timeouts])
      iex> Emmap.Counters.to_map(c)
      %{requests: 2, errors: 1, timeouts: 0}

  ## The contract

    * Counters are 64-bit signed integers. They wrap on overflow, as `:atomics` do.
    * Without write concurrency, every change is atomic and sequentially consistent for all processes of this node, other
      VMs, and programs in other languages that use atomic instructions ([Formats](formats.md) describes the file).
    * A change whose call has returned survives the death of the process and of the VM. It survives a power failure
      once `sync/1` has returned `:ok`. A change whose call has not returned is made either completely or not at all,
      with two exceptions: `reset/1` changes one counter after the other; and with write concurrency (see below), a
      `put/3` or `reset/2` changes the copies of a counter, one for each scheduler, one after the other.
    * A counter is identified by its index, from 0, or by its name. A counter that does not exist, or
      a value that does not fit in 64 bits, raises `ArgumentError`, as with `:atomics`. (`counters[key]` returns
      `nil` instead, as `Access` does.)
    * In functions that read or change counters, system errors raise `Emmap.Error`: `:closed`; `:estale` if another
      program truncated the file; `:enospc`, `:edquot`, `:eperm`, `:erofs` or `:eio` if a page of it could not be read
      or written. All but `:closed` persist until `reattach/1` is called. `Emmap.reattach/1` lists the reasons.
      `open/3`, `close/1`, `info/1`, `sync/1` and `reattach/1` return system errors instead of raising them.
    * Counters are not locked. `to_list/1` reads one after the other and does not take a snapshot.

  ## Write concurrency

  With `write_concurrency: true`, a *new* file has a separate copy of every counter for each scheduler. Adds from
  different cores then do not wait for each other, and `get/2` computes the sum. As with OTP's `:counters`, `get/2` and
  `put/3` may miss adds that run at the same time. Functions that need the previous value (`next/3`, `exchange/3`,
  `compare_exchange/4`, `add_get/3`, `sub_get/3`) raise `ArgumentError`. The option is stored in the file and applies to
  everyone who opens it later. Sixteen counters share 128 bytes (one cache line or, on x86-64, two), so they take 128
  bytes per scheduler instead of 128 bytes in total.

  ## Names that appear at run time

  With `dynamic: true`, the first call that changes a counter adds it. This is for names that are not known in advance,
  such as the path of a request, from several processes, VMs and programs at once:

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_dynamic.cnt")
      iex> _ = File.rm(path)
      iex> {:ok, c} = Emmap.Counters.open(path, dynamic: true)
      iex> Emmap.Counters.add(c, "GET /users", 1)
      :ok
      iex> Emmap.Counters.add(c, "GET /users", 1)
      :ok
      iex> Emmap.Counters.to_map(c)
      %{"GET /users" => 2}
      iex> c["POST /users"]
      nil

    * A counter is identified by its name only. Every function that changes a counter adds it if it does not exist, with
      the value 0 before the change. `get/2` of a name that does not exist raises `ArgumentError`.
    * A name is found without a lock, so a call takes about as long as with fixed names. A new name is added under the
      lock of the file. Each name exists only once, no matter which program dies, or when. Counters cannot be removed.
    * `to_list/1`, `info/1` and the functions of `Enum` return the counters in the order in which they were added. Names
      are strings, except for those that were given to `open/3` as atoms.
    * `sync/1` covers the names that exist when it is called, and their values. After a power failure, a counter that was
      added later may be missing.
    * `max_names: 100_000` limits the number of names, so that names from outside do not fill the disk. A call that would
      add another raises `Emmap.Error` with `:max_names`. The limit applies to the program that sets it, and is not stored
      in the file. If the disk is full, the call raises `Emmap.Error` with `:enospc`. Existing counters can still be used.
    * The file remembers that it is dynamic. If it is opened without the option, existing names and those given to
      `open/3` can be used, and other names raise `ArgumentError`. A file without the option cannot become dynamic.
    * At most 64 programs can have the file open at the same time. `open/3` of another returns `{:error, :eusers}`.
    * A counter takes 128 bytes, or 128 bytes per scheduler with write concurrency. A name of more than 104 bytes takes
      another 128 bytes for each 128 bytes, or part of them, beyond the first 104.
  """

  import Emmap.Waiting, only: [patient: 1]
  alias Emmap.Counters.Dynamic
  alias Emmap.{Native, OptionList, Structure, StructureOwner}

  @enforce_keys [:ref, :path, :count, :stripes]
  defstruct [:ref, :path, :count, :stripes, :names, dynamic: false, indices: %{}]

  @typedoc """
  A set of opened counters, valid in every process of this node. `:path`, `:count`, `:names` and `:dynamic` may be read.
  If `:dynamic` is true, `:count` and `:names` are `nil`, because they change: see `info/1`.
  """
  @type t :: %__MODULE__{
          ref: reference,
          path: binary,
          count: non_neg_integer | nil,
          stripes: pos_integer,
          names: [name] | nil,
          dynamic: boolean,
          indices: %{name => non_neg_integer | name}
        }
  @typedoc "A set of opened counters, or the name that it was started with: see `start_link/1`."
  @type counters :: t | atom
  @typedoc "A name. An atom and its string are the same name. At most 1,024 bytes of UTF-8."
  @type name :: atom | String.t()
  @typedoc "An index from 0, or a name."
  @type key :: non_neg_integer | name
  @typedoc "See `open/3`."
  @type option ::
          {:create, boolean}
          | {:write_concurrency, boolean}
          | {:dynamic, boolean}
          | {:max_names, pos_integer}
  @typedoc "Why a file could not be opened: see `open/3`."
  @type bad_format :: :kind | :version | :endianness | :length | :checksum | :names
  @typedoc "Why counters could not be opened: see `open/3`."
  @type reason ::
          :file.posix()
          | {:bad_format, bad_format}
          | {:other_names, %{asked: [name], file: [String.t()]}}
          | :dynamic
          | :not_dynamic
          | :eusers
          | :max_names

  @options [
    create: {&is_boolean/1, "true | false"},
    write_concurrency: {&is_boolean/1, "true | false"},
    dynamic: {&is_boolean/1, "true | false"},
    max_names: {&__MODULE__.max_names?/1, "a positive integer"}
  ]

  # Up to this many, reading all counters takes less time than a switch to another scheduler.
  @few 2048

  # Opening and closing

  @doc """
  Opens the counters in a file, and creates the file if it does not exist.

  A relative `path` is relative to the current directory. The directory of the file must exist.

  `count_or_names` is the minimum number of counters, or a list of their names (atoms or strings). A file with fewer
  counters grows in place, even while others have it open. Existing values are kept, and new counters are 0. A new
  file reserves twice the space that its names need, but at least 1 MiB, and names that are added later must fit into it.
  All names together take at most 16 MiB (16,777,216 bytes, where each name takes its length plus 2: about 1 million names
  of 14 bytes). If they do not fit, the result is `{:error, :enospc}`.

  Names stay in the file, in order. You can add names later, or open the file with fewer names, but the first names
  must be the same. A counter is found by its name as an atom or as a string. Names of the file that were not given
  are available as strings: if a file with two counters is opened with `open(path, [:requests])`, `Enum.to_list/1` of
  the counters returns `[{:requests, 2}, {"errors", 1}]`. If a file with names is opened with a number, all its names
  are strings.

  A file grows under a lock. If another program has the whole file locked, the open waits for 2 seconds and then
  returns `{:error, :ebusy}`. A file is created atomically: after a crash or power failure, or if the open fails, the
  file either does not exist (or is as it was) or is complete. Files of the earlier library saleyn/emmap (made by its
  `emmap:open_counters`) can be opened and extended without conversion. A file can be opened several times, in one VM
  or in several. All handles use the same memory.

  Options, with their defaults:

    * `create: true` – with `false`, the file must exist, or the result is `{:error, :enoent}`. (Missing counters are
      still added to an existing file.)
    * `write_concurrency: false` – with `true`, for a new file: see "Write concurrency" in `Emmap.Counters`
    * `dynamic: false` – with `true`, names are added when they are used: see "Names that appear at run time" in
      `Emmap.Counters`. Names need not be given: `open(path, dynamic: true)`.
    * `max_names: 100_000` – this program adds no name to a dynamic file that already has this many

  Errors: those of `Emmap.open/2`; `:estale` (the file was truncated while it was read); and the following, which,
  except for `:max_names`, leave the file unchanged:

    * `{:other_names, %{asked: names, file: names}}` – the file has different names, or no names
    * `:not_dynamic` – `dynamic: true` was given, and the file has counters without this option
    * `:dynamic` – a number of counters was given, and the file is dynamic
    * `:eusers` – the file is dynamic, and 64 programs have it open
    * `:max_names` – the file is dynamic, and would have more names than `max_names:` allows. Some of the given
      names may have been added.
    * `{:bad_format, why}` – not a counter file (`:kind`), of an unknown `:version`, from a machine of the
      other `:endianness`, shorter than its header says (`:length`), or damaged (`:checksum`, `:names`)

  An empty file is initialized like a new file. With `create: false`, the result is `{:error, {:bad_format, :kind}}`.
  An empty file is initialized in place if it cannot be replaced (it is bind-mounted, or its directory belongs to
  another user).
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all(), non_neg_integer | [name], [option]) ::
          {:ok, t} | {:error, reason}
  def open(path, count_or_names, options \\ [])

  def open(path, [{option, _} | _] = options, []) when is_atom(option),
    do: open(path, [], options)

  def open(path, count_or_names, options) do
    path = Emmap.Path.bytes!(path)
    given = options!(options)
    {count, asked} = wanted!(count_or_names, given.adds)
    wanted = Map.merge(given, %{count: count, names: Enum.map(asked, &to_string/1)})

    if given.adds,
      do: Dynamic.open(path, asked, wanted),
      else: open_fixed(path, asked, wanted)
  end

  defp open_fixed(path, asked, %{count: count} = wanted) do
    case Structure.open(path, &patient(Native.counters_open(&1, wanted)), &opened(&1, &2, asked)) do
      {:error, :dynamic} when count == 0 ->
        Dynamic.open(path, asked, %{wanted | existing: true})

      {:error, {:other_names, in_file}} ->
        {:error, {:other_names, %{asked: asked, file: in_file}}}

      opened ->
        opened
    end
  end

  defp opened(path, {:ok, ref, count, stripes, in_file}, asked) do
    names = names(asked, in_file)

    %__MODULE__{
      ref: ref,
      path: path,
      count: count,
      stripes: stripes,
      names: names,
      indices: indices(names, in_file)
    }
  end

  @doc "Same as `open/3`, but returns only the counters and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all(), non_neg_integer | [name], [option]) :: t
  def open!(path, count_or_names, options \\ []),
    do: path |> open(count_or_names, options) |> Structure.opened!(:counters, path)

  @doc """
  Closes the counters immediately, for all processes that hold this handle. Each later call fails with `:closed`:
  functions that read or change counters raise `Emmap.Error`, and the others return `{:error, :closed}`.

  Releases the file descriptor and the memory, as `Emmap.close/1` does. Garbage collection of counters that were not
  closed does the same. All values are in the file; to have them on the disk, call `sync/1` first.
  """
  @doc group: "Opening and closing"
  @spec close(counters) :: :ok | Emmap.failure()
  def close(counters), do: counters |> counters!() |> Structure.close()

  @doc "Waits until all changes so far are on the disk. Returns `{:error, reason}` as `Emmap.sync/1` does."
  @doc group: "Opening and closing"
  @spec sync(counters) :: :ok | Emmap.failure()
  def sync(counters), do: counters |> counters!() |> Structure.sync()

  @doc """
  Repairs counters whose file was truncated or whose disk failed, after the file has been restored: see
  `Emmap.reattach/1`.

  Returns `{:error, {:bad_format, why}}` if the file does not contain these counters at the same positions and under the
  same names. Functions that read or change counters then raise `Emmap.Error` with `:estale`, and `info/1` and `sync/1` return it, until the
  file contains them and `reattach/1` has returned `:ok`.
  """
  @doc group: "Opening and closing"
  @spec reattach(counters) :: :ok | {:error, reason | :closed}
  def reattach(counters), do: counters |> counters!() |> reattached()

  defp reattached(%{dynamic: true} = counters), do: Dynamic.reattach(counters)

  defp reattached(counters) do
    names = Enum.map(counters.names || [], &to_string/1)
    Structure.reattach(counters, &patient(Native.counters_reattach(&1, names)))
  end

  @doc """
  Returns the state of the counters as a map.

  Its keys are `:path`, `:count`, `:names` (or `nil`), `:write_concurrency`, `:dynamic`, `:size` (of the file, in bytes), and
  `:faults` (how often a lost page of the counters was accessed). Dynamic counters also have `:max_names`, `:recoveries`
  (how often the names were examined: when the file was created, and after each reboot) and `:dropped` (how many incomplete
  names the last of these recoveries found). For dynamic counters, the call reads all names.
  """
  @doc group: "Opening and closing"
  @spec info(counters) ::
          {:ok,
           %{
             optional(:max_names | :recoveries | :dropped) => non_neg_integer,
             path: binary,
             count: non_neg_integer,
             names: [name] | nil,
             write_concurrency: boolean,
             dynamic: boolean,
             size: non_neg_integer,
             faults: non_neg_integer
           }}
          | Emmap.failure()
  def info(counters), do: counters |> counters!() |> described()

  defp described(%{dynamic: true} = counters), do: Dynamic.info(counters)

  defp described(%{count: count, names: names, stripes: stripes} = counters) do
    with {:ok, of_file} <- Structure.info(counters) do
      of_counters = %{
        count: count,
        names: names,
        write_concurrency: stripes > 1,
        dynamic: false
      }

      {:ok, Map.merge(of_file, of_counters)}
    end
  end

  # Counting

  @doc "Adds `n`."
  @doc group: "Counting"
  @spec add(counters, key, integer) :: :ok
  def add(%__MODULE__{ref: ref, indices: indices, dynamic: false} = counters, key, n) do
    index =
      if is_integer(key) do
        key
      else
        case indices do
          %{^key => index} -> index
          _ -> index!(counters, key)
        end
      end

    case Native.counter_add(ref, index, n) do
      :ok -> :ok
      error -> failed!(counters, :add, key, error)
    end
  end

  def add(%__MODULE__{} = counters, key, n), do: Dynamic.add(counters, key, n)
  def add(other, key, n), do: add(counters!(other), key, n)

  @doc "Subtracts `n`."
  @doc group: "Counting"
  @spec sub(counters, key, integer) :: :ok
  def sub(counters, key, n), do: add(counters, key, negated(n))

  @doc """
  Returns the value of a counter.

  `counters[key]` returns the same, but for a counter that does not exist it returns `nil`, whereas this function raises
  `ArgumentError`.
  """
  @doc group: "Counting"
  @spec get(counters, key) :: integer
  def get(counters, key)
  def get(%__MODULE__{dynamic: true} = counters, key), do: Dynamic.get(counters, key)

  def get(%__MODULE__{ref: ref} = counters, index) when is_integer(index) do
    case Native.counter_get(ref, index) do
      value when is_integer(value) -> value
      error -> failed!(counters, :read, index, error)
    end
  end

  def get(%__MODULE__{} = counters, name),
    do: get(counters, index!(counters, name))

  def get(other, key), do: get(counters!(other), key)

  @doc "Sets the value."
  @doc group: "Counting"
  @spec put(counters, key, integer) :: :ok
  def put(counters, key, value)

  def put(%__MODULE__{dynamic: true} = counters, key, value),
    do: Dynamic.put(counters, key, value)

  def put(%__MODULE__{ref: ref} = counters, index, value) when is_integer(index) do
    case Native.counter_put(ref, index, value) do
      :ok -> :ok
      error -> failed!(counters, :write, index, error)
    end
  end

  def put(%__MODULE__{} = counters, name, value),
    do: put(counters, index!(counters, name), value)

  def put(other, key, value), do: put(counters!(other), key, value)

  @doc "Adds `n` and returns the new value."
  @doc group: "Counting"
  @spec add_get(counters, key, integer) :: integer
  def add_get(counters, key, n), do: wrapped(next(counters, key, n) + n)

  @doc "Subtracts `n` and returns the new value."
  @doc group: "Counting"
  @spec sub_get(counters, key, integer) :: integer
  def sub_get(counters, key, n), do: wrapped(next(counters, key, negated(n)) - n)

  @doc """
  Adds `n` and returns the *previous* value. With `n = 1`, this generates unique numbers.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_next.cnt")
      iex> _ = File.rm(path)
      iex> c = Emmap.Counters.open!(path, 1)
      iex> for _ <- 1..3, do: Emmap.Counters.next(c, 0)
      [0, 1, 2]
  """
  @doc group: "Counting"
  @spec next(counters, key, integer) :: integer
  def next(counters, key, n \\ 1)
  def next(%__MODULE__{dynamic: true} = counters, key, n), do: Dynamic.next(counters, key, n)

  def next(%__MODULE__{ref: ref} = counters, index, n) when is_integer(index) do
    case Native.counter_next(ref, index, n) do
      old when is_integer(old) -> old
      error -> failed!(counters, :add, index, error)
    end
  end

  def next(%__MODULE__{} = counters, name, n),
    do: next(counters, index!(counters, name), n)

  def next(other, key, n), do: next(counters!(other), key, n)

  @doc "Sets the value and returns the previous value."
  @doc group: "Counting"
  @spec exchange(counters, key, integer) :: integer
  def exchange(counters, key, value)

  def exchange(%__MODULE__{dynamic: true} = counters, key, value),
    do: Dynamic.exchange(counters, key, value)

  def exchange(%__MODULE__{ref: ref} = counters, index, value) when is_integer(index) do
    case Native.counter_exchange(ref, index, value) do
      old when is_integer(old) -> old
      error -> failed!(counters, :write, index, error)
    end
  end

  def exchange(%__MODULE__{} = counters, name, value),
    do: exchange(counters, index!(counters, name), value)

  def exchange(other, key, value), do: exchange(counters!(other), key, value)

  @doc "Sets the value to `new` if it equals `expected`, and returns `:ok`. Otherwise returns the current value."
  @doc group: "Counting"
  @spec compare_exchange(counters, key, integer, integer) :: :ok | integer
  def compare_exchange(counters, key, expected, new)

  def compare_exchange(%__MODULE__{dynamic: true} = counters, key, expected, new),
    do: Dynamic.compare_exchange(counters, key, expected, new)

  def compare_exchange(%__MODULE__{ref: ref} = counters, index, expected, new)
      when is_integer(index) do
    case Native.counter_compare_exchange(ref, index, expected, new) do
      {:error, _} = error -> failed!(counters, :write, index, error)
      done -> done
    end
  end

  def compare_exchange(%__MODULE__{} = counters, name, expected, new),
    do: compare_exchange(counters, index!(counters, name), expected, new)

  def compare_exchange(other, key, expected, new),
    do: compare_exchange(counters!(other), key, expected, new)

  @doc "Sets all counters to 0, one after the other."
  @doc group: "Counting"
  @spec reset(counters) :: :ok
  def reset(%__MODULE__{dynamic: true} = counters), do: Dynamic.reset(counters)

  def reset(%__MODULE__{count: count} = counters),
    do: Enum.each(0..(count - 1)//1, &put(counters, &1, 0))

  def reset(other), do: other |> counters!() |> reset()

  @doc "Sets a counter to 0."
  @doc group: "Counting"
  @spec reset(counters, key) :: :ok
  def reset(counters, key), do: put(counters, key, 0)

  # Reading all

  @doc """
  Returns all values in order, without names, such as `[2, 1]`.

  (`Enum.to_list/1` of counters with names returns `[requests: 2, errors: 1]`.)

  Reads one counter after the other, starting with the last. Raises `Emmap.Error` with `:enomem` if there is not enough
  memory for the list. The functions of `Enum` and `Stream` read the counters in batches.
  """
  @doc group: "Reading all"
  @spec to_list(counters) :: [integer]
  def to_list(%__MODULE__{dynamic: true} = counters),
    do: for({_name, value} <- Dynamic.to_pairs(counters), do: value)

  def to_list(%__MODULE__{ref: ref, count: count, stripes: stripes} = counters) do
    # Long reads run on a dirty scheduler.
    if count * stripes <= @few,
      do: read!(counters, Native.counters_range(ref, 0, count)),
      else: all(counters, count, [])
  end

  def to_list(other), do: other |> counters!() |> to_list()

  defp all(_counters, 0, values), do: values

  defp all(%{ref: ref} = counters, last, values) do
    case Native.counters_list(ref, last, values) do
      {:ok, {from, values}} -> all(counters, from, values)
      error -> failed!(counters, :read, nil, error)
    end
  end

  @doc false
  # How many counters `few/3` returns at most.
  @spec batch(t) :: pos_integer
  def batch(%{stripes: stripes}), do: max(div(@few, stripes), 1)

  @doc false
  # The values of at most `count` counters from `from` on, and at most `batch/1`.
  @spec few(t, non_neg_integer, non_neg_integer) :: [integer]
  def few(%__MODULE__{ref: ref} = counters, from, count),
    do: read!(counters, Native.counters_range(ref, from, count))

  @doc false
  # The elements of `Enum`: up to `count` of them from `from` on.
  @spec part(t, non_neg_integer, non_neg_integer) :: [integer | {name, integer}]
  def part(%__MODULE__{names: names} = counters, from, count) do
    size = batch(counters)
    last = from + count - 1
    values = Enum.flat_map(from..last//size, &few(counters, &1, min(size, last - &1 + 1)))
    if names, do: names |> Enum.slice(from, count) |> Enum.zip(values), else: values
  end

  @doc false
  # As `part/3`: `length` elements at intervals of `step`.
  @spec steps(t, non_neg_integer, non_neg_integer, pos_integer) :: [integer | {name, integer}]
  def steps(%__MODULE__{names: nil} = counters, from, length, step),
    do: for(number <- 0..(length - 1)//1, do: get(counters, from + number * step))

  # The names are in memory, so there is also memory for their values.
  def steps(counters, from, length, step),
    do: counters |> part(from, (length - 1) * step + 1) |> Enum.take_every(step)

  defp read!(_counters, {:ok, values}), do: values
  defp read!(counters, error), do: failed!(counters, :read, nil, error)

  @doc "Returns all values by name, or by index if the counters have no names."
  @doc group: "Reading all"
  @spec to_map(counters) :: %{key => integer}
  def to_map(counters), do: counters |> to_pairs() |> Map.new()

  @doc false
  @spec to_pairs(counters) :: [{key, integer}]
  def to_pairs(%__MODULE__{dynamic: true} = counters), do: Dynamic.to_pairs(counters)

  def to_pairs(%__MODULE__{names: nil} = counters),
    do: counters |> to_list() |> Enum.with_index(fn value, index -> {index, value} end)

  def to_pairs(%__MODULE__{names: names} = counters), do: Enum.zip(names, to_list(counters))
  def to_pairs(other), do: other |> counters!() |> to_pairs()

  @doc false
  # The number to add in order to subtract `n`. Accepts the same values as `:atomics`.
  @spec negated(integer) :: integer
  def negated(n) when is_integer(n), do: -n
  def negated(_), do: raise(ArgumentError, "the value must be an integer that fits in 64 bits")

  # Supervision

  @doc """
  Starts a process that keeps the counters open for as long as it lives, for use in a supervision tree.

  The options are those of `open/3`, and:

    * `:path` – the file, required
    * `:counters` – how many counters, or their names, like the second argument of `open/3`; required, except with
      `dynamic: true`
    * `:name` – an atom that each function accepts instead of the counters, at the cost of a look-up in
      `:persistent_term`

  The process is not involved in any call. If it stops, it closes the counters; their values are in the file.

      children = [
        {Emmap.Counters, name: MyApp.Counters, path: "counters.cnt", counters: [:requests, :errors]}
      ]

      Emmap.Counters.add(MyApp.Counters, :requests, 1)
  """
  @doc group: "Supervision"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    OptionList.once!(options)
    {wanted, options} = Keyword.pop(options, :counters, if(options[:dynamic], do: []))

    unless wanted,
      do: raise(ArgumentError, "counters: is required, how many counters or their names")

    StructureOwner.start_link(__MODULE__, options, &open(&1, wanted, &2))
  end

  @doc "Returns a child specification for `start_link/1`. Its id is the `:name`, or else the `:path`."
  @doc group: "Supervision"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: StructureOwner.child_spec(__MODULE__, options)

  # Access: `counters[0]`, `counters[:name]`.

  @doc false
  def fetch(%__MODULE__{dynamic: true} = counters, key), do: Dynamic.fetch(counters, key)

  def fetch(%__MODULE__{} = counters, key) do
    case index(counters, key) do
      nil -> :error
      index -> {:ok, get(counters, index)}
    end
  end

  @doc false
  @spec get_and_update(t, term, term) :: no_return
  def get_and_update(_counters, _key, _fun),
    do: raise(ArgumentError, "counters change in place: use Emmap.Counters.put/3 or add/3")

  @doc false
  @spec pop(t, term) :: no_return
  def pop(_counters, _key), do: raise(ArgumentError, "a counter cannot be removed")

  # Keys

  defp index(%{count: count}, index) when is_integer(index),
    do: if(index >= 0 and index < count, do: index)

  defp index(%{indices: indices}, name) do
    case indices do
      %{^name => index} -> index
      # An atom that was not given at open is looked up as its string.
      _ when is_atom(name) -> Map.get(indices, Atom.to_string(name))
      _ -> nil
    end
  end

  defp index!(counters, name), do: index(counters, name) || no_counter!(counters, name)

  defp counters!(%__MODULE__{} = counters), do: counters
  defp counters!(name) when is_atom(name), do: StructureOwner.named!(__MODULE__, name)
  defp counters!(other), do: Structure.refuse!(other, __MODULE__, "counters")

  @spec no_counter!(t, term) :: no_return
  defp no_counter!(%{names: nil, count: count}, key) do
    raise ArgumentError, "no counter #{inspect(key)}: there are #{count}, numbered from 0"
  end

  defp no_counter!(%{names: names}, key) do
    raise ArgumentError, "no counter #{inspect(key)}: there are #{inspect(names)}"
  end

  @doc false
  @spec failed!(t, atom, key | nil, {:error, term}) :: no_return
  def failed!(counters, _op, key, {:error, :no_counter}), do: no_counter!(counters, key)

  def failed!(_counters, _op, _key, {:error, :write_concurrency}) do
    raise ArgumentError,
          "these counters have write_concurrency: the value before or after a change is not available"
  end

  def failed!(counters, op, _key, {:error, reason}),
    do: Structure.failed!(counters, :counters, op, reason)

  defp wrapped(n) when n >= -0x8000_0000_0000_0000 and n <= 0x7FFF_FFFF_FFFF_FFFF, do: n

  defp wrapped(n) do
    <<wrapped::signed-64>> = <<n::64>>
    wrapped
  end

  # Arguments of open

  defp wanted!([], true), do: {0, []}

  defp wanted!(count, true) when is_integer(count) do
    raise ArgumentError,
          "with dynamic: true, counters have names: give a list of names or nothing, got #{count}"
  end

  defp wanted!(count_or_names, _dynamic), do: wanted!(count_or_names)

  defp wanted!(count) when is_integer(count) and count >= 0 and count < 0x0100_0000_0000_0000,
    do: {count, []}

  defp wanted!([_ | _] = names) when length(names) >= 0 do
    # They are stored, and a live binary could change.
    names = Emmap.Copied.copied(names)

    for name <- names,
        not (is_binary(name) or (is_atom(name) and name not in [nil, true, false])) do
      raise ArgumentError, "a counter's name is an atom or a string, got #{inspect(name)}"
    end

    texts = Enum.map(names, &to_string/1)

    with twice when twice != nil <- twice(texts),
         do: raise(ArgumentError, "the name #{inspect(twice)} is given twice")

    for text <- texts, not String.valid?(text) or byte_size(text) > 1024 do
      raise ArgumentError,
            "a counter's name must be at most 1024 bytes of UTF-8, got #{inspect(text)}"
    end

    {0, names}
  end

  defp wanted!(other) do
    raise ArgumentError,
          "expected a number of counters or a non-empty list of names, got #{inspect(other)}"
  end

  defp twice(texts) do
    Enum.reduce_while(texts, MapSet.new(), fn text, seen ->
      if text in seen, do: {:halt, text}, else: {:cont, MapSet.put(seen, text)}
    end)
    |> then(&if is_binary(&1), do: &1)
  end

  defp options!(options) do
    given = OptionList.check!(options, @options)
    spread? = Map.get(given, :write_concurrency, false)

    %{
      stripes: if(spread?, do: max(:erlang.system_info(:schedulers), 2), else: 1),
      existing: not Map.get(given, :create, true),
      adds: Map.get(given, :dynamic, false),
      max_names: Map.get(given, :max_names, Dynamic.max_names())
    }
  end

  @doc false
  def max_names?(most), do: is_integer(most) and most > 0 and most < 0x1_0000_0000_0000

  # Names as they were given at open. Further names in the file stay strings, so that no atoms are created.
  defp names(_asked, []), do: nil
  defp names(asked, in_file), do: asked ++ Enum.drop(in_file, length(asked))

  # A counter is found by the name that was given, and by its string.
  defp indices(nil, _in_file), do: %{}

  defp indices(names, in_file),
    do: (Enum.with_index(in_file) ++ Enum.with_index(names)) |> Map.new()

  defimpl Enumerable do
    alias Emmap.Counters
    alias Emmap.Counters.Dynamic

    # A file may have more counters than fit in memory as a list, so each function reads at most
    # one batch ahead.

    def count(%{dynamic: true} = counters), do: {:ok, Dynamic.count(counters)}
    def count(%{count: count}), do: {:ok, count}
    def member?(_counters, _value), do: {:error, __MODULE__}

    def slice(%{dynamic: true}), do: {:error, __MODULE__}

    def slice(%{count: count} = counters) do
      {:ok, count,
       fn
         from, length, 1 -> Counters.part(counters, from, length)
         from, length, step -> Counters.steps(counters, from, length, step)
       end}
    end

    def reduce(%{dynamic: true} = counters, acc, fun),
      do: next([], %{counters: counters, from: 0}, acc, fun)

    def reduce(%{names: names} = counters, acc, fun),
      do: next([], %{counters: counters, from: 0, names: names}, acc, fun)

    defp next(_elements, _rest, {:halt, acc}, _fun), do: {:halted, acc}

    defp next(elements, rest, {:suspend, acc}, fun),
      do: {:suspended, acc, &next(elements, rest, &1, fun)}

    defp next([element | elements], rest, {:cont, acc}, fun),
      do: next(elements, rest, fun.(element, acc), fun)

    defp next([], %{from: nil}, {:cont, acc}, _fun), do: {:done, acc}

    defp next([], %{counters: %{dynamic: true} = counters, from: from} = rest, acc, fun) do
      size = Emmap.HeapRoom.batch(Dynamic.batch())
      {elements, from} = Dynamic.part(counters, from, size)
      next(elements, %{rest | from: from}, acc, fun)
    end

    defp next([], %{counters: %{count: count}, from: from}, {:cont, acc}, _fun)
         when from >= count,
         do: {:done, acc}

    defp next([], %{counters: counters, from: from, names: names} = rest, {:cont, acc}, fun) do
      size = Emmap.HeapRoom.batch(Counters.batch(counters))
      values = Counters.few(counters, from, size)
      {taken, names} = if names, do: Enum.split(names, size), else: {nil, nil}
      elements = if taken, do: Enum.zip(taken, values), else: values
      next(elements, %{rest | from: from + size, names: names}, {:cont, acc}, fun)
    end
  end

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(%{names: names, path: path, dynamic: dynamic} = counters, opts) do
      elements = shown(counters, opts.limit)

      values =
        if names || dynamic,
          do: container_doc("", elements, "", opts, &pair/2, separator: ","),
          else: to_doc(elements, %{opts | charlists: :as_lists})

      concat(["#Emmap.Counters<", to_doc(path, opts), " ", values, ">"])
    rescue
      error in Emmap.Error -> "#Emmap.Counters<#{Kernel.inspect(path)} #{error.reason}>"
      ArgumentError -> "#Emmap.Counters<#{Kernel.inspect(path)} not of this node>"
    end

    # One more than is shown, so that "..." follows.
    defp shown(counters, :infinity), do: Enum.to_list(counters)
    defp shown(%{dynamic: true} = counters, limit), do: Enum.take(counters, limit + 1)
    defp shown(counters, limit), do: Emmap.Counters.part(counters, 0, limit + 1)

    defp pair({name, value}, _opts), do: "#{name}: #{value}"
  end
end
