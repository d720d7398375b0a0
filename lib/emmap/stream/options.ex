defmodule Emmap.Stream.Options do
  @moduledoc false
  # Checks the options of streams and chunks, so that a mistake raises when the stream is made, not
  # when it is read.

  @flags [:trim, :live, :copy, :trim_bom]
  @encodings [:latin1, :unicode, :utf8, :utf16, {:utf16, :big}, {:utf16, :little}] ++
               [:utf32, {:utf32, :big}, {:utf32, :little}]
  @narrow [:latin1, :unicode, :utf8]
  @valid "valid are trim: true | false, live: true | false, copy: true | false, start: n, length: n | :infinity (bytes), " <>
           "trim_bom: true | false, encoding: :latin1 | :utf8 | :utf16 | {:utf16, :little} | …"

  @spec stream!(Emmap.Stream.mode(), [Emmap.Stream.option()]) :: keyword
  def stream!(mode, options) do
    mode!(mode)
    options = list!(options, @valid)
    for option <- options, do: option!(option)

    if mode != :line and options[:trim],
      do: raise(ArgumentError, "trim: true is for lines, and the mode is #{inspect(mode)}")

    encoding(mode, options)
    live(options)
  end

  defp encoding(mode, options) do
    if options[:encoding] && mode != :line do
      raise ArgumentError,
            "encoding: #{inspect(options[:encoding])} is for lines, and the mode is #{inspect(mode)}"
    end

    if options[:encoding] && options[:live] do
      raise ArgumentError,
            "live: true and encoding: contradict each other: decoded lines are copies; #{@valid}"
    end
  end

  # `copy: true` is the same as `live: false`. The default depends on the handle.
  defp live(options) do
    case Keyword.split(options, [:live, :copy]) do
      {[], options} ->
        options

      {given, options} ->
        if given[:live] != nil and given[:live] == given[:copy] do
          raise ArgumentError,
                "live: #{given[:live]} and copy: #{given[:copy]} contradict each other; #{@valid}"
        end

        live = if given[:copy], do: false, else: given[:live]
        [{:live, live} | options]
    end
  end

  # What ends a record: a byte, or a number of bytes.
  @spec chunks!(pos_integer, keyword) :: {<<_::8>> | pos_integer, keyword}
  def chunks!(count, options) do
    unless is_integer(count) and count > 0 do
      raise ArgumentError,
            "the number of chunks must be an integer above 0, got #{inspect(count)}"
    end

    valid = "#{@valid}, split: byte, record: n"
    {split, options} = Keyword.split(list!(options, valid), [:split, :record])

    if options[:encoding] not in [nil | @narrow] do
      raise ArgumentError,
            "encoding: #{inspect(options[:encoding])} has no one-byte newline at which chunks could end"
    end

    case split do
      [] ->
        {"\n", options}

      [split: <<_byte>> = split] ->
        {split, options}

      [record: bytes] when is_integer(bytes) and bytes > 0 ->
        {bytes, options}

      [record: other] ->
        raise ArgumentError, "record: must be a number of bytes above 0, got #{inspect(other)}"

      [_, _] ->
        raise ArgumentError, "split: and record: contradict each other; #{valid}"

      [split: other] ->
        raise ArgumentError, "split: must be a binary of one byte, got #{inspect(other)}"
    end
  end

  defp mode!(:line), do: :ok
  defp mode!(bytes) when is_integer(bytes) and bytes > 0, do: :ok

  defp mode!(other) do
    raise ArgumentError,
          "the mode must be :line or a number of bytes above 0, got #{inspect(other)}"
  end

  defp list!(options, valid) do
    unless Keyword.keyword?(options),
      do:
        raise(ArgumentError, "options must be a keyword list, got #{inspect(options)}; #{valid}")

    names = Keyword.keys(options)

    case names -- Enum.uniq(names) do
      [] -> options
      [twice | _] -> raise ArgumentError, "option #{inspect(twice)} is given twice; #{valid}"
    end
  end

  defp option!({flag, value}) when flag in @flags and is_boolean(value), do: :ok
  defp option!({:encoding, encoding}) when encoding in @encodings, do: :ok
  defp option!({:start, n}) when is_integer(n) and n >= 0, do: :ok
  defp option!({:length, n}) when is_integer(n) and n >= 0, do: :ok
  defp option!({:length, :infinity}), do: :ok
  defp option!(other), do: raise(ArgumentError, "bad option #{inspect([other])}; #{@valid}")
end
