defmodule Bench do
  @moduledoc false
  # What the groups share. A group is a module below bench/groups/ with `title/0` and `run/1`, which gets a temporary folder and
  # returns what it has measured, in the order of its page: comparisons, tables, plots, notes and headlines.

  alias Bench.Comparison

  @doc "Shorter rounds on smaller files: whether all of it runs, not how fast anything is."
  def quick?, do: System.get_env("QUICK") not in [nil, "", "0"]

  @doc "That many calls or bytes, or a sixteenth of them if it is to be quick."
  def amount(n), do: if(quick?(), do: max(div(n, 16), 1), else: n)

  @doc "That many seconds, or a twentieth of them if it is to be quick."
  def seconds(n), do: if(quick?(), do: n / 20, else: n)

  @doc """
  Defines a loop, so that every side pays for the same one: `loop(name(arguments, n), do: call)`. The last argument is how
  many calls are left.
  """
  defmacro loop({name, _, arguments}, do: call) do
    {others, [n]} = Enum.split(arguments, -1)

    quote do
      def unquote(name)(unquote_splicing(Enum.map(others, fn _ -> quote(do: _) end)), 0), do: :ok

      def unquote(name)(unquote_splicing(arguments)) do
        unquote(call)
        unquote(name)(unquote_splicing(others), unquote(n) - 1)
      end
    end
  end

  @doc """
  A side of a comparison: `run.(n)` makes `n` calls. With `setup:`, which runs in the process that makes the calls and is not
  timed, it is `run.(what_setup_returned, n)`; `teardown:` gets the same. `most:` limits how many calls a round makes.
  """
  def side(key, label, run, options \\ []) do
    setup = options[:setup]
    run = if setup, do: run, else: fn _, n -> run.(n) end

    %{
      key: key,
      label: label,
      run: run,
      setup: setup || fn -> nil end,
      teardown: options[:teardown] || fn _ -> :ok end,
      most: options[:most] || 10_000_000
    }
  end

  @doc "A side that does one thing in a round, as an act on a large file is."
  def once(key, label, act, options \\ []) do
    run = if options[:setup], do: fn it, 1 -> act.(it) end, else: fn 1 -> act.() end
    side(key, label, run, [most: 1] ++ options)
  end

  @doc "See `Bench.Comparison`."
  def compare(name, sides, options \\ []), do: Comparison.run(name, sides, options)

  @doc """
  What the library has to reach, from a comparison: how many times as long as the first side the side `key` takes (at least),
  or, with `:at_most`, the other way round. By their least times, or with `:median` by the median of the ratios: where most of
  the time is spent waiting for memory, the least time is that of a rare moment in which no other program uses the caches.
  """
  def headline(%Comparison{} = comparison, key, text, {sense, wanted}, by \\ :least) do
    ratio =
      case by do
        :least -> Comparison.ratio(comparison, key)
        :median -> comparison |> Comparison.ratios(key) |> Enum.at(1)
      end

    ratio = if sense == :at_most, do: 1 / ratio, else: ratio
    {:headline, text, ratio, sense, wanted}
  end

  def headline(text, ratio, {sense, wanted}), do: {:headline, text, ratio, sense, wanted}

  @doc "Nanoseconds until each of these functions has returned, each in a process of its own."
  def together(functions) do
    begun = System.monotonic_time(:nanosecond)
    functions |> Enum.map(&Task.async/1) |> Task.await_many(:infinity)
    System.monotonic_time(:nanosecond) - begun
  end

  @doc "Calls `act` with `size` of the numbers from 1 to `count` at a time, on all schedulers."
  def in_parts(count, size, act) do
    1..count//size
    |> Task.async_stream(&act.(&1..min(&1 + size - 1, count)), ordered: false, timeout: :infinity)
    |> Stream.run()
  end

  @doc "A number of bytes for people: of 2^10, 2^20, 2^30."
  def bytes(n) when n >= 1_073_741_824 and rem(n, 1_073_741_824) == 0,
    do: "#{div(n, 1_073_741_824)} GB"

  def bytes(n) when n >= 1_048_576, do: "#{div(n, 1_048_576)} MB"
  def bytes(n) when n >= 1024, do: "#{div(n, 1024)} KB"
  def bytes(n), do: "#{n} B"

  @doc "Three digits of it, and not more than it needs."
  def digits(n) when n == 0, do: "0"
  def digits(n) when is_integer(n) and abs(n) < 1000, do: "#{n}"
  def digits(n) when abs(n) >= 100, do: thousands(round(n))
  def digits(n) when abs(n) >= 10, do: decimals(n, 1)
  def digits(n) when abs(n) >= 0.1, do: decimals(n, 2)
  def digits(n) when abs(n) >= 0.001, do: n |> decimals(4) |> String.replace(~r/0+$/, "")
  def digits(n) when n > 0, do: "< 0.001"
  def digits(n), do: decimals(n, 4)

  def decimals(number, decimals), do: :erlang.float_to_binary(number / 1, decimals: decimals)

  @doc "With commas."
  def thousands(n) when n < 0, do: "-" <> thousands(-n)
  def thousands(n), do: Regex.replace(~r/\B(?=(\d{3})+$)/, "#{n}", ",")

  @doc "Nanoseconds for people."
  def time(ns) when ns >= 1.0e9, do: "#{digits(ns / 1.0e9)} s"
  def time(ns) when ns >= 1.0e6, do: "#{digits(ns / 1.0e6)} ms"
  def time(ns) when ns >= 1.0e3, do: "#{digits(ns / 1.0e3)} µs"
  def time(ns), do: "#{digits(ns)} ns"

  @doc "Releases the page cache of this file, if the system supports it. The file must not be mapped."
  def forget(path) do
    {:ok, file} = :file.open(path, [:read, :raw])
    :file.sync(file)
    result = :file.advise(file, 0, 0, :dont_need)
    :file.close(file)
    result
  end

  @doc """
  Lines, the same in every run, for all groups that read text: words of which a few make up most, in lines of 1 to 24. One line in
  128 MB has the word `quicksilver`.
  """
  def text(folder, size \\ 1_073_741_824) do
    path = folder |> Path.dirname() |> Path.join("text#{size}")
    File.exists?(path) || Bench.Text.write!(path, if(quick?(), do: div(size, 64), else: size))
    path
  end

  @doc "A file of random bytes, which does not compress and has no holes."
  def random_file(path, size) do
    block = :crypto.strong_rand_bytes(min(size, 1_048_576))
    {:ok, file} = :file.open(path, [:write, :raw, :binary])
    for _ <- 1..div(size, byte_size(block)), do: :ok = :file.write(file, block)
    :ok = :file.close(file)
    path
  end
end
