defmodule Emmap.Array.Form do
  @moduledoc false
  # What the elements of an array look like in memory, made once from a type.
  #
  # A form is the code of a number (`Emmap.Typed`), in which the byte order is always little or big; `{:bytes, n}`; or
  # `{:record, fields, size}`, in which each field is `{name, offset, form}`.

  alias Emmap.Typed

  @type simple :: 16..41 | {:bytes, pos_integer}
  @type field :: {Emmap.Array.name(), non_neg_integer, simple}
  @type t :: simple | {:record, [field], pos_integer}

  # A larger record would not fit in one read of the NIFs, and is a mistake.
  @largest 0x7FFF_FFFF

  @native (case <<1::native-16>> do
             <<1, 0>> -> 16
             <<0, 1>> -> 32
           end)

  @doc "Whether the byte order of a number is that of the machine."
  @spec native?(16..41) :: boolean
  def native?(code), do: code - rem(code, 16) == @native or size(code) == 1

  @doc "The form of a type. Raises `ArgumentError` if it is not one."
  @spec of!(term) :: t
  def of!([{_, _} | _] = fields), do: record!(fields)
  def of!(type), do: simple!(type)

  # As Nx names them.
  defp simple!({:u, bits}) when bits in [8, 16, 32, 64], do: simple!(:"u#{bits}")
  defp simple!({:s, bits}) when bits in [8, 16, 32, 64], do: simple!(:"i#{bits}")
  defp simple!({:f, bits}) when bits in [32, 64], do: simple!(:"f#{bits}")
  defp simple!({:bytes, n}) when is_integer(n) and n in 1..@largest, do: {:bytes, n}

  defp simple!({:bytes, n}),
    do: raise(ArgumentError, "{:bytes, n} has 1 to #{@largest} bytes, got #{inspect(n)}")

  defp simple!(type) do
    case Typed.code(type) do
      code when code < 16 -> code + @native
      code -> code
    end
  rescue
    error in ArgumentError ->
      reraise ArgumentError,
              error.message <>
                "; {:bytes, n}; or a record, a list of {name, type} and {name, bytes_to_skip}",
              __STACKTRACE__
  end

  defp record!(fields) do
    {fields, size} =
      Enum.flat_map_reduce(fields, 0, fn
        {name, skipped}, at when is_integer(skipped) ->
          skipped > 0 || raise ArgumentError, "#{inspect(name)} skips no bytes: #{skipped}"
          {[], at + skipped}

        {name, type}, at ->
          name?(name) ||
            raise ArgumentError,
                  "the name of a field is an atom or a string, got #{inspect(name)}"

          form = simple!(type)
          {[{name, at, form}], at + size(form)}

        other, _at ->
          raise ArgumentError, "a field is {name, type}, got #{inspect(other)}"
      end)

    names = for {name, _, _} <- fields, do: name

    case names -- Enum.uniq(names) do
      [] -> :ok
      [name | _] -> raise ArgumentError, "the field #{inspect(name)} is given twice"
    end

    names != [] || raise ArgumentError, "a record has at least one field"

    size in 1..@largest ||
      raise ArgumentError, "a record has at most #{@largest} bytes, and this has #{size}"

    {:record, fields, size}
  end

  defp name?(name), do: (is_atom(name) and name not in [nil, true, false]) or is_binary(name)

  @doc "The size of an element in bytes."
  @spec size(t) :: pos_integer
  def size(code) when is_integer(code), do: elem({1, 1, 2, 2, 4, 4, 8, 8, 4, 8}, rem(code, 16))
  def size({:bytes, n}), do: n
  def size({:record, _, size}), do: size

  @doc "The type of Nx, or `nil`."
  @spec nx(t) :: {:u | :s | :f, 8..64} | nil
  def nx(code) when is_integer(code) do
    bits = 8 * size(code)

    case rem(code, 16) do
      float when float >= 8 -> {:f, bits}
      signed when rem(signed, 2) == 1 -> {:s, bits}
      _ -> {:u, bits}
    end
  end

  def nx(_other), do: nil

  @doc "The number that NIFs take for a form that is not a record."
  @spec code(simple) :: integer
  def code(code) when is_integer(code), do: code
  def code({:bytes, n}) when is_integer(n), do: -n
end
