defmodule Emmap.BadDays.FaultsTest do
  # Pages that are lost under a map.
  use Emmap.Test.BadDay

  @bytes 40_960

  setup %{path: path} do
    File.write!(path, :binary.copy("0123456789", 4096))
    :ok
  end

  test "1: file truncated under a live binary", context do
    assert {
             {"0123", <<0, 0, 0, 0>>},
             [{:error, :estale}],
             {8192, {:error, :estale}},
             true
           } =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, :direct])
             {:ok, <<head::binary-4, _::binary>> = live} = Emmap.pread(mem, 0, #{@bytes})
             head = :binary.copy(head)
             cut.(path, 5000)
             tail = binary_part(live, 8192, 4)
             # No call returns anything else, whether its bytes exist or not.
             answers = for call <- [
               &Emmap.pread(&1, 0, 4), &Emmap.pread(&1, 9000, 4), &Emmap.pread(&1, [{0, 4}]), &Emmap.view(&1, 0, 4),
               &Emmap.read(&1, 4), &Emmap.read_line/1, &Emmap.pwrite(&1, 0, "x"), &Emmap.write(&1, "x"), &Emmap.position(&1, 0),
               &Emmap.patomic(&1, 0, :add, 1), &Emmap.patomic_read(&1, 0), &Emmap.patomic_write(&1, 0, 1), &Emmap.patomic_cas(&1, 0, 0, 1),
               &Emmap.grow/1, &Emmap.resize(&1, 100_000), &Emmap.truncate/1, &Emmap.allocate(&1, 0, 1), &Emmap.sync/1,
               &Emmap.sync(&1, :async), &Emmap.sync(&1, {0, 1}), &Emmap.datasync/1, &Emmap.advise(&1, 0, 0, :normal),
               &Emmap.prefetch(&1, 0, 1), &Emmap.lock_memory/1, &Emmap.find(&1, "0"), &Emmap.count(&1, "0"), &Emmap.get(&1, 0, :u8), &Emmap.put(&1, 0, :u8, 1), &Emmap.fill(&1, 0, 1, 0), &Emmap.copy(&1, 0, 1, 1), &:file.pread(&1, 0, 4), &:file.read(&1, 4), &:file.sync/1
             ], uniq: true, do: call.(mem)
             {:ok, info} = Emmap.info(mem)
             {{head, :binary.copy(tail)}, answers, info.fault, info.faults > 0}
             """)
  end

  test "1: a file that the kernel maps in large pages is truncated", context do
    {large, results} =
      child(context, """
      large = fn ->
        for line <- File.read!("/proc/self/smaps") |> String.split("\n"), line =~ "FilePmdMapped", do: line |> String.split() |> Enum.at(1) |> String.to_integer()
      end
      for options <- [[:direct], [:write, :direct], [:write, :private, :direct], [:direct, offset: 4096]] do
        # Written in one call, so that the page cache has large pages where the file system supports them.
        File.write!(path, :binary.copy("0123456789abcdef", 2_097_152))
        mem = Emmap.open!(path, options)
        {:ok, size} = Emmap.size(mem)
        {:ok, live} = Emmap.view(mem, 0, size)
        whole = :erlang.crc32(live)
        pages = Enum.sum(large.())
        if :write in options, do: :ok = Emmap.pwrite(mem, 10_000_000, "0")
        cut.(path, 5_000_001)
        lost = Emmap.get(mem, 20_000_000, :u32)
        same = binary_part(live, 4_900_000, 4) == "0123" and :erlang.crc32(live) != whole
        again = Emmap.reattach(mem)
        Emmap.close(mem)
        {pages, {lost, same, again}}
      end |> Enum.unzip()
      """)

    # A map with an offset does not get shorter with its file.
    lost = {:error, :estale}
    assert results == List.duplicate({lost, true, :ok}, 3) ++ [{lost, true, lost}]
    if Enum.sum(large) == 0, do: IO.puts("(no large pages here)")
  end

  test "2: truncated inside a page (no signal is raised)", context do
    assert {[{:error, :estale}, {:error, :estale}, {:error, :estale}, {:error, :estale}], :ok} =
             child(context, """
             looks = [{[:fixed_size], &Emmap.sync/1}, {[:fixed_size], &Emmap.datasync/1}, {[], &Emmap.resize(&1, 50_000)}, {[:fixed_size], &Emmap.reattach/1}]
             found = for {options, look} <- looks do
               {:ok, mem} = Emmap.open(path, [:write | options])
               cut.(path, #{@bytes} - 1)
               {:ok, <<0>>} = Emmap.pread(mem, #{@bytes} - 1, 1)
               answer = look.(mem)
               File.write!(path, :binary.copy("0123456789", 4096))
               answer
             end
             {:ok, mem} = Emmap.open(path, [:write, :fixed_size])
             cut.(path, #{@bytes} - 1)
             {:error, :estale} = Emmap.sync(mem)
             {:error, :estale} = Emmap.pread(mem, 0, 1)
             File.write!(path, :binary.copy("0123456789", 4096))
             {:error, :estale} = Emmap.sync(mem)
             :ok = Emmap.reattach(mem)
             {found, Emmap.sync(mem)}
             """)
  end

  test "3: truncated, then grown again", context do
    assert {{:error, :estale}, {:error, :estale}, :ok, {:ok, "new."}, "new.", 3} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, :direct])
             {:ok, live} = Emmap.view(mem, 20_000, 4)
             cut.(path, 100)
             before = :binary.copy(live)
             cut_answer = Emmap.pread(mem, 0, 4)
             File.write!(path, :binary.copy("new.", 20_000))
             grown_answer = Emmap.pread(mem, 0, 4)
             <<0, 0, 0, 0>> = before
             <<0, 0, 0, 0>> = :binary.copy(live)
             {cut_answer, grown_answer, Emmap.reattach(mem), Emmap.pread(mem, 79_996, 4), :binary.copy(live),
              Enum.count([:read, :write, :shared], &(&1 in elem(Emmap.info(mem), 1).flags))}
             """)
  end

  for {name, call, setup} <- [
        {"pread", "&Emmap.pread(&1, 30_000, 4)", ""},
        {"a pread of megabytes", "&Emmap.pread(&1, 0, 30_000_000)",
         "File.write!(path, :binary.copy(<<1>>, 30_000_000))"},
        {"a list of preads", "&Emmap.pread(&1, [{0, 1}, {30_000, 4}])", ""},
        {"read", "&(Emmap.position(&1, 30_000) && Emmap.read(&1, 4))", ""},
        {"read_line", "&Emmap.read_line/1", ""},
        {"a CRLF read_line", "&Emmap.read_line/1",
         "File.write!(path, [:binary.copy(<<1>>, 40_000), \"\\r\\n\"])"},
        {"pwrite", "&Emmap.pwrite(&1, 30_000, \"x\")", ""},
        {"a pwrite of megabytes", "&Emmap.pwrite(&1, 0, :binary.copy(<<2>>, 30_000_000))",
         "File.write!(path, :binary.copy(<<1>>, 30_000_000))"},
        {"write", "&(Emmap.position(&1, 30_000) && Emmap.write(&1, \"x\"))", ""},
        {"an atomic add", "&Emmap.patomic(&1, 32_768, :add, 1)", ""},
        {"an atomic read", "&Emmap.patomic_read(&1, 32_768)", ""},
        {"a compare-exchange", "&Emmap.patomic_cas(&1, 32_768, 0, 1)", ""},
        {"prefetch", "&Emmap.prefetch(&1, 0, 40_000)", ""},
        {"lock", "&Emmap.lock_memory/1", ""},
        {"sync", "&Emmap.sync/1", ""},
        {":file.pread", "&:file.pread(&1, 30_000, 4)", ""},
        {"a search", "&Emmap.find(&1, \"no such thing\")", ""},
        {"a search from the end", "&Emmap.rfind(&1, [\"none\", \"such\"])", ""},
        {"a count", "&Emmap.count(&1, \"9\")", ""},
        {"get", "&Emmap.get(&1, 30_000, :u32)", ""},
        {"put", "&Emmap.put(&1, 30_000, :u32, 1)", ""},
        {"fill", "&Emmap.fill(&1, 0, 40_000, 1)", ""},
        {"copy", "&Emmap.copy(&1, 0, 20_000, 20_000)", ""},
        {"a stream of lines",
         "&try do Enum.each(Emmap.stream!(&1), fn _ -> :ok end) rescue e in Emmap.Error -> {:error, e.reason} end",
         ""},
        {"a count of lines",
         "&try do Enum.count(Emmap.stream!(&1)) rescue e in Emmap.Error -> {:error, e.reason} end",
         ""}
      ] do
    test "4: truncated under #{name}", context do
      assert {{:error, :estale}, {:error, :estale}} =
               child(context, """
               #{unquote(setup)}
               {:ok, mem} = Emmap.open(path, [:write, :fixed_size])
               cut.(path, 5000)
               call = #{unquote(call)}
               {call.(mem), Emmap.pread(mem, 0, 1)}
               """)
    end
  end

  test "4: truncated under counters", context do
    assert {[:estale], {:error, :estale}, {:error, {:bad_format, :kind}}, :ok, 8} =
             child(context, """
             file = dir <> "/c"
             alias Emmap.Counters
             c = Counters.open!(file, 1000)
             :ok = Counters.add(c, 999, 7)
             whole = File.read!(file)
             cut.(file, 0)
             raised = for call <- [
               &Counters.add(&1, 999, 1), &Counters.sub(&1, 0, 1), &Counters.get(&1, 999), &Counters.put(&1, 1, 1), &Counters.add_get(&1, 1, 1),
               &Counters.next(&1, 1), &Counters.exchange(&1, 1, 1), &Counters.compare_exchange(&1, 1, 0, 1), &Counters.reset/1,
               &Counters.to_list/1, &Counters.to_map/1, &Enum.sum/1, & &1[999]
             ], uniq: true do
               try do call.(c) rescue e in Emmap.Error -> e.reason end
             end
             true = inspect(c) =~ "estale"
             empty = Counters.reattach(c)
             File.write!(file, whole)
             synced = Counters.sync(c)
             back = Counters.reattach(c)
             {raised, synced, empty, back, Counters.add_get(c, 999, 1)}
             """)
  end

  for kind <- [:tmpfs, :ext4] do
    test "12: disk full under a :sparse file (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {:ok, [{:error, :enospc}, {:error, :enospc}, {:error, :enospc}],
                  {:error, :enospc}, {:ok, "kept"}, :ok,
                  :ok} =
                   child(%{context | path: Path.join(disk, "data")}, """
                   {:ok, mem} = Emmap.open(path, [:write, :create, :sparse, size: 64_000_000])
                   kept = Emmap.pwrite(mem, 0, "kept")
                   # Until no block is left for a hole.
                   full = Enum.find_value(1..10_000, fn n ->
                     answer = Emmap.pwrite(mem, n * 4096, "x")
                     if answer != :ok, do: answer
                   end)
                   answers = [full, Emmap.sync(mem), Emmap.patomic(mem, 0, :add, 0)]
                   # Still full: mapped again, and lost again at the next touch of a hole.
                   :ok = Emmap.reattach(mem)
                   again = Emmap.patomic(mem, 40_960_000, :add, 1)
                   :ok = Emmap.reattach(mem)
                   {:ok, head} = Emmap.pread(mem, 0, 4)
                   :ok = Emmap.resize(mem, 4096)
                   :ok = Emmap.resize(mem, 100_000)
                   {kept, answers, again, {:ok, head}, Emmap.pwrite(mem, 90_000, "there is room"), Emmap.sync(mem)}
                   """)
      end
    end
  end

  test "14: the device fails on sync", context do
    case Emmap.Test.CLibrary.build("inject", context.dir) do
      {:error, why} ->
        skipped(context, why)

      {:ok, library} ->
        control = Path.join(context.dir, "control")
        File.write!(control, <<0::64*64>>)

        # The first msync from anywhere in the process fails, and only the first.
        assert {{:error, :eio}, [{:error, :eio}], {:ok, "0123"}, :ok, {:error, :eio}, :ok, :ok} =
                 child(
                   context,
                   """
                   {:ok, mem} = Emmap.open(path, [:write])
                   {:ok, other} = Emmap.dup(mem)
                   {:ok, control} = :file.open(dir <> "/control", [:read, :write])
                   :ok = :file.pwrite(control, 0, for(word <- [0, 0xFFFF_FFFF_FFFF_FFFF, 7, 1, 5], do: <<word::native-64>>))
                   failed = Emmap.sync(mem)
                   later = for sync <- [&Emmap.sync/1, &Emmap.datasync/1, &Emmap.sync(&1, :async), &Emmap.sync(&1, {0, 1}), &:file.sync/1],
                               handle <- [mem, other], uniq: true, do: sync.(handle)
                   # What the device could not take is in memory as before.
                   {:ok, info} = Emmap.info(mem)
                   {failed, later, Emmap.pread(mem, 0, 4), Emmap.pwrite(mem, 0, "0"), info.failed_sync, Emmap.reattach(mem), Emmap.sync(mem)}
                   """,
                   env: [{"LD_PRELOAD", library <> ".so"}, {"EMMAP_INJECT", control}]
                 )
    end
  end

  test "18: empty file", context do
    assert {:eof, :eof, {:error, :einval}, :ok, {:ok, "grown"}, "grown"} =
             child(context, """
             File.write!(path, "")
             {:ok, mem} = Emmap.open(path, [:write])
             {:ok, live} = Emmap.open(path, [:direct])
             {Emmap.pread(mem, 0, 1), Emmap.view(live, 0, 1), Emmap.patomic_read(mem, 0), Emmap.pwrite(mem, 0, "grown"),
              Emmap.pread(mem, 0, 10), File.read!(path)}
             """)
  end

  test "19: offset that is not page aligned", context do
    assert {{:ok, "1234"}, {:ok, "78"}, :ok, "01abc56789", {:error, :estale}} =
             child(context, """
             {:ok, mem} = Emmap.open(path, [:write, offset: 10_001, length: 7])
             {:ok, unaligned} = Emmap.open(path, offset: 4_097, length: 20_000)
             read = {Emmap.pread(mem, 0, 4), Emmap.pread(unaligned, 0, 2)}
             wrote = Emmap.pwrite(mem, 1, "abc")
             {:ok, seen} = :file.open(path, [:raw, :binary, :read]) |> then(fn {:ok, raw} -> :file.pread(raw, 10_000, 10) end)
             cut.(path, 4_100)
             {elem(read, 0), elem(read, 1), wrote, seen, Emmap.pread(unaligned, 19_000, 1)}
             """)
  end
end
