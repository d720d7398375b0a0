defmodule Emmap.Array.Npy do
  @moduledoc false
  # The header of a `.npy` file, versions 1 to 3: the magic, the version, the length of a Python dict, and the dict. The
  # elements follow it.

  alias Emmap.Array.{Form, Literal}

  @magic <<0x93, "NUMPY">>
  # A dict of this length describes thousands of fields. NumPy itself reads at most 10,000 bytes of a file that it does not trust.
  @longest 1_000_000
  @longest_name 1_000
  @most_dimensions 64
  @largest 0x7FFF_FFFF_FFFF_FFFF

  @typedoc "`:descr` is the type as NumPy names it, and `:nx` as Nx does. `:first` is the position of the first element."
  @type t :: %{
          version: {1..3, 0},
          type: Emmap.Array.type(),
          descr: String.t(),
          nx: Emmap.Array.nx_type(),
          shape: tuple,
          order: :c | :fortran,
          count: non_neg_integer,
          first: pos_integer
        }
  @type bad_format :: :magic | :version | :header | :type | :shape | :length

  @doc "The first bytes of every file of this format."
  @spec magic() :: binary
  def magic, do: @magic

  @doc "Reads and checks the header of the file that begins at `at` in the map."
  @spec read(Emmap.t(), non_neg_integer) ::
          {:ok, t} | {:error, Emmap.reason() | {:bad_format, bad_format}}
  def read(mem, at) do
    with {:ok, size} <- Emmap.size(mem),
         {:ok, start} <- start(mem, at),
         {:ok, version, length, used} <- length_of(start),
         {:ok, text} <- text(mem, at + used, length, size),
         {:ok, text} <- utf8(version, text),
         {:ok, header} <- parse(text) do
      first = at + used + length

      if first + header.count * Form.size(Form.of!(header.type)) <= size,
        do: {:ok, Map.merge(header, %{version: version, first: first})},
        else: bad(:length)
    end
  end

  defp start(mem, at) do
    with :eof <- copy(mem, at, 12), do: bad(:magic)
  end

  defp text(mem, at, length, size) when at + length <= size do
    # The map became shorter in the meantime.
    with :eof <- copy(mem, at, length), do: bad(:length)
  end

  defp text(_mem, _at, _length, _size), do: bad(:length)

  defp copy(mem, at, count) do
    case Emmap.pread(mem, at, count) do
      {:ok, bytes} -> {:ok, :binary.copy(bytes)}
      other -> other
    end
  end

  defp length_of(<<@magic, 1, 0, length::little-16, _::binary>>), do: checked({1, 0}, length, 10)

  defp length_of(<<@magic, major, 0, length::little-32>>) when major in [2, 3],
    do: checked({major, 0}, length, 12)

  defp length_of(<<@magic, major, minor, _::binary>>) when major not in [1, 2, 3] or minor != 0,
    do: bad(:version)

  defp length_of(<<@magic, _::binary>>), do: bad(:length)
  defp length_of(_other), do: bad(:magic)

  defp checked(version, length, used) when length in 1..@longest, do: {:ok, version, length, used}
  defp checked(_version, _length, _used), do: bad(:header)

  # Only version 3 is not Latin-1.
  defp utf8({3, 0}, text), do: if(String.valid?(text), do: {:ok, text}, else: bad(:header))
  defp utf8(_version, text), do: {:ok, :unicode.characters_to_binary(text, :latin1)}

  @doc "The contents of a dict."
  @spec parse(String.t()) :: {:ok, map} | {:error, {:bad_format, bad_format}}
  def parse(text) do
    with {:ok, {:dict, pairs}} <- Literal.parse(text),
         [{"descr", descr}, {"fortran_order", fortran?}, {"shape", {:tuple, dimensions}}]
         when is_boolean(fortran?) <- Enum.sort(pairs),
         {:ok, shape, count} <- shape(dimensions),
         {:ok, type, nx} <- type(descr) do
      {:ok,
       %{
         type: type,
         descr: shown(descr),
         nx: nx,
         shape: shape,
         order: if(fortran?, do: :fortran, else: :c),
         count: count
       }}
    else
      {:error, _} = error -> error
      _ -> bad(:header)
    end
  end

  # Integers of any size: no arithmetic can overflow.
  defp shape(dimensions) do
    if length(dimensions) <= @most_dimensions and
         Enum.all?(dimensions, &(is_integer(&1) and &1 in 0..@largest)) do
      count = Enum.product(dimensions)
      if count <= @largest, do: {:ok, List.to_tuple(dimensions), count}, else: bad(:shape)
    else
      bad(:shape)
    end
  end

  defp shown(descr) when is_binary(descr), do: descr

  defp shown({:list, fields}),
    do: "record of #{Enum.count(fields, &(not match?({:tuple, ["" | _]}, &1)))} fields"

  defp shown(_other), do: ""

  defp type(descr) do
    case descr do
      {:list, [_ | _] = fields} ->
        with {:ok, reversed} <- fields(fields, "", []), do: reversed |> Enum.reverse() |> record()

      text when is_binary(text) ->
        with {:ok, type, nx} <- simple(text), do: {:ok, type, nx}

      _ ->
        bad(:type)
    end
  end

  defp record(fields) do
    # A record that consists only of padding, names that occur twice, and too large sizes.
    _ = Form.of!(fields)
    {:ok, fields, nil}
  rescue
    ArgumentError -> bad(:type)
  end

  # Adds the fields to `done`, which is in reversed order.
  defp fields(fields, prefix, done) do
    Enum.reduce_while(fields, {:ok, done}, fn field, {:ok, done} ->
      case field(field, prefix, done) do
        {:ok, done} -> {:cont, {:ok, done}}
        error -> {:halt, error}
      end
    end)
  end

  # A title, which is another name, comes first.
  defp field({:tuple, [{:tuple, [title, name]} | rest]}, prefix, done) when is_binary(title),
    do: field({:tuple, [name | rest]}, prefix, done)

  # Padding has no name.
  defp field({:tuple, ["", "|V" <> digits]}, _prefix, done) do
    with {:ok, n} <- size(digits), do: {:ok, [{"", n} | done]}
  end

  # Names of a record and of its fields would otherwise multiply.
  defp field({:tuple, [name | _]}, prefix, _done)
       when is_binary(name) and byte_size(prefix) + byte_size(name) > @longest_name,
       do: bad(:type)

  defp field({:tuple, [name, {:list, [_ | _] = fields}]}, prefix, done) when is_binary(name),
    do: fields(fields, prefix <> name <> ".", done)

  defp field({:tuple, [name, descr]}, prefix, done) when is_binary(name) and is_binary(descr) do
    with {:ok, type, _nx} <- simple(descr), do: {:ok, [{prefix <> name, type} | done]}
  end

  # Elements of a field that is itself an array: their bytes.
  defp field({:tuple, [name, descr, {:tuple, dimensions}]}, prefix, done) when is_binary(name) do
    with {:ok, _shape, count} <- shape(dimensions),
         {:ok, type, _nx} <- type(descr),
         size when size in 1..0x7FFF_FFFF <- count * Form.size(Form.of!(type)) do
      {:ok, [{prefix <> name, {:bytes, size}} | done]}
    else
      {:error, _} = error -> error
      _ -> bad(:type)
    end
  end

  defp field(_other, _prefix, _done), do: bad(:type)

  # Numbers that `Emmap.get/3` does not read are bytes, which Nx may know.
  defp simple(<<order, rest::binary>>) when order in ~c"<>=|", do: simple(order, rest)
  defp simple(_other), do: bad(:type)

  defp simple(_order, "b1"), do: number(:u8, {:u, 8})

  for {kind, name, nx} <- [{"u", "u", :u}, {"i", "i", :s}], bytes <- [1, 2, 4, 8] do
    defp simple(order, unquote("#{kind}#{bytes}")),
      do: ordered(order, unquote(:"#{name}#{8 * bytes}"), unquote({nx, 8 * bytes}))
  end

  for bytes <- [4, 8] do
    defp simple(order, unquote("f#{bytes}")),
      do: ordered(order, unquote(:"f#{8 * bytes}"), unquote({:f, 8 * bytes}))
  end

  defp simple(order, "f2"), do: bytes(2, order, {:f, 16})
  defp simple(order, "c8"), do: bytes(8, order, {:c, 64})
  defp simple(order, "c16"), do: bytes(16, order, {:c, 128})
  # Long doubles, whose format depends on the machine.
  defp simple(order, "f" <> n) when n in ["12", "16"], do: bytes(String.to_integer(n), order, nil)
  defp simple(order, "c" <> n) when n in ["24", "32"], do: bytes(String.to_integer(n), order, nil)

  # Times and durations, with their unit in brackets.
  defp simple(order, <<kind, "8", unit::binary>>) when kind in ~c"mM" do
    if unit == "" or unit =~ ~r/\A\[[0-9]*[A-Za-z]+\]\z/,
      do: ordered(order, :i64, {:s, 64}),
      else: bad(:type)
  end

  defp simple(order, <<kind, digits::binary>>) when kind in ~c"SaVU" do
    with {:ok, n} <- size(digits), do: bytes(if(kind == ?U, do: 4 * n, else: n), order, nil)
  end

  defp simple(_order, _other), do: bad(:type)

  # A number with more digits is too large, and parsing it takes quadratic time.
  defp size(digits) when byte_size(digits) > 20, do: bad(:type)

  defp size(digits) do
    case Integer.parse(digits) do
      {n, ""} when n in 1..0x0FFF_FFFF -> {:ok, n}
      _ -> bad(:type)
    end
  end

  defp ordered(order, name, nx) when order in ~c"=|", do: number(name, nx)
  defp ordered(?<, name, nx), do: number({name, :little}, nx)
  defp ordered(?>, name, nx), do: number({name, :big}, nx)

  defp number(type, nx), do: {:ok, type, nx}

  defp bytes(n, order, nx) do
    # Bytes are not swapped, so Nx reads only those in the order of the machine.
    native? = order in ~c"=|" or <<1::native-16>> == if(order == ?<, do: <<1, 0>>, else: <<0, 1>>)
    {:ok, {:bytes, n}, if(native?, do: nx)}
  end

  defp bad(why), do: {:error, {:bad_format, why}}
end
