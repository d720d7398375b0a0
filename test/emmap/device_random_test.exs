defmodule Emmap.DeviceRandomTest do
  # Random requests, in a row, to our device and to one of File.open/2: the same replies, and at
  # the end the same cursor and bytes. Where the latter ends at an error it is opened again.
  use ExUnit.Case, async: true
  alias Emmap.Test.DeviceScript

  @moduletag :tmp_dir
  @moduletag timeout: 120_000
  @rounds String.to_integer(System.get_env("EMMAP_ROUNDS") || "12")
  @requests 120

  settings = [
    bytes: [encoding: :latin1],
    "lists of bytes": [encoding: :latin1, binary: false],
    utf8: [encoding: :unicode],
    "lists of utf8": [encoding: :unicode, binary: false],
    utf16: [encoding: {:utf16, :little}],
    direct: [encoding: :unicode, map: [:direct]]
  ]

  for {name, options} <- settings do
    test "#{name}", %{tmp_dir: directory} do
      Process.flag(:trap_exit, true)
      seed = String.to_integer(System.get_env("EMMAP_SEED") || "#{:rand.uniform(1_000_000)}")
      :rand.seed(:exsss, {seed, 3, 5})

      try do
        for round <- 1..@rounds, do: round(directory, unquote(Macro.escape(options)), round)
      rescue
        error -> reraise("seed #{seed} (EMMAP_SEED): #{Exception.message(error)}", __STACKTRACE__)
      end
    end
  end

  defp round(directory, options, round) do
    [one, other] = for name <- ~w(theirs ours), do: Path.join(directory, name)
    text = text(Enum.random([0, 30, 700, 9_000, 40_000]))
    # In one byte a character, anything is text.
    content =
      case options[:encoding] do
        :latin1 -> text
        encoding -> :unicode.characters_to_binary(text, :unicode, encoding)
      end

    File.write!(one, content)
    File.write!(other, content)
    {:ok, theirs} = DeviceScript.theirs(one, options)
    {:ok, ours} = DeviceScript.ours(other, options)

    theirs =
      Enum.reduce(1..@requests, theirs, fn step, theirs ->
        request = request(options[:encoding], other)
        expected = ask(theirs, request)
        before = elem(:file.position(ours, :cur), 1)
        answer = ask(ours, request)

        unless same?(request, answer, expected) do
          flunk(
            "round #{round}, request #{step} at #{before}: #{show(request)}\n" <>
              "  theirs #{show(expected)}\n  ours   #{show(answer)}"
          )
        end

        again(theirs, ours, one, options)
      end)

    assert :file.position(theirs, :cur) == :file.position(ours, :cur)
    for device <- [theirs, ours], do: :ok = :file.close(device)
    assert File.read!(one) == File.read!(other)
  end

  # Difference 8: before OTP 27 the reference gives lists for what ends with the file.
  defp same?({:io, {:get_until, _, _, _, :collect_chars, _}}, one, other)
       when is_list(one) or is_binary(one),
       do: List.to_string([one]) == List.to_string([other])

  defp same?(_request, one, other), do: one == other

  # Where the reference has ended: ours goes on from where it was, and so does a new one.
  defp again(theirs, ours, path, options) do
    # Requests that were sent before this have been replied to, but the device may not have ended yet.
    if DeviceScript.io(theirs, :getopts) == {:error, :terminated} do
      {:ok, fresh} = DeviceScript.theirs(path, options)
      {:ok, at} = :file.position(ours, :cur)
      {:ok, ^at} = :file.position(fresh, at)
      settings = DeviceScript.io(ours, :getopts)
      :ok = DeviceScript.io(fresh, {:setopts, settings})
      fresh
    else
      theirs
    end
  end

  defp ask(device, requests) when is_list(requests), do: Enum.map(requests, &ask(device, &1))
  defp ask(device, {:io, request}), do: DeviceScript.io(device, request)
  defp ask(device, {:file, request}), do: DeviceScript.file(device, request)

  defp request(encoding, path) do
    case :rand.uniform(100) do
      n when n <= 25 ->
        {:io,
         {:get_chars, out(encoding), "", Enum.random([0, 1, 2, 7, 100, 4_000, 9_000, 70_000])}}

      n when n <= 50 ->
        {:io, {:get_line, out(encoding), ""}}

      n when n <= 58 ->
        {:io,
         {:get_until, :unicode, "", :io_lib, :fread, [Enum.random([~c"~s", ~c"~d", ~c"~c"])]}}

      n when n <= 64 ->
        {:io,
         {:get_until, :unicode, "", :io_lib, :collect_chars, [Enum.random([1, 90, 200, 9000])]}}

      n when n <= 70 ->
        write(encoding, path)

      n when n <= 80 ->
        {:file, {:position, boundary(encoding, path)}}

      n when n <= 83 ->
        {:file, {:position, Enum.random([:bof, :cur, :eof, -1, {:bof, -3}])}}

      n when n <= 90 ->
        {:file,
         {:pread, Enum.random([:cur, boundary(encoding, path)]), Enum.random([0, 1, 50, 9_000])}}

      n when n <= 93 ->
        {:io, {:setopts, Enum.random([[:binary], [:list], [list: false]])}}

      n when n <= 95 ->
        {:io, {:requests, [{:get_chars, :unicode, "", 3}, {:get_line, :unicode, ""}]}}

      # Behind its position the reference may have read on.
      n when n <= 96 ->
        [{:file, {:position, :cur}}, {:file, :truncate}]

      n when n <= 97 ->
        {:file, Enum.random([:sync, :datasync])}

      _ ->
        {:io, :getopts}
    end
  end

  # Reading UTF-16 as latin1 returns errors, there, of the bytes after the line.
  defp out({:utf16, _}), do: :unicode
  defp out(_encoding), do: Enum.random([:unicode, :unicode, :unicode, :latin1])

  defp write(:latin1, path) do
    data = text(Enum.random([1, 20, 300]))

    Enum.random([
      {:io, {:put_chars, :latin1, data}},
      {:file, {:pwrite, boundary(:latin1, path), data}},
      {:file, {:pwrite, :cur, data}},
      {:io, {:put_chars, :unicode, "żółw"}},
      {:io, {:put_chars, :latin1, :io_lib, :format, ["~p", [data]]}}
    ])
  end

  # Behind the end, so that no character is written over in part.
  defp write(_encoding, _path) do
    [{:file, {:position, :eof}}, {:io, {:put_chars, :unicode, text(Enum.random([1, 20, 300]))}}]
  end

  # Where a character begins.
  defp boundary(:latin1, path), do: :rand.uniform(File.stat!(path).size + 10) - 1

  defp boundary(encoding, path) do
    characters = path |> File.read!() |> :unicode.characters_to_list(encoding)
    some = Enum.take(characters, :rand.uniform(length(characters) + 1) - 1)
    byte_size(:unicode.characters_to_binary(some, :unicode, encoding))
  end

  # Characters of 1 to 4 bytes, words and numbers, lines with both endings.
  defp text(size) do
    pieces = [
      "a",
      "bc ",
      "12 ",
      "-7 ",
      "é",
      "ł",
      "€",
      "\u{1F600}",
      "\n",
      "\r\n",
      "\r",
      " ",
      "word"
    ]

    for _ <- 1..size//1, into: "", do: Enum.random(pieces)
  end

  defp show(term), do: inspect(term, limit: 12, printable_limit: 80)
end
