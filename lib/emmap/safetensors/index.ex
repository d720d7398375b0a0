defmodule Emmap.Safetensors.Index do
  @moduledoc false
  # A model in several files: JSON with a map of tensors to files, all in one directory.

  alias Emmap.Safetensors
  alias Emmap.Safetensors.Header

  # The names of a large model take a few megabytes.
  @longest 100_000_000

  @spec open(binary) ::
          {:ok, Safetensors.t()}
          | {:error, Emmap.reason() | {:bad_format, Safetensors.bad_format()}}
  def open(path) do
    with {:ok, text} <- read(path),
         {:ok, names, metadata} <- parsed(text),
         {:ok, opened} <- open_all(path, names) do
      merged(path, names, metadata, opened)
    end
  end

  defp read(path) do
    with {:ok, result} <- Emmap.open(path, [], &read_map/1), do: result
  end

  defp read_map(mem) do
    case Emmap.size(mem) do
      {:ok, size} when size in 2..@longest -> Emmap.pread(mem, 0, size)
      {:ok, _} -> bad(:length)
      error -> error
    end
  end

  defp parsed(text) do
    with {:ok, pairs} <- Header.object(text),
         {_, {:object, names}} <- List.keyfind(pairs, "weight_map", 0),
         true <- Enum.all?(names, fn {_, file} -> plain_name?(file) end) do
      {:ok, Map.new(names), of_index(List.keyfind(pairs, "metadata", 0))}
    else
      _ -> bad(:index)
    end
  end

  # An index must not lead out of its directory.
  defp plain_name?(file),
    do:
      is_binary(file) and file not in ["", ".", ".."] and not String.contains?(file, ["/", "\0"])

  # It has numbers, too, such as the size of all tensors.
  defp of_index({_, {:object, entries}}),
    do: for({key, value} <- entries, is_binary(value), into: %{}, do: {key, value})

  defp of_index(_), do: %{}

  defp open_all(path, names) do
    directory = Path.dirname(path)

    names
    |> Map.values()
    |> Enum.uniq()
    |> Enum.sort()
    |> Enum.reduce_while({:ok, %{}}, fn file, {:ok, opened} ->
      case Safetensors.open_one(Path.join(directory, file)) do
        {:ok, st} -> {:cont, {:ok, Map.put(opened, file, st)}}
        error -> {:halt, close_all(opened, error)}
      end
    end)
  end

  defp merged(path, names, metadata, opened) do
    tensors =
      for {name, file} <- names,
          tensor = opened[file].tensors[name],
          into: %{},
          do: {name, tensor}

    if map_size(tensors) == map_size(names) do
      files = for {_, st} <- opened, pair <- st.files, into: %{}, do: pair
      {:ok, %Safetensors{path: path, files: files, tensors: tensors, metadata: metadata}}
    else
      close_all(opened, bad(:index))
    end
  end

  defp close_all(opened, result) do
    Enum.each(opened, fn {_, st} -> Safetensors.close(st) end)
    result
  end

  defp bad(why), do: {:error, {:bad_format, why}}
end
