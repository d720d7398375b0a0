defmodule Emmap.Table.Build do
  @moduledoc false
  # Builds a table. See `Emmap.Table.build/3`. The records are passed to native code in batches.

  alias Emmap.{Native, OptionList}
  alias Emmap.Table.Format

  @most_key 65_535
  @memory 16_777_216..2_147_483_648
  @options [
    format: {&Format.valid?/1, "one of #{Format.allowed()}"},
    sorted: {&is_boolean/1, "true | false"},
    duplicates: {&__MODULE__.duplicates?/1, ":last | :first | :error"},
    replace: {&is_boolean/1, "true | false"},
    progress: {&__MODULE__.progress?/1, "a function of one argument"},
    memory: {&__MODULE__.memory?/1, "a number of bytes from #{@memory.first} to #{@memory.last}"},
    seed: {&__MODULE__.seed?/1, "an integer of 64 bits, 0 or more"}
  ]

  # A batch ends with the record that reaches one of these.
  @batch 1000
  @batch_bytes 1_048_576
  # The least time between two calls of the progress function, in milliseconds.
  @pause 100

  @type counts :: %{count: non_neg_integer, duplicates: non_neg_integer, size: pos_integer}

  @doc false
  def duplicates?(policy), do: policy in [:last, :first, :error]
  @doc false
  def progress?(report), do: is_function(report, 1)
  @doc false
  def memory?(bytes), do: bytes in @memory
  @doc false
  def seed?(seed), do: seed in 0..0xFFFF_FFFF_FFFF_FFFF

  @spec run(binary, Enumerable.t(), keyword) :: {:ok, counts} | {:error, term}
  def run(path, enumerable, options) do
    given = OptionList.check!(options, @options)
    format = Format.of(Map.get(given, :format, :binary))
    wanted = wanted(given, format)

    with {:ok, building} <- Emmap.Collected.retry(fn -> Native.table_build(path, wanted) end) do
      state = %{
        building: building,
        format: format,
        report: Map.get(given, :progress, &Function.identity/1),
        tag: make_ref(),
        read: 0,
        reported: nil
      }

      try do
        build(state, enumerable)
      after
        Native.table_end(building)
      end
    end
  end

  defp wanted(given, {keys, values}) do
    sorted = Map.get(given, :sorted, false)

    if sorted and keys == :term,
      do:
        raise(
          ArgumentError,
          "sorted: true requires binary keys: with terms, the order of the bytes would not be that of the keys"
        )

    %{
      term_keys: keys == :term,
      term_values: values == :term,
      sorted: sorted,
      duplicates: Map.get(given, :duplicates, :last),
      # A fixed seed would allow others to choose keys whose hashes are equal.
      seed: Map.get_lazy(given, :seed, fn -> :rand.uniform(0x1_0000_0000_0000_0000) - 1 end),
      memory: Map.get(given, :memory, 67_108_864),
      replace: Map.get(given, :replace, true)
    }
  end

  defp build(%{tag: tag} = state, enumerable) do
    {state, records, count, _bytes} = Enum.reduce(enumerable, {state, [], 0, 0}, &batched/2)

    finish(add(state, records, count))
  catch
    {^tag, error} -> error
  end

  defp batched(pair, {state, records, count, bytes}) do
    {key, value} = Format.encode_pair!(state.format, pair)
    bytes = bytes + byte_size(key) + byte_size(value)

    if byte_size(key) > @most_key,
      do: raise(ArgumentError, "a key has at most #{@most_key} bytes, got #{byte_size(key)}")

    if count < @batch and bytes < @batch_bytes,
      do: {state, [value, key | records], count + 1, bytes},
      else: {add(state, [value, key | records], count + 1), [], 0, 0}
  end

  defp add(state, records, count) do
    add_all(state, :lists.reverse(records))
    report(%{state | read: state.read + count}, :reading, state.read + count, nil)
  end

  defp add_all(_state, []), do: :ok

  defp add_all(state, records) do
    case Native.table_add(state.building, records) do
      [] ->
        :ok

      [_ | _] = rest ->
        make_room(state)
        add_all(state, rest)

      {:error, _} = error ->
        failed(state, error)
    end
  end

  # Writes a sorted run to a temporary file.
  defp make_room(state) do
    case Native.table_advance(state.building, false) do
      {:adding, _, _} -> :ok
      {:error, _} = error -> failed(state, error)
      _ -> make_room(state)
    end
  end

  defp finish(state) do
    case Native.table_advance(state.building, true) do
      {:ok, {count, duplicates, size}} ->
        {:ok, %{count: count, duplicates: duplicates, size: size}}

      {:error, _} = error ->
        failed(state, error)

      {phase, done, total} ->
        finish(report(state, phase, done, total))
    end
  end

  @spec failed(map, {:error, term}) :: no_return
  defp failed(%{format: format, tag: tag}, {:error, {:duplicate, key}}),
    do: throw({tag, {:error, {:duplicate, Format.decode_key(format, key, [])}}})

  defp failed(%{tag: tag}, error), do: throw({tag, error})

  # Calls the progress function at the first step of a phase, and then once in a while.
  defp report(%{report: report, reported: reported} = state, phase, done, total) do
    now = System.monotonic_time(:millisecond)

    case reported do
      {^phase, at} when now - at < @pause ->
        state

      _ ->
        report.(%{phase: phase, done: done, total: total})
        %{state | reported: {phase, now}}
    end
  end
end
