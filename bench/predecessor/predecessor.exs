# Calls that the predecessor has, too, in one VM, in many short rounds in turn. Not a part of `make bench`, for it needs a checkout
# of the predecessor (github.com/saleyn/emmap): mix run bench/predecessor/predecessor.exs CHECKOUT

Code.require_file("../harness.exs", __DIR__)

unless System.get_env("EMMAP_BENCH_COMPILE") == "1" do
  [source] = System.argv()
  built = Path.join(System.tmp_dir!(), "emmap_predecessor_#{System.pid()}")
  {_, 0} = System.cmd("sh", [Path.join(__DIR__, "build.sh"), source, built])
  Code.prepend_path(Path.join(built, "ebin"))
  {:module, _} = Code.ensure_loaded(:predecessor)
  File.rm_rf!(built)
end

defmodule Bench.Predecessor do
  import Bench

  @rounds 60
  @size 32 * 1_048_576
  @position 64
  @sizes [8, 64, 512, 4096, 65_536]
  # In the same order for both. Both have a lock unless they are told otherwise.
  @modes [
    {"", [:read, :write, :shared]},
    {", nolock", [:read, :write, :shared, :nolock]},
    {", direct", [:read, :write, :shared, :direct]},
    {", direct, nolock", [:read, :write, :shared, :direct, :nolock]}
  ]

  def run(folder) do
    path = Path.join(folder, "data")
    File.write!(path, :binary.copy(String.duplicate("x", 63) <> "\n", div(@size, 64)))
    header("ns a call, best of #{rounds(@rounds)} rounds", "emmap", "predecessor")

    for {mode, options} <- @modes do
      {:ok, ours} = Emmap.open(path, options)
      {:ok, theirs, _} = :predecessor.open(String.to_charlist(path), options)
      file_calls(mode, ours, theirs)
      atomics(mode, ours, theirs)
    end

    opens(folder)
  end

  defp file_calls(mode, ours, theirs) do
    for size <- @sizes,
        do: both("pread #{size} B#{mode}", size, ours, theirs, &pread(&1, size, &2))

    for size <- @sizes, data = :crypto.strong_rand_bytes(size) do
      both("pwrite #{size} B#{mode}", size, ours, theirs, &pwrite(&1, data, &2))
    end

    both("read 64 B#{mode}", 64, ours, theirs, &from_start(&1, fn it -> read(it, 64, &2) end))

    # The lines of this file were written over by the calls before only at its start.
    both("read_line, 64 B#{mode}", 64, ours, theirs, fn it, n ->
      {:ok, _} = :file.position(it, 1_048_576)
      read_line(it, n)
    end)
  end

  defp from_start(it, act) do
    {:ok, 0} = :file.position(it, 0)
    act.(it)
  end

  defp atomics(mode, ours, theirs) do
    against("patomic add#{mode}", &our_add(ours, &1), &their_add(theirs, &1))
    against("patomic read#{mode}", &our_load(ours, &1), &their_load(theirs, &1))
    against("patomic cas#{mode}", &our_cas(ours, &1), &their_cas(theirs, &1))
  end

  defp both(name, size, ours, theirs, act) do
    calls = div(5_000_000, 60 + div(size, 50))
    row_of(name, calls, &act.(ours, &1), &act.(theirs, &1))
  end

  defp against(name, ours, theirs), do: row_of(name, 80_000, ours, theirs)

  defp row_of(name, calls, ours, theirs) do
    result = compare([{:ours, calls, ours}, {:theirs, calls, theirs}], @rounds)
    row(name, result.ours, result.theirs, 1.0)
  end

  # The predecessor keeps the descriptor of a file that was closed: not more rounds than a program may open files.
  defp opens(folder) do
    path = Path.join(folder, "small")
    File.write!(path, :binary.copy("x", 4096))

    for {mode, options} <- @modes do
      sides = [
        {:ours, 20, &collected(fn -> our_open(path, options, &1) end)},
        {:theirs, 20, &collected(fn -> their_open(String.to_charlist(path), options, &1) end)}
      ]

      result = compare(sides, @rounds)
      row("open and close#{mode}", result.ours, result.theirs, 1.0)
    end
  end

  defp collected(act) do
    act.()
    :erlang.garbage_collect()
  end

  loop(pread(it, size, n), do: {:ok, _} = :file.pread(it, @position, size))
  loop(pwrite(it, data, n), do: :ok = :file.pwrite(it, @position, data))
  loop(read(it, size, n), do: {:ok, _} = :file.read(it, size))
  loop(read_line(it, n), do: {:ok, _} = :file.read_line(it))
  loop(our_add(it, n), do: {:ok, _} = :emmap.patomic_add(it, @position, 1))
  loop(their_add(it, n), do: {:ok, _} = :predecessor.patomic_add(it, @position, 1))
  loop(our_load(it, n), do: _ = :emmap.patomic_read_integer(it, @position))
  loop(their_load(it, n), do: _ = :predecessor.patomic_read_integer(it, @position))
  loop(our_cas(it, n), do: _ = :emmap.patomic_cas(it, @position, 1, 1))
  loop(their_cas(it, n), do: _ = :predecessor.patomic_cas(it, @position, 1, 1))

  defp our_open(_path, _options, 0), do: :ok

  defp our_open(path, options, n) do
    {:ok, mem} = Emmap.open(path, options)
    :ok = Emmap.close(mem)
    our_open(path, options, n - 1)
  end

  defp their_open(_path, _options, 0), do: :ok

  defp their_open(path, options, n) do
    {:ok, mem, _} = :predecessor.open(path, options)
    :ok = :predecessor.close(mem)
    their_open(path, options, n - 1)
  end
end

Bench.main(&Bench.Predecessor.run/1)
