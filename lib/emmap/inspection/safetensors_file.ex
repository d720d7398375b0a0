defmodule Emmap.Inspection.SafetensorsFile do
  @moduledoc false
  # `.safetensors` files: the header, and the tensors in the order of the file.
  @behaviour Emmap.Inspection.Format

  import Emmap.Inspection.Format, only: [problem: 4]
  import Emmap.Inspection.Text, only: [bytes: 1, grouped: 1, name: 1, plural: 2]
  alias Emmap.Inspection.Source
  alias Emmap.Safetensors.Header

  # The limit of the format's own library.
  @longest 100_000_000

  @impl true
  def describe(source, limit) do
    # The format has no magic: a length, and then an object of JSON.
    case Source.read(source, 0, 10) do
      <<length::little-64, ?{, next>> when length in 2..@longest and next in ~c|"} \n\r\t| ->
        described(source, length, limit)

      _ ->
        nil
    end
  end

  defp described(source, length, limit) do
    case Header.read(source.mem, source.path) do
      {:ok, tensors, metadata} ->
        tensors = Enum.sort_by(tensors, fn {name, tensor} -> {tensor.position, name} end)

        %{
          title: "tensors (.safetensors)",
          bad_format: nil,
          headers: [
            %{at: 0, bytes: 8 + length, state: :intact, fields: %{tensors: length(tensors)}}
          ],
          contents: %{
            count: length(tensors),
            bytes: source.size - 8 - length,
            metadata: for({key, value} <- Enum.sort(metadata), do: %{key: key, value: value}),
            tensors: tensors |> taken(limit) |> Enum.map(&tensor/1)
          },
          problems: []
        }

      {:error, {:bad_format, why}} ->
        %{
          title: "tensors (.safetensors)",
          bad_format: why,
          headers: [],
          contents: nil,
          problems: [problem(:damage, 0, min(8 + length, source.size), message(why, source))]
        }

      {:error, reason} ->
        raise Emmap.Error, op: :read, path: source.path, reason: reason
    end
  end

  defp taken(tensors, :infinity), do: tensors
  defp taken(tensors, limit), do: Enum.take(tensors, limit)

  defp tensor({name, tensor}) do
    %{
      name: name,
      type: tensor.dtype,
      shape: Tuple.to_list(tensor.shape),
      at: tensor.position,
      bytes: tensor.size
    }
  end

  defp message(:length, source),
    do: "length: the header and the tensors do not end with the #{bytes(source.size)} of the file"

  defp message(:header, _source), do: "header: it is not JSON of this format"
  defp message(:type, _source), do: "header: a tensor has an unknown type"

  defp message(:tensor, _source),
    do: "header: a tensor has a shape or a byte range that is not valid, or there is a gap"

  @impl true
  def checked, do: "header, types, shapes and byte ranges (this format has no checksum)"

  @impl true
  def fields(%{tensors: count}), do: plural(count, "tensor")

  @impl true
  def lines(contents) do
    [{"tensors", "#{grouped(contents.count)}, of #{bytes(contents.bytes)}"}] ++
      for(
        %{key: key, value: value} <- contents.metadata,
        do: {"metadata", "#{name(key)}: #{name(value)}"}
      ) ++
      for(tensor <- contents.tensors, do: {"", line(tensor)}) ++ more(contents)
  end

  defp line(tensor) do
    "#{name(tensor.name)}: #{tensor.type} (#{Enum.join(tensor.shape, ", ")}), #{bytes(tensor.bytes)} at #{tensor.at}"
  end

  defp more(%{count: count, tensors: tensors}) do
    case count - length(tensors) do
      0 -> []
      rest -> [{"", "and #{grouped(rest)} more"}]
    end
  end
end
