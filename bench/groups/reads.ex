defmodule Bench.Groups.Reads do
  @moduledoc false
  # Reads compared with the floor, which does the same memory work and nothing else, and with raw files.
  import Bench

  loop(empty(x, n), do: _ = x)
  loop(pread(mem, at, count, n), do: {:ok, _} = Emmap.pread(mem, at, count))
  loop(view(mem, at, count, n), do: {:ok, _} = Emmap.view(mem, at, count))
  loop(file_pread(file, at, count, n), do: {:ok, _} = :file.pread(file, at, count))
  loop(floor_pread(map, at, count, n), do: {:ok, _} = :floor_nif.copy_out(map, at, count))
  loop(floor_view(map, at, count, n), do: {:ok, _} = :floor_nif.view(map, at, count))

  @at 64
  @size 1_073_741_824
  @small [8, 64, 512, 4096, 65_536]
  # What the floor's ratio may be at most.
  @limits %{8 => 1.05, 64 => 1.05, 512 => 1.05, 4096 => 1.05, 65_536 => 1.06}

  def title, do: "Reads"

  def run(folder) do
    size = amount(@size) + 4096
    path = random_file(Path.join(folder, "data"), size)
    mem = Emmap.open!(path)
    live = Emmap.open!(path, [:direct])
    floor = :floor_nif.open(String.to_charlist(path), size)

    [small, views, files] = Bench.VMs.compare(__MODULE__, :calls, [path, size], folder)

    large =
      for count <- [1_048_576, 67_108_864, @size],
          do: large(min(count, size - 4096), path, mem, live, floor)

    both = schedulers(path, mem, live, floor)
    beside = beside_writer(path)
    for it <- [mem, live], do: Emmap.close(it)

    [
      {:note,
       "`Emmap.pread/3` copies out of the map, as the floor does. The lower bound of a large read is the copy itself (`memcpy`, and the floor does nothing else). A live binary is not copied, so reading one takes the same time for every size."},
      small,
      {:plot, "reads", Bench.Results.bars("Reads", small ++ large)},
      headlines(small, views, files),
      {:note,
       "**Live binaries.** A view creates a term of 6 to 10 words and does not read the file."},
      views,
      {:note,
       "**Through `:file`.** OTP's dispatch takes 10 to 15 ns of each call, so the floor is called through `:file` too."},
      files,
      {:note,
       "**Large reads.** Copies of more than 64 KB run on a dirty scheduler. Copies larger than the CPU caches are limited by memory bandwidth."},
      large,
      {:note,
       "**All schedulers.** #{System.schedulers_online()} processes call at once. The figure is the elapsed time divided by the number of calls of all processes."},
      both,
      beside,
      cold(folder, path, size)
    ]
  end

  @doc "Of several VMs."
  def calls(path, size, _folder) do
    mem = Emmap.open!(path)
    live = Emmap.open!(path, [:direct])
    floor = :floor_nif.open(String.to_charlist(path), size)

    [
      for(count <- @small, do: small(count, path, mem, floor)),
      for(count <- [8, 4096], do: live(count, path, live, mem, floor)),
      for(count <- [8, 512, 4096, 65_536], do: through_file(count, mem, live, floor))
    ]
  end

  defp small(count, path, mem, floor) do
    compare(
      "pread of #{bytes(count)}",
      [
        side(:emmap, "Emmap.pread", &pread(mem, @at, count, &1)),
        side(:floor, "the floor", &floor_pread(floor, @at, count, &1)),
        raw("raw :file.pread", path, &file_pread(&1, @at, count, &2))
      ],
      empty: &empty(mem, &1)
    )
  end

  # A raw file belongs to the process that opened it.
  defp raw(label, path, run, options \\ []) do
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end
    side(:raw, label, run, [setup: open, teardown: &:file.close/1] ++ options)
  end

  defp live(count, path, live, mem, floor) do
    compare(
      "a live binary of #{bytes(count)}",
      [
        side(:emmap, "Emmap.pread, :direct", &pread(live, @at, count, &1)),
        side(:view, "Emmap.view", &view(mem, @at, count, &1)),
        side(:floor, "the floor's view", &floor_view(floor, @at, count, &1)),
        raw("raw :file.pread, a copy", path, &file_pread(&1, @at, count, &2))
      ],
      empty: &empty(mem, &1)
    )
  end

  defp through_file(count, mem, live, floor) do
    copies = :floor_nif.handle(floor)
    views = :floor_nif.handle(floor, :view)

    for {name, ours, theirs} <- [{"", mem, copies}, {", :direct", live, views}] do
      compare(
        ":file.pread of #{bytes(count)}#{name}",
        [
          side(:emmap, ":file.pread of a map", &file_pread(ours, @at, count, &1)),
          side(:floor, "the floor through :file", &file_pread(theirs, @at, count, &1))
        ],
        empty: &empty(mem, &1),
        seconds: 0.7
      )
    end
  end

  defp large(count, path, mem, live, floor) do
    compare(
      "pread of #{bytes(count)}",
      [
        side(:emmap, "Emmap.pread", &pread(mem, @at, count, &1)),
        side(:floor, "the floor (memcpy)", &floor_pread(floor, @at, count, &1)),
        raw("raw :file.pread", path, &file_pread(&1, @at, count, &2)),
        side(:live, "Emmap.pread, :direct", &pread(live, @at, count, &1))
      ],
      empty: &empty(mem, &1),
      seconds: if(count < 100_000_000, do: 1.5, else: 4)
    )
  end

  defp schedulers(path, mem, live, floor) do
    all = System.schedulers_online()

    each = fn run ->
      fn n -> together(for p <- 1..all, do: fn -> run.(p * 4096, max(div(n, all), 1)) end) end
    end

    raw = fn at, n ->
      {:ok, file} = :file.open(path, [:read, :raw, :binary])
      file_pread(file, at, 64, n)
      :file.close(file)
    end

    compare(
      "pread of 64 B, all schedulers",
      [
        side(:emmap, "Emmap.pread of one map", each.(&pread(mem, &1, 64, &2))),
        side(:live, "Emmap.pread, :direct", each.(&pread(live, &1, 64, &2))),
        side(:floor, "the floor", each.(&floor_pread(floor, &1, 64, &2))),
        side(:raw, "raw :file.pread, a file each", each.(raw)),
        side(:one, "Emmap.pread, one process", &pread(mem, 4096, 64, &1))
      ],
      round: 4_000_000
    )
  end

  # One process writes without a pause while another reads, of the same page or of another.
  defp beside_writer(path) do
    mem = Emmap.open!(path, [:write])
    data = :crypto.strong_rand_bytes(64)
    writer = spawn_link(fn -> write_on(mem, data) end)

    comparison =
      compare("pread of 64 B, while another process writes", [
        side(:emmap, "to a different page", &pread(mem, 8192, 64, &1)),
        side(:same, "to the same page", &pread(mem, 4096, 64, &1))
      ])

    Process.unlink(writer)
    monitor = Process.monitor(writer)
    Process.exit(writer, :kill)
    receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
    Emmap.close(mem)
    comparison
  end

  defp write_on(mem, data) do
    :ok = Emmap.pwrite(mem, 4096, data)
    write_on(mem, data)
  end

  # The same file, of which the page cache holds nothing.
  defp cold(folder, from, size) do
    path = Path.join(folder, "cold")
    size = min(size - 4096, amount(268_435_456))
    {:ok, _} = :file.copy(String.to_charlist(from), String.to_charlist(path), size)
    at = for n <- 1..100, do: rem(n * 7_919_113, div(size, 4096)) * 4096
    forget = fn -> forget(path) end

    mapped = fn advice ->
      fn _ ->
        mem = Emmap.open!(path)
        if advice, do: :ok = Emmap.advise(mem, 0, size, advice)
        for at <- at, do: {:ok, _} = Emmap.pread(mem, at, 4096)
        Emmap.close(mem)
      end
    end

    raw = fn _ ->
      {:ok, file} = :file.open(path, [:read, :raw, :binary])
      for at <- at, do: {:ok, _} = :file.pread(file, at, 4096)
      :file.close(file)
    end

    random =
      compare("cold: open, 100 reads of 4 KB at random", [
        once(:emmap, "Emmap.pread, advise :random", mapped.(:random), setup: forget),
        once(:plain, "Emmap.pread", mapped.(nil), setup: forget),
        once(:raw, "raw :file.pread", raw, setup: forget)
      ])

    whole = [
      once(:emmap, "Emmap.count of a byte", fn _ -> count(path, []) end, setup: forget),
      once(
        :read,
        "File.read! and :binary.matches",
        fn _ -> path |> File.read!() |> :binary.matches(<<0, 1, 2, 3, 4>>) end,
        setup: forget
      ),
      once(
        :cat,
        "cat >/dev/null (the disk)",
        fn _ -> System.cmd("sh", ["-c", "cat \"$1\" >/dev/null", "sh", path]) end,
        setup: forget
      )
    ]

    note =
      "**Cold.** The page cache has been told to forget the file (`posix_fadvise`). A page fault also reads the neighboring pages, which speeds up sequential reads and slows down random ones. `Emmap.advise(mem, 0, size, :random)` switches this off."

    [{:note, note}, random, compare("cold: #{bytes(size)} from front to back", whole, seconds: 3)]
  end

  defp count(path, options) do
    mem = Emmap.open!(path)
    {:ok, _} = Emmap.count(mem, <<0, 1, 2, 3, 4>>, options)
    Emmap.close(mem)
  end

  defp headlines(small, views, files) do
    [_, pread_64 | _] = small

    floors =
      for {%{name: name} = comparison, count} <- Enum.zip(small, @small),
          do:
            headline(
              comparison,
              :floor,
              "#{name}, compared with the floor",
              {:at_most, @limits[count]}
            )

    [
      headline(
        pread_64,
        :raw,
        "raw :file.pread of 64 B, compared with Emmap.pread",
        {:at_least, 30}
      ),
      floors,
      for(
        %{name: name} = comparison <- views,
        do: headline(comparison, :floor, "#{name}, compared with the floor's", {:at_most, 1.1})
      ),
      for(
        %{name: name} = comparison <- List.flatten(files),
        do:
          headline(
            comparison,
            :floor,
            "#{name}, compared with the floor through :file",
            {:at_most, 1.1}
          )
      )
    ]
  end
end
