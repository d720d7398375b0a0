defmodule Emmap.DeviceProtocolTest do
  # A device of Emmap compared with one of File.open/2, on the table of all requests.
  use ExUnit.Case, async: true
  alias Emmap.Test.{DeviceDocument, DeviceScript, DeviceTable, Quiet}

  @moduletag :tmp_dir

  setup_all do
    # That process logs its crashes.
    Quiet.logs("file_io_server")
  end

  setup do
    # The process of a file is linked to the process that opens it, and ends on errors.
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

  test "docs/device.md has the replies", %{tmp_dir: directory} do
    document = DeviceDocument.render(directory)
    if System.get_env("EMMAP_WRITE_DOCS"), do: File.write!("docs/device.md", document)
    page = File.read!("docs/device.md")

    if DeviceDocument.recorded_on(page) == DeviceDocument.recorded_on(document),
      do: assert(page == document),
      else: assert(DeviceDocument.ours(document) -- DeviceDocument.ours(page) == [])
  end

  test "every difference is documented, and every documented difference occurs" do
    {:docs_v1, _, _, _, %{"en" => text}, _, _} = Code.fetch_docs(Emmap.Device)
    [_, differences] = String.split(text, "In this list of the differences,")
    said = for [_, n] <- Regex.scan(~r/^ +(\d+)\. /m, differences), do: String.to_integer(n)

    met =
      for {_, rows} <- DeviceTable.groups(), {_, options} <- rows, n = options[:differs], do: n

    # The first difference is not in the reply: the device continues.
    assert said == Enum.uniq(Enum.sort([1 | met]))
  end

  defp problem(theirs, ours, differs) do
    same? =
      theirs.answer == ours.answer and theirs.bytes == ours.bytes and
        (not theirs.alive or theirs.cursor == ours.cursor)

    cond do
      is_nil(differs) and not same? -> "differs"
      # The eighth occurs only on older releases.
      differs not in [nil, 8] and same? -> "is documented as a difference, but does not differ"
      theirs.alive and not ours.alive -> "ours ended"
      true -> nil
    end
  end

  defp show(seen), do: inspect(Map.from_struct(seen), limit: 30, printable_limit: 120)
end
