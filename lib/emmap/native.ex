defmodule Emmap.Native do
  @moduledoc false
  # Only the NIF stubs and their loading. `native/emmap_nif` implements them, and states the
  # scheduler of each function next to its definition.

  @on_load :load

  @type handle :: reference()
  @type root :: binary() | nil
  @type failure :: {:error, atom()}
  # Results of hot calls are not wrapped in a tuple: see `Emmap.Bare`.
  @type data :: binary | :eof | failure()

  # Evaluated at compile time: the library is also loaded then, when other modules may not exist yet.
  @library String.to_charlist(Emmap.Native.Library.path())

  @doc false
  def load do
    case folder() do
      {:ok, folder} ->
        :erlang.load_nif(folder ++ ~c"/" ++ @library, {setting(:guard), setting(:log_faults)})

      # Loaded without the library, so that a call can report the reason. An error here would make this module undefined.
      :error ->
        :ok
    end
  end

  # In an escript or another archive, the files do not exist, and the system loads libraries only from files.
  defp folder do
    with [_ | _] = folder <- :code.lib_dir(:emmap),
         true <- :filelib.is_dir(folder),
         do: {:ok, folder},
         else: (_ -> :error)
  end

  # Read once, when the library is loaded, because a handler of SIGBUS is never removed again.
  defp setting(name) do
    case Application.get_env(:emmap, name, true) do
      setting when is_boolean(setting) ->
        setting

      other ->
        raise ArgumentError, "config :emmap, #{name}: is true or false, got #{inspect(other)}"
    end
  end

  # Calls that wait for a lock return `{:wait, kind}`: see `Emmap.Waiting`, which calls these two.
  @type waited :: handle | binary
  @type waits :: {:wait, 0..3} | {:wait, 0..3, atom, non_neg_integer, non_neg_integer}
  @spec wait(0..3, waited, reference, atom, [term]) :: {:ok, pos_integer} | failure
  def wait(_kind, _place, _tag, _name, _arguments), do: not_loaded()
  @spec wait_cancel(0..3, waited, pos_integer) :: boolean
  def wait_cancel(_kind, _place, _number), do: not_loaded()

  # Hot: on the caller's scheduler, or moved to dirty I/O depending on the size of the copy.
  @spec pread(handle, integer, non_neg_integer) :: data | waits
  def pread(_handle, _position, _count), do: not_loaded()
  # As pread, but always a copy, also on a direct handle.
  @spec pread_copy(handle, integer, non_neg_integer) :: data | waits
  def pread_copy(_handle, _position, _count), do: not_loaded()
  @spec view(handle, root, integer, non_neg_integer) :: data
  def view(_handle, _root, _position, _count), do: not_loaded()
  @spec pwrite(handle, integer, binary) :: :ok | failure | waits
  def pwrite(_handle, _position, _data), do: not_loaded()
  @spec read(handle, root, non_neg_integer) :: data | waits
  def read(_handle, _root, _count), do: not_loaded()
  @spec read_line(handle, root) :: data | waits
  def read_line(_handle, _root), do: not_loaded()
  @spec write(handle, binary) :: :ok | failure | waits
  def write(_handle, _data), do: not_loaded()
  @spec position(handle, 0..2, integer) :: {:ok, non_neg_integer} | failure
  def position(_handle, _whence, _offset), do: not_loaded()
  @type batch :: {Emmap.position(), [binary]} | :again | failure
  # Without a root, the result consists of copies.
  @spec lines(handle, root, non_neg_integer, non_neg_integer, non_neg_integer) :: batch
  def lines(_handle, _root, _position, _stop, _form), do: not_loaded()

  @spec pieces(handle, root, non_neg_integer, non_neg_integer, pos_integer, non_neg_integer) ::
          batch
  def pieces(_handle, _root, _position, _stop, _size, _form), do: not_loaded()

  # Hot: numbers and ranges inside a map, as pread and pwrite.
  @spec get_u64(handle, integer) :: non_neg_integer | :eof | failure | waits
  def get_u64(_handle, _position), do: not_loaded()
  @spec get_i64(handle, integer) :: integer | :eof | failure | waits
  def get_i64(_handle, _position), do: not_loaded()
  @spec get_f64(handle, integer) :: Emmap.Typed.number_read() | :eof | failure | waits
  def get_f64(_handle, _position), do: not_loaded()

  @spec typed_get(handle, integer, 0..41) ::
          integer | float | :nan | :infinity | :neg_infinity | :eof | failure | waits
  def typed_get(_handle, _position, _type), do: not_loaded()
  @spec typed_put(handle, integer, 0..41, integer | float | atom) :: :ok | failure | waits
  def typed_put(_handle, _position, _type, _value), do: not_loaded()
  @spec fill(handle, integer, non_neg_integer, byte) :: :ok | failure | waits
  def fill(_handle, _position, _count, _byte), do: not_loaded()
  @spec copy(handle, integer, integer, non_neg_integer) :: :ok | failure | waits
  def copy(_handle, _from, _to, _count), do: not_loaded()

  # On the caller's scheduler, or moved to dirty CPU depending on the size of the range. `{position, read}` instead of
  # a result is where to continue: `read` is 0 at the beginning.
  @type place :: {non_neg_integer, non_neg_integer}
  @type found :: {:ok, {non_neg_integer, pos_integer}} | :nomatch | place | failure
  @spec search_find(handle, reference, non_neg_integer, non_neg_integer, non_neg_integer) ::
          found | waits
  def search_find(_handle, _patterns, _from, _read, _stop), do: not_loaded()

  @spec search_rfind(
          handle,
          reference,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer
        ) :: found | waits
  def search_rfind(_handle, _patterns, _from, _before, _read, _stop), do: not_loaded()

  @spec search_all(
          handle,
          reference,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer
        ) ::
          {:ok, [{non_neg_integer, pos_integer}]}
          | {non_neg_integer, non_neg_integer, [{non_neg_integer, pos_integer}]}
          | failure
          | waits
  def search_all(_handle, _patterns, _from, _read, _stop, _limit), do: not_loaded()

  @spec search_count(handle, reference, non_neg_integer, non_neg_integer, non_neg_integer) ::
          {:ok, non_neg_integer}
          | {non_neg_integer, non_neg_integer, non_neg_integer}
          | failure
          | waits
  def search_count(_handle, _patterns, _from, _read, _stop), do: not_loaded()

  # On the caller's scheduler, or moved to a dirty one: dirty CPU for many elements, dirty I/O for those that have to be read
  # from the disk, and for an append.
  # `{first, stride, field, count, type}`: the count is -1 for all, and the type a code, or the negative number of bytes.
  @type column ::
          {non_neg_integer, pos_integer, non_neg_integer, integer, integer}
  # `{next, state}` instead of a result is where to continue. 16 bytes are a native integer of 128 bits.
  @spec array_sum(handle, column, non_neg_integer, binary) ::
          number | atom | <<_::128>> | {pos_integer, binary} | failure
  def array_sum(_handle, _column, _from, _state), do: not_loaded()

  @spec array_min(handle, column, non_neg_integer, binary) ::
          number | atom | {pos_integer, binary} | failure
  def array_min(_handle, _column, _from, _state), do: not_loaded()

  @spec array_max(handle, column, non_neg_integer, binary) ::
          number | atom | {pos_integer, binary} | failure
  def array_max(_handle, _column, _from, _state), do: not_loaded()
  # `-1 - index` if the element at the index is not equal.
  @spec array_search(handle, column, number | atom | binary, 0..1) :: integer | failure
  def array_search(_handle, _column, _key, _after_equal), do: not_loaded()

  @spec array_at(handle, column, non_neg_integer) ::
          number | atom | failure | waits
  def array_at(_handle, _column, _index), do: not_loaded()
  @spec array_pick(handle, column, [integer]) :: {[number | atom], [integer]} | failure | waits
  def array_pick(_handle, _column, _indices), do: not_loaded()
  @spec array_pack(handle, column, non_neg_integer, non_neg_integer) :: binary | failure
  def array_pack(_handle, _column, _from, _count), do: not_loaded()

  @spec array_append(handle, non_neg_integer, pos_integer, binary) ::
          non_neg_integer | failure | waits
  def array_append(_handle, _first, _stride, _data), do: not_loaded()

  # Hot, without a lock.
  @spec atomic_add(handle, integer, integer) :: integer | failure
  def atomic_add(_handle, _position, _value), do: not_loaded()
  @spec atomic_xchg(handle, integer, integer) :: integer | failure
  def atomic_xchg(_handle, _position, _value), do: not_loaded()
  @spec atomic_and(handle, integer, integer) :: integer | failure
  def atomic_and(_handle, _position, _value), do: not_loaded()
  @spec atomic_or(handle, integer, integer) :: integer | failure
  def atomic_or(_handle, _position, _value), do: not_loaded()
  @spec atomic_xor(handle, integer, integer) :: integer | failure
  def atomic_xor(_handle, _position, _value), do: not_loaded()
  @spec atomic_min(handle, integer, integer) :: integer | failure
  def atomic_min(_handle, _position, _value), do: not_loaded()
  @spec atomic_max(handle, integer, integer) :: integer | failure
  def atomic_max(_handle, _position, _value), do: not_loaded()
  @spec atomic_cas(handle, integer, integer, integer) :: integer | failure
  def atomic_cas(_handle, _position, _expected, _new), do: not_loaded()
  @spec atomic_read(handle, integer) :: integer | failure
  def atomic_read(_handle, _position), do: not_loaded()
  @spec atomic_write(handle, integer, integer) :: :ok | failure
  def atomic_write(_handle, _position, _value), do: not_loaded()
  # On one counter: the result is not wrapped, because the caller would only unwrap it.
  @type refused :: {:error, atom}
  @spec counter_add(handle, integer, integer) :: :ok | refused
  def counter_add(_handle, _index, _value), do: not_loaded()
  @spec counter_next(handle, integer, integer) :: integer | refused
  def counter_next(_handle, _index, _value), do: not_loaded()
  @spec counter_get(handle, integer) :: integer | refused
  def counter_get(_handle, _index), do: not_loaded()
  @spec counter_put(handle, integer, integer) :: :ok | refused
  def counter_put(_handle, _index, _value), do: not_loaded()
  @spec counter_exchange(handle, integer, integer) :: integer | refused
  def counter_exchange(_handle, _index, _value), do: not_loaded()
  @spec counter_compare_exchange(handle, integer, integer, integer) :: :ok | integer | refused
  def counter_compare_exchange(_handle, _index, _expected, _new), do: not_loaded()

  # Cold.
  # The payload; for a term, in a tuple.
  @type queue_item :: binary | {binary}
  @type queue_failure :: failure | {:error, {:corrupt, non_neg_integer} | :full | :gone}

  # Of dynamic counters: as above, with a name, or the index of a name that was given at open. Moved to dirty I/O if a counter has to be added and another
  # program has the lock, or the file has no room.
  @type refused_name :: refused | {:error, :max_names} | waits
  @spec dynamic_add(handle, binary | non_neg_integer, integer) :: :ok | refused_name
  def dynamic_add(_handle, _name, _value), do: not_loaded()
  @spec dynamic_next(handle, binary | non_neg_integer, integer) :: integer | refused_name
  def dynamic_next(_handle, _name, _value), do: not_loaded()
  @spec dynamic_get(handle, binary | non_neg_integer) :: integer | refused_name
  def dynamic_get(_handle, _name), do: not_loaded()
  @spec dynamic_put(handle, binary | non_neg_integer, integer) :: :ok | refused_name
  def dynamic_put(_handle, _name, _value), do: not_loaded()
  @spec dynamic_exchange(handle, binary | non_neg_integer, integer) :: integer | refused_name
  def dynamic_exchange(_handle, _name, _value), do: not_loaded()

  @spec dynamic_compare_exchange(handle, binary | non_neg_integer, integer, integer) ::
          :ok | integer | refused_name
  def dynamic_compare_exchange(_handle, _name, _expected, _new), do: not_loaded()

  @spec dynamic_open(binary, map) ::
          {:ok, handle, pos_integer} | {:error, Emmap.Counters.reason()} | waits
  def dynamic_open(_path, _wanted), do: not_loaded()
  # At most `most` counters from a place on, and the next place.
  @spec dynamic_entries(handle, non_neg_integer, non_neg_integer) ::
          {:ok, [{String.t(), integer}], non_neg_integer | nil} | failure | waits
  def dynamic_entries(_handle, _from, _most), do: not_loaded()
  @spec dynamic_info(handle) :: {:ok, map} | failure
  def dynamic_info(_handle), do: not_loaded()
  @spec dynamic_reattach(handle) :: :ok | {:error, Emmap.Counters.reason() | :closed} | waits
  def dynamic_reattach(_handle), do: not_loaded()

  @spec counters_open(binary, map) ::
          {:ok, handle, non_neg_integer, pos_integer, [String.t()]}
          | failure
          | {:error, {:bad_format, atom} | {:other_names, [String.t()]}}
          | waits
  def counters_open(_path, _wanted), do: not_loaded()
  # The values before `last`, some at a time, prepended to those after them.
  @spec counters_list(handle, non_neg_integer, [integer]) ::
          {:ok, {non_neg_integer, [integer]}} | failure
  def counters_list(_handle, _last, _behind), do: not_loaded()
  # On the caller's scheduler: at most 2048 words, and at least one counter.
  @spec counters_range(handle, non_neg_integer, non_neg_integer) :: {:ok, [integer]} | failure
  def counters_range(_handle, _from, _count), do: not_loaded()

  @spec queue_open(binary, map) ::
          {:ok, handle} | failure | {:error, {:bad_format, atom}} | waits
  def queue_open(_path, _wanted), do: not_loaded()
  @spec queue_close(handle) :: :ok | failure | waits
  def queue_close(_handle), do: not_loaded()
  @spec queue_reattach(handle) :: :ok | failure | {:error, {:bad_format, atom}} | waits
  def queue_reattach(_handle), do: not_loaded()
  @spec queue_push(handle, binary, 0 | 1) :: :ok | failure | waits
  def queue_push(_handle, _payload, _term), do: not_loaded()

  @spec queue_push_as(handle, binary, 0 | 1, integer, 0 | 1, binary, non_neg_integer) ::
          :ok | :duplicate | failure | waits
  def queue_push_as(_handle, _payload, _term, _most, _drop, _producer, _number), do: not_loaded()

  @spec queue_push_many(handle, [binary], 0 | 1, integer, 0 | 1) ::
          {non_neg_integer, :ok | queue_failure} | failure | waits
  def queue_push_many(_handle, _payloads, _term, _most, _drop), do: not_loaded()

  @spec queue_pop_many(handle, non_neg_integer, pos_integer, pos_integer, 0 | 1) ::
          {[queue_item, ...], non_neg_integer} | :empty | queue_failure | waits
  def queue_pop_many(_handle, _cursor, _items, _bytes, _more), do: not_loaded()

  @spec queue_check_out_many(
          handle,
          non_neg_integer,
          non_neg_integer,
          pos_integer,
          pos_integer,
          0 | 1
        ) ::
          {[{queue_item, non_neg_integer, pos_integer, non_neg_integer}], non_neg_integer}
          | :empty
          | queue_failure
          | waits
  def queue_check_out_many(_handle, _cursor, _most_attempts, _items, _bytes, _more),
    do: not_loaded()

  @spec queue_acknowledge_many(handle, non_neg_integer, [
          {non_neg_integer, pos_integer, non_neg_integer}
        ]) :: :ok | queue_failure | waits
  def queue_acknowledge_many(_handle, _cursor, _receipts), do: not_loaded()

  @spec queue_pop(handle, non_neg_integer) :: queue_item | :empty | queue_failure | waits
  def queue_pop(_handle, _cursor), do: not_loaded()
  @spec queue_peek(handle, non_neg_integer) :: queue_item | :empty | queue_failure | waits
  def queue_peek(_handle, _cursor), do: not_loaded()
  @spec queue_peek_last(handle, non_neg_integer) :: queue_item | :empty | queue_failure | waits
  def queue_peek_last(_handle, _cursor), do: not_loaded()

  @spec queue_look(handle, non_neg_integer, non_neg_integer) ::
          {queue_item, non_neg_integer, non_neg_integer, non_neg_integer}
          | :empty
          | queue_failure
          | waits
  def queue_look(_handle, _cursor, _position), do: not_loaded()

  @spec queue_after_damage(handle, non_neg_integer, non_neg_integer) ::
          non_neg_integer | queue_failure | waits
  def queue_after_damage(_handle, _cursor, _position), do: not_loaded()

  @spec queue_check_out(handle, non_neg_integer, non_neg_integer) ::
          {queue_item, non_neg_integer, pos_integer, non_neg_integer}
          | :empty
          | queue_failure
          | waits
  def queue_check_out(_handle, _cursor, _most_attempts), do: not_loaded()

  @spec queue_acknowledge(
          handle,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer
        ) :: :ok | failure | waits
  def queue_acknowledge(_handle, _cursor, _sequence, _attempts, _claim), do: not_loaded()

  @spec queue_release(
          handle,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer
        ) :: :ok | failure | waits
  def queue_release(_handle, _cursor, _sequence, _attempts, _claim), do: not_loaded()
  @spec queue_record(handle, non_neg_integer, [non_neg_integer]) :: :ok | queue_failure | waits
  def queue_record(_handle, _cursor, _sequences), do: not_loaded()

  @spec queue_lengths(handle, non_neg_integer) ::
          {non_neg_integer, non_neg_integer} | failure
  def queue_lengths(_handle, _cursor), do: not_loaded()
  @spec queue_bytes(handle) :: non_neg_integer | failure | waits
  def queue_bytes(_handle), do: not_loaded()
  @spec queue_sync(handle) :: :ok | queue_failure | waits
  def queue_sync(_handle), do: not_loaded()
  @spec queue_durable(handle) :: {:ok, pos_integer} | queue_failure
  def queue_durable(_handle), do: not_loaded()
  @spec queue_wait(handle, boolean) :: {:ok, pos_integer} | queue_failure
  def queue_wait(_handle, _space), do: not_loaded()
  @spec queue_stop_waiting(handle, boolean, pos_integer) :: boolean
  def queue_stop_waiting(_handle, _space, _ticket), do: not_loaded()

  @spec queue_reader(handle, binary, non_neg_integer) ::
          {:ok, non_neg_integer} | queue_failure | waits
  def queue_reader(_handle, _name, _max_lag), do: not_loaded()
  @spec queue_delete_reader(handle, binary) :: :ok | queue_failure | waits
  def queue_delete_reader(_handle, _name), do: not_loaded()
  @spec queue_clear(handle, non_neg_integer) :: :ok | queue_failure | waits
  def queue_clear(_handle, _cursor), do: not_loaded()
  @spec queue_info(handle) :: {:ok, map} | queue_failure | waits
  def queue_info(_handle), do: not_loaded()

  @spec counters_reattach(handle, [String.t()]) ::
          :ok | failure | {:error, {:bad_format, atom}} | waits
  def counters_reattach(_handle, _names), do: not_loaded()
  @spec open(map) :: {:ok, handle, root} | failure | waits
  def open(_request), do: not_loaded()
  @spec dup(handle) :: {:ok, handle, root} | failure
  def dup(_handle), do: not_loaded()
  @spec close(handle) :: :ok | failure
  def close(_handle), do: not_loaded()
  @spec resize(handle, non_neg_integer) :: :ok | failure | waits
  def resize(_handle, _size), do: not_loaded()
  @spec double(handle) :: {:ok, non_neg_integer} | failure | waits
  def double(_handle), do: not_loaded()
  @spec truncate(handle) :: :ok | failure | waits
  def truncate(_handle), do: not_loaded()
  @spec reattach(handle) :: :ok | failure | waits
  def reattach(_handle), do: not_loaded()
  @spec refuse_writes(handle) :: :ok | failure
  def refuse_writes(_handle), do: not_loaded()
  @spec protect(handle) :: :ok | failure | waits
  def protect(_handle), do: not_loaded()
  @spec sync(handle, boolean) :: :ok | failure
  def sync(_handle, _wait), do: not_loaded()
  @spec sync_range(handle, non_neg_integer, non_neg_integer, boolean) :: :ok | failure
  def sync_range(_handle, _position, _count, _wait), do: not_loaded()
  @spec datasync(handle) :: :ok | failure
  def datasync(_handle), do: not_loaded()
  @spec advise(handle, non_neg_integer, non_neg_integer, atom) :: :ok | failure
  def advise(_handle, _position, _count, _advice), do: not_loaded()
  @spec advise_memory(handle, non_neg_integer, non_neg_integer, atom) :: :ok | failure
  def advise_memory(_handle, _position, _count, _advice), do: not_loaded()
  @spec allocate(handle, non_neg_integer, non_neg_integer) :: :ok | failure | waits
  def allocate(_handle, _position, _count), do: not_loaded()
  @spec prefetch(handle, non_neg_integer, non_neg_integer) :: :ok | failure
  def prefetch(_handle, _position, _count), do: not_loaded()
  @spec move_window(handle, non_neg_integer, non_neg_integer, non_neg_integer) :: :ok | failure
  def move_window(_handle, _behind, _position, _count), do: not_loaded()

  # For a few milliseconds, in `position .. stop` of a range that begins at `start`.
  @spec count_byte(handle, non_neg_integer, non_neg_integer, non_neg_integer, byte) ::
          {:ok, {non_neg_integer, non_neg_integer}} | failure
  def count_byte(_handle, _start, _position, _stop, _byte), do: not_loaded()

  @spec find_byte(handle, non_neg_integer, non_neg_integer, non_neg_integer, byte) ::
          {:ok, {:found, non_neg_integer} | {:next, non_neg_integer} | nil} | failure
  def find_byte(_handle, _start, _position, _stop, _byte), do: not_loaded()
  @spec lock_memory(handle, non_neg_integer, non_neg_integer) :: :ok | failure
  def lock_memory(_handle, _position, _count), do: not_loaded()
  @spec unlock_memory(handle, non_neg_integer, non_neg_integer) :: :ok | failure
  def unlock_memory(_handle, _position, _count), do: not_loaded()
  @spec describe(handle, boolean) :: {:ok, map} | failure
  def describe(_handle, _look), do: not_loaded()
  @spec size(handle) :: {:ok, non_neg_integer} | failure
  def size(_handle), do: not_loaded()
  @spec info(handle) :: {:ok, map} | failure
  def info(_handle), do: not_loaded()
  # The file of a map, for OTP's calls. The descriptor is a duplicate of the map's, and its
  # number belongs to that file until it is closed.
  @spec file_info(handle) :: {:ok, map} | failure
  def file_info(_handle), do: not_loaded()
  # The next range of data, as its start and end; `:eof`: only holes follow, which are zeros.
  @spec next_data(handle, non_neg_integer) ::
          {:ok, {non_neg_integer, pos_integer}} | :eof | failure
  def next_data(_handle, _position), do: not_loaded()
  @spec descriptor_open(handle) :: {:ok, reference, non_neg_integer} | failure
  def descriptor_open(_handle), do: not_loaded()
  @spec descriptor_close(reference) :: :ok | failure
  def descriptor_close(_descriptor), do: not_loaded()
  # In steps: see `Emmap.Search.Preparation`.
  @spec search_prepare(:any | :forward | :backward) :: reference
  def search_prepare(_purpose), do: not_loaded()
  @spec search_add(reference, [binary]) :: [binary]
  def search_add(_preparing, _patterns), do: not_loaded()
  @spec search_append(reference, binary, pos_integer) :: :ok
  def search_append(_preparing, _bytes, _length), do: not_loaded()
  @spec search_advance(reference) :: reference | nil
  def search_advance(_preparing), do: not_loaded()
  @spec search_patterns_few([binary]) :: reference
  def search_patterns_few(_patterns), do: not_loaded()

  @spec residency(handle, 1..0xFFFF) ::
          {:ok, [{pos_integer, non_neg_integer}]} | failure
  def residency(_handle, _parts), do: not_loaded()
  # How many faults all maps have had, and whether one has a fault now.
  @spec faults() :: {non_neg_integer, boolean}
  def faults(), do: not_loaded()
  # A copy, or the error of the map to which the binary belongs.
  @spec source_copy(binary) :: {:ok, binary} | failure
  def source_copy(_data), do: not_loaded()
  # Notification of faults: see native/emmap_nif/src/monitors.rs.
  @spec monitor(handle) :: {:ok, reference} | failure
  def monitor(_handle), do: not_loaded()
  @spec demonitor(reference) :: boolean
  def demonitor(_monitor), do: not_loaded()
  # Objects are `{:object, pairs}`. The text must not be live.
  @spec json(binary) :: {:ok, term} | failure
  def json(_text), do: not_loaded()
  @spec guard_status() :: :ok | :lost | :off
  def guard_status(), do: not_loaded()
  @spec live() :: {non_neg_integer, non_neg_integer}
  def live(), do: not_loaded()

  # Waiting for a word of a map: see native/emmap_nif/src/words.rs.
  @spec word_wait(handle, integer, integer, reference) :: integer | {:ok, reference} | failure
  def word_wait(_handle, _position, _expected, _tag), do: not_loaded()
  @spec word_cancel(reference) :: boolean
  def word_cancel(_waiter), do: not_loaded()
  @spec word_notify(handle, integer) :: :ok | failure
  def word_notify(_handle, _position), do: not_loaded()

  # Tables: see native/emmap_nif/src/table/.

  @type table_failure :: failure | {:error, {:corrupt, non_neg_integer}}
  @type table_reason :: failure | {:error, {:bad_format, atom}}

  @spec table_open(binary) :: {:ok, handle, root, map} | table_reason | waits
  def table_open(_path), do: not_loaded()
  @spec table_reattach(handle) :: :ok | table_reason | waits
  def table_reattach(_handle), do: not_loaded()
  # Hot: on the caller's scheduler, or on dirty I/O for the copy of a long value.
  @spec table_get(handle, root, binary) :: binary | nil | table_failure
  def table_get(_handle, _root, _key), do: not_loaded()
  @spec table_has(handle, binary) :: boolean | table_failure
  def table_has(_handle, _key), do: not_loaded()
  @spec table_seek(handle, binary) :: non_neg_integer | table_failure
  def table_seek(_handle, _key), do: not_loaded()

  @spec table_walk(handle, root, non_neg_integer, pos_integer, 0..5, binary) ::
          {[binary | {binary, binary}], non_neg_integer | nil} | table_failure
  def table_walk(_handle, _root, _position, _most, _what, _bound), do: not_loaded()

  @type table_place ::
          {non_neg_integer, non_neg_integer, non_neg_integer, non_neg_integer, non_neg_integer}
  @spec table_check(handle, table_place) :: :ok | table_place | table_failure
  def table_check(_handle, _place), do: not_loaded()

  @type table_unbuilt :: failure | {:error, :collisions | {:duplicate, binary}}
  @spec table_build(binary, map) :: {:ok, reference} | failure
  def table_build(_path, _wanted), do: not_loaded()
  @spec table_add(reference, [binary]) :: [binary] | table_unbuilt
  def table_add(_building, _records), do: not_loaded()

  @spec table_advance(reference, boolean) ::
          {:ok, {non_neg_integer, non_neg_integer, pos_integer}}
          | {atom, non_neg_integer, non_neg_integer}
          | table_unbuilt
  def table_advance(_building, _last), do: not_loaded()
  @spec table_end(reference) :: :ok
  def table_end(_building), do: not_loaded()
  # Locks that processes hold: see native/emmap_nif/src/locks.rs.
  @type bad_file :: failure | {:error, {:bad_format, atom}}
  @spec mutex_open(binary, boolean) :: {:ok, reference} | bad_file
  def mutex_open(_path, _existing), do: not_loaded()

  @spec lock_request(reference, reference, boolean) ::
          :ok | :abandoned | :taken | {:wait, pos_integer} | failure
  def lock_request(_lock, _tag, _waits), do: not_loaded()
  @spec lock_cancel(reference, pos_integer) :: boolean
  def lock_cancel(_lock, _number), do: not_loaded()
  @spec lock_forget(reference, pos_integer) :: :ok
  def lock_forget(_lock, _number), do: not_loaded()
  @spec lock_release(reference, boolean) :: :ok | failure
  def lock_release(_lock, _clean), do: not_loaded()
  @spec lock_close(reference) :: :ok | failure
  def lock_close(_lock), do: not_loaded()
  @spec lock_info(reference) :: {:ok, map} | failure
  def lock_info(_lock), do: not_loaded()

  # Snapshots: see native/emmap_nif/src/snapshot.rs.
  @spec snapshot_open(binary, boolean) :: {:ok, reference, reference} | bad_file
  def snapshot_open(_path, _existing), do: not_loaded()
  @spec snapshot_close(reference) :: :ok | failure
  def snapshot_close(_snapshot), do: not_loaded()
  @spec snapshot_current(reference) :: reference | {term} | {:open, pos_integer} | failure
  def snapshot_current(_snapshot), do: not_loaded()
  @spec snapshot_generation(reference) :: non_neg_integer | failure
  def snapshot_generation(_snapshot), do: not_loaded()
  @spec snapshot_wait(reference, integer, reference) :: integer | {:ok, reference} | failure
  def snapshot_wait(_snapshot, _number, _tag), do: not_loaded()
  @spec snapshot_prepare(reference) :: :ok | failure
  def snapshot_prepare(_snapshot), do: not_loaded()
  @spec snapshot_version(reference) :: {:ok, map} | bad_file
  def snapshot_version(_snapshot), do: not_loaded()
  @spec snapshot_publish(reference, binary, binary, boolean) :: {:ok, pos_integer} | bad_file
  def snapshot_publish(_snapshot, _directory, _file, _synced), do: not_loaded()
  @spec snapshot_tidy(reference, binary) :: :ok | failure
  def snapshot_tidy(_snapshot, _directory), do: not_loaded()

  @spec snapshot_begin_open(reference, pos_integer, reference) ::
          :again | :wait | {:ok, reference}
  def snapshot_begin_open(_snapshot, _number, _tag), do: not_loaded()
  @spec snapshot_end_open(reference, non_neg_integer, term) :: :ok
  def snapshot_end_open(_opener, _number, _term), do: not_loaded()
  @spec snapshot_subscribe(reference) :: {:ok, reference} | failure
  def snapshot_subscribe(_snapshot), do: not_loaded()
  @spec snapshot_unsubscribe(reference) :: boolean
  def snapshot_unsubscribe(_subscription), do: not_loaded()

  # Blocks: see native/emmap_nif/src/blocks/.

  @type blocks_failure :: failure | {:error, {:corrupt, non_neg_integer}}

  @spec blocks_open(binary, map) ::
          {:ok, handle, pos_integer}
          | failure
          | {:error, {:bad_format, atom} | {:other_block_size, pos_integer}}
          | waits
  def blocks_open(_path, _wanted), do: not_loaded()
  @spec blocks_close(handle) :: :ok | failure | waits
  def blocks_close(_handle), do: not_loaded()
  @spec blocks_reattach(handle) :: :ok | failure | {:error, {:bad_format, atom}} | waits
  def blocks_reattach(_handle), do: not_loaded()
  @spec blocks_sync(handle) :: :ok | failure | waits
  def blocks_sync(_handle), do: not_loaded()
  @spec blocks_trim(handle) :: {:ok, non_neg_integer} | failure | waits
  def blocks_trim(_handle), do: not_loaded()
  @spec blocks_info(handle) :: {:ok, map} | failure | waits
  def blocks_info(_handle), do: not_loaded()
  @spec blocks_last(handle, non_neg_integer) :: {:ok, non_neg_integer | nil} | failure | waits
  def blocks_last(_handle, _below), do: not_loaded()

  @spec blocks_check(handle, non_neg_integer) ::
          {:ok, non_neg_integer, [non_neg_integer], non_neg_integer | nil} | failure | waits
  def blocks_check(_handle, _from), do: not_loaded()
  @spec blocks_store(handle, binary) :: non_neg_integer | failure | waits
  def blocks_store(_handle, _data), do: not_loaded()
  @spec blocks_store_at(handle, non_neg_integer, binary) :: :ok | failure | waits
  def blocks_store_at(_handle, _address, _data), do: not_loaded()

  @spec blocks_store_many(handle, [binary]) ::
          {[non_neg_integer], :ok | failure} | failure | waits
  def blocks_store_many(_handle, _data), do: not_loaded()
  @spec blocks_read(handle, non_neg_integer) :: binary | blocks_failure | waits
  def blocks_read(_handle, _address), do: not_loaded()
  @spec blocks_view(handle, non_neg_integer) :: binary | blocks_failure | waits
  def blocks_view(_handle, _address), do: not_loaded()
  @spec blocks_write(handle, non_neg_integer, binary) :: :ok | failure | waits
  def blocks_write(_handle, _address, _data), do: not_loaded()
  @spec blocks_free(handle, non_neg_integer) :: :ok | failure | waits
  def blocks_free(_handle, _address), do: not_loaded()
  @spec blocks_is_used(handle, non_neg_integer) :: boolean | failure | waits
  def blocks_is_used(_handle, _address), do: not_loaded()
  @spec blocks_count(handle) :: non_neg_integer | failure
  def blocks_count(_handle), do: not_loaded()

  @spec blocks_read_from(handle, non_neg_integer, non_neg_integer, pos_integer) ::
          {[{non_neg_integer, binary | blocks_failure}], non_neg_integer} | failure | waits
  def blocks_read_from(_handle, _from, _end, _most), do: not_loaded()

  # The predecessor's block storage, in any map: see native/emmap_nif/src/block_storage.rs.

  @spec block_storage_init(handle, pos_integer) :: :ok | failure | waits
  def block_storage_init(_handle, _block_size), do: not_loaded()

  @spec block_storage_look(handle) ::
          {:ok, pos_integer} | failure | {:error, {:bad_format, atom}} | waits
  def block_storage_look(_handle), do: not_loaded()

  @spec block_storage_store(handle, binary) :: non_neg_integer | :badarg | failure | waits
  def block_storage_store(_handle, _data), do: not_loaded()
  @spec block_storage_read(handle, non_neg_integer) :: binary | :eof | :badarg | failure | waits
  def block_storage_read(_handle, _address), do: not_loaded()
  @spec block_storage_free(handle, non_neg_integer) :: boolean | :badarg | failure | waits
  def block_storage_free(_handle, _address), do: not_loaded()

  @spec block_storage_read_from(handle, non_neg_integer, pos_integer, 0 | 1) ::
          {[{non_neg_integer, binary}], non_neg_integer | :eof} | :badarg | failure | waits
  def block_storage_read_from(_handle, _address, _most, _all), do: not_loaded()

  @spec block_storage_repair(handle, non_neg_integer, pos_integer) ::
          non_neg_integer | :eof | :badarg | failure | waits
  def block_storage_repair(_handle, _address, _most), do: not_loaded()

  # The library is missing in only one case: see `load`.
  defp not_loaded do
    message =
      "the native library of emmap is not loaded: the system loads libraries from files, and the code of emmap is in " <>
        "an escript or another archive, or in a folder that is not named emmap (#{:code.which(__MODULE__)}). " <>
        "Use a release (mix release), or run the program with mix run or Mix.install"

    :erlang.nif_error(RuntimeError.exception(message))
  end
end
