defmodule Emmap.Test.DeviceDocument do
  @moduledoc "Writes `docs/device.md`: the table of requests with what was answered."

  alias Emmap.Test.{DeviceScript, DeviceTable}

  @doc "Runs every row in `directory` and returns the document."
  def render(directory) do
    tables =
      for {group, rows} <- DeviceTable.groups() do
        [
          "\n## #{group}\n\n| request | the process of `File.open/2` | `Emmap.Device` | |\n",
          "| --- | --- | --- | --- |\n" | Enum.map(rows, &row(&1, directory))
        ]
      end

    IO.iodata_to_binary([introduction(), tables])
  end

  @doc "The OTP release that a document was recorded on."
  def recorded_on(document) do
    [_, release] = Regex.run(~r/recorded on OTP (\d+)/, document)
    release
  end

  @doc "The document without what another OTP may answer otherwise."
  def ours(document) do
    for line <- String.split(document, "\n"), not (line =~ "recorded on OTP") do
      case String.split(line, " | ") do
        [request, theirs, "the same", note] -> [request, String.replace(theirs, " †", ""), note]
        [request, _theirs, ours, note] -> [request, String.replace(ours, " †", ""), note]
        other -> other
      end
    end
  end

  defp introduction do
    """
    # A device beside the process of `File.open/2`

    Every request that a device answers, in variants, run on an opened file and on a device of `Emmap.device/2`,
    recorded on OTP #{:erlang.system_info(:otp_release)}. `mix test test/emmap/device_protocol_test.exs` runs them, compares the answers, and the
    file's bytes and the cursor afterwards, and fails when this page is out of date; with
    `EMMAP_WRITE_DOCS=1` it writes the page.

    `d` is the device, `other` the path of another file; `io/2` and `file/2` send a request of the I/O
    protocol, and of `:file`, as it stands; `leader/2` runs a function with the device as group leader. The
    file holds `#{code(inspect(DeviceTable.text()))}`, unless it says otherwise. † is said where the process has
    ended; `Emmap.Device` says why its own does not. The number in the last column is that of the
    difference in its documentation.
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

    "| `#{code(code)}`#{about(settings)} | #{left} | #{right} | #{differs} |\n"
  end

  defp about([]), do: ""

  defp about(options) do
    words =
      for {name, value} <- Enum.sort(options) do
        case name do
          :content -> "`#{value |> inspect(limit: :infinity) |> cut(60) |> code()}`"
          :encoding -> "`#{inspect(value)}`"
          :binary -> "lists"
          :access -> "read-only"
        end
      end

    "<br>" <> Enum.join(words, ", ")
  end

  defp shown(seen) do
    answer =
      case seen.answer do
        {:raised, message} ->
          "raises: #{code(message)}"

        answer ->
          "`#{answer |> inspect(limit: :infinity, inspect_fun: &term/2, width: 1000) |> cut(200) |> code()}`"
      end

    if seen.alive, do: answer, else: answer <> " †"
  end

  # Not by `inspect/2`, whose limits mean something else in each version.
  defp cut(text, length) do
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
