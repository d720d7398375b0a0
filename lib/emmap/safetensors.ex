defmodule Emmap.Safetensors do
  @moduledoc """
  Tensors in `.safetensors` files, as live binaries: nothing is loaded until it is read.

  Opening a file reads only its header. `fetch/3` returns a tensor in constant time, whatever its size. All processes, and
  all VMs of the machine, share one copy in the page cache.

      iex> path = Path.join(System.tmp_dir!(), "emmap_doc.safetensors")
      iex> header = ~s({"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})
      iex> File.write!(path, [<<byte_size(header)::little-64>>, header, <<1.0::little-float-32, 2.0::little-float-32>>])
      iex> {:ok, st} = Emmap.Safetensors.open(path)
      iex> Emmap.Safetensors.names(st)
      ["bias"]
      iex> Emmap.Safetensors.info(st, "bias")
      {:ok, %{type: {:f, 32}, dtype: "F32", shape: {2}, size: 8, path: path}}
      iex> Emmap.Safetensors.fetch(st, "bias")
      {:ok, <<0, 0, 128, 63, 0, 0, 0, 64>>}
      iex> Emmap.Safetensors.close(st)
      :ok

  A model in several files is opened by its index, `model.safetensors.index.json`.

  ## Safety

  The header is checked completely before any tensor is returned: its length, JSON, types and shapes are checked, and
  the tensors must fill the file without gaps or overlaps, as the format requires. A file that fails a check is not
  opened.

  A file must not be overwritten in place while it is open. To replace it, write a new file and rename it to the old
  name. If a file is truncated, `fetch/3` returns `{:error, :estale}`, and live binaries read as zeros past the new
  end, as with every map: see [Reliability](reliability.md).
  """

  alias Emmap.{OptionList, Path}
  alias Emmap.Safetensors.{Header, Index}

  @enforce_keys [:path, :files, :tensors, :metadata]
  defstruct [:path, :files, :tensors, :metadata]

  @typedoc "An open file, or the open files of a model. Valid in every process of this node."
  @type t :: %__MODULE__{
          path: binary,
          files: %{binary => Emmap.t()},
          tensors: %{String.t() => Header.tensor()},
          metadata: %{String.t() => String.t()}
        }
  @typedoc """
  The type of the elements, as Nx names it: `{:f, 32}`. `nil` for a type that Nx does not have; `:dtype` of `t:info/0`
  then tells which.
  """
  @type type :: {atom, pos_integer} | nil
  @typedoc """
  What `info/2` returns: the `:type`, its name in the file (`:dtype`), the `:shape`, the `:size` in bytes, and the `:path`
  of the file that contains the tensor.
  """
  @type info :: %{
          type: type,
          dtype: String.t(),
          shape: tuple,
          size: non_neg_integer,
          path: binary
        }
  @typedoc """
  What is wrong with a file: it is shorter or longer than its header says (`:length`), the header is not JSON of this
  format (`:header`), a type is unknown (`:type`), a shape or byte range is invalid (`:tensor`), or an index does not
  match its files (`:index`).
  """
  @type bad_format :: :length | :header | :type | :tensor | :index

  @doc """
  Opens a `.safetensors` file, or, given the path of an index (ending in `.json`), a model in several files. Returns
  `{:ok, st}`.

  Reads the header: the time is proportional to its length, and does not depend on the size of the tensors. The files of an
  index are in the directory of the index.

  Errors: those of `Emmap.open/2`, and `{:bad_format, why}`: see `t:bad_format/0`.
  """
  @doc group: "Opening and closing"
  @spec open(Elixir.Path.t() | :file.name_all()) ::
          {:ok, t} | {:error, Emmap.reason() | {:bad_format, bad_format}}
  def open(path) do
    path = Path.bytes!(path)
    if String.ends_with?(path, ".json"), do: Index.open(path), else: open_one(path)
  end

  @doc "Same as `open/1`, but returns only `st` and raises `Emmap.Error` on failure."
  @doc group: "Opening and closing"
  @spec open!(Elixir.Path.t() | :file.name_all()) :: t
  def open!(path) do
    case open(path) do
      {:ok, st} ->
        st

      {:error, reason} ->
        raise Emmap.Error, op: :open, path: Path.bytes!(path), reason: reason, kind: :safetensors
    end
  end

  @doc false
  # A file that is not an index, whatever its name is: an index cannot contain itself.
  @spec open_one(binary) :: {:ok, t} | {:error, Emmap.reason() | {:bad_format, bad_format}}
  def open_one(path) do
    with {:ok, mem} <- Emmap.open(path, []) do
      case Header.read(mem, path) do
        {:ok, tensors, metadata} ->
          {:ok,
           %__MODULE__{path: path, files: %{path => mem}, tensors: tensors, metadata: metadata}}

        {:error, _} = error ->
          _ = Emmap.close(mem)
          error
      end
    end
  end

  @doc """
  Closes the files. Later calls to `fetch/3` return `{:error, :closed}`; live binaries stay valid.
  """
  @doc group: "Opening and closing"
  @spec close(t) :: :ok | Emmap.failure()
  def close(%__MODULE__{files: files}) do
    files |> Map.values() |> Enum.map(&Emmap.close/1) |> Enum.find(:ok, &(&1 != :ok))
  end

  @doc "Returns the names of the tensors, sorted."
  @doc group: "Tensors"
  @spec names(t) :: [String.t()]
  def names(%__MODULE__{tensors: tensors}), do: tensors |> Map.keys() |> Enum.sort()

  @doc "Returns the `__metadata__` of the file, or of the index: a map of strings. Empty if there is none."
  @doc group: "Tensors"
  @spec metadata(t) :: %{String.t() => String.t()}
  def metadata(%__MODULE__{metadata: metadata}), do: metadata

  @doc "Returns the type, shape and size of a tensor: `{:ok, info}`, or `:error` if the file has no tensor of this name."
  @doc group: "Tensors"
  @spec info(t, String.t()) :: {:ok, info} | :error
  def info(%__MODULE__{tensors: tensors}, name) do
    with {:ok, tensor} <- Map.fetch(tensors, name),
         do: {:ok, Map.take(tensor, [:type, :dtype, :shape, :size, :path])}
  end

  @doc """
  Returns the bytes of a tensor, in row-major order and little endian: `{:ok, binary}`, or `:error` if the file has no tensor
  of this name.

  The binary is live: it is the file's memory, and no byte is read until it is used. With `copy: true` it is a copy, in the
  memory of the VM. Other errors: `:closed`, and the errors of lost pages that `Emmap.reattach/1` lists.
  """
  @doc group: "Tensors"
  @spec fetch(t, String.t(), copy: boolean) :: {:ok, binary} | :error | Emmap.failure()
  def fetch(st, name, options \\ [])

  def fetch(%__MODULE__{tensors: tensors, files: files}, name, options) do
    copy? = options |> OptionList.check!(copy: {&is_boolean/1, "true | false"}) |> Map.get(:copy)

    case tensors do
      %{^name => %{size: 0}} -> {:ok, ""}
      %{^name => tensor} -> bytes(Map.fetch!(files, tensor.path), tensor, copy?)
      %{} -> :error
    end
  end

  defp bytes(mem, %{position: position, size: size}, copy?) do
    read = if copy?, do: &Emmap.pread/3, else: &Emmap.view/3

    case read.(mem, position, size) do
      {:ok, bytes} when byte_size(bytes) == size -> {:ok, bytes}
      {:error, _} = error -> error
      # The file was truncated, and its map reattached.
      _shorter -> {:error, :estale}
    end
  end

  defimpl Inspect do
    def inspect(%{path: path, tensors: tensors}, _options),
      do: "#Emmap.Safetensors<#{Kernel.inspect(path)} #{map_size(tensors)} tensors>"
  end
end
