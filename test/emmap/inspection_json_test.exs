defmodule Emmap.InspectionJsonTest do
  use ExUnit.Case, async: true
  alias Emmap.Inspection

  @python System.find_executable("python3")

  test "terms" do
    assert Inspection.json(%{b: [1, -2, nil, true], a: %{}}) == ~s({"a":{},"b":[1,-2,null,true]})
    assert Inspection.json(%{a: :intact, b: ""}) == ~s({"a":"intact","b":""})

    assert Inspection.json(%{a: "\"\\\n\0\d\u2028é\xFF"}) ==
             ~S({"a":"\"\\\u000A\u0000\u007F\u2028é) <> "\uFFFD\"}"

    assert_raise FunctionClauseError, fn -> Inspection.json(%{a: {1, 2}}) end
  end

  if @python do
    @moduletag :tmp_dir

    # Prints what it read in a form of its own: strings as the numbers of their characters.
    @script """
    import json, sys
    def shown(x):
        if isinstance(x, dict): return "{" + ",".join(shown(k) + ":" + shown(x[k]) for k in sorted(x)) + "}"
        if isinstance(x, list): return "[" + ",".join(map(shown, x)) + "]"
        if isinstance(x, str): return "'" + " ".join(str(ord(c)) for c in x) + "'"
        return str(x)
    for line in open(sys.argv[1], encoding="utf-8"): print(shown(json.loads(line)))
    """

    defp shown(map) when is_map(map),
      do:
        "{" <>
          Enum.map_join(Enum.sort(map), ",", fn {k, v} -> shown(k) <> ":" <> shown(v) end) <> "}"

    defp shown(list) when is_list(list), do: "[" <> Enum.map_join(list, ",", &shown/1) <> "]"
    defp shown(nil), do: "None"
    defp shown(true), do: "True"
    defp shown(false), do: "False"
    defp shown(atom) when is_atom(atom), do: atom |> Atom.to_string() |> shown()
    defp shown(n) when is_integer(n), do: Integer.to_string(n)
    defp shown(text), do: "'" <> (text |> String.to_charlist() |> Enum.join(" ")) <> "'"

    test "python reads what was written", %{tmp_dir: directory} do
      names = [~s(quote " and \\), "tab\t newline\n bell\a", "Łódź 🎉 \u2028", "nul\0"]
      path = Path.join(directory, "c \"1\".cnt")
      counters = Emmap.Counters.open!(path, names)
      Emmap.Counters.put(counters, hd(names), -0x8000_0000_0000_0000)
      {:ok, named} = Inspection.file(path)
      {:ok, old} = Inspection.file("test/fixtures/formats/counters-v0-predecessor.bin")
      {:ok, plain} = Inspection.file("README.md")

      characters = %{
        path:
          for(
            c <-
              Enum.to_list(0..0x100) ++
                Enum.to_list(0x101..0xD7FF//7) ++ [0xE000, 0xFFFF, 0x10FFFF],
            into: "",
            do: <<c::utf8>>
          )
      }

      reports = [named, old, plain, characters]
      lines = Path.join(directory, "lines")
      File.write!(lines, Enum.map(reports, &[Inspection.json(&1), "\n"]))
      assert {printed, 0} = System.cmd(@python, ["-c", @script, lines])
      assert String.split(printed, "\n", trim: true) == Enum.map(reports, &shown/1)
    end
  else
    @tag skip: "there is no python3"
    test "python reads what was written", do: :ok
  end
end
