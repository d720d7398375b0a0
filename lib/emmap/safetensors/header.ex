defmodule Emmap.Safetensors.Header do
  @moduledoc false
  # The header of a file: eight bytes with its length, then JSON. The tensors follow it.

  alias Emmap.Native

  @type tensor :: %{
          type: Emmap.Safetensors.type(),
          dtype: String.t(),
          shape: tuple,
          path: binary,
          position: Emmap.position(),
          size: non_neg_integer
        }

  # The limit of the format's own library.
  @longest 100_000_000

  # Bits of an element, and its type in Nx.
  @types %{
    "BOOL" => {8, {:u, 8}},
    "U8" => {8, {:u, 8}},
    "I8" => {8, {:s, 8}},
    "F8_E5M2" => {8, {:f, 8}},
    "F8_E4M3" => {8, {:f8_e4m3fn, 8}},
    "F8_E8M0" => {8, nil},
    "F4" => {4, nil},
    "F6_E2M3" => {6, nil},
    "F6_E3M2" => {6, nil},
    "I16" => {16, {:s, 16}},
    "U16" => {16, {:u, 16}},
    "F16" => {16, {:f, 16}},
    "BF16" => {16, {:bf, 16}},
    "I32" => {32, {:s, 32}},
    "U32" => {32, {:u, 32}},
    "F32" => {32, {:f, 32}},
    "I64" => {64, {:s, 64}},
    "U64" => {64, {:u, 64}},
    "F64" => {64, {:f, 64}},
    "C64" => {64, {:c, 64}}
  }

  @doc "Reads and checks the header."
  @spec read(Emmap.t(), binary) ::
          {:ok, %{String.t() => tensor}, %{String.t() => String.t()}}
          | {:error, Emmap.reason() | {:bad_format, Emmap.Safetensors.bad_format()}}
  def read(mem, path) do
    with {:ok, size} <- Emmap.size(mem),
         {:ok, length} <- length_of(mem, size),
         {:ok, text} <- Emmap.pread(mem, 8, length),
         {:ok, pairs} <- object(text),
         {:ok, metadata} <- metadata(pairs),
         {:ok, tensors} <- tensors(pairs, path, 8 + length),
         :ok <- without_gaps(tensors, 8 + length, size),
         do: {:ok, Map.new(tensors), metadata}
  end

  defp length_of(mem, size) when size > 8 do
    with {:ok, <<length::little-64>>} <- Emmap.pread(mem, 0, 8) do
      if length in 2..@longest and 8 + length <= size, do: {:ok, length}, else: bad(:length)
    end
  end

  defp length_of(_mem, _size), do: bad(:length)

  @doc "The pairs of a JSON object, in which no key occurs twice."
  @spec object(binary) :: {:ok, [{String.t(), term}]} | {:error, {:bad_format, :header}}
  def object(text) do
    with {:ok, {:object, pairs}} <- Native.json(text),
         true <- length(Enum.uniq_by(pairs, &elem(&1, 0))) == length(pairs) do
      {:ok, pairs}
    else
      _ -> bad(:header)
    end
  end

  @doc "The metadata of a header: strings by name."
  @spec metadata([{String.t(), term}]) ::
          {:ok, %{String.t() => String.t()}} | {:error, {:bad_format, :header}}
  def metadata(pairs) do
    case List.keyfind(pairs, "__metadata__", 0, {nil, {:object, []}}) do
      {_, {:object, entries}} ->
        if Enum.all?(entries, fn {_, value} -> is_binary(value) end),
          do: {:ok, Map.new(entries)},
          else: bad(:header)

      _ ->
        bad(:header)
    end
  end

  defp tensors(pairs, path, start) do
    pairs
    |> List.keydelete("__metadata__", 0)
    |> Enum.reduce_while({:ok, []}, fn {name, description}, {:ok, tensors} ->
      case tensor(description, path, start) do
        {:ok, tensor} -> {:cont, {:ok, [{name, tensor} | tensors]}}
        error -> {:halt, error}
      end
    end)
  end

  # Integers of any size: no arithmetic here can overflow. Tuples have a limit, and no library has tensors of more dimensions.
  @most_dimensions 64

  defp tensor({:object, fields}, path, start) do
    with %{"dtype" => dtype, "shape" => shape, "data_offsets" => [first, last]} <-
           Map.new(fields),
         true <- is_binary(dtype) and is_list(shape),
         true <- Enum.all?([first, last | shape], &(is_integer(&1) and &1 >= 0)),
         true <- length(shape) <= @most_dimensions do
      case @types do
        %{^dtype => {bits, type}} ->
          if Enum.product([bits | shape]) == (last - first) * 8 do
            {:ok,
             %{
               type: type,
               dtype: dtype,
               shape: List.to_tuple(shape),
               path: path,
               position: start + first,
               size: last - first
             }}
          else
            bad(:tensor)
          end

        %{} ->
          bad(:type)
      end
    else
      _ -> bad(:header)
    end
  end

  defp tensor(_other, _path, _start), do: bad(:header)

  # As the format requires: the tensors fill the rest of the file.
  defp without_gaps(tensors, start, size) do
    ranges =
      tensors |> Enum.map(fn {_, t} -> {t.position, t.position + t.size} end) |> Enum.sort()

    filled =
      Enum.reduce_while(ranges, start, fn {from, to}, filled ->
        if from == filled, do: {:cont, to}, else: {:halt, :gap}
      end)

    case filled do
      ^size -> :ok
      :gap -> bad(:tensor)
      _ -> bad(:length)
    end
  end

  defp bad(why), do: {:error, {:bad_format, why}}
end
