defmodule Emmap.ErlangTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  test "the module as Erlang calls it", %{tmp_dir: directory} do
    file = String.to_charlist(Path.join(directory, "data"))
    assert {:error, :enoent} = :emmap.open(file, [:read])

    assert {:ok, mem} =
             :emmap.open(file, 0, 8, [:create, :direct, :read, :write, :shared, :nolock])

    assert :ok = :emmap.pwrite(mem, 0, "test1")
    assert {:ok, live} = :emmap.pread(mem, 0, 5)
    assert :ok = :emmap.pwrite(mem, 0, "test2")
    assert live == "test2"
    assert {:ok, "te"} = :emmap.read(mem, 2)
    assert {:ok, "st2\0\0\0"} = :emmap.read_line(mem)
    assert :eof = :emmap.read_line(mem)
    assert {:ok, 4} = :emmap.position(mem, {:eof, -4})
    assert {:ok, 16} = :emmap.resize(mem)
    assert {:ok, 100} = :emmap.resize(mem, 100)
    assert :ok = :emmap.flush(mem)
    assert {:ok, %{size: 100}} = :emmap.info(mem)
    assert :ok = :emmap.close(mem)
    assert {:error, :closed} = :emmap.close(mem)
  end

  test "open/4: length 0 is the whole file, a shorter file is lengthened", %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "0123456789")
    assert {:ok, mem} = :emmap.open(path, 0, 0, [:read])
    assert {:ok, "0123456789"} = :emmap.pread(mem, 0, 100)
    assert {:ok, mem} = :emmap.open(path, 3, 0, [:read])
    assert {:ok, "3456789"} = :emmap.pread(mem, 0, 100)
    assert {:ok, mem} = :emmap.open(path, 8, 12, [:read, :write])
    assert {:ok, "89" <> _} = :emmap.pread(mem, 0, 100)
    assert File.stat!(path).size == 20
    assert {:ok, mem} = :emmap.open(~c"", 0, 4096, [:anon])
    assert {:ok, <<0>>} = :emmap.pread(mem, 4095, 9)
  end

  test "counters of several nodes", %{tmp_dir: directory} do
    counters = :emmap.open_counters(Path.join(directory, "c.cnt"), [:a])
    assert :ok = :emmap.join_counters(:emmap_erlang_test, counters, [:nobody@nowhere])
    assert 0 = :emmap.inc_counter(counters, :a, 3)
    missing = [nobody@nowhere: :noconnection]
    assert {:partial, 3, ^missing} = :emmap.sum_counter(:emmap_erlang_test, :a)
    assert {:partial, %{a: 3}, ^missing} = :emmap.sum_counters(:emmap_erlang_test)
    assert :ok = :emmap.leave_counters(:emmap_erlang_test)
  end

  test "what is in a file" do
    file = ~c"test/fixtures/formats/counters-v0-predecessor.bin"

    assert {:ok, %{format: :predecessor_counters, contents: %{sum: 42}}} =
             :emmap.inspect_file(file)

    assert {:error, :enoent} = :emmap.print_file("no/such/file")

    printed = ExUnit.CaptureIO.capture_io(fn -> assert :ok = :emmap.print_file(file) end)
    assert printed =~ "counters of the predecessor, sound"
  end

  # What `h(emmap)`, `h(emmap, open)` and `ht(emmap)` print.
  test "the Erlang shell shows docs, specs and types" do
    {:ok, docs} = :code.get_doc(:emmap)
    # OTP 27 and later make them bold, where they can.
    text = &(&1 |> IO.chardata_to_string() |> String.replace(~r/\e\[[0-9;]*m/, ""))
    assert text.(:shell_docs.render(:emmap, docs)) =~ "for Erlang: the same maps"
    open = text.(:shell_docs.render(:emmap, :open, docs))
    assert open =~ "-spec open(file:name_all(), 'Elixir.Emmap.Options':t()) ->"
    assert open =~ "Since"
    assert open =~ "shorter file"
    lines = text.(:shell_docs.render(:emmap, :fold_lines, docs))
    assert lines =~ "fun((binary(), Acc) -> Acc)"
    assert text.(:shell_docs.render_type(:emmap, docs)) =~ "-type mem() ::"
    assert text.(:shell_docs.render_type(:emmap, :counters, docs)) =~ "Open counters"

    {:docs_v1, _, _, _, _, _, entries} = docs

    for {{kind, name, arity}, _, _, doc, meta} <- entries, kind in [:function, :type] do
      assert %{"en" => _} = doc, "#{kind} #{name}/#{arity}"
      assert %{signature: [_], since: _} = meta, "#{kind} #{name}/#{arity}"
    end
  end
end
