defmodule Emmap.StreamEnumerationTest do
  # How a stream begins, ends and fails.
  use ExUnit.Case, async: true
  import Emmap.Test.Resources

  @moduletag :tmp_dir

  setup %{tmp_dir: directory}, do: %{path: Path.join(directory, "text")}

  describe "enumeration" do
    setup %{path: path} do
      File.write!(path, for(n <- 1..2000, do: "line #{n}\n"))
      :ok
    end

    test "halts, suspends and goes on, zips", %{path: path} do
      for source <- [path, Emmap.open!(path)] do
        stream = Emmap.stream!(source)
        assert Enum.take(stream, 2) == ["line 1\n", "line 2\n"]
        assert Enum.at(stream, 1500) == "line 1501\n"
        assert Enum.at(stream, -1) == "line 2000\n"
        assert Enum.at(stream, 2000) == nil
        assert "line 700\n" in stream
        refute "line 700" in stream
        refute Enum.empty?(stream)
        assert Enum.slice(stream, 998, 3) == ["line 999\n", "line 1000\n", "line 1001\n"]
        zipped = Enum.zip(stream, Stream.drop(stream, 1))
        assert length(zipped) == 1999
        assert List.last(zipped) == {"line 1999\n", "line 2000\n"}
        # Each call of a continuation gives the same, for nothing was used up.
        {:suspended, [], next} = Enumerable.reduce(stream, {:suspend, []}, &{:suspend, [&1 | &2]})
        {:suspended, ["line 1\n"], next} = next.({:cont, []})
        {:suspended, ["line 2\n"], _} = next.({:cont, []})
        assert {:suspended, ["line 2\n"], next} = next.({:cont, []})
        assert {:halted, :enough} = next.({:halt, :enough})
      end
    end

    test "of a path gives everything back, however it ends", %{path: path, tmp_dir: directory} do
      ways = [
        fn -> Enum.to_list(Emmap.stream!(path)) end,
        fn -> Enum.take(Emmap.stream!(path), 2) end,
        fn -> Enum.count(Emmap.stream!(path)) end,
        fn -> catch_error(Enum.each(Emmap.stream!(path), fn _ -> raise "no" end)) end,
        fn -> catch_throw(Enum.each(Emmap.stream!(path), fn _ -> throw(:no) end)) end,
        fn ->
          assert {:suspended, [_], next} =
                   Enumerable.reduce(Emmap.stream!(path), {:cont, []}, &{:suspend, [&1 | &2]})

          assert {1, maps} = held(directory)
          assert maps > 0
          {:halted, _} = next.({:halt, []})
        end
      ]

      for way <- ways do
        Task.await(Task.async(fn -> way.() && :done end))
        assert eventually(fn -> held(directory) == {0, 0} end)
      end
    end

    test "opens nothing before the first element is asked for" do
      stream = Emmap.stream!("no/such/file")
      assert {:suspended, 0, next} = Enumerable.reduce(stream, {:suspend, 0}, &{:cont, &1 + &2})
      assert {:halted, 1} = next.({:halt, 1})
      assert {:halted, 2} = Enumerable.reduce(stream, {:halt, 2}, &{:cont, &1 + &2})
      assert %{reason: :enoent} = catch_error(next.({:cont, 0}))
    end

    test "of a path is closed at once, however it ends", %{path: path} do
      File.write!(path, String.duplicate(String.duplicate("x", 999) <> "\n", 5000))
      stream = Emmap.stream!(path)

      {:suspended, _, next} =
        Enumerable.reduce(stream, {:cont, nil}, fn _, _ -> {:suspend, nil} end)

      assert resident(path) > 4_000_000
      {:halted, nil} = next.({:halt, nil})
      assert resident(path) == 0

      for way <- [
            fn -> Enum.take(stream, 1) end,
            fn -> Enum.each(stream, fn _ -> :ok end) end,
            fn -> catch_throw(Enum.each(stream, fn _ -> throw(:no) end)) end
          ] do
        way.()
        assert resident(path) == 0
      end
    end

    test "the map of a path is closed at the end, not when it is collected", %{path: path} do
      {_, before} = Emmap.Native.live()
      test = self()

      Enum.each(Emmap.stream!(path), fn _ -> send(test, :line) end)
      assert_received :line

      # Its handle may live on until a collection; what counts is that 3,000 of them do not pile up.
      for _ <- 1..3000, do: Enum.count(Emmap.stream!(path))
      assert eventually(fn -> elem(Emmap.Native.live(), 1) <= before + 200 end)
    end

    test "of a path gives the pages it has passed back", %{path: path} do
      megabyte = String.duplicate(String.duplicate("x", 1023) <> "\n", 1024)
      File.write!(path, List.duplicate(megabyte, 64))

      for read <- [
            fn look -> Enum.reduce(Emmap.stream!(path), {1, 0}, look) end,
            fn look -> Enum.reduce(Emmap.stream!(path, 1024), {1, 0}, look) end
          ] do
        {_, most} =
          read.(fn _, {n, most} ->
            {n + 1, if(rem(n, 2000) == 0, do: max(most, resident(path)), else: most)}
          end)

        assert most in 1..17_000_000
      end

      # Counting, too, and after it at once, whenever the map itself will be collected.
      assert Enum.count(Emmap.stream!(path)) == 64 * 1024
      assert resident(path) < 17_000_000
    end

    # Bytes of the file that are in this process's memory.
    defp resident(path) do
      "/proc/self/smaps"
      |> File.read!()
      |> String.split("VmFlags")
      |> Enum.filter(&String.contains?(&1, path))
      |> Enum.map(fn map ->
        [_, kilobytes] = Regex.run(~r/^Rss: +(\d+) kB/m, map)
        String.to_integer(kilobytes) * 1024
      end)
      |> Enum.sum()
    end

    test "leaves the cursor of a handle alone, and others may use it", %{path: path} do
      mem = Emmap.open!(path, [:write])
      {:ok, 5} = Emmap.position(mem, 5)
      assert Enum.count(Emmap.stream!(mem), &(byte_size(&1) > 0)) == 2000
      assert {:ok, 5} = Emmap.position(mem, :cur)

      tasks = for _ <- 1..4, do: Task.async(fn -> Enum.to_list(Emmap.stream!(mem)) end)
      lines = Enum.to_list(File.stream!(path))
      for task <- tasks, do: assert(Task.await(task) == lines)
    end

    test "gives copies, and live binaries of a :direct handle or with live: true", %{path: path} do
      long = String.duplicate("x", 100)
      File.write!(path, [long, ?\n, long, ?\n])
      mem = Emmap.open!(path, [:write])
      direct = Emmap.open!(path, [:write, :direct])

      first = fn source, mode, options ->
        hd(Enum.to_list(Emmap.stream!(source, mode, options)))
      end

      live = [
        first.(mem, :line, live: true),
        first.(mem, 90, live: true),
        first.(path, :line, live: true),
        first.(direct, :line, []),
        first.(direct, 90, []),
        first.(direct, :line, copy: false)
      ]

      copies = [
        first.(mem, :line, []),
        first.(mem, 90, []),
        first.(mem, :line, live: false),
        first.(path, :line, []),
        first.(path, 90, copy: true),
        first.(direct, :line, copy: true),
        first.(direct, 90, live: false)
      ]

      :ok = Emmap.pwrite(mem, 0, "LIVE")
      for line <- live, do: assert("LIVExx" <> _ = line)
      for line <- copies, do: assert("xxxxxx" <> _ = line)
      for line <- copies, do: assert(:binary.referenced_byte_size(line) <= 101)
      :ok = Emmap.close(mem)
      :ok = Emmap.close(direct)
      for line <- live, do: assert("LIVExx" <> _ = line)

      for both <- [[live: true, copy: true], [copy: false, live: false]],
          do:
            assert_raise(ArgumentError, ~r/contradict/, fn -> Emmap.stream!(path, :line, both) end)
    end

    test "ends where the map ended when it began, or earlier if the map shrinks", %{path: path} do
      File.write!(path, String.duplicate("0123456789\n", 3000))
      mem = Emmap.open!(path, [:write])

      grown =
        Enum.reduce(Emmap.stream!(mem), 0, fn _, n ->
          if n == 0, do: :ok = Emmap.pwrite(mem, 33_000, "more\nlines\n")
          n + 1
        end)

      assert grown == 3000
      assert Enum.count(Emmap.stream!(mem)) == 3002

      cut =
        Enum.reduce(Emmap.stream!(mem), [], fn line, lines ->
          if lines == [], do: :ok = Emmap.resize(mem, 15_005)
          [line | lines]
        end)

      assert length(cut) == 1365
      assert hd(cut) == "0"
    end
  end

  describe "the world" do
    test "a file that cannot be opened raises when it is enumerated" do
      stream = Emmap.stream!("no/such/file")

      for enumerate <- [&Enum.to_list/1, &Enum.count/1] do
        assert %{op: :open, reason: :enoent, path: "no/such/file"} =
                 catch_error(enumerate.(stream))
      end
    end

    test "a handle that is closed, before or in the middle", %{path: path} do
      File.write!(path, String.duplicate("line\n", 5000))
      mem = Emmap.open!(path)

      assert %Emmap.Error{op: :stream, reason: :closed} =
               catch_error(Enum.each(Emmap.stream!(mem), fn _ -> Emmap.close(mem) end))

      for call <- [
            &Enum.to_list(Emmap.stream!(&1)),
            &Enum.to_list(Emmap.stream!(&1, 10)),
            &Enum.count(Emmap.stream!(&1)),
            &Enum.count(Emmap.stream!(&1, 10)),
            &Emmap.chunks!(&1, 3),
            &Enum.into(["x"], Emmap.stream!(&1))
          ] do
        assert %Emmap.Error{reason: :closed} = catch_error(call.(mem))
      end
    end

    test "a file that is cut under the stream", %{path: path} do
      text = String.duplicate("0123456789\n", 200_000)

      # Reading lost pages returns zeros, and then this error, also in the last batch.
      cut_and_read = fn element, first? ->
        if first?, do: File.write!(path, "x")
        _ = :erlang.crc32(element)
        false
      end

      for {source, mode} <- [{:handle, :line}, {:handle, 70}, {:handle, 700_000}, {:path, :line}] do
        File.write!(path, text)
        mem = Emmap.open!(path)
        stream = Emmap.stream!(if(source == :path, do: path, else: mem), mode)
        assert %{reason: :estale} = catch_error(Enum.reduce(stream, true, cut_and_read))
        if source == :handle, do: assert({:error, :estale} = Emmap.pread(mem, 0, 1))
      end

      File.write!(path, text)
      mem = Emmap.open!(path)
      File.write!(path, "x")

      for call <- [&Enum.count/1, &Enum.to_list/1],
          do: assert(%{reason: :estale} = catch_error(call.(Emmap.stream!(mem))))
    end

    test "a handle that is closed at the last line", %{path: path} do
      File.write!(path, "one\ntwo\n")
      mem = Emmap.open!(path)

      assert :ok =
               Enum.each(Emmap.stream!(mem), fn line ->
                 if line == "two\n", do: Emmap.close(mem)
               end)
    end
  end

  test "options without a mode go by lines", %{tmp_dir: directory} do
    path = Path.join(directory, "lines")
    File.write!(path, "one\ntwo\n")
    assert Enum.to_list(Emmap.stream!(path, trim: true)) == ["one", "two"]
    assert Enum.to_list(Emmap.stream!(path, start: 4)) == ["two\n"]
    assert_raise ArgumentError, fn -> Emmap.stream!(path, [trim: true], copy: true) end
  end

  describe "what the caller did wrong" do
    test "is said when the stream is made", %{path: path} do
      mem = Emmap.open!(path, [:create, size: 10])

      for {message, call} <- [
            {~r/must be :line or a number of bytes above 0, got 0/,
             fn -> Emmap.stream!(mem, 0) end},
            {~r/got :lines/, fn -> Emmap.stream!(mem, :lines) end},
            {~r/bad option \[trimm: true\]; valid are trim: true/,
             fn -> Emmap.stream!(mem, :line, trimm: true) end},
            {~r/bad option \[trim: 1\]/, fn -> Emmap.stream!(mem, :line, trim: 1) end},
            {~r/bad option \[start: -1\]/, fn -> Emmap.stream!(mem, :line, start: -1) end},
            {~r/bad option \[length: :all\]/, fn -> Emmap.stream!(mem, :line, length: :all) end},
            {~r/:copy is given twice/,
             fn -> Emmap.stream!(mem, :line, copy: true, copy: true) end},
            {~r/keyword list, got :trim/, fn -> Emmap.stream!(mem, :line, :trim) end},
            {~r/trim: true is for lines/, fn -> Emmap.stream!(mem, 5, trim: true) end},
            {~r/path or an open Emmap handle, got nil/, fn -> Emmap.stream!(nil) end},
            {~r/open Emmap handle, got 7/, fn -> Emmap.chunks!(7, 2) end},
            {~r/an integer above 0, got 0/, fn -> Emmap.chunks!("no file", 0) end},
            {~r/bad option/, fn -> Emmap.chunks!("no file", 1, by: "x") end},
            {~r/chunks must be an integer above 0, got 0/, fn -> Emmap.chunks!(mem, 0) end},
            {~r/one byte, got ""/, fn -> Emmap.chunks!(mem, 1, split: "") end},
            {~r/one byte, got "\\r\\n"/, fn -> Emmap.chunks!(mem, 1, split: "\r\n") end},
            {~r/bad option \[by: "x"\]/, fn -> Emmap.chunks!(mem, 1, by: "x") end}
          ] do
        assert_raise ArgumentError, message, call
      end

      foreign = Emmap.Handle.new(make_ref(), nil)

      assert_raise ArgumentError, ~r/not an open Emmap handle of this node/, fn ->
        Enum.to_list(Emmap.stream!(foreign))
      end
    end

    test "positions past any file end the stream, and access no memory", %{path: path} do
      File.write!(path, "one\ntwo\n")

      for big <- [9, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF + 1] do
        assert Enum.to_list(Emmap.stream!(path, :line, start: big, length: big)) == []
        assert Enum.to_list(Emmap.stream!(path, :line, length: big)) == ["one\n", "two\n"]
        assert Enum.to_list(Emmap.stream!(path, big)) == ["one\ntwo\n"]
        assert Enum.count(Emmap.stream!(path, big)) == 1
        assert Enum.to_list(Emmap.stream!(path, big, copy: true)) == ["one\ntwo\n"]
      end
    end
  end

  test "however an enumeration ends, the process has the heap settings it had", %{
    tmp_dir: directory
  } do
    path = Path.join(directory, "heap")
    File.write!(path, "one\ntwo\nthree\n")
    heap = fn -> Process.info(self(), :min_heap_size) end
    before = heap.()
    assert Enum.count(Enum.to_list(Emmap.stream!(path))) == 3
    assert heap.() == before
    assert Enum.take(Emmap.stream!(path), 1) == ["one\n"]
    assert heap.() == before
    catch_throw(Enum.each(Emmap.stream!(path), fn _ -> throw(:ball) end))
    assert heap.() == before
    zipped = Enum.zip(Emmap.stream!(path), [1])
    assert {zipped, heap.()} == {[{"one\n", 1}], before}
    assert Enum.map(Emmap.stream!(path), fn _ -> heap.() end) |> Enum.uniq() != [before]
  end
end
