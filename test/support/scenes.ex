defmodule Emmap.Test.Scenes do
  @moduledoc """
  What `Emmap.Test.Inject` plays: `set` makes a stage for a file, `act` is played under failures, `state` is
  what must be as before after a failure. `rules` are the calls whose failure is answered otherwise than by
  their own error: `{{call, which}, :as_if_nothing | {:as_if_nothing, error} | {error, answer}}`.
  """

  # Addresses set aside for growth: without them there is a map that moves when it grows.
  @ahead [{{:mmap, 1}, {:as_if_nothing, :enomem}}]
  # Mapping a file in /proc returns this.
  @probe [{{:mmap, 2}, {:eio, :enodev}}]
  # Where a file without a name is not to be had, one with a temporary name will do.
  @nameless [{{:open, 2}, :as_if_nothing}, {{:fstat, 1}, :as_if_nothing}]

  # Closing a map releases its pages where the system grants it.
  @closing [{{:mmap, 3}, :as_if_nothing}]
  # Whether the directory has room is asked before the file is created, where that can be known.
  @room [{{:open, 2}, :as_if_nothing}, {{:fstat, 1}, :as_if_nothing}]
  # The link is looked at first, and then what it leads to.
  @linked [
    {{:open, 4}, :as_if_nothing},
    {{:fstat, 1}, :as_if_nothing},
    {{:fstat, 2}, :as_if_nothing}
  ]
  # What was appended is in the file whatever becomes of the map.
  @appending [
    {{:fstat, 3}, :as_if_nothing},
    {{:mmap, 1}, :as_if_nothing},
    {{:mmap, 2}, :as_if_nothing}
  ]

  @ten :binary.copy("0123456789", 1000)

  defp scene(name, act, options \\ []) do
    %{
      name: name,
      act: act,
      set: Keyword.get(options, :set, &mapped(&1, [:write])),
      state: Keyword.get(options, :state, &File.read/1),
      rules: Keyword.get(options, :rules, []),
      opens: name =~ ~r/^(open|create|(named )?counters (created|in|opened|grown))/
    }
  end

  # A file of ten thousand bytes, and a map of it.
  defp mapped(file, options) do
    File.write!(file, @ten)
    Emmap.open!(file, options)
  end

  defp file(file, bytes) do
    if bytes, do: File.write!(file, bytes)
    file
  end

  def all do
    [
      scene("open", &Emmap.open(&1, [:write]), set: &file(&1, @ten), rules: @ahead ++ @probe),
      scene("open read-only", &Emmap.open/1, set: &file(&1, @ten), rules: @probe),
      scene("open private", &Emmap.open(&1, [:write, :private]),
        set: &file(&1, @ten),
        rules: @probe
      ),
      scene("open direct", &Emmap.open(&1, [:direct]), set: &file(&1, @ten), rules: @probe),
      scene("open a part", &Emmap.open(&1, [:write, offset: 5001, length: 100]),
        set: &file(&1, @ten),
        rules: @probe
      ),
      scene("open anonymous", fn _ -> Emmap.open([:anon, size: 10_000]) end,
        set: &file(&1, nil),
        rules: @ahead
      ),
      scene("open and grow", &Emmap.open(&1, [:write, size: 50_000]),
        set: &file(&1, @ten),
        rules: @ahead ++ @probe
      ),
      scene("open and cut", &Emmap.open(&1, [:write, :fit, size: 5_000]),
        set: &file(&1, @ten),
        rules: @ahead ++ @probe
      ),
      scene("open and truncate", &Emmap.open(&1, [:write, :truncate, size: 5_000]),
        set: &file(&1, @ten),
        rules: @ahead ++ @probe
      ),
      scene("create", &Emmap.open(&1, [:write, :create, size: 50_000, chmod: 0o600]),
        set: &file(&1, nil),
        rules: @ahead ++ @probe ++ @room
      ),
      scene("create sparse", &Emmap.open(&1, [:write, :create, :sparse, size: 50_000]),
        set: &file(&1, nil),
        rules: @ahead ++ @probe ++ @room
      ),
      scene("create through a link", &Emmap.open(&1 <> ".link", [:create, size: 50_000]),
        set: &dangling/1,
        rules: @ahead ++ @probe ++ @linked
      ),
      scene("open to append", &Emmap.open(&1, [:append]), set: &file(&1, @ten), rules: @probe),
      scene("append", &Emmap.write(&1, "more"),
        set: &mapped(&1, [:append]),
        rules: @appending
      ),
      scene("append over a page", &Emmap.pwrite(&1, 0, @ten),
        set: &mapped(&1, [:append]),
        rules: @appending
      ),
      scene("a record appended", &Emmap.Array.append(&1, "0123456789"), set: &records/1),
      scene("records appended over a page", &Emmap.Array.append(&1, ten_times(1_000)),
        set: &records/1
      ),
      scene("fill that grows", &Emmap.fill(&1, 9_990, 5_000, ?z)),
      scene("copy that grows", &Emmap.copy(&1, 0, 9_990, 5_000)),
      scene("write at the cursor that grows", fn mem ->
        {:ok, 9_990} = Emmap.position(mem, 9_990)
        Emmap.write(mem, @ten)
      end),
      scene(
        "open and close",
        fn file ->
          with {:ok, mem} <- Emmap.open(file, [:write]), do: Emmap.close(mem)
        end,
        set: &file(&1, @ten),
        rules: @ahead ++ @probe ++ @closing ++ [{{:fstat, 2}, :as_if_nothing}]
      ),
      scene("unlock", &Emmap.unlock_memory/1),
      scene("metadata", fn mem ->
        with {:ok, info} <- :file.read_file_info(mem), do: {:ok, %{size: elem(info, 1)}}
      end),
      scene("pread", &Emmap.pread(&1, 9_990, 20)),
      scene("pwrite that grows", &Emmap.pwrite(&1, 20_000, "end")),
      scene("sparse pwrite that grows", &Emmap.pwrite(&1, 20_000, "end"),
        set: &mapped(&1, [:write, :sparse])
      ),
      scene("resize up", &Emmap.resize(&1, 50_000)),
      scene("resize beyond the range", &Emmap.resize(&1, 1_200_000_000),
        set: &mapped(&1, [:write, :sparse]),
        state: &head/1,
        rules: @ahead
      ),
      scene("resize down", &Emmap.resize(&1, 5_000)),
      scene("resize down to nothing", &Emmap.resize(&1, 0)),
      scene("grow", &Emmap.grow(&1), state: fn file -> File.stat!(file).size > 0 end),
      scene(
        "truncate",
        fn mem ->
          {:ok, 5_000} = Emmap.position(mem, 5_000)
          Emmap.truncate(mem)
        end
      ),
      scene("allocate", &Emmap.allocate(&1, 0, 10_000)),
      scene("allocate past the end", &Emmap.allocate(&1, 0, 50_000)),
      scene("advise", &Emmap.advise(&1, 0, 0, :will_need)),
      scene("prefetch", &Emmap.prefetch(&1, 0, 10_000)),
      scene("lock", &Emmap.lock_memory/1),
      # The blocks on the disk are then unknown; what else there is to know is told.
      scene("info", &Emmap.info/1,
        rules: [{{:fstat, 1}, :as_if_nothing}, {{:fstat, 2}, :as_if_nothing}]
      ),
      scene("sync", &Emmap.sync/1),
      scene("sync a range", &Emmap.sync(&1, {0, 5_000})),
      scene("async sync", &Emmap.sync(&1, :async)),
      scene("datasync", &Emmap.datasync/1),
      scene("sync of a new name", &Emmap.sync/1,
        set: &Emmap.open!(&1, [:write, :create, size: 10_000])
      ),
      scene("reattach", &Emmap.reattach/1),
      scene("reattach a longer file", &Emmap.reattach/1, set: &longer/1, rules: @ahead),
      scene("reattach after a fault", &reattached/1, set: &faulted/1),
      scene("patomic", &Emmap.patomic(&1, 0, :and, -1)),
      scene("dup", &Emmap.dup/1),
      scene("counters created", &counters(&1, 100),
        set: &file(&1, nil),
        state: &counted/1,
        rules: @probe ++ @nameless ++ @closing ++ [{{:fstat, 11}, :as_if_nothing}]
      ),
      scene("named counters created", &counters(&1, [:a, :b]),
        set: &file(&1, nil),
        state: &counted/1,
        rules: @probe ++ @nameless ++ @closing ++ [{{:fstat, 11}, :as_if_nothing}]
      ),
      scene("counters in an empty file", &counters(&1, 100),
        set: &file(&1, ""),
        state: &counted/1,
        rules: @probe ++ @closing ++ [{{:fstat, 14}, :as_if_nothing}]
      ),
      scene("counters opened", &counters(&1, 10),
        set: &ten_counters/1,
        state: &counted/1,
        rules: @probe ++ @closing ++ [{{:fstat, 8}, :as_if_nothing}]
      ),
      scene("counters grown", &counters(&1, 3_000),
        set: &ten_counters/1,
        state: &counted/1,
        rules: @probe ++ @closing ++ [{{:fstat, 16}, :as_if_nothing}]
      ),
      scene("counters synced", &Emmap.Counters.sync/1,
        set: &Emmap.Counters.open!(ten_counters(&1), 10),
        state: &counted/1
      ),
      scene("counters reattached", &Emmap.Counters.reattach/1,
        set: &Emmap.Counters.open!(ten_counters(&1), 10),
        state: &counted/1
      )
    ]
  end

  defp records(file) do
    {:ok, array} = Emmap.Array.of(mapped(file, [:write]), {:bytes, 10})
    array
  end

  defp ten_times(count), do: List.duplicate("0123456789", count)

  # A link to a file that is not there.
  defp dangling(file) do
    link = file <> ".link"
    _ = File.rm(link)
    :ok = File.ln_s(file, link)
    file
  end

  # Of a file that may be too long to read.
  defp head(file) do
    {:ok, raw} = :file.open(file, [:raw, :binary])
    {:ok, bytes} = :file.pread(raw, 0, 10_000)
    :ok = :file.close(raw)
    {File.stat!(file).size, bytes}
  end

  defp longer(file) do
    mem = mapped(file, [])
    File.write!(file, @ten, [:append])
    mem
  end

  defp faulted(file) do
    mem = mapped(file, [:write])
    File.write!(file, "")
    {:error, :estale} = Emmap.pread(mem, 9_000, 1)
    File.write!(file, @ten)
    mem
  end

  # A second time there is nothing to repair, so the first must have brought it back.
  defp reattached(mem) do
    with :ok <- Emmap.reattach(mem), do: Emmap.pread(mem, 0, 10_000)
  end

  defp ten_counters(file) do
    counters = Emmap.Counters.open!(file, 10)
    for n <- 0..9, do: Emmap.Counters.put(counters, n, n)
    :ok = Emmap.Counters.close(counters)
    file
  end

  defp counters(file, wanted) do
    with {:ok, counters} <- Emmap.Counters.open(file, wanted) do
      :ok = Emmap.Counters.close(counters)
    end
  end

  # Compares the readable part, because a growth that failed may leave the file longer, and checks that no other file was left.
  defp counted(file) do
    beside = file |> Path.dirname() |> File.ls!() |> Enum.sort()

    case File.read(file) do
      {:ok, ""} -> {:empty, beside}
      {:ok, _} -> {Enum.to_list(Emmap.Counters.open!(file, 0)), beside}
      none -> {none, beside}
    end
  end
end
