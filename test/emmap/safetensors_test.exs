defmodule Emmap.SafetensorsTest do
  # Files of the Python package `safetensors`, and files that are wrong.
  use ExUnit.Case, async: true
  alias Emmap.Safetensors

  @moduletag :tmp_dir
  @fixtures "test/fixtures/safetensors"

  @bytes %{
    "weight" => for(n <- 0..5, into: <<>>, do: <<n::float-little-32>>),
    "bias" => <<0.5::float-little-16, -1.0::float-little-16, 2.0::float-little-16>>,
    "steps" => <<-7::little-64>>,
    "empty" => "",
    "mask" => <<1, 0>>,
    "half" => <<0x80, 0x3F>>
  }

  # `tensors` is `[{name, dtype, shape, {from, to}}]`, or the text of the header.
  defp write(directory, tensors, data) do
    header =
      if is_binary(tensors),
        do: tensors,
        else: "{" <> Enum.map_join(tensors, ",", &entry/1) <> "}"

    path = Path.join(directory, "#{System.unique_integer([:positive])}.safetensors")
    File.write!(path, [<<byte_size(header)::little-64>>, header, data])
    path
  end

  defp entry({name, dtype, shape, {from, to}}),
    do:
      ~s("#{name}":{"dtype":"#{dtype}","shape":#{inspect(shape)},"data_offsets":[#{from},#{to}]})

  defp entry(text), do: text

  describe "files of the Python package" do
    test "tensors, types, shapes and metadata" do
      assert {:ok, st} = Safetensors.open(Path.join(@fixtures, "model.safetensors"))
      assert Safetensors.names(st) == Enum.sort(Map.keys(@bytes))
      assert Safetensors.metadata(st) == %{"format" => "np", "name" => "Łódź"}

      for {name, bytes} <- @bytes do
        assert Safetensors.fetch(st, name) == {:ok, bytes}
        assert Safetensors.fetch(st, name, copy: true) == {:ok, bytes}
      end

      types =
        for name <- Safetensors.names(st), {:ok, info} = Safetensors.info(st, name), do: info

      assert Enum.map(types, &{&1.type, &1.dtype, &1.shape, &1.size}) == [
               {{:f, 16}, "F16", {3}, 6},
               {{:u, 8}, "U8", {0, 4}, 0},
               {{:bf, 16}, "BF16", {1}, 2},
               {{:u, 8}, "BOOL", {2}, 2},
               {{:s, 64}, "I64", {}, 8},
               {{:f, 32}, "F32", {2, 3}, 24}
             ]

      assert Safetensors.info(st, "none") == :error
      assert Safetensors.fetch(st, "none") == :error
      assert inspect(st) =~ "model.safetensors\" 6 tensors>"

      assert_raise ArgumentError, ~r/copy: must be/, fn ->
        Safetensors.fetch(st, "bias", copy: 1)
      end
    end

    test "a model in several files, by its index" do
      assert {:ok, st} = Safetensors.open(Path.join(@fixtures, "sharded.safetensors.index.json"))
      assert Safetensors.names(st) == ["bias", "empty", "steps", "weight"]
      assert Safetensors.metadata(st) == %{"format" => "np"}

      for name <- Safetensors.names(st),
          do: assert(Safetensors.fetch(st, name) == {:ok, @bytes[name]})

      assert {:ok, %{path: path}} = Safetensors.info(st, "steps")
      assert Path.basename(path) == "sharded-00002-of-00002.safetensors"
      assert Safetensors.close(st) == :ok
      assert Safetensors.fetch(st, "steps") == {:error, :closed}
    end

    @tag skip: !System.find_executable("python3") && "python3 is missing"
    test "the package of this machine writes the same tensors", %{tmp_dir: directory} do
      script = Path.join(@fixtures, "make.py")

      case System.cmd("python3", [script, directory], stderr_to_stdout: true) do
        {_, 0} ->
          for file <- ["model.safetensors", "sharded.safetensors.index.json"] do
            [fresh, fixture] =
              for in_folder <- [directory, @fixtures], do: everything(in_folder, file)

            assert fresh == fixture
          end

        {output, _} ->
          assert output =~ "No module named" or output =~ "not found"
          IO.puts("skipped: the Python package safetensors is missing")
      end
    end
  end

  defp everything(directory, file) do
    st = Safetensors.open!(Path.join(directory, file))

    tensors =
      for name <- Safetensors.names(st) do
        {:ok, info} = Safetensors.info(st, name)
        {name, Map.delete(info, :path), Safetensors.fetch(st, name, copy: true)}
      end

    {tensors, Safetensors.metadata(st)}
  end

  test "live binaries, and copies", %{tmp_dir: directory} do
    path = write(directory, [{"a", "U8", [1000], {0, 1000}}], :binary.copy("x", 1000))
    {:ok, st} = Safetensors.open(path)
    {:ok, live} = Safetensors.fetch(st, "a")
    {:ok, copy} = Safetensors.fetch(st, "a", copy: true)
    {:ok, mem} = Emmap.open(path, [:write])
    {:ok, size} = Emmap.size(mem)
    :ok = Emmap.pwrite(mem, size - 1000, "yyy")
    assert "yyyx" <> _ = live
    assert "xxxx" <> _ = copy
    assert :ok = Safetensors.close(st)
    assert "yyyx" <> _ = live
    assert {:error, :closed} = Safetensors.close(st)
  end

  test "a truncated file", %{tmp_dir: directory} do
    path = write(directory, [{"a", "U8", [100_000], {0, 100_000}}], :binary.copy("x", 100_000))
    {:ok, st} = Safetensors.open(path)
    File.write!(path, "short")
    assert {:error, :estale} = Safetensors.fetch(st, "a", copy: true)
    assert {:error, :estale} = Safetensors.fetch(st, "a")

    # Shorter, and mapped again.
    :ok = Emmap.reattach(Map.fetch!(st.files, path))
    assert {:error, :estale} = Safetensors.fetch(st, "a")
    assert {:error, :estale} = Safetensors.fetch(st, "a", copy: true)
  end

  test "the first tensor of 4 GB costs neither time nor memory", %{tmp_dir: directory} do
    size = 4 * 1024 * 1024 * 1024
    path = write(directory, [{"big", "F32", [div(size, 4)], {0, size}}], "")
    {:ok, file} = :file.open(path, [:raw, :write, :read])
    {:ok, at} = :file.position(file, :eof)
    :ok = :file.pwrite(file, at + size - 1, <<7>>)

    # Other tests use memory meanwhile: the least of some rounds counts.
    more =
      for _ <- 1..20 do
        before = :erlang.memory(:total)
        {:ok, st} = Safetensors.open(path)
        assert {:ok, live} = Safetensors.fetch(st, "big")
        assert byte_size(live) == size
        assert :binary.last(live) == 7
        :erlang.memory(:total) - before
      end

    assert Enum.min(more) < 1_000_000
    File.rm!(path)
  end

  test "files that are wrong are not opened", %{tmp_dir: directory} do
    f32 = {"a", "F32", [2], {0, 8}}
    data = <<0::64>>

    for {why, tensors, data} <- [
          {:length, [f32], "1234567"},
          {:length, [f32], "123456789"},
          {:length, [], "1"},
          {:tensor, [{"a", "F32", [2], {0, 7}}], "1234567"},
          {:tensor, [{"a", "F32", [3], {0, 8}}], data},
          {:tensor, [{"a", "F32", [2], {8, 16}}], <<0::128>>},
          {:tensor, [{"a", "F32", [2], {8, 0}}], data},
          {:tensor, [f32, {"b", "U8", [4], {4, 8}}], data},
          {:tensor, [{"a", "U8", [4_294_967_296, 4_294_967_296], {0, 0}}], ""},
          {:tensor, [{"a", "F32", [2], {18_446_744_073_709_551_608, 18_446_744_073_709_551_615}}],
           ""},
          {:tensor, [{"a", "F4", [3], {0, 2}}], "12"},
          {:type, [{"a", "F31", [2], {0, 8}}], data},
          {:header, [{"a", "F32", List.duplicate(1, 65), {0, 4}}], "1234"},
          {:header, [{"a", "U8", List.duplicate(0xFFFFFFFFFFFFFFFF, 100_000), {0, 4}}], "1234"},
          {:header, [{"a", "F32", [-2], {0, 8}}], data},
          {:header, [{"a", "F32", [2.0], {0, 8}}], data},
          {:header, [{"a", "F32", [2], {-8, 0}}], data},
          {:header, [f32, f32], data},
          {:header, [~s("a":{"dtype":"F32","shape":[2]})], data},
          {:header, [~s("a":{"dtype":4,"shape":[2],"data_offsets":[0,8]})], data},
          {:header, [~s("a":{"dtype":"F32","shape":2,"data_offsets":[0,8]})], data},
          {:header, [~s("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]})], data},
          {:header, [~s("a":[])], data},
          {:header, [~s("__metadata__":{"a":1})], ""},
          {:header, [~s("__metadata__":[])], ""},
          {:header, "[]", ""},
          {:header, "null", ""},
          {:header, "{} x", ""},
          {:header, ~s({"a":), ""},
          {:header, <<"{\"", 0xFF, "\":1}">>, ""},
          {:header, String.duplicate("[", 100_000), ""}
        ] do
      path = write(directory, tensors, data)
      assert Safetensors.open(path) == {:error, {:bad_format, why}}, inspect({why, tensors})

      assert_raise Emmap.Error, ~r/not a valid safetensors file/, fn ->
        Safetensors.open!(path)
      end
    end

    for bytes <- [
          "",
          "1234567",
          <<0::64>>,
          <<0xFFFFFFFFFFFFFFFF::64, "{}">>,
          <<1::little-64, "{}">>,
          <<3::little-64, "{}">>
        ] do
      path = Path.join(directory, "bytes")
      File.write!(path, bytes)
      assert {:error, {:bad_format, :length}} = Safetensors.open(path), inspect(bytes)
    end

    assert {:error, :enoent} = Safetensors.open(Path.join(directory, "none"))

    assert_raise Emmap.Error, ~r/no such file/, fn ->
      Safetensors.open!(Path.join(directory, "none"))
    end
  end

  test "damaged headers: an error of the format, or tensors inside the file", %{
    tmp_dir: directory
  } do
    bytes = File.read!(Path.join(@fixtures, "model.safetensors"))
    path = Path.join(directory, "damaged")

    for _ <- 1..500 do
      File.write!(path, damaged(bytes, :rand.uniform(4)), [:raw])

      case Safetensors.open(path) do
        {:ok, st} ->
          for name <- Safetensors.names(st) do
            {:ok, %{size: size}} = Safetensors.info(st, name)
            assert {:ok, tensor} = Safetensors.fetch(st, name, copy: true)
            assert byte_size(tensor) == size
          end

          Safetensors.close(st)

        {:error, {:bad_format, why}} ->
          assert why in [:length, :header, :type, :tensor]
      end
    end
  end

  # Some bytes are others, of the header or of its length, and often those that JSON is made of.
  defp damaged(bytes, 0), do: bytes

  defp damaged(bytes, times) do
    at = :rand.uniform(420) - 1
    <<head::binary-size(at), _, tail::binary>> = bytes

    byte =
      Enum.random([?0, ?9, ?", ?,, ?:, ?[, ?], ?{, ?}, ?-, ?., ?e, 0, 255, :rand.uniform(256) - 1])

    damaged(<<head::binary, byte, tail::binary>>, times - 1)
  end

  test "four-bit elements fill whole bytes, spaces pad the header", %{tmp_dir: directory} do
    path = write(directory, ~s({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}     ), "12")
    assert {:ok, st} = Safetensors.open(path)
    assert {:ok, %{type: nil, dtype: "F4", shape: {4}, size: 2}} = Safetensors.info(st, "a")
  end

  test "an index that is wrong", %{tmp_dir: directory} do
    shard = write(directory, [{"a", "U8", [1], {0, 1}}], "x")
    good = Path.basename(shard)
    index = Path.join(directory, "model.safetensors.index.json")

    for {result, text} <- [
          {{:bad_format, :index}, "{}"},
          {{:bad_format, :index}, ~s({"weight_map":[]})},
          {{:bad_format, :index}, ~s({"weight_map":{"a":1}})},
          {{:bad_format, :index}, ~s({"weight_map":{"b":"#{good}"}})},
          {{:bad_format, :index}, ~s({"weight_map":{"a":"../#{good}"}})},
          {{:bad_format, :index}, ~s({"weight_map":{"a":"#{shard}"}})},
          {{:bad_format, :index}, ~s({"weight_map":{"a":".."}})},
          {{:bad_format, :index}, "xx"},
          {{:bad_format, :length}, ""},
          # Itself, which is not a file of tensors.
          {{:bad_format, :length}, ~s({"weight_map":{"a":"model.safetensors.index.json"}})},
          {:enoent, ~s({"weight_map":{"a":"#{good}","b":"none"}})}
        ] do
      File.write!(index, text)
      assert Safetensors.open(index) == {:error, result}, text
    end

    File.write!(index, ~s({"weight_map":{"a":"#{good}"}}))
    assert {:ok, st} = Safetensors.open(index)
    assert Safetensors.fetch(st, "a") == {:ok, "x"}
  end
end
