defmodule Bench.Groups.Device do
  @moduledoc false
  # A device compared with the process of File.open/2, on the same requests.
  import Bench

  @line "a line of some length, with żółć in it\n"
  @requests [
    {"a line", 20_000, &__MODULE__.lines/2},
    {"10 characters", 20_000, &__MODULE__.characters/2},
    {"100,000 characters", 20, &__MODULE__.many_characters/2},
    {"puts", 20_000, &__MODULE__.puts/2},
    {"fread of a word", 10_000, &__MODULE__.fread/2},
    {"pread of 64 bytes", 20_000, &__MODULE__.pread/2},
    {"pread of 1 MB", 50, &__MODULE__.large_pread/2}
  ]

  def title, do: "Devices"

  def run(folder) do
    [
      {:note,
       "A request to a device is a message to a process and a reply, which take about 0.5 µs. The rest is the decoding of the request, and the read."}
      | for({name, most, request} <- @requests, do: measure(folder, name, most, request))
    ]
  end

  defp measure(folder, name, most, request) do
    [ours, theirs] =
      for side <- ["ours", "theirs"] do
        path = Path.join(folder, side)
        File.write!(path, :binary.copy(@line, 100_000))
        path
      end

    {:ok, file} = :file.open(theirs, [:read, :write, :binary, encoding: :unicode])
    {:ok, device} = Emmap.device(Emmap.open!(ours, [:write]), encoding: :unicode)

    side = fn key, label, it ->
      side(key, label, request, setup: fn -> rewound(it) end, most: most)
    end

    result =
      compare(name, [side.(:emmap, "Emmap.device", device), side.(:file, "File.open", file)])

    for it <- [file, device], do: :ok = File.close(it)
    result
  end

  defp rewound(device) do
    {:ok, 0} = :file.position(device, 0)
    :ok = :io.setopts(device, encoding: :unicode)
    device
  end

  def lines(device, n), do: for(_ <- 1..n, do: IO.read(device, :line))
  def characters(device, n), do: for(_ <- 1..n, do: IO.read(device, 10))
  def many_characters(device, n), do: for(_ <- 1..n, do: IO.read(device, 100_000))
  def puts(device, n), do: for(_ <- 1..n, do: IO.puts(device, @line))
  def fread(device, n), do: for(_ <- 1..n, do: {:ok, _} = :io.fread(device, "", ~c"~ts"))

  # `:file.pread` counts bytes, which latin1 has.
  def pread(device, n), do: preads(device, n, 64)
  def large_pread(device, n), do: preads(device, n, 1_000_000)

  defp preads(device, n, count) do
    :ok = :io.setopts(device, encoding: :latin1)
    for _ <- 1..n, do: {:ok, _} = :file.pread(device, 1000, count)
  end
end
