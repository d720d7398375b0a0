defmodule Bench.Groups.Tensors do
  @moduledoc false
  # The first tensor of a model file of 4 GB, and all of its header, compared with reading it and with the Python package.
  import Bench
  alias Bench.{Comparison, Outside}
  alias Emmap.Safetensors

  # A sparse file: reading a hole takes as long as reading pages of the cache.
  @tensors 512
  @bytes 8_388_608

  loop(empty(model, n), do: _ = model)
  loop(fetch(model, n), do: {:ok, _} = Safetensors.fetch(model, "layer.7.weight"))
  loop(ets(table, n), do: [{_, _}] = :ets.lookup(table, "layer.7.weight"))

  def title, do: "Tensors"

  def run(folder) do
    {path, data} = model(Path.join(folder, "model.safetensors"))
    name = "layer.0.weight"

    live = fn -> first(Safetensors.open!(path), name) end
    read = fn -> read(path, data) end

    first =
      compare(
        "#{bytes(@tensors * @bytes)}: open, and sum 1,000 numbers of one tensor",
        [
          once(:emmap, "Emmap.Safetensors.open, fetch", live),
          once(:read, "raw :file.read of the header and the tensor", read)
        ],
        seconds: 3
      )

    model = Safetensors.open!(path)
    table = :ets.new(:tensors, [:public, read_concurrency: true])
    :ets.insert(table, for(name <- Safetensors.names(model), do: {name, {:f32, data}}))

    known =
      compare(
        "a tensor of an open model",
        [
          side(:emmap, "Emmap.Safetensors.fetch", &fetch(model, &1)),
          side(:ets, ":ets.lookup of a name", &ets(table, &1))
        ],
        empty: &empty(model, &1),
        seconds: 1
      )

    Safetensors.close(model)
    milliseconds = Comparison.least(first, :emmap) / 1.0e6
    memory = memory(path, name)

    [
      {:note,
       "The file has #{@tensors} tensors of #{bytes(@bytes)}. Opening it reads and checks the header. A tensor is a live binary, so fetching one reads nothing; its pages are read when they are used."},
      first,
      headline("the first tensor of a 4 GB file, in ms", milliseconds, {:at_most, 10}),
      headline("memory that it takes, in MB", memory / 1.0e6, {:at_most, 1}),
      python(path, name),
      known
    ]
  end

  defp first(model, name) do
    {:ok, tensor} = Safetensors.fetch(model, name)
    sum = sum(tensor, 1000)
    Safetensors.close(model)
    sum
  end

  defp read(path, _data) do
    {:ok, file} = :file.open(path, [:read, :raw, :binary])
    {:ok, <<length::little-64>>} = :file.pread(file, 0, 8)
    {:ok, _header} = :file.pread(file, 8, length)
    {:ok, tensor} = :file.pread(file, 8 + length, @bytes)
    sum = sum(tensor, 1000)
    :ok = :file.close(file)
    sum
  end

  defp sum(tensor, count) do
    for <<n::float-little-32 <- binary_part(tensor, 0, count * 4)>>, reduce: 0.0 do
      sum -> sum + n
    end
  end

  # Bytes of the VM and of the system, in a VM of its own.
  defp memory(path, name) do
    Enum.min(for _ <- 1..3, do: Bench.VM.call(__MODULE__, :memory_of, [path, name]))
  end

  @doc false
  def memory_of(path, name) do
    # The code is loaded.
    first(Safetensors.open!(path), name)
    :erlang.garbage_collect()
    before = {:erlang.memory(:total), Bench.Groups.Whole.anonymous()}
    model = Safetensors.open!(path)
    {:ok, tensor} = Safetensors.fetch(model, name)
    _ = sum(tensor, 1000)
    :erlang.garbage_collect()
    now = {:erlang.memory(:total), Bench.Groups.Whole.anonymous()}
    Safetensors.close(model)
    max(elem(now, 0) - elem(before, 0), elem(now, 1) - elem(before, 1)) |> max(0)
  end

  defp model(path) do
    entries =
      for n <- 0..(@tensors - 1) do
        ~s("layer.#{n}.weight":{"dtype":"F32","shape":[#{div(@bytes, 4096)},1024],) <>
          ~s("data_offsets":[#{n * @bytes},#{(n + 1) * @bytes}]})
      end

    header = "{" <> Enum.join(entries, ",") <> "}"
    header = header <> String.duplicate(" ", rem(8 - rem(byte_size(header), 8), 8))
    data = 8 + byte_size(header)
    {:ok, file} = :file.open(path, [:write, :raw, :binary])
    :ok = :file.write(file, [<<byte_size(header)::little-64>>, header])
    {:ok, size} = :file.position(file, data + @tensors * @bytes)
    :ok = :file.truncate(file)
    ^size = File.stat!(path).size
    :ok = :file.close(file)
    {path, data}
  end

  defp python(path, name) do
    script = Path.expand("../others/tensors.py", __DIR__)

    case Outside.python(script, [path, name, if(quick?(), do: "2", else: "15")]) do
      {:ok, "missing" <> _} ->
        Outside.missing("safetensors, in Python")

      {:ok, output} ->
        times =
          for line <- String.split(output, "\n", trim: true), do: line |> Float.parse() |> elem(0)

        rounds = length(times)

        ours =
          for _ <- 1..rounds,
              do:
                Comparison.round(
                  once(:emmap, "", fn -> first(Safetensors.open!(path), name) end),
                  1
                )

        Comparison.of(
          "the same, compared with Python",
          [
            emmap: "Emmap.Safetensors.open, fetch",
            python: "safetensors.safe_open, get_slice (NumPy)"
          ],
          %{emmap: ours, python: times}
        )

      {:missing, why} ->
        Outside.missing("Python (#{why})")
    end
  end
end
