defmodule EmmapTest do
  use ExUnit.Case, async: true
  import Bitwise
  import Emmap.Test.Resources

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data.bin")
    File.write!(path, "0123456789")
    %{path: path}
  end

  describe "open/1,2" do
    test "is read-only and shared by default", %{path: path} do
      assert {:ok, mem} = Emmap.open(path)
      assert {:ok, "0123"} = Emmap.pread(mem, 0, 4)
      assert {:error, :eacces} = Emmap.pwrite(mem, 0, "x")
      assert {:error, :eacces} = Emmap.write(mem, "x")
      assert {:error, :eacces} = Emmap.resize(mem, 4)
      assert :ok = Emmap.sync(mem)
      assert {:ok, %{flags: [:read, :shared, :lock], growable_up_to: nil}} = Emmap.info(mem)
    end

    test "takes charlists, strings and raw bytes for paths", %{tmp_dir: directory} do
      for name <- ["plain", "blåbær", "raw" <> <<0xFF>>] do
        path = Path.join(directory, name)
        assert {:ok, mem} = Emmap.open(path, [:write, :create, size: 3])
        assert :ok = Emmap.pwrite(mem, 0, "abc")
        assert {:ok, "abc"} = :prim_file.read_file(path)
        assert {:ok, %{path: ^path}} = Emmap.info(mem)
      end

      charlist = String.to_charlist(Path.join(directory, "blåbær"))
      assert {:ok, mem} = Emmap.open(charlist)
      assert {:ok, "abc"} = Emmap.pread(mem, 0, 10)
      assert {:ok, _} = Emmap.open(String.to_charlist(Path.join(directory, "plain")))
    end

    test "shared writes are in the file, private ones are not", %{path: path} do
      shared = Emmap.open!(path, [:write])
      private = Emmap.open!(path, [:write, :private])
      assert :ok = Emmap.pwrite(shared, 0, "S")
      assert :ok = Emmap.pwrite(private, 1, "P")
      assert File.read!(path) == "S123456789"
      assert {:ok, "SP2"} = Emmap.pread(private, 0, 3)
      assert {:error, :enospc} = Emmap.pwrite(private, 9, "ab")
      assert :ok = Emmap.sync(private)
      assert :ok = Emmap.advise(private, 0, 0, :dont_need)
      assert {:ok, "SP2"} = Emmap.pread(private, 0, 3)
    end

    test "creates, exclusively or not, and truncates", %{path: path, tmp_dir: directory} do
      fresh = Path.join(directory, "fresh")
      assert {:error, :enoent} = Emmap.open(fresh, [:write])
      assert {:ok, mem} = Emmap.open(fresh, [:write, :create, size: 5000, chmod: 0o640])
      assert {:ok, %{size: 5000}} = Emmap.info(mem)
      assert %{size: 5000, mode: 0o100640} = File.stat!(fresh)
      assert {:error, :eexist} = Emmap.open(fresh, [:write, :create, :exclusive])
      assert {:ok, mem} = Emmap.open(path, [:write, :truncate])
      assert :eof = Emmap.read(mem, 1)
      assert File.read!(path) == ""
    end

    test "a failed open leaves the disk as it was", %{path: path, tmp_dir: directory} do
      fresh = Path.join(directory, "fresh")
      taken = [:write, :fixed, address: 4096 * 3 + 1]
      assert {:error, :einval} = Emmap.open(fresh, [:create, size: 10] ++ taken)
      refute File.exists?(fresh)
      assert {:error, :einval} = Emmap.open(path, [size: 100_000] ++ taken)
      assert File.read!(path) == "0123456789"
    end

    test "any offset and length", %{tmp_dir: directory} do
      path = Path.join(directory, "big")
      bytes = :crypto.strong_rand_bytes(20_000)
      File.write!(path, bytes)

      for offset <- [0, 1, 4095, 4096, 4097, 12_345, 19_999, 20_000, 30_000],
          length <- [nil, 0, 1, 4096, 50_000] do
        options = [offset: offset] ++ if(length, do: [length: length], else: [])
        {:ok, mem} = Emmap.open(path, options)
        left = max(20_000 - offset, 0)
        size = if length in [nil, 0], do: left, else: min(left, length)
        expected = if size == 0, do: :eof, else: {:ok, binary_part(bytes, offset, size)}
        assert Emmap.pread(mem, 0, 100_000) == expected
      end
    end

    test "a map of a part writes where it belongs and does not grow", %{tmp_dir: directory} do
      path = Path.join(directory, "part")
      File.write!(path, String.duplicate(".", 10_000))
      {:ok, mem} = Emmap.open(path, [:write, offset: 5000, length: 10])
      assert :ok = Emmap.pwrite(mem, 0, "0123456789")
      assert {:error, :enospc} = Emmap.pwrite(mem, 1, "0123456789")
      assert {:error, :enospc} = Emmap.resize(mem, 11)
      assert {:error, :einval} = Emmap.resize(mem, 9)
      assert binary_part(File.read!(path), 4999, 12) == ".0123456789."
      # A shorter file is brought to offset + length.
      {:ok, mem} = Emmap.open(path, [:write, offset: 9000, length: 2000])
      assert {:ok, %{size: 2000}} = Emmap.info(mem)
      assert File.stat!(path).size == 11_000
    end

    test "fit cuts, size only lengthens", %{path: path} do
      assert {:ok, _} = Emmap.open(path, [:write, size: 4])
      assert File.read!(path) == "0123456789"
      assert {:ok, _} = Emmap.open(path, [:write, :fit, size: 4])
      assert File.read!(path) == "0123"
      assert {:ok, _} = Emmap.open(path, [:write, :fit, size: 6])
      assert File.read!(path) == "0123\0\0"
    end

    test "sparse leaves holes, the default allocates", %{tmp_dir: directory} do
      blocks = fn name, options ->
        path = Path.join(directory, name)
        {:ok, _} = Emmap.open(path, [:write, :create, size: 4_000_000] ++ options)
        {out, 0} = System.cmd("stat", ["-c", "%b", path])
        out |> String.trim() |> String.to_integer()
      end

      assert blocks.("full", []) >= 4_000_000 / 512
      assert blocks.("holes", [:sparse]) < 100
    end

    test "fixed addresses are exact and never overwrite", %{path: path} do
      # A place that is free: where an anonymous map was a moment ago would do, but so does this.
      address = 0x1000_0000_0000 + System.unique_integer([:positive]) * 0x100_0000
      assert {:ok, mem} = Emmap.open(path, [:fixed, address: address])
      assert {:error, :eexist} = Emmap.open(path, [:fixed, address: address])
      assert {:ok, _} = Emmap.open(path, address: address)
      assert {:ok, "0123456789"} = Emmap.pread(mem, 0, 10)
    end

    test "what this system lacks is enotsup", %{path: path} do
      if :os.type() == {:unix, :linux} do
        assert {:error, :enotsup} = Emmap.open(path, [:nocache])
        assert {:error, :enotsup} = Emmap.open(path, [:shared_validate, :sync])
        assert {:error, :enotsup} = Emmap.open(path, [:hugetlb])
      else
        assert {:error, :enotsup} = Emmap.open(path, [:populate])
      end
    end

    test "kernel flags that change no answer", %{path: path} do
      for options <- [
            [:populate],
            [:populate, :nonblock],
            [:noreserve, :private],
            [:shared_validate]
          ] do
        assert {:ok, mem} = Emmap.open(path, [:write | options])
        assert {:ok, "0123456789"} = Emmap.pread(mem, 0, 10)
      end
    end

    test "open! raises with the operation, the path and the reason" do
      error = assert_raise Emmap.Error, fn -> Emmap.open!("no/such") end
      assert %{op: :open, path: "no/such", reason: :enoent} = error
    end
  end

  describe "live binaries" do
    test "are live at every size, from a direct handle and from view/3", %{tmp_dir: directory} do
      path = Path.join(directory, "live")
      size = 1_000_000
      File.write!(path, :binary.copy("a", size + 5000))

      for options <- [[:direct], []], count <- [1, 8, 63, 64, 65, 4096, size] do
        {:ok, mem} = Emmap.open(path, [:write | options])
        {:ok, live} = Emmap.view(mem, 1000, count)
        {:ok, read} = Emmap.pread(mem, 1000, count)

        for value <- ["b", "c"] do
          :ok = Emmap.pwrite(mem, 1000, :binary.copy(value, count))
          assert live == :binary.copy(value, count)
          assert :binary.first(live) == :binary.first(value)
          if :direct in options, do: assert(read == live)
        end

        if options == [], do: assert(read == :binary.copy("a", count))
        :ok = Emmap.pwrite(mem, 1000, :binary.copy("a", count))
      end
    end

    # From OTP 27 on, compiled matching loads whole words around the bytes it wants: at the first and
    # the last byte of a map there must be something to load.
    test "are matched at the very start and end of a map", %{tmp_dir: directory} do
      path = Path.join(directory, "borders")

      for size <- [1, 7, 8, 63, 64, 65, 4095, 4096, 8192],
          options <- [[], [:direct], [offset: 3]] do
        shift = options[:offset] || 0
        File.write!(path, :binary.copy("#", shift) <> :binary.copy("m", size))
        {:ok, mem} = Emmap.open(path, options)

        for count <- [1, 2, 3, 4, 5, 7, 8, 9, 16, 65, size], count <= size do
          {:ok, first} = Emmap.view(mem, 0, count)
          {:ok, last} = Emmap.view(mem, size - count, count)
          for live <- [first, last], do: assert(match_all(live) == :binary.copy("m", count))
        end
      end

      {:ok, empty} = Emmap.open([:anon, size: 4096])
      {:ok, zeros} = Emmap.view(empty, 0, 4096)
      assert <<0::64, _::binary>> = zeros
    end

    defp match_all(live) do
      case live do
        <<"mmmmmmmm", _::binary>> -> :ok
        <<"mmm", _::binary>> -> :ok
        <<"mm", _::binary>> -> :ok
        <<"m", _::binary>> -> :ok
      end

      number =
        case live do
          <<n::unsigned-little-64, m::40, _::binary>> -> n + m
          <<n::16, _::binary>> -> n
          <<_::1, n::7>> -> n
        end

      assert number > 0

      for <<byte <- live>>, into: "", do: <<byte>>
    end

    test "read and read_line are live on a direct handle", %{path: path} do
      File.write!(path, String.duplicate("x", 100) <> "\n" <> "tail")
      {:ok, mem} = Emmap.open(path, [:write, :direct])
      {:ok, line} = Emmap.read_line(mem)
      {:ok, rest} = Emmap.read(mem, 100)
      assert rest == "tail"
      Emmap.pwrite(mem, 0, "LIVE")
      Emmap.pwrite(mem, 101, "TAIL")
      assert "LIVEx" <> _ = line
      assert rest == "TAIL"
    end

    test "survive close, growth and shrinking", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, :direct, max_size: 100_000_000])
      {:ok, live} = Emmap.view(mem, 0, 10)
      :ok = Emmap.resize(mem, 50_000_000)
      {:ok, late} = Emmap.view(mem, 40_000_000, 1000)
      :ok = Emmap.pwrite(mem, 40_000_000, "late")
      assert "late" <> _ = late
      assert live == "0123456789"
      :ok = Emmap.resize(mem, 5)
      assert live == "01234\0\0\0\0\0"
      assert late == :binary.copy(<<0>>, 1000)
      :ok = Emmap.resize(mem, 50_000_000)
      :ok = Emmap.pwrite(mem, 40_000_000, "back")
      assert "back" <> _ = late
      :ok = Emmap.close(mem)
      assert live == "01234\0\0\0\0\0"
      assert "back" <> _ = late
    end

    test "stay live when the map outgrows its addresses", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, :direct, :sparse])
      {:ok, live} = Emmap.view(mem, 0, 10)
      :ok = Emmap.resize(mem, 5_000_000_000)
      assert {:ok, %{address_ranges: ranges}} = Emmap.info(mem)
      assert ranges > 1
      :ok = Emmap.pwrite(mem, 0, "new")
      assert live == "new3456789"
      :ok = Emmap.pwrite(mem, 4_999_999_990, "end")
      assert {:ok, "end" <> _} = Emmap.pread(mem, 4_999_999_990, 100)
      :ok = Emmap.resize(mem, 2)
      assert live == "ne\0\0\0\0\0\0\0\0"
      :ok = Emmap.resize(mem, 20)
      :ok = Emmap.pwrite(mem, 5, "x")
      assert live == "ne\0\0\0x\0\0\0\0"
    end

    test "a live binary may be written to its own map", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, :direct])
      {:ok, live} = Emmap.view(mem, 0, 8)
      :ok = Emmap.pwrite(mem, 2, live)
      assert File.read!(path) == "0101234567"
    end

    test "printing a handle never prints the file", %{path: path} do
      File.write!(path, :binary.copy("secret", 100_000))
      {:ok, mem} = Emmap.open(path, [:direct])
      assert inspect(mem) =~ "600000 bytes, read>"
      refute inspect(mem) =~ "secret"
      assert :io_lib.format("~p", [mem]) |> IO.iodata_length() < 500
      :ok = Emmap.close(mem)
      assert inspect(mem) =~ "#Emmap<closed>"
    end
  end

  describe "size" do
    test "writing past the end grows, with zeros between", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write])
      assert :ok = Emmap.pwrite(mem, 9000, "end")
      assert File.read!(path) == "0123456789" <> :binary.copy(<<0>>, 8990) <> "end"
      assert {:ok, 9003} = Emmap.position(mem, :eof)
      assert :ok = Emmap.write(mem, "more")
      assert {:ok, %{size: 9007}} = Emmap.info(mem)
    end

    test "what was cut does not come back", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write])
      :ok = Emmap.resize(mem, 3)
      :ok = Emmap.resize(mem, 6)
      assert File.read!(path) == "012\0\0\0"
      assert {:ok, "012\0\0\0"} = Emmap.pread(mem, 0, 100)
    end

    test "grow/1 doubles, up to max_inc_size", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, max_inc_size: 15])
      assert {:ok, 20} = Emmap.grow(mem)
      assert {:ok, 35} = Emmap.grow(mem)
      assert File.stat!(path).size == 35
    end

    test "grow/1 stops at max_size, and fails there", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, max_size: 25])
      assert {:ok, 20} = Emmap.grow(mem)
      assert {:ok, 25} = Emmap.grow(mem)
      assert {:error, :enospc} = Emmap.grow(mem)
      assert {:ok, 25} = Emmap.size(mem)
      assert File.stat!(path).size == 25
    end

    test "max_size is the end of growth", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, max_size: 12])
      assert {:ok, %{growable_up_to: 12}} = Emmap.info(mem)
      assert :ok = Emmap.pwrite(mem, 10, "ab")
      assert {:error, :enospc} = Emmap.pwrite(mem, 11, "ab")
      assert {:error, :enospc} = Emmap.resize(mem, 13)
      assert File.stat!(path).size == 12
      assert {:error, :enospc} = Emmap.open(path, [:write, max_size: 5])
    end

    test "flags are the options that were given, and those that they imply", %{path: path} do
      flags = fn options ->
        {:ok, %{flags: flags}} = Emmap.open(path, options, &Emmap.info/1) |> elem(1)
        flags
      end

      assert flags.([]) == [:read, :shared, :lock]
      assert flags.([:nolock, :direct, :private]) == [:read, :private, :direct, :nolock]

      assert flags.([:create, :sparse, :populate, size: 20]) ==
               [:read, :write, :create, :shared, :lock, :sparse, :populate]

      assert flags.([:write, :truncate]) == [:read, :write, :truncate, :shared, :lock]
      assert flags.([:append]) == [:read, :write, :append, :shared, :lock]
      assert flags.([:write, :auto_unlink]) == [:read, :write, :shared, :lock, :auto_unlink]

      {:ok, mem} = Emmap.open([:anon, :noreserve, size: 10])
      assert {:ok, %{flags: flags}} = Emmap.info(mem)
      assert flags == [:read, :write, :shared, :anon, :lock, :noreserve]
      assert {:ok, other} = Emmap.dup(mem)
      assert {:ok, %{flags: ^flags}} = Emmap.info(other)
      :ok = Emmap.make_read_only(mem)
      assert {:ok, %{flags: flags}} = Emmap.info(other)
      assert flags == [:read, :shared, :anon, :lock, :noreserve]
    end

    test "view/1 is a whole file or map, live", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write])
      views = [Emmap.view!(path), Emmap.view!(mem), elem(:emmap.view(to_charlist(path)), 1)]
      for view <- views, do: assert(view == "0123456789")
      :ok = Emmap.pwrite(mem, 0, "live")
      for view <- views, do: assert(view == "live456789")

      # What is appended is not in it. Closing does not end it.
      :ok = Emmap.pwrite(mem, 10, "more")
      assert {:ok, "live456789more"} = Emmap.view(mem)
      :ok = Emmap.close(mem)
      for view <- views, do: assert(view == "live456789")
      assert {:error, :closed} = Emmap.view(mem)
      assert_raise Emmap.Error, ~r/closed/, fn -> Emmap.view!(mem) end

      File.write!(path, "")
      assert {:ok, ""} = Emmap.view(path)
      assert {:error, :enoent} = Emmap.view(path <> ".none")
      assert_raise Emmap.Error, ~r/no such file/, fn -> Emmap.view!(path <> ".none") end
      assert_raise ArgumentError, ~r/path/, fn -> Emmap.view(7) end

      # No descriptor stays open.
      File.write!(path, "x")
      views = for _ <- 1..100, do: Emmap.view!(path)
      assert {0, maps} = Emmap.Test.Resources.held(path)
      assert maps >= 100 and views == List.duplicate("x", 100)
    end

    test "open/3 closes the map after the function, whatever it does", %{path: path} do
      test = self()

      keep = fn mem ->
        send(test, {:mem, mem})
        Emmap.pread(mem, 0, 3)
      end

      kept = fn -> receive do: ({:mem, mem} -> Emmap.pread(mem, 0, 3)) end

      assert {:ok, {:ok, "012"}} = Emmap.open(path, [], keep)
      assert {:error, :closed} = kept.()
      assert {:ok, "012"} = Emmap.open!(path, [:direct], keep)
      assert {:error, :closed} = kept.()

      for act <- [&raise/1, &throw/1, &exit/1] do
        assert "stop" =
                 catch_thrown(fn ->
                   Emmap.open(path, [], fn mem -> {keep.(mem), act.("stop")} end)
                 end)

        assert {:error, :closed} = kept.()
      end

      assert {:ok, :ok} = Emmap.open(path, [], &Emmap.close/1)
      assert {:error, :enoent} = Emmap.open(path <> ".none", [], keep)
      assert_raise Emmap.Error, fn -> Emmap.open!(path <> ".none", [], keep) end
      refute_received {:mem, _}
      assert_raise FunctionClauseError, fn -> Emmap.open(path, [], fn -> :none end) end
    end

    defp catch_thrown(act) do
      act.()
    catch
      :error, %RuntimeError{message: thrown} -> thrown
      _kind, thrown -> thrown
    end

    test "fixed_size neither grows nor shrinks", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write, :fixed_size])
      assert {:error, :enospc} = Emmap.pwrite(mem, 9, "ab")
      assert {:error, :enospc} = Emmap.resize(mem, 11)
      assert {:error, :einval} = Emmap.resize(mem, 9)
      assert :ok = Emmap.resize(mem, 10)
      assert {:ok, %{growable_up_to: nil, flags: flags}} = Emmap.info(mem)
      assert :fixed_size in flags
    end

    test "a file that another program made longer is not cut by a write", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:write])
      File.write!(path, "other's data", [:append])
      :ok = Emmap.pwrite(mem, 10, "ours")
      assert File.read!(path) == "0123456789ours" <> "r's data"
      assert {:ok, %{size: 22}} = Emmap.info(mem)
    end

    test "an empty file is an empty map", %{path: path} do
      File.write!(path, "")
      {:ok, mem} = Emmap.open(path, [:write, :direct])
      assert :eof = Emmap.pread(mem, 0, 1)
      assert :eof = Emmap.read(mem, 1)
      assert :eof = Emmap.read_line(mem)
      assert :eof = Emmap.view(mem, 0, 1)
      assert :ok = Emmap.sync(mem)
      assert :ok = Emmap.prefetch(mem, 0, 100)
      assert :ok = Emmap.write(mem, "first")
      assert File.read!(path) == "first"
      assert {:ok, "first"} = Emmap.view(mem, 0, 9)
      assert {:ok, empty} = Emmap.open(path, [:write, :truncate])
      assert :eof = Emmap.pread(empty, 0, 1)
    end
  end

  describe "anonymous maps" do
    test "read, write, resize, sync" do
      {:ok, mem} = Emmap.open([:anon, :direct, size: 10_000])
      assert {:ok, live} = Emmap.pread(mem, 0, 10_000)
      assert live == :binary.copy(<<0>>, 10_000)
      assert :ok = Emmap.pwrite(mem, 9_999, "x")
      assert String.ends_with?(live, "x")
      assert {:error, :enospc} = Emmap.pwrite(mem, 10_000, "x")
      assert :ok = Emmap.resize(mem, 20_000)
      assert :ok = Emmap.pwrite(mem, 10_000, "x")
      assert :ok = Emmap.pwrite(mem, 100, "cut off")
      assert :ok = Emmap.resize(mem, 5)
      assert :ok = Emmap.resize(mem, 20_000)
      assert {:ok, <<0>>} = Emmap.pread(mem, 10_000, 1)
      assert {:ok, <<0::56>>} = Emmap.pread(mem, 100, 7)
      assert :ok = Emmap.sync(mem)
      assert {:ok, %{path: nil, fd: nil, growable_up_to: limit}} = Emmap.info(mem)
      assert is_integer(limit)
      assert {:error, :enospc} = Emmap.resize(mem, limit + 1)
      assert :ok = Emmap.advise(mem, 0, 0, :dont_need)
      assert {:error, :enotsup} = :file.read_file_info(mem)
    end

    test "dont_need keeps what was written to private memory" do
      {:ok, mem} = Emmap.open([:anon, :private, size: 10_000])
      :ok = Emmap.pwrite(mem, 5000, "kept")
      :ok = Emmap.advise(mem, 0, 0, :dont_need)
      assert {:ok, "kept"} = Emmap.pread(mem, 5000, 4)
    end
  end

  describe "handles" do
    test "dup has its own cursor and its own close", %{path: path} do
      {:ok, one} = Emmap.open(path, [:direct])
      {:ok, "012"} = Emmap.read(one, 3)
      {:ok, two} = Emmap.dup(one)
      assert {:ok, "01"} = Emmap.read(two, 2)
      assert {:ok, "34"} = Emmap.read(one, 2)
      assert :ok = Emmap.close(one)
      assert {:error, :closed} = Emmap.read(one, 1)
      assert {:ok, "23"} = Emmap.read(two, 2)
    end

    test "every call after close is :closed", %{path: path} do
      for options <- [[:write], [:write, :direct]] do
        {:ok, mem} = Emmap.open(path, options)
        assert :ok = Emmap.close(mem)

        calls = [
          &Emmap.close/1,
          &Emmap.pread(&1, 0, 1),
          &Emmap.pread(&1, [{0, 1}]),
          &Emmap.view(&1, 0, 1),
          &Emmap.term(&1, 0, 1),
          &Emmap.string(&1, 0, 1),
          &Emmap.read(&1, 1),
          &Emmap.read(&1, 0),
          &Emmap.read_line/1,
          &Emmap.pwrite(&1, 0, "x"),
          &Emmap.pwrite(&1, 0, ["x"]),
          &Emmap.write(&1, "x"),
          &Emmap.position(&1, 0),
          &Emmap.grow/1,
          &Emmap.resize(&1, 5),
          &Emmap.truncate/1,
          &Emmap.sync/1,
          &Emmap.sync(&1, {0, 1}),
          &Emmap.datasync/1,
          &Emmap.advise(&1, 0, 0, :normal),
          &Emmap.allocate(&1, 0, 1),
          &Emmap.prefetch(&1, 0, 1),
          &Emmap.lock_memory/1,
          &Emmap.unlock_memory/1,
          &Emmap.dup/1,
          &Emmap.info/1,
          &:file.read_file_info/1,
          &File.close/1,
          &:file.copy(&1, &1)
        ]

        for call <- calls, do: assert(call.(mem) == {:error, :closed})
        assert {:error, {0, :closed}} = Emmap.pwrite(mem, [{0, "x"}])
      end
    end

    test "a term that is not a handle raises with an explanation" do
      foreign = Emmap.Handle.new(make_ref(), nil)

      {:ok, raw} = :file.open("mix.exs", [:read, :raw])

      for other <- [:x, self(), raw, nil, "text"],
          call <- [
            &Emmap.pread(&1, 0, 1),
            &Emmap.pread(&1, [{0, 1}]),
            &Emmap.view(&1, 0, 1),
            &Emmap.term(&1, 0, 1),
            &Emmap.string(&1, 0, 1),
            &Emmap.read(&1, 1),
            &Emmap.read_line/1,
            &Emmap.write(&1, "x"),
            &Emmap.pwrite(&1, 0, "x"),
            &Emmap.pwrite(&1, [{0, "x"}]),
            &Emmap.close/1,
            &Emmap.info/1,
            &Emmap.dup/1,
            &Emmap.position(&1, 0),
            &Emmap.grow/1,
            &Emmap.resize(&1, 1),
            &Emmap.truncate/1,
            &Emmap.sync/1,
            &Emmap.sync(&1, {0, 1}),
            &Emmap.datasync/1,
            &Emmap.advise(&1, 0, 1, :normal),
            &Emmap.allocate(&1, 0, 1),
            &Emmap.prefetch(&1, 0, 1),
            &Emmap.lock_memory/1,
            &Emmap.unlock_memory/1,
            &Emmap.patomic(&1, 0, :add, 1),
            &Emmap.patomic_read(&1, 0)
          ] do
        assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> call.(other) end
      end

      for call <- [
            &Emmap.pread(&1, 0, 1),
            &Emmap.view(&1, 0, 1),
            &Emmap.pwrite(&1, 0, "x"),
            &Emmap.close/1,
            &Emmap.info/1,
            &Emmap.read_line/1
          ] do
        assert_raise ArgumentError, ~r/not an open Emmap handle of this node/, fn ->
          call.(foreign)
        end
      end

      assert inspect(foreign) =~ "not a handle of this node"
    end

    test "may be used by any process", %{path: path} do
      {:ok, mem} = Task.await(Task.async(fn -> Emmap.open(path, [:write, :direct]) end))
      assert {:ok, "0123456789"} = Emmap.pread(mem, 0, 10)
      Task.await(Task.async(fn -> :ok = Emmap.pwrite(mem, 0, "task") end))
      assert {:ok, "task456789"} = Emmap.pread(mem, 0, 10)
    end
  end

  describe "bad arguments" do
    setup %{path: path}, do: %{mem: Emmap.open!(path, [:write])}

    test "positions that are no place", %{mem: mem} do
      for position <- [-1, -0x8000_0000_0000_0000, 0x8000_0000_0000_0000, 1 <<< 64, -(1 <<< 70)] do
        assert {:error, :einval} = Emmap.pread(mem, position, 1)
        assert {:error, :einval} = Emmap.view(mem, position, 1)
        assert {:error, :einval} = Emmap.pwrite(mem, position, "x")
        # As a raw file, for which there are 64 bits.
        long? = abs(position) > 0x8000_0000_0000_0000 or position == 0x8000_0000_0000_0000
        wrong = if long?, do: :badarg, else: :einval
        assert {:error, ^wrong} = Emmap.position(mem, position)
        assert {:error, :einval} = Emmap.prefetch(mem, position, 1)
        assert {:error, :einval} = Emmap.sync(mem, {position, 1})
        assert {:error, :einval} = Emmap.advise(mem, position, 1, :normal)
      end

      for position <- [1 <<< 31, 1 <<< 32, 0x7FFF_FFFF_FFFF_FFFF] do
        assert :eof = Emmap.pread(mem, position, 1)
        assert :eof = Emmap.view(mem, position, 1)
      end

      assert {:error, :einval} = Emmap.pwrite(mem, 0x7FFF_FFFF_FFFF_FFFF, "x")
      assert {:ok, %{size: 10}} = Emmap.info(mem)
    end

    test "counts", %{mem: mem} do
      for count <- [1 <<< 31, 1 <<< 32, 1 <<< 63, 1 <<< 64, 1 <<< 100] do
        assert {:ok, "0123456789"} = Emmap.pread(mem, 0, count)
        assert {:ok, "89"} = Emmap.view(mem, 8, count)
      end

      for count <- [-1, -(1 <<< 80)] do
        assert {:error, :badarg} = Emmap.pread(mem, 0, count)
        assert {:error, :badarg} = Emmap.read(mem, count)
        assert_raise ArgumentError, ~r/got #{count}$/, fn -> Emmap.view(mem, 0, count) end
      end

      assert {:error, :badarg} = Emmap.read(mem, :all)
      assert {:ok, "0"} = Emmap.pread(mem, :bof, 1)
      assert_raise ArgumentError, fn -> Emmap.resize(mem, -1) end
      assert_raise ArgumentError, fn -> Emmap.resize(mem, 1 <<< 64) end
      assert_raise ArgumentError, fn -> Emmap.sync(mem, :later) end
    end

    test "data", %{mem: mem} do
      assert {:error, :badarg} = Emmap.pwrite(mem, 0, [:atom])
      assert {:error, :badarg} = Emmap.pwrite(mem, 0, <<1::3>>)
      assert {:error, :badarg} = Emmap.write(mem, 5)
      assert {:error, {1, :einval}} = Emmap.pwrite(mem, [{0, "a"}, {-1, "b"}])
      assert {:ok, "a1"} = Emmap.pread(mem, 0, 2)
    end
  end

  describe "memory" do
    test "prefetch, advise, lock, info", %{tmp_dir: directory} do
      path = Path.join(directory, "pages")
      File.write!(path, :binary.copy("p", 1_000_000))
      {:ok, mem} = Emmap.open(path)
      assert :ok = Emmap.prefetch(mem, 0, 1_000_000)
      assert {:ok, %{resident_pages: pages, page_size: size}} = Emmap.info(mem)
      assert pages == div(1_000_000 + size - 1, size)

      for advice <- [:normal, :sequential, :random, :no_reuse, :will_need, :dont_need],
          do: assert(:ok = Emmap.advise(mem, 100, 5000, advice))

      assert {:error, :einval} = Emmap.advise(mem, 0, 0, :maybe)
      assert :ok = Emmap.lock_memory(mem)
      assert :ok = Emmap.unlock_memory(mem)
      assert :ok = Emmap.guard()
    end
  end

  describe "auto_unlink" do
    test "deletes at close", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:auto_unlink])
      {:ok, other} = Emmap.dup(mem)
      :ok = Emmap.close(mem)
      assert File.exists?(path)
      :ok = Emmap.close(other)
      refute File.exists?(path)
    end

    test "with direct, deletes when the last live binary is gone", %{path: path} do
      {:ok, keeper} =
        Agent.start(fn ->
          {:ok, mem} = Emmap.open(path, [:auto_unlink, :direct])
          {:ok, live} = Emmap.view(mem, 0, 10)
          :ok = Emmap.close(mem)
          live
        end)

      Agent.get(keeper, fn _ -> :erlang.garbage_collect() end)
      assert File.exists?(path)
      assert Agent.get(keeper, & &1) == "0123456789"
      :ok = Agent.stop(keeper)
      assert eventually(fn -> not File.exists?(path) end)
    end

    test "spares a file that took the name meanwhile", %{path: path} do
      {:ok, mem} = Emmap.open(path, [:auto_unlink])
      File.rename!(path, path <> ".old")
      File.write!(path, "another")
      :ok = Emmap.close(mem)
      assert File.read!(path) == "another"
    end
  end

  test "the whole result of open is not a handle, and is told from others" do
    {:ok, mem} = answer = Emmap.open([:anon, size: 10])
    assert {:ok, 10} = Emmap.size(mem)

    for call <- [
          &Emmap.pread(&1, 0, 1),
          &Emmap.size/1,
          &Emmap.sync/1,
          &Emmap.patomic(&1, 0, :add, 1)
        ] do
      assert_raise ArgumentError, ~r/match {:ok, mem} = Emmap.open/, fn -> call.(answer) end

      assert_raise ArgumentError,
                   ~r/the error of a file that could not be opened: {:error, :enoent}/,
                   fn ->
                     call.({:error, :enoent})
                   end

      assert_raise ArgumentError, ~r/not an open Emmap handle of this node: 7/, fn -> call.(7) end
    end

    :ok = Emmap.close(mem)
    assert {:error, :closed} = Emmap.size(mem)
  end
end
