defmodule Bench.Groups.Languages do
  @moduledoc false
  # What programs in other languages use for the same; and other libraries on the BEAM. All of them are optional.
  import Bench
  alias Bench.{Comparison, Outside}
  alias Emmap.Blocks
  @compile {:no_warn_undefined, [:predecessor, :iommap]}

  @at 64
  @data String.duplicate("x", 64)

  loop(empty(x, n), do: _ = x)
  loop(pread(mem, count, n), do: {:ok, _} = Emmap.pread(mem, @at, count))
  loop(pwrite(mem, data, n), do: :ok = Emmap.pwrite(mem, @at, data))
  loop(get(mem, n), do: {:ok, _} = Emmap.get(mem, @at, :u64))
  loop(store(blocks, n), do: {:ok, _} = Blocks.store(blocks, @data))
  loop(read(blocks, n), do: {:ok, _} = Blocks.read(blocks, n - 1))
  loop(file_pread(mem, count, n), do: {:ok, _} = :file.pread(mem, @at, count))
  loop(file_pwrite(mem, data, n), do: :ok = :file.pwrite(mem, @at, data))
  loop(add(mem, n), do: {:ok, _} = :emmap.patomic_add(mem, @at, 1))
  loop(their_add(mem, n), do: {:ok, _} = :predecessor.patomic_add(mem, @at, 1))
  loop(iommap_pread(mem, count, n), do: {:ok, _} = :iommap.pread(mem, @at, count))
  loop(iommap_pwrite(mem, data, n), do: :ok = :iommap.pwrite(mem, @at, data))

  def title, do: "Other libraries"

  def run(folder) do
    [
      {:note,
       "**On the BEAM.** `saleyn/emmap` is the predecessor, in C++; `iommap` is in C. " <>
         "[Emmap and the alternatives](../guides/compared-with.md) describes the other differences. The most important one is what a truncation of a mapped file does to the VM."},
      predecessor(folder),
      iommap(folder),
      {:note,
       "**In Python.** The first row of each group is the Emmap call in Elixir. The others were called from Python, whose own overhead dominates in the short calls. LMDB and SQLite ran in a single transaction without a sync, which is their fastest mode."},
      python(folder),
      {:note,
       "**In Rust.** One program compares the Rust core of Emmap, without the BEAM, with redb 2 (10,000 values in each transaction, no sync) and yaque 0.6."},
      rust()
    ]
  end

  defp predecessor(folder) do
    if Outside.library?("predecessor", :predecessor) do
      path = random_file(Path.join(folder, "predecessor"), 33_554_432)

      for {mode, options} <- [
            {"", [:read, :write, :shared]},
            {", :direct", [:read, :write, :shared, :direct]}
          ] do
        {:ok, ours} = Emmap.open(path, options)
        {:ok, theirs, _} = :predecessor.open(String.to_charlist(path), options)

        both = fn name, our_run, their_run ->
          compare(
            "#{name}#{mode}",
            [side(:emmap, "Emmap", our_run), side(:theirs, "saleyn/emmap", their_run)],
            empty: &empty(ours, &1),
            seconds: 0.5
          )
        end

        for(
          count <- [8, 512, 4096, 65_536],
          do:
            both.(
              ":file.pread of #{bytes(count)}",
              &file_pread(ours, count, &1),
              &file_pread(theirs, count, &1)
            )
        ) ++
          for count <- [8, 512, 4096, 65_536], data = :crypto.strong_rand_bytes(count) do
            both.(
              ":file.pwrite of #{bytes(count)}",
              &file_pwrite(ours, data, &1),
              &file_pwrite(theirs, data, &1)
            )
          end ++
          [both.("patomic_add", &add(ours, &1), &their_add(theirs, &1))]
      end
    else
      Outside.missing("saleyn/emmap")
    end
  end

  defp iommap(folder) do
    if Outside.library?("iommap", :iommap) do
      path = random_file(Path.join(folder, "iommap"), 33_554_432)
      mem = Emmap.open!(path, [:write])
      {:ok, theirs} = :iommap.open(path, :read_write, [])

      for count <- [8, 512, 4096, 65_536], data = :crypto.strong_rand_bytes(count) do
        [
          compare(
            "pread of #{bytes(count)}, iommap",
            [
              side(:emmap, "Emmap", &pread(mem, count, &1)),
              side(:iommap, "iommap", &iommap_pread(theirs, count, &1))
            ],
            seconds: 0.5
          ),
          compare(
            "pwrite of #{bytes(count)}, iommap",
            [
              side(:emmap, "Emmap", &pwrite(mem, data, &1)),
              side(:iommap, "iommap", &iommap_pwrite(theirs, data, &1))
            ],
            seconds: 0.5
          )
        ]
      end
    else
      Outside.missing("iommap")
    end
  end

  defp python(folder) do
    rounds = if quick?(), do: 2, else: 15
    script = Path.expand("../others/memory.py", __DIR__)

    case Outside.python(script, [folder, "#{rounds}", "#{amount(20_000)}"]) do
      {:ok, output} ->
        {missing, figures} =
          output |> figures() |> Enum.split_with(&match?({"missing", _, _}, &1))

        ours = ours(folder, rounds)
        others = Enum.group_by(figures, &elem(&1, 0))

        comparisons =
          for {what, label, times} <- ours, others[what] do
            sides = for {_, side, _} <- others[what], uniq: true, do: side

            all =
              for side <- sides,
                  into: %{emmap: times},
                  do: {side, for({_, ^side, time} <- others[what], do: time)}

            Comparison.of(what, [{:emmap, label} | for(side <- sides, do: {side, side})], all)
          end

        [comparisons | for({_, name, _} <- missing, do: Outside.missing(name))]

      {:missing, why} ->
        Outside.missing("Python (#{why})")
    end
  end

  # The same here: as many rounds.
  defp ours(folder, rounds) do
    path = Path.join(folder, "data.bin")
    mem = Emmap.open!(path, [:direct])
    blocks = Blocks.open!(Path.join(folder, "blocks"), block_size: 64)
    numbers = Emmap.Array.of!(mem, :u64, count: div(67_108_864, 8))
    n = amount(20_000)

    times = fn run, calls ->
      for(_ <- 1..rounds, do: Comparison.round(side(:emmap, "", run), calls))
    end

    store = times.(&store(blocks, &1), n)

    result = [
      {"read 64 B", "Emmap.pread", times.(&pread(mem, 64, &1), n)},
      {"read a number", "Emmap.get", times.(&get(mem, &1), n)},
      {"sum 64 MB", "Emmap.Array.sum", times.(fn 1 -> Emmap.Array.sum(numbers) end, 1)},
      {"store 64 B", "Emmap.Blocks.store", store},
      {"get 64 B", "Emmap.Blocks.read", times.(&read(blocks, &1), n)}
    ]

    Emmap.close(mem)
    Blocks.close(blocks)
    result
  end

  defp rust do
    case Outside.built("rust", ["#{amount(200_000)}", if(quick?(), do: "1", else: "5")]) do
      {:ok, output} ->
        figures = figures(output)

        for what <- figures |> Enum.map(&elem(&1, 0)) |> Enum.uniq() do
          sides = for {^what, side, _} <- figures, uniq: true, do: {side, side}

          times =
            for {side, _} <- sides,
                into: %{},
                do: {side, for({^what, ^side, time} <- figures, do: time)}

          Comparison.of("#{what}, in Rust", sides, times)
        end

      {:missing, why} ->
        Outside.missing("redb and yaque, in Rust (#{why})")
    end
  end

  defp figures(output) do
    for line <- String.split(output, "\n", trim: true),
        [what, side, time] <- [String.split(line, ";")] do
      {what, side, time |> Float.parse() |> elem(0)}
    end
  end
end
