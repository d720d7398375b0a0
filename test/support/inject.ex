defmodule Emmap.Test.Inject do
  @moduledoc """
  Runs inside a VM with `test/native/inject.c` preloaded: each scene is played once for every system call
  that it makes and every error, and must return the exact result, leave the file as it was, and go on.
  """

  alias Emmap.Test.{Resources, Scenes}

  @calls [
           :open,
           :fstat,
           :ftruncate,
           :fallocate,
           :mmap,
           :mprotect,
           :msync,
           :fdatasync,
           :fsync,
           :fcntl,
           :close,
           :fstatvfs,
           :linkat,
           :rename,
           :madvise,
           :mlock,
           :sync_file_range,
           :pwrite,
           :pread,
           :dup,
           :mremap,
           :fchmod,
           :fchown,
           :unlink,
           :write,
           :read,
           :readlink,
           :realpath,
           :lseek,
           :mincore,
           :munlock,
           :fstatfs,
           :ioctl,
           :fadvise,
           :getrlimit,
           :getcwd,
           :faccessat,
           :dup3,
           :opendir,
           :readdir,
           :fstatat,
           :flock
         ]
         |> Enum.with_index(1)

  @errors [eio: 5, enospc: 28, enomem: 12, eintr: 4, emfile: 24]

  # A signal that interrupts is waited out where the system can be interrupted.
  @retried [
    :open,
    :ftruncate,
    :fallocate,
    :msync,
    :fdatasync,
    :fsync,
    :fcntl,
    :fstatvfs,
    :pwrite,
    :pread,
    :fchmod,
    :write,
    :read,
    :fstatfs
  ]

  @doc """
  Plays all scenes below `directory`; `control` is the file that the library shares. Returns how many
  failures were injected, and what went wrong.
  """
  def run(directory, control) do
    {:ok, control} = :file.open(control, [:binary, :read, :write])
    # Loaded before its addresses are asked for; and with the maps that the guard keeps to spare.
    :ok = Emmap.close(Emmap.open!([:anon, size: 1]))
    # What the library asks the system once.
    warm = Path.join(Path.dirname(directory), "warm")
    :ok = Emmap.close(Emmap.open!(warm, [:create, size: 1]))
    set(control, 0, library_addresses())

    results =
      for scene <- Scenes.all(),
          clean = play(scene, directory, control, nil),
          {call, id} <- @calls,
          which <- 1..(clean.seen[id] || 0)//1,
          {error, number} <- @errors do
        got = play(scene, directory, control, {id, which, number})
        {scene.name, call, which, error, wrong(scene, clean, got, call, which, error)}
      end

    wrong = for {_, _, _, _, why} = result when why != nil <- results, do: result
    {length(results), wrong, left(directory)}
  end

  # One play, in a process of its own, so that what it held goes with it.
  defp play(scene, directory, control, failure) do
    Task.async(fn ->
      folder = Path.join(directory, "play")
      File.rm_rf!(folder)
      File.mkdir_p!(folder)
      file = Path.join(folder, "data")
      stage = scene.set.(file)
      before = scene.state.(file)

      # What the stage has left is closed now, and not while calls are counted.
      :erlang.garbage_collect()
      {id, which, number} = failure || {0, 0, 0}
      set(control, 2, [id, which, number, 0])
      set(control, 16, List.duplicate(0, length(@calls) + 1))
      answer = scene.act.(stage)
      # What the act has left is closed in every play, or in none.
      :erlang.garbage_collect()
      seen = get(control, 16, length(@calls) + 1)
      [failed] = get(control, 5, 1)
      set(control, 2, [0, 0, 0])

      middle = scene.state.(file)
      # Whatever failed, the same asked for again works.
      again = scene.act.(stage)
      {before, shown(answer), middle, shown(again), scene.state.(file), failed, seen}
    end)
    |> Task.await(20_000)
    |> then(fn {before, answer, middle, again, later, failed, seen} ->
      %{
        before: before,
        answer: answer,
        middle: middle,
        again: again,
        later: later,
        failed: failed,
        seen: seen |> Enum.with_index() |> Map.new(fn {n, id} -> {id, n} end),
        held: eventually_free(directory)
      }
    end)
  end

  # Handles and live binaries differ from play to play.
  defp shown({:ok, handle}) when is_tuple(handle) or is_struct(handle), do: :ok
  defp shown({:ok, %{} = info}), do: {:ok, map_size(info)}
  defp shown(other), do: other

  defp eventually_free(directory) do
    if Resources.eventually(fn -> Resources.held(directory) == {0, 0} end),
      do: nil,
      else: Resources.held(directory)
  end

  # What is not as promised.
  defp wrong(scene, clean, got, call, which, error) do
    expected = expected(scene, clean, call, which, error)
    failed? = match?({:error, _}, expected)

    cond do
      got.failed != 1 ->
        {:not_met, got.failed}

      got.held != nil ->
        {:held, got.held}

      got.answer != expected ->
        {:answered, got.answer, :not, expected}

      got.middle not in states(scene, clean, failed?) ->
        {:file, got.middle, :not, states(scene, clean, failed?)}

      sticky?(scene, call, expected) and got.again != expected ->
        {:forgot, got.again}

      sticky?(scene, call, expected) ->
        nil

      failed? and {got.again, got.later} != {clean.answer, clean.middle} ->
        {:again, got.again, got.later, :not, clean.answer, clean.middle}

      true ->
        nil
    end
  end

  # Nothing is changed by what fails, with two exceptions that are documented: counters are made or grown
  # whole before they are mapped, and a file that was to be truncated may be empty.
  defp states(%{name: "counters" <> _}, clean, true), do: [clean.before, clean.middle]
  defp states(%{name: "named counters" <> _}, clean, true), do: [clean.before, clean.middle]
  defp states(%{name: "open and truncate"}, clean, true), do: [clean.before, {:ok, ""}]
  defp states(_scene, clean, true), do: [clean.before]
  defp states(_scene, clean, false), do: [clean.middle]

  # A sync that failed stays failed.
  defp sticky?(scene, call, {:error, _}),
    do: scene.name =~ "sync" and call in [:msync, :fdatasync, :fsync, :sync_file_range]

  defp sticky?(_scene, _call, _expected), do: false

  defp expected(_scene, clean, call, _which, :eintr) when call in @retried, do: clean.answer

  # What opens files collects garbage and tries again.
  defp expected(%{opens: true}, clean, _call, _which, error) when error in [:emfile, :enomem],
    do: clean.answer

  # The descriptor is closed regardless of the result of close, and previous work is kept.
  defp expected(_scene, clean, :close, _which, _error), do: clean.answer

  # What cannot be known is taken as unlimited, and a name that cannot be removed stays.
  defp expected(_scene, clean, call, _which, _error)
       when call in [:ioctl, :getrlimit, :fchown, :unlink, :readlink],
       do: clean.answer

  # Looking for what killed builds of a table have left.
  defp expected(_scene, clean, call, _which, _error)
       when call in [:opendir, :readdir, :fstatat, :flock],
       do: clean.answer

  # What cannot be moved to its place is mapped there.
  defp expected(_scene, clean, :mremap, _which, _error), do: clean.answer

  # Releasing pages, giving advice, and waiting for prefetching.
  defp expected(%{name: "advise"}, _clean, :madvise, _which, error), do: {:error, error}
  defp expected(%{name: "prefetch"}, clean, :madvise, _which, :eintr), do: clean.answer
  defp expected(%{name: "prefetch"}, _clean, :madvise, _which, error), do: {:error, error}
  defp expected(_scene, clean, :madvise, _which, _error), do: clean.answer

  defp expected(scene, clean, call, which, error) do
    rule = Enum.find_value(scene.rules, &(elem(&1, 0) == {call, which} && elem(&1, 1)))

    cond do
      rule == :as_if_nothing or rule == {:as_if_nothing, error} -> clean.answer
      match?({^error, _}, rule) -> {:error, elem(rule, 1)}
      true -> {:error, error}
    end
  end

  # Nothing is left: no temporary file, and the file's lock is free.
  defp left(directory), do: directory |> Path.join("play") |> File.ls!() |> Enum.sort()

  defp library_addresses do
    lines =
      for line <- "/proc/self/maps" |> File.read!() |> String.split("\n"),
          line =~ "emmap_nif",
          do: line |> String.split(" ") |> hd() |> String.split("-")

    [[first, _] | _] = lines
    [_, last] = List.last(lines)
    [String.to_integer(first, 16), String.to_integer(last, 16)]
  end

  defp set(control, word, values) do
    :ok = :file.pwrite(control, word * 8, for(value <- values, do: <<value::native-64>>))
  end

  defp get(control, word, count) do
    {:ok, bytes} = :file.pread(control, word * 8, count * 8)
    for <<value::native-64 <- bytes>>, do: value
  end
end
