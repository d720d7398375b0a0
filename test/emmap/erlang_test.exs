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

  test "fit never shortens a file", %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    assert {:ok, mem} = :emmap.open(path, 0, 10, [:create, :write, :fit, :shared])
    assert :ok = :emmap.pwrite(mem, 0, "0123456789")
    assert {:ok, 20} = :emmap.resize(mem)
    assert {:ok, mem} = :emmap.open(path, 0, 10, [:create, :write, :fit, :shared])
    assert {:ok, 20} = :emmap.size(mem)
    assert {:ok, "0123456789" <> _} = :emmap.pread(mem, 0, 20)
    assert {:ok, mem} = :emmap.open(path, 0, 30, [:create, :write, :fit, :shared])
    assert {:ok, 30} = :emmap.size(mem)
    assert {:ok, mem} = :emmap.open(path, [:write, :fit, size: 5])
    assert {:ok, 30} = :emmap.size(mem)

    for options <- [[:fit], [:fit, :private, :write], [:fit, :fit, :write]] do
      assert {:ok, mem} = :emmap.open(path, 0, 10, options)
      assert {:ok, 30} = :emmap.size(mem)
    end

    assert {:ok, mem} = :emmap.open(path, 5, 10, [:write, :fit])
    assert {:ok, "56789" <> _} = :emmap.pread(mem, 0, 20)
    assert File.stat!(path).size == 30
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
    assert printed =~ "counters of the predecessor, intact"
  end

  # As in a shell of a project that depends on this one.
  test "the Erlang shell shows docs, specs and types", %{tmp_dir: directory} do
    beam = File.read!(:code.which(:emmap))

    for debug_info <- [true, false] do
      beam = Mix.Tasks.Compile.ErlangDocs.rewritten(beam, debug_info)
      File.write!(Path.join(directory, "emmap.beam"), beam)
      # Once is enough.
      assert Mix.Tasks.Compile.ErlangDocs.rewritten(beam, debug_info) == beam
      # With Elixir's own debug information OTP 27 and 28 raise an error.
      functions? = debug_info or System.otp_release() not in ["27", "28"]
      shown = erlang_shell(directory, functions?)
      assert shown =~ "for Erlang, with the same maps"

      if functions? do
        assert shown =~ "-spec open(file:name_all() | 'Elixir.Emmap':open_file(),"
        assert shown =~ "shorter file"
        assert shown =~ "fun((binary(), Acc) -> Acc)"
        assert shown =~ "-type mem() ::"
        assert shown =~ "A set of opened counters"
      end
    end
  end

  test "every function of Emmap on a map is one of emmap" do
    # Streams are Elixir's, and Erlang has no exclamation marks.
    of_elixir = [:stream!, :chunks!, :open!, :view!, :patomic_read, :patomic_write]
    names = for {name, _} <- Emmap.__info__(:functions), do: name
    missing = names -- Keyword.keys(:emmap.module_info(:exports))
    assert Enum.uniq(missing) -- (of_elixir ++ [:__struct__]) == []
  end

  test "the functions that have only another module", %{tmp_dir: directory} do
    path = Path.join(directory, "delegated")
    {:ok, mem} = :emmap.open(path, [:create, {:size, 16}])
    assert :ok = :emmap.write(mem, "ab")
    assert :ok = :emmap.pwrite(mem, [{4, "cd"}, {8, "ef"}])
    assert {:ok, ["ab", "cd", :eof]} = :emmap.pread(mem, [{0, 2}, {4, 2}, {16, 1}])
    assert {:ok, "ab"} = :emmap.view(mem, 0, 2)
    assert {:ok, other} = :emmap.dup(mem)
    assert {:ok, "ab"} = :emmap.pread(other, 0, 2)
    assert :ok = :emmap.allocate(mem, 0, 16)
    assert :ok = :emmap.advise(mem, 0, 16, :random)
    assert :ok = :emmap.prefetch(mem, 0, 16)
    assert :ok = :emmap.lock_memory(mem)
    assert :ok = :emmap.unlock_memory(mem)
    assert {:ok, 2} = :emmap.position(mem, 2)
    assert :ok = :emmap.truncate(mem)
    assert {:ok, 2} = :emmap.size(mem)
    assert {:ok, 4} = :emmap.grow(mem)

    for sync <- [&:emmap.sync/1, &:emmap.sync(&1, :async), &:emmap.sync(&1, {0, 2}, :sync)],
        do: assert(:ok = sync.(mem))

    assert :ok = :emmap.datasync(mem)
    assert :emmap.guard() in [:ok, :lost, :off]
  end

  test "what the shell shows is there for each function and type" do
    {:ok, docs} = :code.get_doc(:emmap)

    for {{kind, name, arity}, _, _, doc, meta} <- elem(docs, 6), kind in [:function, :type] do
      assert %{"en" => _} = doc, "#{kind} #{name}/#{arity}"
      assert %{signature: [_]} = meta, "#{kind} #{name}/#{arity}"
    end
  end

  defp erlang_shell(directory, functions?) do
    functions = "c:h(emmap, open), c:h(emmap, fold_lines), c:ht(emmap), c:ht(emmap, counters),"
    code = "c:h(emmap), #{if functions?, do: functions} halt()."
    elixir = :elixir |> :code.lib_dir() |> Path.join("ebin")

    {shown, 0} =
      System.cmd("erl", ["-noshell", "-pa", directory, "-pa", elixir, "-eval", code],
        env: [{"ERL_CRASH_DUMP", "/dev/null"}],
        stderr_to_stdout: true
      )

    # OTP 27 and later make some of it bold.
    String.replace(shown, ~r/\e\[[0-9;]*m/, "")
  end

  test "open/1, open/2 and open/4 of memory, and of a file from its start on", %{
    tmp_dir: directory
  } do
    for open <- [
          fn -> :emmap.open([:anon, {:size, 10}]) end,
          fn -> :emmap.open("ignored", [:anon, {:size, 10}]) end,
          fn -> :emmap.open("ignored", 0, 10, [:anon]) end
        ] do
      assert {:ok, mem} = open.()
      assert {:ok, 10} = :emmap.size(mem)
    end

    path = Path.join(directory, "data")
    # No part of it, so that all that a whole file may be is allowed.
    assert {:ok, mem} = :emmap.open(path, 0, 0, [:create, {:size, 10}, {:max_inc_size, 20}])
    assert :ok = :emmap.pwrite(mem, 10, "longer")
    assert {:ok, 16} = :emmap.size(mem)
    assert {:ok, mem} = :emmap.open(path, 0, 100, [:write, {:max_inc_size, 20}])
    assert {:ok, 120} = :emmap.resize(mem)
    assert {:error, :enospc} = :emmap.pwrite(mem, 120, "x")
  end
end
