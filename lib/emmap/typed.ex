defmodule Emmap.Typed do
  @moduledoc """
  The numbers that `Emmap.get/3` and `Emmap.put/4` read and write.

  | type | bytes | values |
  | --- | --- | --- |
  | `:u8`, `:u16`, `:u32`, `:u64` | 1, 2, 4, 8 | unsigned integers |
  | `:i8`, `:i16`, `:i32`, `:i64` | 1, 2, 4, 8 | signed integers, two's complement |
  | `:f32`, `:f64` | 4, 8 | floats (IEEE 754), `:nan`, `:infinity`, `:neg_infinity` |

  A type alone has the byte order of the machine, as in `Emmap.patomic/4`, Nx, and programs in C,
  Python or Rust on the same machine. `{type, :big}` and `{type, :little}` are the same on every
  machine; use them for files that are moved between machines. `{type, :native}` is the same as the type alone.

  Any bit pattern can be read as a float. Every NaN is returned as `:nan`, and `:nan` is written as the default quiet
  NaN.
  """

  @names [:u8, :i8, :u16, :i16, :u32, :i32, :u64, :i64, :f32, :f64]
  @orders [:native, :little, :big]

  @typedoc "A type: see the table above."
  @type name :: :u8 | :i8 | :u16 | :i16 | :u32 | :i32 | :u64 | :i64 | :f32 | :f64
  @typedoc "A type, in the byte order of the machine or in the given one."
  @type t :: name | {name, :big | :little | :native}
  @typedoc "Float values that the VM cannot represent."
  @type not_finite :: :nan | :infinity | :neg_infinity
  @typedoc "What `Emmap.get/3` reads."
  @type number_read :: integer | float | not_finite
  @typedoc "What `Emmap.put/4` accepts."
  @type number_written :: integer | float | not_finite

  # The code of a type in `native/emmap_core/src/typed.rs`.
  @doc false
  @spec code(t) :: 0..41
  for {name, place} <- Enum.with_index(@names) do
    def code(unquote(name)), do: unquote(place)
  end

  for {name, place} <- Enum.with_index(@names), {order, number} <- Enum.with_index(@orders) do
    def code({unquote(name), unquote(order)}), do: unquote(place + 16 * number)
  end

  def code(other) do
    raise ArgumentError,
          "unknown type #{inspect(other)}#{meant(other)}; valid are #{Enum.map_join(@names, ", ", &inspect/1)}, " <>
            "alone or as {type, :big | :little | :native}"
  end

  @doc false
  @spec name(0..41) :: name
  def name(code), do: Enum.at(@names, rem(code, 16))

  @doc false
  @spec type(16..41) :: {name, :little | :big}
  def type(code) when code < 32, do: {name(code), :little}
  def type(code), do: {name(code), :big}

  # The names of the types in Nx, Rust, C, NumPy and others.
  @spec meant(term) :: String.t()
  defp meant({name, order}) when order in @orders, do: meant(name)
  defp meant({:s, bits}), do: meant("i#{bits}")

  defp meant({kind, bits}) when kind in [:u, :i, :f] and is_integer(bits),
    do: meant("#{kind}#{bits}")

  defp meant(name) when (is_atom(name) and name != nil) or is_binary(name) do
    name = name |> to_string() |> String.downcase()

    short =
      case name do
        "float" -> "f32"
        "double" -> "f64"
        "byte" -> "u8"
        "uint" <> bits -> "u" <> bits
        "int" <> bits -> "i" <> bits
        "float" <> bits -> "f" <> bits
        "s" <> bits -> "i" <> bits
        _ -> name
      end

    case Enum.find(@names, &(Atom.to_string(&1) == short)) do
      nil -> ""
      found -> " (did you mean #{inspect(found)}?)"
    end
  end

  defp meant(_other), do: ""

  # As `code/1`, but calls it only for a type with a byte order: the call takes a sixth of the time of a read.
  @doc false
  defmacro inline_code(type) do
    names =
      Enum.flat_map(Enum.with_index(@names), fn {name, place} ->
        quote(do: (unquote(name) -> unquote(place)))
      end)

    others = quote(do: (other -> unquote(__MODULE__).code(other)))
    quote(do: case(unquote(type), do: unquote(names ++ others)))
  end

  @floats for name <- [:f32, :f64],
              order <- 0..2,
              do: Enum.find_index(@names, &(&1 == name)) + 16 * order

  # The value that is passed to the library for an integer: for a float type, the nearest float.
  @doc false
  @spec value(0..41, integer) :: integer | float
  def value(code, value) when code not in @floats, do: value

  def value(_code, value) do
    value * 1.0
  rescue
    # Larger than any float: the error of the library names the range.
    ArithmeticError -> value
  end
end
