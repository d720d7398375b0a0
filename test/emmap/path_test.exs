defmodule Emmap.PathTest do
  # Paths are those of `:file`: `t::file.name_all/0`.
  use ExUnit.Case, async: true
  alias Emmap.Test.ChildVM

  @moduletag :tmp_dir

  @kinds [
    "&Emmap.open!(&1, [:create, size: 8])",
    "&Emmap.Counters.open!(&1, 1)",
    "&Emmap.Queue.open!/1",
    "&Emmap.Blocks.open!(&1, block_size: 8)"
  ]

  for encoding <- [:utf8, :latin1] do
    test "characters of a list are encoded as by :file, #{encoding}", %{tmp_dir: directory} do
      # Whatever is opened by a list is what `:file` finds by the same list.
      code = """
      File.cd!(#{inspect(directory)})

      found =
        for {open, number} <- Enum.with_index([#{Enum.join(@kinds, ", ")}]),
            path <- [[?c, ?a, ?f, 0xE9, ?0 + number], [~c"deep", [[0xE9]], :atom, ?0 + number]] do
          open.(path)
          {:ok, info} = :file.read_file_info(path)
          elem(info, 1) > 0
        end

      {:file.native_name_encoding(), found, length(File.ls!("."))}
      """

      flag = if unquote(encoding) == :utf8, do: "+fnu", else: "+fnl"
      answer = ChildVM.run!(code, env: [{"ELIXIR_ERL_OPTIONS", flag}])
      assert answer == {unquote(encoding), List.duplicate(true, 8), 8}
    end
  end

  test "a character that file names cannot have", %{tmp_dir: directory} do
    code = """
    try do
      Emmap.open([#{inspect(directory)}, "/", 0x141])
    rescue
      error in ArgumentError -> error.message
    end
    """

    assert ChildVM.run!(code, env: [{"ELIXIR_ERL_OPTIONS", "+fnl"}]) =~ "not a path"
  end

  test "atoms and deep lists", %{tmp_dir: directory} do
    File.write!(Path.join(directory, "data"), "0123")
    charlist = to_charlist(directory)
    atom = String.to_atom(Path.join(directory, "data"))

    for path <- [atom, [charlist, [?/, [:data]]], [directory, "/data"], [charlist | :"/data"]] do
      assert {:ok, mem} = Emmap.open(path, [])
      assert {:ok, "0123"} = Emmap.pread(mem, 0, 4)
      assert ["0123"] = Enum.to_list(Emmap.stream!(path))
      assert [_] = Emmap.chunks!(path, 1)
      assert {:ok, mem} = :emmap.open(path, [])
      assert {:ok, "0123"} = Emmap.pread(mem, 0, 4)
    end

    assert {:ok, _} = Emmap.open(atom)
  end

  test "what is not a path" do
    for path <- [nil, true, 7, {:a}, [{1}], [0xD800], [-1]] do
      for open <- [&Emmap.open(&1, []), &Emmap.stream!/1, &Emmap.Queue.open/1] do
        assert_raise ArgumentError, ~r/path/, fn -> open.(path) end
      end
    end
  end
end
