defmodule Emmap.FileArgumentsTest do
  # What `:file` returns for arguments of every type: on a handle the same as on a raw file.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @bytes "0123456789"
  @huge 18_446_744_073_709_551_616

  @values [
            0,
            5,
            10,
            11,
            -1,
            @huge,
            -@huge,
            1.5,
            -0.5,
            nil,
            true,
            :atom,
            :infinity,
            "bin",
            ~c"list"
          ] ++
            [[], {}, {:bof, 1.0}, {:bof, "x"}, {:foo, 1}, {1, 2}, {:bof, 1, 2}, %{}, [300], [:x]] ++
            [
              [1 | 2],
              <<1::1>>,
              [{0, 2}],
              [{0, -1}],
              [{0, 2} | :x],
              [{0, 2}, {8, 5}, {20, 1}],
              [{0, "ab"}]
            ] ++
            [
              [{0, "ab"}, {1, :x}],
              [{:foo, 1}],
              [{-1, 2}],
              [{-1, "ab"}],
              [{1.5, 2}],
              [{1.5, "ab"}]
            ]

  # Locations, which a raw file takes in none but `position`, and one that belongs to a process takes everywhere.
  @locations [
               :bof,
               :cur,
               :eof,
               {:bof, 1},
               {:cur, 1},
               {:cur, -1},
               {:eof, -2},
               {:eof, 1},
               {:bof, -1}
             ] ++
               [{:cur, -20}, {:eof, -11}]

  @calls [
    pread_list: quote(do: &:file.pread(&1, &2)),
    pwrite_list: quote(do: &:file.pwrite(&1, &2)),
    pread_position: quote(do: &:file.pread(&1, &2, 3)),
    pread_count: quote(do: &:file.pread(&1, 1, &2)),
    pwrite_position: quote(do: &:file.pwrite(&1, &2, "ab")),
    pwrite_data: quote(do: &:file.pwrite(&1, 1, &2)),
    read: quote(do: &:file.read(&1, &2)),
    write: quote(do: &:file.write(&1, &2)),
    position: quote(do: &:file.position(&1, &2)),
    advise_position: quote(do: &:file.advise(&1, &2, 0, :normal)),
    advise_count: quote(do: &:file.advise(&1, 0, &2, :normal)),
    advice: quote(do: &:file.advise(&1, 0, 0, &2)),
    allocate_position: quote(do: &:file.allocate(&1, &2, 1)),
    allocate_count: quote(do: &:file.allocate(&1, 0, &2)),
    ipread_position: quote(do: &:file.ipread_s32bu_p32bu(&1, &2, 10)),
    read_file_info: quote(do: &info(&1, &2))
  ]

  # More than there can be: a map gives what there is, and a raw file has no room for it.
  @more [pread_count: @huge, read: @huge]

  # Times change between two calls.
  defp info(file, options) do
    with {:ok, info} <- :file.read_file_info(file, options), do: {:ok, elem(info, 1)}
  end

  defp result(path, open, call, value) do
    File.write!(path, @bytes)
    {:ok, file} = open.(path)
    {:ok, 3} = :file.position(file, 3)

    result =
      try do
        call.(file, value)
      catch
        :error, reason -> {:raised, reason}
      end

    cursor = :file.position(file, :cur)
    :ok = :file.close(file)
    {result, cursor, File.read!(path)}
  end

  defp raw(path), do: :file.open(path, [:read, :write, :raw, :binary])
  defp device(path), do: :file.open(path, [:read, :write, :binary])
  defp map(path), do: Emmap.open(path, [:write])
  defp direct(path), do: Emmap.open(path, [:write, :direct])

  for {name, call} <- @calls do
    test "#{name}", %{tmp_dir: directory} do
      path = Path.join(directory, "data")

      for value <- @values, open <- [&map/1, &direct/1], {unquote(name), value} not in @more do
        of_map = result(path, open, unquote(call), value)
        of_file = result(path, &raw/1, unquote(call), value)

        case {of_file, of_map} do
          {same, same} ->
            :ok

          {{{:raised, :function_clause}, cursor, bytes}, {map, cursor, bytes}} ->
            # A raw file has no clause for such lists.
            assert {:error, :badarg} = map, inspect(value)

          {file, map} ->
            flunk(inspect({value, raw: file, map: map}))
        end
      end
    end
  end

  for {name, call} <- Keyword.take(@calls, [:pread_position, :pwrite_position, :position]) do
    test "#{name} takes locations", %{tmp_dir: directory} do
      path = Path.join(directory, "data")

      for location <- @locations, open <- [&map/1, &direct/1] do
        {of_file, _, bytes} = result(path, &device/1, unquote(call), location)
        {of_map, cursor, map_bytes} = result(path, open, unquote(call), location)
        assert {of_map, map_bytes} == {of_file, bytes}, inspect(location)
        if unquote(name) != :position, do: assert(cursor == {:ok, 3})
      end
    end
  end

  test "lists of locations", %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, @bytes)
    {:ok, mem} = map(path)
    ranges = [{:bof, 2}, {{:eof, -1}, 5}, {{:cur, 4}, 1}, {:eof, 1}]
    assert {:ok, ["01", "9", "4", :eof]} = Emmap.pread(mem, ranges)
    assert :ok = Emmap.pwrite(mem, [{:bof, "a"}, {{:eof, -1}, "z"}, {:eof, "end"}])
    assert File.read!(path) == "a12345678zend"
    assert {:error, {1, :einval}} = Emmap.pwrite(mem, [{:bof, "b"}, {{:bof, -1}, "z"}])
    assert {:error, :badarg} = Emmap.pwrite(mem, [{:bof, "b"}, {:start, "z"}])
    assert {:error, :badarg} = Emmap.pread(mem, [{:start, 1}])
  end
end
