defmodule Emmap.Test.DeviceDocument do
  @moduledoc "Writes `docs/device.md`: the table of requests with their replies."

  alias Emmap.Test.{DeviceScript, DeviceTable}

  @doc "Runs every row in `directory` and returns the document."
  def render(directory) do
    tables =
      for {group, rows} <- DeviceTable.groups() do
        [
          "\n## #{group}\n\n| request | file, options | reply of `File.open/2` | reply of `Emmap.Device` | difference |\n",
          "| --- | --- | --- | --- | --- |\n" | Enum.map(rows, &row(&1, directory))
        ]
      end

    IO.iodata_to_binary([introduction(), tables])
  end

  @doc "The OTP release that a document was recorded on."
  def recorded_on(document) do
    [_, release] = Regex.run(~r/recorded on OTP (\d+)/, document)
    release
  end

  @doc "The document without the replies that may differ on another OTP release."
  def ours(document) do
    for line <- String.split(document, "\n"), not (line =~ "recorded on OTP") do
      case String.split(line, " | ") do
        [request, file, theirs, "the same", note] ->
          [request, file, String.replace(theirs, " †", ""), note]

        [request, file, _theirs, ours, note] ->
          [request, file, String.replace(ours, " †", ""), note]

        other ->
          other
      end
    end
  end

  defp introduction do
    """
    # Requests to a device

    This page lists the requests that a device handles, most of them with several sets of arguments. Each was
    sent both to a process started by `File.open/2` and to a device started by `Emmap.device/2`. The replies were recorded on OTP #{:erlang.system_info(:otp_release)}.
    `mix test test/emmap/device_protocol_test.exs` sends the requests again, and compares the replies, the bytes of the file and
    the cursor. The test fails if this page is out of date. With `EMMAP_WRITE_DOCS=1`, the test rewrites this page.

    In the requests, `d` is the device, and `other` is the path of another file. `io/2` sends a request of the I/O protocol,
    `file/2` sends a request of `:file`, and `leader/2` runs a function with the device as group leader.

    The second column shows the contents of the file and the options of the device, if they are not the defaults: “lists” means
    `binary: false`, and “read-only” means a file and a map that were opened only for reading. By default, the file contains
    `#{code(inspect(DeviceTable.text()))}`. A dagger (†) means that the process that `File.open/2` started has ended. No request ends
    a device, except one that closes it. The last column refers to the numbered differences in the documentation of `Emmap.Device`. “The
    same” refers to the reply only: if a difference is numbered, the file or the cursor differs.
    """
  end

  defp row({code, options}, directory) do
    {differs, options} = Keyword.pop(options, :differs)
    {content, settings} = Keyword.pop(options, :content, DeviceTable.text())
    {theirs, ours} = DeviceScript.both(directory, content, code, settings)
    left = shown(theirs)
    right = shown(ours)
    right = if right in [left, String.replace(left, " †", "")], do: "the same", else: right

    settings =
      if content == DeviceTable.text(), do: settings, else: [content: content] ++ settings

    "| `#{code(code)}` | #{about(settings)} | #{left} | #{right} | #{differs} |\n"
  end

  defp about([]), do: ""

  defp about(options) do
    words =
      for {name, value} <- Enum.sort(options) do
        case name do
          :content -> "`#{value |> inspect(limit: :infinity) |> shorten(60) |> code()}`"
          :encoding -> "`#{inspect(value)}`"
          :binary -> "lists"
          :access -> "read-only"
        end
      end

    Enum.join(words, ", ")
  end

  defp shown(seen) do
    answer =
      case seen.answer do
        {:raised, message} ->
          "raises #{message}"

        answer ->
          "`#{answer |> inspect(limit: :infinity, inspect_fun: &term/2, width: 1000) |> shorten(200) |> code()}`"
      end

    if seen.alive, do: answer, else: answer <> " †"
  end

  # The limits of `inspect/2` differ between versions of Elixir.
  defp shorten(text, length) do
    if String.length(text) > length, do: String.slice(text, 0, length) <> " …", else: text
  end

  # Lists of characters as newer versions of Elixir show them.
  defp term([_ | _] = list, options) do
    if List.ascii_printable?(list),
      do: "~c" <> inspect(List.to_string(list)),
      else: Inspect.List.inspect(list, options)
  end

  defp term(term, options), do: Inspect.inspect(term, options)

  defp code(text), do: String.replace(text, "|", "\\|")
end
