defmodule Emmap.DeviceProtocolTest do
  # A device of ours beside one of File.open/2: the table of all requests, and random ones.
  use ExUnit.Case, async: true
  alias Emmap.Test.{DeviceDocument, DeviceScript, DeviceTable, Quiet}

  @moduletag :tmp_dir

  setup_all do
    # Where that process crashes it says so.
    Quiet.logs("file_io_server")
  end

  setup do
    # The process of a file is linked to who opens it, and ends at errors.
    Process.flag(:trap_exit, true)
    :ok
  end

  for {group, rows} <- DeviceTable.groups() do
    test "#{group}", %{tmp_dir: directory} do
      wrong =
        for {code, options} <- unquote(Macro.escape(rows)),
            {content, options} = Keyword.pop(options, :content, DeviceTable.text()),
            {differs, options} = Keyword.pop(options, :differs),
            {theirs, ours} = DeviceScript.both(directory, content, code, options),
            problem = problem(theirs, ours, differs),
            do:
              "#{code} #{inspect(options)}: #{problem}\n  theirs #{show(theirs)}\n  ours   #{show(ours)}"

      assert wrong == [], Enum.join(wrong, "\n")
    end
  end

  test "docs/device.md is what they answer", %{tmp_dir: directory} do
    document = DeviceDocument.render(directory)
    if System.get_env("EMMAP_WRITE_DOCS"), do: File.write!("docs/device.md", document)
    page = File.read!("docs/device.md")

    if DeviceDocument.recorded_on(page) == DeviceDocument.recorded_on(document),
      do: assert(page == document),
      else: assert(DeviceDocument.ours(document) -- DeviceDocument.ours(page) == [])
  end

  test "each difference is in the documentation, and each there is met" do
    {:docs_v1, _, _, _, %{"en" => text}, _, _} = Code.fetch_docs(Emmap.Device)
    [_, differences] = String.split(text, "Where the answers differ:")
    said = for [_, n] <- Regex.scan(~r/^ +(\d+)\. /m, differences), do: String.to_integer(n)

    met =
      for {_, rows} <- DeviceTable.groups(), {_, options} <- rows, n = options[:differs], do: n

    # The first is no other answer, but the life after it.
    assert said == Enum.uniq(Enum.sort([1 | met]))
  end

  defp problem(theirs, ours, differs) do
    same? =
      theirs.answer == ours.answer and theirs.bytes == ours.bytes and
        (not theirs.alive or theirs.cursor == ours.cursor)

    cond do
      is_nil(differs) and not same? -> "differs"
      # The eighth is one only of older releases.
      differs not in [nil, 8] and same? -> "is said to differ and does not"
      theirs.alive and not ours.alive -> "ours ended"
      true -> nil
    end
  end

  defp show(seen), do: inspect(Map.from_struct(seen), limit: 30, printable_limit: 120)
end
