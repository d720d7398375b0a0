defmodule Emmap.Structure do
  @moduledoc false
  # What all structures in files have in common: opening, closing, information about
  # the file, and errors. Their structs have at least `:ref`, the handle, and `:path`.

  alias Emmap.Native

  @type t :: %{:__struct__ => module, :ref => reference, :path => binary, optional(atom) => term}
  # See `Emmap.Error`.
  @type kind :: :counters | :queue | :blocks | :table | :mutex | :snapshot

  @doc """
  Opens a file. `native` gets the path, in the form that the system expects, and returns a tuple that begins with `:ok`.
  `build` makes the struct from the path and that tuple.
  """
  @spec open(binary, (binary -> opened | {:error, reason}), (binary, opened -> struct)) ::
          {:ok, struct} | {:error, reason}
        when opened: tuple, reason: term, struct: t
  def open(path, native, build) do
    case Emmap.Collected.retry(fn -> native.(path) end) do
      {:error, _} = error -> error
      opened -> {:ok, build.(path, opened)}
    end
  end

  @doc "Returns only the struct; raises `Emmap.Error` if the file could not be opened."
  @spec opened!({:ok, struct} | {:error, term}, kind, Path.t() | :file.name_all()) :: struct
        when struct: t
  def opened!({:ok, structure}, _kind, _path), do: structure

  def opened!({:error, reason}, kind, path),
    do: raise(Emmap.Error, op: :open, path: Emmap.Path.bytes!(path), reason: reason, kind: kind)

  @spec close(t) :: :ok | Emmap.failure()
  def close(%{ref: ref}), do: Native.close(ref)

  @spec sync(t) :: :ok | Emmap.failure()
  def sync(%{ref: ref}), do: Native.sync(ref, true)

  @doc "`native` compares the file with the structure, and maps it again if they match."
  @spec reattach(t, (reference -> answer)) :: answer when answer: :ok | {:error, term}
  def reattach(%{ref: ref}, native), do: native.(ref)

  @doc "Information that every structure has: `:path`, `:size` of the file in bytes, and `:faults`."
  @spec info(t) ::
          {:ok, %{path: binary, size: non_neg_integer, faults: non_neg_integer}} | Emmap.failure()
  def info(%{ref: ref}) do
    with {:ok, info} <- Emmap.Info.brief(ref), do: {:ok, Map.take(info, [:path, :size, :faults])}
  end

  @spec failed!(t, kind, atom, term) :: no_return
  def failed!(%{path: path}, kind, op, reason),
    do: raise(Emmap.Error, op: op, path: path, reason: reason, kind: kind)

  @doc "Raises for a term that is not a struct of `module`, which the messages call `noun`."
  @spec refuse!(term, module, String.t()) :: no_return
  def refuse!({:ok, %{__struct__: module}}, module, noun) do
    raise ArgumentError,
          "not #{noun}, but the whole result of open/3: match {:ok, #{noun}} and pass #{noun}"
  end

  def refuse!({:ok, _} = other, _module, noun) do
    raise ArgumentError,
          "not #{noun}, but the whole result of an open: #{inspect(other)}"
  end

  def refuse!({:error, _} = other, _module, noun) do
    raise ArgumentError,
          "not #{noun}, but the error of a file that could not be opened: #{inspect(other)}"
  end

  def refuse!({:file_descriptor, Emmap.File, _}, module, noun) do
    raise ArgumentError,
          "not #{noun}, but a handle of Emmap.open: open the file with #{inspect(module)}.open"
  end

  def refuse!(other, _module, noun), do: raise(ArgumentError, "not #{noun}: #{inspect(other)}")
end
