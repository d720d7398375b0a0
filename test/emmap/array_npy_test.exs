defmodule Emmap.ArrayNpyTest do
  # Files that NumPy has written, and files that are wrong.
  use ExUnit.Case, async: true
  alias Emmap.Array
  alias Emmap.Array.Npy

  @moduletag :tmp_dir
  @fixtures "test/fixtures/npy"

  defp open(name), do: Array.open!(Path.join(@fixtures, name <> ".npy"), :npy)

  # A file with this header and these elements.
  defp write(directory, header, data, version \\ <<1, 0>>) do
    length =
      if version == <<1, 0>>,
        do: <<byte_size(header)::little-16>>,
        else: <<byte_size(header)::little-32>>

    path = Path.join(directory, "#{System.unique_integer([:positive])}.npy")
    File.write!(path, [<<0x93, "NUMPY">>, version, length, header, data])
    path
  end

  defp header(descr, shape, order \\ "False"),
    do: "{'descr': #{descr}, 'fortran_order': #{order}, 'shape': #{shape}, }\n"

  describe "files of NumPy" do
    test "numbers, shapes and orders" do
      for {name, type, nx, shape, order, elements} <- [
            {"f64", {:f64, :little}, {:f, 64}, {2, 3}, :c,
             [1.5, -2.0, 3.25, :infinity, :neg_infinity, :nan]},
            {"fortran", {:i32, :little}, {:s, 32}, {2, 3}, :fortran, [0, 3, 1, 4, 2, 5]},
            {"big", {:i16, :big}, {:s, 16}, {3}, :c, [1, -2, 32_767]},
            {"scalar", {:u64, :little}, {:u, 64}, {}, :c, [7]},
            {"empty", {:f32, :little}, {:f, 32}, {0, 4}, :c, []},
            {"bool", :u8, {:u, 8}, {3}, :c, [1, 0, 1]},
            {"half", {:bytes, 2}, {:f, 16}, {2}, :c,
             [<<0.5::float-little-16>>, <<-1.0::float-little-16>>]},
            {"complex", {:bytes, 16}, {:c, 128}, {1}, :c,
             [<<1.0::float-little-64, 2.0::float-little-64>>]},
            {"time", {:i64, :little}, {:s, 64}, {1}, :c, [1_767_323_045]},
            {"text", {:bytes, 3}, nil, {2}, :c, [<<"ab", 0>>, "abc"]},
            {"unicode", {:bytes, 8}, nil, {1}, :c, [<<0x141::little-32, ?x::little-32>>]},
            {"version2", :u8, {:u, 8}, {3}, :c, [0, 1, 2]}
          ] do
        array = open(name)

        assert {:ok, %{type: ^type, nx_type: ^nx, shape: ^shape, order: ^order}} =
                 Array.info(array)

        assert Enum.to_list(array) == elements
        assert Array.count(array) == length(elements)
        assert Array.shape(array) == shape
      end
    end

    test "an index with a number for each dimension, in both orders" do
      assert for(i <- 0..1, j <- 0..2, do: Array.at(open("fortran"), {i, j})) ==
               Enum.to_list(0..5)

      assert Array.at(open("f64"), {0, 2}) == 3.25
      assert Array.at(open("scalar"), {}) == 7
      assert Array.at(open("empty"), {0, 0}) == nil
    end

    test "records" do
      array = open("record")

      assert elem(Array.info(array), 1).type == [
               {"id", {:u16, :little}},
               {"", 2},
               {"größe", {:f32, :big}},
               {"xyz", {:bytes, 6}},
               {"", 2},
               {"at.begin", {:i64, :little}},
               {"at.end", {:i64, :little}},
               {"name", {:bytes, 4}},
               {"", 4}
             ]

      assert Array.at(array, 2) == %{
               "id" => 3,
               "größe" => 2.5,
               "xyz" => <<7::little-16, 8::little-16, 9::little-16>>,
               "at.begin" => 30,
               "at.end" => 31,
               "name" => "cccc"
             }

      assert Array.sum(array, "größe") == 4.5
      assert Array.binary_search(array, "at.begin", 20) == {:ok, 1}
      assert array["name"][0] == <<"a", 0, 0, 0>>

      assert Enum.to_list(open("latin1")) == [
               %{"größe" => 0.25, "id" => 7},
               %{"größe" => 4.0, "id" => 8}
             ]

      assert Enum.to_list(open("version3")) == [%{"値" => 5}, %{"値" => 6}]
    end

    test "up to the point where Nx takes over" do
      array = open("big")
      assert Array.to_binary(array) == <<1::native-16, -2::native-16, 32_767::native-16>>
      assert {:ok, <<0, 1, 2>>} = Array.view(open("version2"))
      assert {:ok, ""} = Array.view(open("empty"))
    end

    @tag skip: !System.find_executable("python3") && "python3 is missing"
    test "NumPy of this machine writes the same arrays", %{tmp_dir: directory} do
      case System.cmd("python3", [Path.join(@fixtures, "make.py"), directory],
             stderr_to_stdout: true
           ) do
        {_, 0} ->
          files = Path.wildcard(Path.join(@fixtures, "*.npy"))
          assert length(files) == 15

          for file <- files do
            [fresh, fixture] =
              for path <- [Path.join(directory, Path.basename(file)), file] do
                array = Array.open!(path, :npy)
                {Map.delete(elem(Array.info(array), 1), :offset), Enum.to_list(array)}
              end

            assert fresh == fixture
          end

        {output, _} ->
          assert output =~ "No module named" or output =~ "not found"
          IO.puts("skipped: NumPy is missing")
      end
    end

    test "a file in the middle of another, and a writable one", %{tmp_dir: directory} do
      bytes = File.read!(Path.join(@fixtures, "big.npy"))
      path = Path.join(directory, "two.npy")
      File.write!(path, [bytes, bytes])
      {:ok, mem} = Emmap.open(path, [:write])
      {:ok, one} = Array.of(mem, :npy)
      {:ok, two} = Array.of(mem, :npy, offset: byte_size(bytes))
      assert :ok = Array.put(one, 0, 99)
      assert {Enum.to_list(one), Enum.to_list(two)} == {[99, -2, 32_767], [1, -2, 32_767]}
      assert_raise ArgumentError, ~r/fixed number/, fn -> Array.append(one, 1) end
    end
  end

  describe "files that are wrong" do
    test "are not opened", %{tmp_dir: directory} do
      good = header("'<f8'", "(2,)")
      data = <<0::128>>

      for {why, header, data} <- [
            {:length, good, <<0::120>>},
            {:length, header("'<f8'", "(3,)"), data},
            {:length, header("'<f8'", "(9223372036854775807,)"), data},
            {:shape, header("'<f8'", "(9223372036854775808,)"), data},
            {:shape, header("'<f8'", "(4294967296, 4294967296)"), data},
            {:shape, header("'<f8'", "(-1,)"), data},
            {:shape, header("'<f8'", "(True,)"), data},
            {:shape, header("'<f8'", "('2',)"), data},
            {:shape, header("'<f8'", "(#{String.duplicate("1,", 65)})"), data},
            {:header, header("'<f8'", "2"), data},
            {:header, header("'<f8'", "[2]"), data},
            {:header, header("'<f8'", "(2)"), data},
            {:header, header("'<f8'", "(2.0,)"), data},
            {:header, header("'<f8'", "(2,)", "0"), data},
            {:header, header("'<f8'", "(999999999999999999999999,)"), data},
            {:type, header("'|O'", "(2,)"), data},
            {:type, header("'<f3'", "(2,)"), data},
            {:type, header("'f8'", "(2,)"), data},
            {:type, header("''", "(2,)"), data},
            {:type, header("'|S0'", "(2,)"), data},
            {:type, header("'|S-3'", "(2,)"), data},
            {:type, header("'|S#{String.duplicate("0", 21)}1'", "(2,)"), data},
            {:type, header("'|V99999999999'", "(2,)"), data},
            {:type, header("'<M8[s'", "(2,)"), data},
            {:type, header("1", "(2,)"), data},
            {:type, header("None", "(2,)"), data},
            {:type, header("[]", "(2,)"), data},
            {:type, header("('<f8', (2,))", "(2,)"), data},
            {:type, header("[('a', '<f8'), ('a', '<f4')]", "(1,)"), data},
            {:type, header("[('a.b', '<f4'), ('a', [('b', '<f4')])]", "(1,)"), data},
            {:type, header("[('', '|V8')]", "(2,)"), data},
            {:type, header("[('a', '|O')]", "(2,)"), data},
            {:type, header("[('a',)]", "(2,)"), data},
            {:type, header("['a']", "(2,)"), data},
            {:type, header("[(1, '<f8')]", "(2,)"), data},
            {:type, header("[('a', '<f8', (0,))]", "(2,)"), data},
            {:type, header("[('#{String.duplicate("a", 1001)}', '<f8')]", "(2,)"), data},
            {:type,
             header(
               "[('#{String.duplicate("a", 600)}', [('#{String.duplicate("b", 400)}', '<f8')])]",
               "(2,)"
             ), data},
            {:type, header("[('a', '<f8', (4294967296,))]", "(2,)"), data},
            {:shape, header("[('a', '<f8', (-1,))]", "(2,)"), data},
            {:header, header("'<f8'", "(2,)") <> "x", data},
            {:header, "{'descr': '<f8', 'fortran_order': False}", data},
            {:header, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'x': 1}", data},
            {:header, "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
             data},
            {:header, "__import__('os').system('true')", data},
            {:header, header("'<f8' + ''", "(2,)"), data},
            {:header, header("'<f8", "(2,)"), data},
            {:header, header("'\\q'", "(2,)"), data},
            {:header, header("'\\ud800'", "(2,)"), data},
            {:header, header(String.duplicate("[", 10_000), "(2,)"), data},
            {:header, "", data},
            {:header, "   ", data}
          ] do
        path = write(directory, header, data)
        assert Array.open(path, :npy) == {:error, {:bad_format, why}}, inspect({why, header})
        assert_raise Emmap.Error, ~r/not a valid .npy file/, fn -> Array.open!(path, :npy) end
      end

      assert {:ok, _} = Array.open(write(directory, good, data), :npy)
      assert {:ok, _} = Array.open(write(directory, header("'<f8'", "(2L,)"), data), :npy)

      assert {:ok, _} =
               Array.open(
                 write(directory, header("[(('title', 'a'), '<f8')]", "(2,)"), data),
                 :npy
               )

      assert {:ok, _} = Array.open(write(directory, good, data, <<3, 0>>), :npy)

      longest = String.duplicate("a", 1000)

      assert {:ok, array} =
               Array.open(write(directory, header("[('#{longest}', '<f8')]", "(2,)"), data), :npy)

      assert array[longest][0] == 0.0

      latin1 = header("[('\xE4', '<f8')]", "(2,)")
      assert {:ok, array} = Array.open(write(directory, latin1, data), :npy)
      assert array["ä"][0] == 0.0

      assert {:error, {:bad_format, :header}} =
               Array.open(write(directory, latin1, data, <<3, 0>>), :npy)
    end

    test "other bytes", %{tmp_dir: directory} do
      path = Path.join(directory, "bytes")

      for {why, bytes} <- [
            {:magic, ""},
            {:magic, "0123456789abcdef"},
            {:magic, <<0x93, "NUMPZ", 1, 0, 0::80>>},
            {:length, <<0x93, "NUMPY", 1, 0>>},
            {:length, <<0x93, "NUMPY", 3, 0, 1::little-16>>},
            {:version, <<0x93, "NUMPY", 4, 0, 0::80>>},
            {:version, <<0x93, "NUMPY", 1, 1, 0::80>>},
            {:header, <<0x93, "NUMPY", 2, 0, 0::32, 0::80>>},
            {:header, <<0x93, "NUMPY", 2, 0, 0xFFFF_FFFF::32, 0::80>>},
            {:length, <<0x93, "NUMPY", 1, 0, 0xFFFF::16, 0::80>>}
          ] do
        File.write!(path, bytes)
        assert Array.open(path, :npy) == {:error, {:bad_format, why}}, inspect(bytes)
      end
    end

    test "many fields take linear time" do
      # Counted, not timed: how busy the machine is makes no difference. Garbage collections are counted, too, so there is
      # room for what is made in linear time.
      reductions = fn count ->
        fields = Enum.map_join(1..count, ",", &"('#{&1}','|u1')")
        text = header("[('a',[#{fields}]),('b',[#{fields}])]", "(1,)")

        parsed = fn ->
          assert {:ok, %{type: type}} = Npy.parse(text)
          assert length(type) == 2 * count and hd(type) == {"a.1", :u8}
          exit({:reductions, self() |> Process.info(:reductions) |> elem(1)})
        end

        {_, monitor} = :erlang.spawn_opt(parsed, [:monitor, min_heap_size: 20_000_000])
        assert_receive {:DOWN, ^monitor, _, _, {:reductions, reductions}}, 60_000
        reductions
      end

      assert reductions.(20_000) < 15 * reductions.(2_000)
    end

    test "names create no atoms", %{tmp_dir: directory} do
      for n <- 1..20 do
        name = "field_#{n}_#{System.unique_integer([:positive])}"
        path = write(directory, header("[('#{name}', '<f8')]", "(1,)"), <<0::64>>)
        assert %{^name => 0.0} = path |> Array.open!(:npy) |> Array.at(0)
        assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      end
    end

    test "damaged headers: an error of the format, or elements inside the file", %{
      tmp_dir: directory
    } do
      path = Path.join(directory, "damaged")

      for file <- ["record", "f64", "version3"], _ <- 1..400 do
        bytes = File.read!(Path.join(@fixtures, file <> ".npy"))
        File.write!(path, damaged(bytes, :rand.uniform(4)), [:raw])

        case Array.open(path, :npy) do
          {:ok, array} ->
            assert length(Enum.take(array, 10)) == min(Array.count(array), 10)
            if Array.count(array) > 0, do: assert(Array.at(array, -1) != nil)
            Array.close(array)

          {:error, {:bad_format, why}} ->
            assert why in [:magic, :version, :header, :type, :shape, :length]
        end
      end
    end

    test "random text of the characters that a header has" do
      parts =
        ~w|{ } [ ] ( ) , : ' " \\ 'descr' 'fortran_order' 'shape' True False None '<f8' '\|V2' 1 2 0 -1 ('a','<i4') u'x' L|

      for _ <- 1..5000 do
        text = Enum.map_join(1..Enum.random(1..30), fn _ -> Enum.random(parts) end)

        case Npy.parse(text) do
          {:ok, %{count: count}} -> assert count >= 0
          {:error, {:bad_format, why}} -> assert why in [:header, :type, :shape]
        end
      end
    end
  end

  # Some bytes are others, often those that a header is made of.
  defp damaged(bytes, 0), do: bytes

  defp damaged(bytes, times) do
    at = :rand.uniform(min(byte_size(bytes), 320)) - 1
    <<head::binary-size(at), _, tail::binary>> = bytes
    byte = Enum.random(~c"0129'\",:()[]{}<>|-.LOVfiuSU \\" ++ [0, 255, :rand.uniform(256) - 1])
    damaged(<<head::binary, byte, tail::binary>>, times - 1)
  end
end
