defmodule Emmap.Snapshot.Source do
  @moduledoc false
  # Writes the file of a version.

  @type t :: {:call, (binary -> term)} | {:data, iodata} | {:copy, binary}

  @doc "Raises for what cannot be published."
  @spec check!(term) :: t
  def check!(fun) when is_function(fun, 1), do: {:call, fun}
  def check!(data) when is_binary(data) or is_list(data), do: {:data, data}
  def check!({:file, path}), do: {:copy, Emmap.Path.bytes!(path)}

  def check!(other) do
    raise ArgumentError,
          "a version is iodata, {:file, path}, or a function of a path, got #{inspect(other)}"
  end

  @spec write(t, binary) :: :ok | {:error, term}
  def write({:call, fun}, file) do
    case fun.(file) do
      {:error, _} = error -> error
      :error -> {:error, :error}
      _ -> :ok
    end
  end

  def write({:data, data}, file) do
    :file.write_file(file, data, [:raw, :exclusive])
    |> checked(data)
  end

  def write({:copy, path}, file) do
    with {:ok, from} <- :file.open(path, [:read, :raw, :binary]) do
      try do
        with {:ok, to} <- :file.open(file, [:write, :exclusive, :raw, :binary]) do
          copied = :file.copy(from, to)
          closed = :file.close(to)
          with {:ok, _bytes} <- copied, do: closed
        end
      after
        _ = :file.close(from)
      end
    end
  end

  # Of data that is not iodata, this is all that `:file` says.
  defp checked({:error, :badarg}, data),
    do: raise(ArgumentError, "not iodata: #{inspect(data, limit: 5, printable_limit: 100)}")

  defp checked(result, _data), do: result
end
