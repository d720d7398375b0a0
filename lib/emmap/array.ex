defmodule Emmap.Array do
  @moduledoc """
  Numbers and records in a file, as an array: read by index, summed and searched in native code, shared by all processes.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_array.bin")
      iex> _ = File.rm(path)
      iex> type = [id: :u64, at: {:i64, :big}, name: {:bytes, 4}, pad: 4]
      iex> {:ok, array} = Emmap.Array.open(path, type, [:create])
      iex> {:ok, 0} = Emmap.Array.append(array, [%{id: 7, at: 100, name: "ab"}, %{id: 9, at: 250, name: "cd"}])
      iex> Emmap.Array.at(array, 1)
      %{id: 9, at: 250, name: <<"cd", 0, 0>>}
      iex> array |> Emmap.Array.column(:id) |> Enum.to_list()
      [7, 9]
      iex> Emmap.Array.sum(array, :at)
      350
      iex> Emmap.Array.binary_search(array, :at, 250)
      {:ok, 1}

  ## Types

    * a number: one of the types of `Emmap.get/3` (see `Emmap.Typed`), such as `:f64` or `{:u32, :big}`, or a type of Nx, such as
      `{:f, 64}` or `{:s, 32}`
    * `{:bytes, n}`: a binary of `n` bytes. A shorter one is padded with zeros when it is written
    * a record: a list of `{name, type}`, and `{name, n}` for `n` bytes that are skipped. It is read as an Elixir map.
      The fields follow each other without gaps, as in a packed struct of C or a dtype of NumPy; add gaps where the
      other program has them
    * `:npy`: a `.npy` file of NumPy, which describes itself

  The file has no header (except a `.npy` file), so other programs read and write the same bytes: `numpy.memmap`, `zerocopy` of
  Rust, a struct of C. See [Records and lookup tables](records-and-lookup-tables.md).

  ## The contract

    * An array is a view of a map: it copies nothing, and any process of this node may use it. Its elements are counted from 0.
    * Without `:count`, the array ends with the last whole record of the map, and grows with it. `append/2` adds
      records, from any number of processes and VMs at the same time. Records that others append are seen after the next
      `append/2` or `reattach/1` of this handle.
    * `at/2`, `put/3`, `get_many/2` and `put_many/2` take the lock of `Emmap.pread/3` (unless the map is `:nolock`), so a
      record is read as a whole with respect to writes through the same handle. Sums and searches do not take it.
    * Functions that return a plain value raise `Emmap.Error` with one of these reasons: `:closed`; `:estale` if another
      program has truncated the file; and the other reasons that `Emmap.reattach/1` lists. Incorrect use raises
      `ArgumentError`.
    * Writes survive the end of the VM, including `kill -9`. After a crash in the middle of `append/2`, the file has
      some of its records, in order and whole. A part of one more record may follow; it is not counted, and the next
      append overwrites it. To survive a power failure, call `sync/1`.

  ## What it costs

  `at/2` of a number takes as long as `Emmap.get/3`. Sums, minima and maxima read the memory once, on dirty CPU
  schedulers, in steps of 2 milliseconds: if the process is killed, or `close/1` is called, they end after the current
  step. A binary search reads about log2(n) elements on the scheduler of the caller, and moves to a dirty one if they
  have to be read from a slow disk.

  An array is `Enumerable` (`Enum` functions read ahead 16 KiB at a time) and supports `Access`: `array[5]` is the element,
  or `nil`, and `array[:name]` is a column.
  """

  import Kernel, except: [min: 2, max: 2]
  import Emmap.Handle, only: [handle: 1]
  import Emmap.Waiting, only: [patient: 1]

  alias Emmap.Array.{Bulk, Codec, Folds, Form, Npy, Opening}
  alias Emmap.{Native, Structure, Typed}

  @enforce_keys [:mem, :type, :form, :first, :stride, :field, :fixed, :at]
  defstruct [:mem, :type, :form, :first, :stride, :field, :fixed, :at, :nx, :shape, order: :c]

  @typedoc "The name of a field. Those of a `.npy` file are strings."
  @type name :: atom | String.t()
  @typedoc "See [Types](#module-types)."
  @type type ::
          Typed.t()
          | {:u | :s | :f, 8 | 16 | 32 | 64}
          | {:bytes, pos_integer}
          | [{name, type | pos_integer}]
  @typedoc "An element that was read."
  @type element :: Typed.number_read() | binary | %{name => Typed.number_read() | binary}
  @typedoc "An element to write."
  @type new_element ::
          Typed.number_written() | binary | %{name => Typed.number_written() | binary}
  @typedoc "A type as Nx names it; `nil` for a type that Nx does not have."
  @type nx_type :: {:u | :s | :f | :c, 8 | 16 | 32 | 64 | 128} | nil
  @typedoc """
  What is wrong with a file: it is shorter than its records (`:length`). Of a `.npy` file: it does not begin as one
  (`:magic`), its version is unknown (`:version`), its header is invalid (`:header`), its shape is invalid (`:shape`),
  or its type has no fixed size, such as Python objects (`:type`).
  """
  @type bad_format :: :length | Npy.bad_format()
  @typedoc "An array. All fields are private."
  @type t :: %__MODULE__{
          mem: Emmap.t(),
          type: type,
          form: Form.t(),
          first: non_neg_integer,
          stride: pos_integer,
          field: non_neg_integer,
          fixed: non_neg_integer | nil,
          at: tuple,
          nx: nx_type,
          shape: tuple | nil,
          order: :c | :fortran
        }
  @typedoc """
  See `open/3`.
  """
  @type option ::
          {:offset, non_neg_integer} | {:count, non_neg_integer} | {:shape, tuple}

  # An index past the end of every array.
  @past_end 0x7FFF_FFFF_FFFF_FFFF

  # Opening and closing

  @doc """
  Maps a file, and returns `{:ok, array}`.

  `type` is described in [Types](#module-types). Options:

    * `{:offset, n}` – the position of the first record, in bytes from the start of the file (default 0)
    * `{:count, n}` – the number of records. The array then never grows. With `:create`, a new file gets this size
    * `{:shape, {rows, columns}}` – the shape of a tensor, in row-major order, instead of `:count`
    * all options of `Emmap.open/2`, such as `:write`, `:create`, `:nolock`

  Errors are those of `Emmap.open/2`, and `{:bad_format, why}`: see `t:bad_format/0`.

  With `:npy`, the header gives the type, the position and the shape, and the only options are those of `Emmap.open/2`. Numbers
  that `Emmap.get/3` does not read (16-bit floats, complex numbers) and Unicode strings are `{:bytes, n}`; booleans are `:u8`; times are `:i64`. The
  fields of a structured type have strings as names, with dots for fields in fields; a field that is itself an array is
  `{:bytes, n}`.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_array.f64")
      iex> File.write!(path, for(n <- 1..6, into: "", do: <<n * 0.5::float-64-native>>))
      iex> {:ok, array} = Emmap.Array.open(path, :f64, shape: {2, 3})
      iex> {Emmap.Array.count(array), Emmap.Array.shape(array), Emmap.Array.nx_type(array)}
      {6, {2, 3}, {:f, 64}}
      iex> Emmap.Array.at(array, {1, 2})
      3.0
  """
  @doc group: "Opening and closing"
  @spec open(Path.t() | :file.name_all() | Emmap.open_file(), type | :npy, [
          option | Emmap.Options.option()
        ]) ::
          {:ok, t} | {:error, Emmap.reason() | {:bad_format, bad_format}}
  def open(path, type, options \\ []) do
    is_list(options) ||
      raise ArgumentError, "options must be a list, got #{inspect(options)}"

    {own, others} =
      Enum.split_with(options, &(match?({_, _}, &1) and elem(&1, 0) in [:offset, :count, :shape]))

    # Invalid arguments raise, whether the file exists or not.
    checked = Opening.checked!(type, own)

    with {:ok, mem} <- Emmap.open(path, others ++ Opening.size(checked, others)) do
      with {:error, _} = error <- Opening.build(mem, checked) do
        _ = Emmap.close(mem)
        error
      end
    end
  end

  @doc "Same as `open/3`, but returns only the array and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Path.t() | :file.name_all() | Emmap.open_file(), type | :npy, [
          option | Emmap.Options.option()
        ]) :: t
  def open!(path, type, options \\ []) do
    case open(path, type, options) do
      {:ok, array} ->
        array

      {:error, reason} ->
        path = if is_tuple(path), do: nil, else: Emmap.Path.bytes!(path)
        raise Emmap.Error, op: :open, path: path, reason: reason, kind: kind(type)
    end
  end

  @doc """
  Makes an array of a map, or of a part of it, and returns `{:ok, array}`.

  Options are `:offset`, `:count` and `:shape`, as in `open/3`. With `:npy`, `:offset` is the position of the header. The only errors
  are `:closed` and `{:bad_format, why}`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 64])
      iex> {:ok, array} = Emmap.Array.of(mem, {:u16, :big}, offset: 16, count: 8)
      iex> Emmap.Array.put_many(array, [{0, 1}, {7, 515}])
      :ok
      iex> Emmap.pread(mem, 30, 2)
      {:ok, <<2, 3>>}
  """
  @doc group: "Opening and closing"
  @spec of(Emmap.t(), type | :npy, [option]) ::
          {:ok, t} | {:error, Emmap.reason() | {:bad_format, bad_format}}
  def of(mem, type, options \\ [])
  def of(handle(_) = mem, type, options), do: Opening.build(mem, Opening.checked!(type, options))
  def of(other, _type, _options), do: Emmap.Handle.none!(other)

  @doc "Same as `of/3`, but returns only the array and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec of!(Emmap.t(), type | :npy, [option]) :: t
  def of!(mem, type, options \\ []) do
    case of(mem, type, options) do
      {:ok, array} -> array
      {:error, reason} -> raise Emmap.Error, op: :read, reason: reason, kind: kind(type)
    end
  end

  defp kind(:npy), do: :npy
  defp kind(_type), do: :array

  @doc "Closes the map. Each later call fails with `:closed`: functions that return a plain value raise `Emmap.Error`,
  and the others return `{:error, :closed}`. Live binaries stay valid."
  @doc group: "Opening and closing"
  @spec close(t) :: :ok | Emmap.failure()
  def close(array), do: Emmap.close(array!(array).mem)

  @doc "Writes all changes to the disk: see `Emmap.sync/1`. After `:ok`, they survive a power failure."
  @doc group: "Opening and closing"
  @spec sync(t) :: :ok | Emmap.failure()
  def sync(array), do: Emmap.sync(array!(array).mem)

  @doc """
  Adopts the current size of the file, so that records that others have appended are in the array; and repairs the map
  after lost pages. See `Emmap.reattach/1`.
  """
  @doc group: "Opening and closing"
  @spec reattach(t) :: :ok | Emmap.failure()
  def reattach(array), do: Emmap.reattach(array!(array).mem)

  # Information

  @doc "Returns the number of elements. It takes nanoseconds."
  @doc group: "Reading"
  @spec count(t) :: non_neg_integer
  def count(array)
  def count(%__MODULE__{fixed: count}) when count != nil, do: count

  def count(%__MODULE__{mem: handle(ref)} = array) do
    case Native.size(ref) do
      {:ok, size} -> whole(array, size)
      error -> failed!(array, :read, error)
    end
  end

  def count(other), do: no_array!(other)

  defp whole(%{first: first, stride: stride}, size) when size > first,
    do: div(size - first, stride)

  defp whole(_array, _size), do: 0

  @doc "Returns the shape as Nx and NumPy name it: that of the option or the `.npy` file, or `{count}`."
  @doc group: "Tensors"
  @spec shape(t) :: tuple
  def shape(%__MODULE__{shape: shape}) when shape != nil, do: shape
  def shape(array), do: {count(array)}

  @doc """
  Returns the type of the elements as Nx names it, such as `{:f, 64}`; `nil` for records, and for bytes other than the
  16-bit floats and complex numbers of a `.npy` file.

  Together with `shape/1`, and `view/1` or `to_binary/1`, it makes a tensor: see [Tensors](nx.md).
  """
  @doc group: "Tensors"
  @spec nx_type(t) :: nx_type
  def nx_type(array), do: array!(array).nx

  @doc """
  Returns `{:ok, map}` with what is known about an array: its `:type`, `:nx_type`, `:shape`, `:count`; the `:order` of the elements of a tensor (`:c`, row-major,
  or `:fortran`, column-major); and, in bytes, the `:offset` of the first element and the `:stride` from one to the next.
  """
  @doc group: "Reading"
  @spec info(t) ::
          {:ok,
           %{
             type: type,
             nx_type: nx_type,
             shape: tuple,
             count: non_neg_integer,
             order: :c | :fortran,
             offset: non_neg_integer,
             stride: pos_integer
           }}
          | Emmap.failure()
  def info(array) do
    %{mem: handle(ref)} = array = array!(array)

    with {:ok, size} <- Native.size(ref) do
      count = array.fixed || whole(array, size)

      {:ok,
       %{
         type: array.type,
         nx_type: array.nx,
         shape: array.shape || {count},
         count: count,
         order: array.order,
         offset: array.first + array.field,
         stride: array.stride
       }}
    end
  end

  # Reading

  @doc """
  Returns the element at `index`, or `nil` if there is none. A negative index counts from the end.

  For an array with a shape, `index` can also be a tuple, such as `{row, column}`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 16])
      iex> {:ok, array} = Emmap.Array.of(mem, :f64)
      iex> {Emmap.Array.at(array, 1), Emmap.Array.at(array, -2), Emmap.Array.at(array, 2)}
      {0.0, 0.0, nil}
  """
  @doc group: "Reading"
  @spec at(t, integer | tuple) :: element | nil
  def at(array, index)

  def at(%__MODULE__{at: {kind, ref, start, stride, limit}} = array, index)
      when is_integer(index) and index >= 0 and index < limit do
    case kind do
      :f64 -> number(patient(Native.get_f64(ref, start + index * stride)), array)
      :u64 -> number(patient(Native.get_u64(ref, start + index * stride)), array)
      :i64 -> number(patient(Native.get_i64(ref, start + index * stride)), array)
      {:column, column} -> number(patient(Native.array_at(ref, column, index)), array)
      nil -> Bulk.one(array, index)
      code -> number(patient(Native.typed_get(ref, start + index * stride, code)), array)
    end
  end

  def at(%__MODULE__{} = array, index) do
    case flat!(array, index) do
      # Past the end of every file.
      index when index >= @past_end -> nil
      index when index >= 0 -> within(array, index)
      index -> within(array, index + count(array))
    end
  end

  def at(other, _index), do: no_array!(other)

  defp within(%{at: {_, _, _, _, limit}} = array, index) when index >= 0 and index < limit,
    do: at(array, index)

  defp within(_array, _index), do: nil

  defp number(value, _array) when is_number(value), do: value
  defp number(:eof, _array), do: nil
  defp number({:error, _} = error, array), do: failed!(array, :read, error)
  defp number(not_finite_or_nil, _array), do: not_finite_or_nil

  defp flat!(_array, index) when is_integer(index), do: index

  defp flat!(%{shape: shape, order: order}, index)
       when is_tuple(index) and is_tuple(shape) and tuple_size(index) == tuple_size(shape) do
    pairs = Enum.zip(Tuple.to_list(index), Tuple.to_list(shape))

    if Enum.all?(pairs, fn {i, size} -> is_integer(i) and i in 0..(size - 1)//1 end) do
      pairs = if order == :c, do: pairs, else: Enum.reverse(pairs)
      Enum.reduce(pairs, 0, fn {i, size}, flat -> flat * size + i end)
    else
      # Past the end.
      @past_end
    end
  end

  defp flat!(_array, index) do
    raise ArgumentError,
          "an index is an integer, or a tuple with a number for each dimension of the shape, got #{inspect(index)}"
  end

  @doc """
  Returns the elements at several indices, a list or a range, in their order; `nil` where there is none.

  Numbers are read with one native call per thousand indices, whatever the indices are. A range with step 1 is read
  sequentially, in pieces.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4])
      iex> :ok = Emmap.pwrite(mem, 0, "abcd")
      iex> {:ok, array} = Emmap.Array.of(mem, :u8)
      iex> Emmap.Array.get_many(array, [3, 0, 9])
      [?d, ?a, nil]
      iex> Emmap.Array.get_many(array, 1..2)
      [?b, ?c]
  """
  @doc group: "Reading"
  @spec get_many(t, Range.t() | [integer]) :: [element | nil]
  def get_many(array, indices)

  def get_many(%__MODULE__{} = array, first..last//1 = range) when first >= 0 do
    size = Kernel.max(last - first + 1, 0)
    found = Bulk.pieces(array, first, size)
    found ++ List.duplicate(nil, Range.size(range) - length(found))
  end

  def get_many(%__MODULE__{} = array, %Range{} = range), do: get_many(array, Enum.to_list(range))

  def get_many(%__MODULE__{form: form} = array, indices)
      when is_integer(form) and is_list(indices) do
    count = count(array)

    indices =
      Enum.map(indices, fn
        index when is_integer(index) and index < 0 ->
          if index + count >= 0, do: index + count, else: @past_end

        index when is_integer(index) ->
          Kernel.min(index, @past_end)

        other ->
          flat!(array, other)
      end)

    Bulk.pick(array, indices)
  end

  def get_many(%__MODULE__{} = array, indices) when is_list(indices),
    do: Enum.map(indices, &at(array, &1))

  def get_many(%__MODULE__{}, other) do
    raise ArgumentError, "indices are a list or a range of integers, got #{inspect(other)}"
  end

  def get_many(other, _indices), do: no_array!(other)

  @doc """
  Returns the column of a field: an array of its values, which is a view of the same records. Raises `ArgumentError` if
  the type does not have this field.
  """
  @doc group: "Reading"
  @spec column(t, name) :: t
  def column(%__MODULE__{} = array, name) do
    case field(array, name) do
      nil -> raise ArgumentError, "no field #{inspect(name)}; #{fields(array)}"
      column -> column
    end
  end

  def column(other, _name), do: no_array!(other)

  defp fields(%{form: {:record, fields, _}}),
    do: "there are #{Enum.map_join(fields, ", ", &inspect(elem(&1, 0)))}"

  defp fields(_array), do: "this is not an array of records"

  defp field(%{form: {:record, fields, _}} = array, name) do
    with {_, at, form} <- List.keyfind(fields, name, 0) do
      type =
        case form do
          {:bytes, n} -> {:bytes, n}
          code -> Typed.type(code)
        end

      column = %{
        array
        | type: type,
          form: form,
          field: at,
          nx: Form.nx(form),
          shape: nil,
          order: :c
      }

      %{column | at: Opening.reading(column)}
    end
  end

  defp field(_array, _name), do: nil

  @doc """
  Returns the `count` elements that begin at `start` as an array: a view with a fixed number of elements. There are
  fewer if the array ends earlier. A negative `start` counts from the end.
  """
  @doc group: "Reading"
  @spec slice(t, integer, non_neg_integer) :: t
  def slice(%__MODULE__{} = array, start, count)
      when is_integer(start) and is_integer(count) and count >= 0 do
    all = count(array)
    start = if start < 0, do: Kernel.max(start + all, 0), else: Kernel.min(start, all)
    count = Kernel.min(count, all - start)

    slice = %{
      array
      | first: array.first + start * array.stride,
        fixed: count,
        shape: nil,
        order: :c
    }

    %{slice | at: Opening.reading(slice)}
  end

  def slice(%__MODULE__{}, start, count) do
    raise ArgumentError,
          "a slice begins at an integer and has a count of 0 or more, got #{inspect(start)} and #{inspect(count)}"
  end

  def slice(other, _start, _count), do: no_array!(other)

  @doc """
  Splits an array into `n` arrays of about the same size, for `Task.async_stream/3`. There are fewer arrays if there are
  fewer than `n` elements.

      iex> {:ok, mem} = Emmap.open([:anon, size: 10])
      iex> {:ok, array} = Emmap.Array.of(mem, :u8)
      iex> array |> Emmap.Array.chunks(3) |> Enum.map(&Emmap.Array.count/1)
      [4, 3, 3]
  """
  @doc group: "Reading"
  @spec chunks(t, pos_integer) :: [t]
  def chunks(%__MODULE__{} = array, n) when is_integer(n) and n > 0 do
    count = count(array)
    n = Kernel.min(n, count)

    for part <- 0..(n - 1)//1 do
      from = div(part * count + n - 1, n)
      slice(array, from, div((part + 1) * count + n - 1, n) - from)
    end
  end

  def chunks(%__MODULE__{}, n),
    do: raise(ArgumentError, "the number of chunks is 1 or more, got #{inspect(n)}")

  def chunks(other, _n), do: no_array!(other)

  # Writing

  @doc """
  Replaces the element at `index`. Returns `:ok`.

  An index without an element raises `ArgumentError` (`append/2` adds elements), as does a value that the type cannot
  hold. A record needs all its fields; to change one, use `column/2`. Bytes that a record skips become zeros. Errors are
  those of `Emmap.pwrite/3`, such as `:eacces` if the map is read-only.

      iex> {:ok, mem} = Emmap.open([:anon, size: 32])
      iex> {:ok, array} = Emmap.Array.of(mem, x: :f32, y: :f32)
      iex> Emmap.Array.put(array, 0, %{x: 1.5, y: 2})
      :ok
      iex> array |> Emmap.Array.column(:x) |> Emmap.Array.put(0, -1)
      :ok
      iex> Emmap.Array.at(array, 0)
      %{x: -1.0, y: 2.0}
  """
  @doc group: "Writing"
  @spec put(t, integer | tuple, new_element) :: :ok | Emmap.failure()
  def put(%__MODULE__{} = array, index, value) do
    index = index!(array, index, count(array))
    write(array, index, value)
  end

  def put(other, _index, _value), do: no_array!(other)

  defp write(%{mem: handle(ref), form: form} = array, index, value) when is_integer(form) do
    value = if is_integer(value), do: Typed.value(form, value), else: value
    patient(Native.typed_put(ref, position(array, index), form, value))
  end

  defp write(%{mem: mem, form: form} = array, index, value),
    do: Emmap.pwrite(mem, position(array, index), Codec.encode!(form, value))

  defp position(%{first: first, stride: stride, field: field}, index),
    do: first + index * stride + field

  defp index!(array, index, count) do
    case flat!(array, index) do
      index when index >= 0 and index < count -> index
      index when index < 0 and index + count >= 0 -> index + count
      _ -> raise ArgumentError, "no element #{inspect(index)}: the array has #{count}"
    end
  end

  @doc """
  Replaces several elements, given as `[{index, element}]` or any other enumerable of such pairs. Returns `:ok`.

  All are checked before the first is written. Elements at consecutive indices are written with one call. Errors are as with `put/3`; after
  an error, some elements may have been written.
  """
  @doc group: "Writing"
  @spec put_many(t, Enumerable.t()) :: :ok | Emmap.failure()
  def put_many(%__MODULE__{mem: mem, form: form, stride: stride} = array, pairs) do
    count = count(array)

    writes =
      Enum.map(pairs, fn
        {index, value} ->
          {position(array, index!(array, index, count)), Codec.encode!(form, value)}

        other ->
          raise ArgumentError, "an element is {index, value}, got #{inspect(other)}"
      end)

    writes = if stride == Form.size(form), do: Bulk.joined(writes, stride), else: writes

    case Emmap.pwrite(mem, writes) do
      {:error, {_done, reason}} -> {:error, reason}
      other -> other
    end
  end

  def put_many(other, _pairs), do: no_array!(other)

  @doc """
  Adds an element, or the elements of an enumerable, at the end of the file. Returns `{:ok, index}`, the index of the first
  one.

  Any number of processes and VMs may append at the same time: the elements of one call follow each
  other. If the call fails, nothing is added. All elements are checked before the first is written.

  Errors are those of `Emmap.pwrite/3`: `:eacces` if the map was opened without `:write`, or with `:append`; `:enospc` if the disk is full, or the map
  cannot grow; `:enotsup` for anonymous memory and on hugetlbfs. An array with a fixed number of elements (`:count`, `:shape`, a slice, a
  `.npy` file) and a column raise `ArgumentError`.

  The call runs on a dirty I/O scheduler and takes microseconds. To add many elements, pass them all in one call.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_append.u32")
      iex> _ = File.rm(path)
      iex> {:ok, array} = Emmap.Array.open(path, {:u32, :little}, [:create])
      iex> Emmap.Array.append(array, 7)
      {:ok, 0}
      iex> Emmap.Array.append(array, 8..9)
      {:ok, 1}
      iex> File.read!(path)
      <<7::little-32, 8::little-32, 9::little-32>>
  """
  @doc group: "Writing"
  @spec append(t, new_element | Enumerable.t()) :: {:ok, non_neg_integer} | Emmap.failure()
  def append(%__MODULE__{fixed: nil, field: 0} = array, elements) do
    %{mem: handle(ref), form: form, first: first, stride: stride} = array
    stride == Form.size(form) || not_appendable!("a column")
    bytes = elements |> listed() |> Enum.map(&Codec.encode!(form, &1)) |> IO.iodata_to_binary()

    case patient(Native.array_append(ref, first, stride, bytes)) do
      position when is_integer(position) -> {:ok, div(position - first, stride)}
      error -> error
    end
  end

  def append(%__MODULE__{fixed: nil}, _elements), do: not_appendable!("a column")

  def append(%__MODULE__{}, _elements),
    do: not_appendable!("an array with a fixed number of elements")

  def append(other, _elements), do: no_array!(other)

  defp listed(elements) when is_list(elements), do: elements
  defp listed(%{__struct__: _} = enumerable), do: enumerable
  defp listed(fun) when is_function(fun, 2), do: fun
  defp listed(element), do: [element]

  @spec not_appendable!(String.t()) :: no_return
  defp not_appendable!(what), do: raise(ArgumentError, "#{what} cannot grow")

  # The whole column

  @doc """
  Returns the sum of all elements, which must be numbers. Of records, sum a `column/2`, or use `sum/2`.

  Integers are added exactly, however large the sum. Floats are added as 64-bit floats (`:f32` as well), in blocks of
  1,024 with sixteen partial sums each, and the blocks with a compensation of rounding errors (Neumaier's), so the error
  is about that of NumPy's pairwise sum or smaller. The result is the same each time. If an element is NaN, so is the
  sum (`:nan`). The sum of no elements is 0.

  An element that is written at the same time is added with either its old or its new value.
  """
  @doc group: "Summing"
  @spec sum(t) :: Typed.number_read()
  def sum(array), do: Folds.sum(array!(array))

  @doc "Same as `sum/1` of the column of a field."
  @doc group: "Summing"
  @spec sum(t, name) :: Typed.number_read()
  def sum(array, field), do: array |> column(field) |> Folds.sum()

  @doc "Returns the least element, or `nil` if there is none. If an element is NaN, the result is `:nan`, as in NumPy."
  @doc group: "Summing"
  @spec min(t) :: Typed.number_read() | nil
  def min(array), do: Folds.min(array!(array))

  @doc "Same as `min/1` of the column of a field."
  @doc group: "Summing"
  @spec min(t, name) :: Typed.number_read() | nil
  def min(array, field), do: array |> column(field) |> Folds.min()

  @doc "Returns the greatest element. Otherwise the same as `min/1`."
  @doc group: "Summing"
  @spec max(t) :: Typed.number_read() | nil
  def max(array), do: Folds.max(array!(array))

  @doc "Same as `max/1` of the column of a field."
  @doc group: "Summing"
  @spec max(t, name) :: Typed.number_read() | nil
  def max(array, field), do: array |> column(field) |> Folds.max()

  # Sorted columns

  @doc """
  Searches for a value in sorted elements (ascending). Returns `{:ok, index}` of the first one that is equal, or
  `{:none, index}`, where `index` is the position at which the value would have to be inserted.

  Elements are numbers or binaries (`{:bytes, n}`, which compare byte by byte; a shorter `value` is padded with zeros).
  NaN sorts last, as in NumPy. If the elements are not sorted, the result is still one of these tuples, but it is
  meaningless. The value for a column of floats is a number, `:infinity` or `:neg_infinity`, and is compared as a 64-bit
  float.
  """
  @doc group: "Searching"
  @spec binary_search(t, Typed.number_written() | binary) ::
          {:ok, non_neg_integer} | {:none, non_neg_integer}
  def binary_search(array, value), do: Folds.search(array!(array), value)

  @doc """
  Same as `binary_search/2` in the column of a field, by which the records are sorted.
  """
  @doc group: "Searching"
  @spec binary_search(t, name, Typed.number_written() | binary) ::
          {:ok, non_neg_integer} | {:none, non_neg_integer}
  def binary_search(array, field, value), do: array |> column(field) |> Folds.search(value)

  @doc """
  Returns the elements from `first` to `last`, both included, of sorted elements: a `slice/3`, which may be empty.

      iex> {:ok, mem} = Emmap.open([:anon, size: 5])
      iex> :ok = Emmap.pwrite(mem, 0, <<10, 20, 20, 30, 40>>)
      iex> {:ok, array} = Emmap.Array.of(mem, :u8)
      iex> array |> Emmap.Array.range(15, 30) |> Enum.to_list()
      [20, 20, 30]
  """
  @doc group: "Searching"
  @spec range(t, Typed.number_written() | binary, Typed.number_written() | binary) :: t
  def range(array, first, last), do: ranged(array!(array), array, first, last)

  @doc """
  Returns the records whose field has a value from `first` to `last`, both included. The records must be sorted by that field.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc_range.bin")
      iex> _ = File.rm(path)
      iex> {:ok, trades} = Emmap.Array.open(path, [at: :u64, price: :f64], [:create])
      iex> {:ok, 0} = Emmap.Array.append(trades, for(n <- 0..99, do: %{at: 1000 + 10 * n, price: n / 4}))
      iex> trades |> Emmap.Array.range(:at, 1100, 1139) |> Emmap.Array.sum(:price)
      11.5
  """
  @doc group: "Searching"
  @spec range(t, name, Typed.number_written() | binary, Typed.number_written() | binary) :: t
  def range(array, field, first, last), do: array |> column(field) |> ranged(array, first, last)

  defp ranged(column, array, first, last) do
    {from, to} = Folds.bounds(column, first, last)
    slice(array, from, Kernel.max(to - from, 0))
  end

  # Tensors

  @doc """
  Returns all elements as one live binary, in constant time: `{:ok, binary}`. Errors are those of `Emmap.view/3`.

  The binary is the memory of the file: see "Live binaries" in `Emmap`. A column, whose values are not contiguous, and
  numbers that are not in the byte order of the machine raise `ArgumentError`, because Nx could not read them; use
  `to_binary/1`.

      iex> {:ok, mem} = Emmap.open([:anon, size: 4])
      iex> {:ok, array} = Emmap.Array.of(mem, :u8, count: 3)
      iex> {:ok, binary} = Emmap.Array.view(array)
      iex> :ok = Emmap.Array.put(array, 1, 5)
      iex> binary
      <<0, 5, 0>>
  """
  @doc group: "Tensors"
  @spec view(t) :: {:ok, binary} | Emmap.failure()
  def view(%__MODULE__{mem: mem, form: form, first: first, stride: stride} = array) do
    stride == Form.size(form) ||
      raise ArgumentError, "the elements of a column have gaps: use to_binary/1"

    is_tuple(form) or Form.native?(form) ||
      raise ArgumentError, "the numbers are in another byte order: use to_binary/1"

    size = count(array) * stride

    case Emmap.view(mem, first, size) do
      {:ok, binary} when byte_size(binary) == size -> {:ok, binary}
      {:error, _} = error -> error
      _ when size == 0 -> {:ok, ""}
      # The map became shorter in the meantime.
      _ -> {:error, :estale}
    end
  end

  def view(other), do: no_array!(other)

  @doc """
  Returns a copy of all elements, without gaps and in the byte order of the machine: what `Nx.from_binary/2` takes.

  The bytes of numbers are swapped if they are in the other byte order; `{:bytes, n}` is copied as it is. Records raise
  `ArgumentError`: pass a column. The copy is in the memory of the VM.

      iex> {:ok, mem} = Emmap.open([:anon, size: 12])
      iex> {:ok, array} = Emmap.Array.of(mem, id: :u8, value: {:u16, :big}, pad: 1)
      iex> :ok = Emmap.Array.put_many(array, for(n <- 0..2, do: {n, %{id: n, value: n}}))
      iex> array |> Emmap.Array.column(:value) |> Emmap.Array.to_binary()
      <<0::native-16, 1::native-16, 2::native-16>>
  """
  @doc group: "Tensors"
  @spec to_binary(t) :: binary
  def to_binary(array), do: Folds.to_binary(array!(array))

  # Access: `array[5]`, `array[:field]`.

  @doc false
  def fetch(%__MODULE__{} = array, index) when is_integer(index) or is_tuple(index) do
    case at(array, index) do
      nil -> :error
      element -> {:ok, element}
    end
  end

  def fetch(%__MODULE__{} = array, name) do
    case field(array, name) do
      nil -> :error
      column -> {:ok, column}
    end
  end

  @doc false
  @spec get_and_update(t, term, term) :: no_return
  def get_and_update(_array, _index, _fun),
    do: raise(ArgumentError, "an array changes in place: use Emmap.Array.put/3")

  @doc false
  @spec pop(t, term) :: no_return
  def pop(_array, _index), do: raise(ArgumentError, "an element of an array cannot be removed")

  # Errors

  @doc false
  @spec failed!(t, atom, {:error, term}) :: no_return
  def failed!(%{mem: handle(ref)}, op, {:error, reason}) do
    path =
      case Emmap.Info.brief(ref) do
        {:ok, %{path: path}} -> path
        _ -> nil
      end

    raise Emmap.Error, op: op, path: path, reason: reason, kind: :array
  end

  defp array!(%__MODULE__{} = array), do: array
  defp array!(other), do: no_array!(other)

  @spec no_array!(term) :: no_return
  defp no_array!(other), do: Structure.refuse!(other, __MODULE__, "an array")

  @doc false
  def natural?(n), do: is_integer(n) and n >= 0
  @doc false
  def shape?(shape), do: is_tuple(shape) and shape |> Tuple.to_list() |> Enum.all?(&natural?/1)
end
