defmodule Bench.Groups.Writes do
  @moduledoc false
  # Writes compared with the floor, with raw files and with a sync.
  import Bench

  loop(empty(x, n), do: _ = x)
  loop(pwrite(mem, at, data, n), do: :ok = Emmap.pwrite(mem, at, data))
  loop(file_pwrite(file, at, data, n), do: :ok = :file.pwrite(file, at, data))
  loop(floor_pwrite(map, at, data, n), do: :ok = :floor_nif.copy_in(map, at, data))

  loop synced(mem, data, n) do
    :ok = Emmap.pwrite(mem, 64, data)
    :ok = Emmap.sync(mem, {0, 4096})
  end

  loop datasynced(mem, data, n) do
    :ok = Emmap.pwrite(mem, 64, data)
    :ok = Emmap.datasync(mem)
  end

  loop file_synced(file, data, n) do
    :ok = :file.pwrite(file, 64, data)
    :ok = :file.sync(file)
  end

  loop file_datasynced(file, data, n) do
    :ok = :file.pwrite(file, 64, data)
    :ok = :file.datasync(file)
  end

  @at 64
  @size 1_073_741_824
  @limits %{8 => 1.1, 64 => 1.25, 512 => 1.25, 4096 => 1.1, 65_536 => 1.1}

  def title, do: "Writes"

  def run(folder) do
    size = amount(@size) + 4096
    path = random_file(Path.join(folder, "data"), size)
    mem = Emmap.open!(path, [:write])
    floor = :floor_nif.open(String.to_charlist(path), size)
    [small, files] = Bench.VMs.compare(__MODULE__, :calls, [path, size], folder)

    large =
      for count <- [1_048_576, 67_108_864, @size],
          do: large(min(count, size - 4096), path, mem, floor)

    all = schedulers(path, mem, floor)
    durable = durable(path, mem)
    append = appends(folder)
    Emmap.close(mem)

    [
      {:note,
       "A write is a copy into the map. When the call has returned, the data is in the file and survives `kill -9`. Only a `sync` ensures that it is on the disk. It takes as long as the disk needs."},
      small,
      {:plot, "writes", Bench.Results.bars("Writes", small ++ large)},
      for(
        %{name: name} = one <- small,
        limit = @limits[count(name)],
        do: headline(one, :floor, "#{name}, compared with the floor", {:at_most, limit})
      ),
      {:note, "**Through `:file`.**"},
      files,
      for(
        %{name: name} = one <- files,
        do:
          headline(
            one,
            :floor,
            "#{name}, compared with the floor through :file",
            {:at_most, 1.15}
          )
      ),
      {:note,
       "**Large writes, appends, and all schedulers.** An append runs on a dirty scheduler. It locks the file, because other programs may append to it too, extends the file, and copies the data. A raw file does all of this in one system call. Combine many small appends into one `write`, or use a queue."},
      large,
      append,
      all,
      {:note,
       "**With a sync of each write.** Most of the time is spent in system calls and in the disk. After a sync, the first store to a page causes a page fault, in which the file system records a change of the file; a store and `msync` in a C program take as long as Emmap. Syncing after each small write is therefore faster with a raw file. The time of a single sync varies widely, so compare the quartiles too."},
      durable
    ]
  end

  defp count(name), do: Enum.find(Map.keys(@limits), &(name == "pwrite of #{bytes(&1)}"))

  defp raw(key, label, path, run, modes \\ []) do
    open = fn -> :file.open(path, [:read, :write, :raw, :binary] ++ modes) |> elem(1) end
    side(key, label, run, setup: open, teardown: &:file.close/1)
  end

  @doc "Of several VMs."
  def calls(path, size, _folder) do
    mem = Emmap.open!(path, [:write])
    floor = :floor_nif.open(String.to_charlist(path), size)

    [
      for(count <- [8, 64, 512, 4096, 65_536], do: small(count, path, mem, floor)),
      for(count <- [8, 512, 4096, 65_536], do: through_file(count, mem, floor))
    ]
  end

  defp small(count, path, mem, floor) do
    data = :crypto.strong_rand_bytes(count)

    compare(
      "pwrite of #{bytes(count)}",
      [
        side(:emmap, "Emmap.pwrite", &pwrite(mem, @at, data, &1)),
        side(:floor, "the floor", &floor_pwrite(floor, @at, data, &1)),
        raw(:raw, "raw :file.pwrite", path, &file_pwrite(&1, @at, data, &2)),
        raw(:delayed, ":file.pwrite, delayed_write", path, &file_pwrite(&1, @at, data, &2), [
          :delayed_write
        ])
      ],
      empty: &empty(mem, &1)
    )
  end

  defp through_file(count, mem, floor) do
    data = :crypto.strong_rand_bytes(count)
    copies = :floor_nif.handle(floor)

    compare(
      ":file.pwrite of #{bytes(count)}",
      [
        side(:emmap, ":file.pwrite of a map", &file_pwrite(mem, @at, data, &1)),
        side(:floor, "the floor through :file", &file_pwrite(copies, @at, data, &1))
      ],
      empty: &empty(mem, &1),
      seconds: 0.7
    )
  end

  defp large(count, path, mem, floor) do
    data = :binary.copy("0123456789abcdef", div(count, 16))

    compare(
      "pwrite of #{bytes(count)}",
      [
        side(:emmap, "Emmap.pwrite", &pwrite(mem, @at, data, &1)),
        side(:floor, "the floor (memcpy)", &floor_pwrite(floor, @at, data, &1)),
        raw(:raw, "raw :file.pwrite", path, &file_pwrite(&1, @at, data, &2))
      ],
      seconds: if(count < 100_000_000, do: 1.5, else: 4)
    )
  end

  # 64 B at a time, until there are 256 KB.
  defp appends(folder) do
    data = :crypto.strong_rand_bytes(64)
    path = Path.join(folder, "log")
    count = 4096
    each = fn write -> fn file -> for(_ <- 1..count, do: :ok = write.(file, data)) end end

    open = fn modes ->
      fn -> :file.open(path, [:append, :raw, :binary] ++ modes) |> elem(1) end
    end

    fresh = fn ->
      File.rm(path)
      Emmap.open!(path, [:append, :create])
    end

    compare(
      "#{count} appends of 64 B",
      [
        once(:emmap, "Emmap.write, :append", each.(&Emmap.write/2),
          setup: fresh,
          teardown: &Emmap.close/1
        ),
        once(:raw, "raw :file.write, append", each.(&:file.write/2),
          setup: open.([]),
          teardown: &:file.close/1
        ),
        once(:delayed, "the same, delayed_write", each.(&:file.write/2),
          setup: open.([:delayed_write]),
          teardown: &:file.close/1
        )
      ]
    )
  end

  defp schedulers(path, mem, floor) do
    all = System.schedulers_online()
    data = :crypto.strong_rand_bytes(64)

    each = fn run ->
      fn n -> together(for p <- 1..all, do: fn -> run.(p * 4096, max(div(n, all), 1)) end) end
    end

    raw = fn at, n ->
      {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
      file_pwrite(file, at, data, n)
      :file.close(file)
    end

    compare(
      "pwrite of 64 B, all schedulers",
      [
        side(:emmap, "Emmap.pwrite, pages of their own", each.(&pwrite(mem, &1, data, &2))),
        side(:floor, "the floor", each.(&floor_pwrite(floor, &1, data, &2))),
        side(:raw, "raw :file.pwrite, a file each", each.(raw)),
        side(:one, "Emmap.pwrite, one process", &pwrite(mem, 4096, data, &1))
      ],
      round: 4_000_000
    )
  end

  defp durable(path, mem) do
    data = :crypto.strong_rand_bytes(64)

    compare(
      "pwrite of 64 B and a sync",
      [
        side(:emmap, "Emmap.pwrite, Emmap.sync of a page", &synced(mem, data, &1)),
        raw(:raw, "raw :file.pwrite, :file.sync", path, &file_synced(&1, data, &2)),
        side(:data, "Emmap.pwrite, Emmap.datasync", &datasynced(mem, data, &1)),
        raw(:raw_data, "raw :file.pwrite, :file.datasync", path, &file_datasynced(&1, data, &2))
      ],
      seconds: 2
    )
  end
end
