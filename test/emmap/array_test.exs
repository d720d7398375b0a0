defmodule Emmap.ArrayTest do
  use ExUnit.Case, async: true
  alias Emmap.Array

  @moduletag :tmp_dir

  @record [id: :u64, at: {:i64, :big}, name: {:bytes, 3}, pad: 2, x: {:f32, :little}]

  setup %{tmp_dir: directory} do
    %{path: Path.join(directory, "array")}
  end

  defp records(path, count, options \\ []) do
    {:ok, array} = Array.open(path, @record, [:create | options])
    if count > 0, do: {:ok, 0} = Array.append(array, for(n <- 0..(count - 1), do: record(n)))
    array
  end

  defp record(n), do: %{id: n, at: n * 10 - 5, name: <<rem(n, 256), 1, 2>>, x: n / 2}

  defp numbers(type, values) do
    {:ok, mem} = Emmap.open([:anon, size: max(8 * length(values), 1)])
    {:ok, array} = Array.of(mem, type, count: length(values))
    :ok = Array.put_many(array, Enum.with_index(values, &{&2, &1}))
    array
  end

  # `native/emmap_core/tests/array_records.rs` reads and writes the same file.
  @golden "test/fixtures/formats/array-records.bin"
  @trade [id: {:u32, :little}, gap: 4, price: {:f64, :little}, symbol: {:bytes, 8}]

  test "records are the bytes that other languages read", %{path: path} do
    trades =
      for id <- 0..99 do
        letter = ?A + rem(id, 26)
        %{id: id, price: id / 4, symbol: <<letter, letter, letter, 0::40>>}
      end

    {:ok, array} = Array.open(path, @trade, [:create])
    {:ok, 0} = Array.append(array, trades)
    :ok = Array.close(array)
    assert File.read!(path) == File.read!(@golden)

    {:ok, array} = Array.open(@golden, @trade)
    assert Enum.to_list(array) == trades
    assert Array.sum(array, :price) == 99 * 50 / 4
  end

  describe "types" do
    test "each number, in each byte order, as Emmap.get reads it" do
      {:ok, mem} = Emmap.open([:anon, size: 4000])
      :ok = Emmap.pwrite(mem, 0, :crypto.strong_rand_bytes(4000))

      for name <- [:u8, :i8, :u16, :i16, :u32, :i32, :u64, :i64, :f32, :f64],
          type <- [name, {name, :native}, {name, :little}, {name, :big}],
          offset <- [0, 3] do
        {:ok, array} = Array.of(mem, type, offset: offset)
        {:ok, %{stride: stride}} = Array.info(array)
        count = div(4000 - offset, stride)
        assert Array.count(array) == count

        wanted =
          for n <- 0..(count - 1) do
            {:ok, value} = Emmap.get(mem, offset + n * stride, type)
            value
          end

        assert Enum.map(0..(count - 1), &Array.at(array, &1)) == wanted
        assert Enum.to_list(array) == wanted
        assert Array.get_many(array, 0..(count - 1)) == wanted
        assert Array.get_many(array, Enum.to_list(0..(count - 1))) == wanted
        assert Array.at(array, count) == nil

        {:ok, other} = Emmap.open([:anon, size: 4000])
        {:ok, copy} = Array.of(other, type, offset: offset, count: count)
        :ok = Array.put_many(copy, Enum.with_index(wanted, &{&2, &1}))
        assert Enum.to_list(copy) == wanted
        for {value, n} <- Enum.with_index(wanted), do: :ok = Array.put(copy, n, value)
        assert Enum.to_list(copy) == wanted
      end
    end

    test "Nx's names", %{path: path} do
      File.write!(path, <<0::64>>)

      for {type, same} <- [{{:f, 64}, :f64}, {{:f, 32}, :f32}, {{:s, 16}, :i16}, {{:u, 8}, :u8}] do
        {:ok, one} = Array.open(path, type)
        {:ok, other} = Array.open(path, same)
        assert Array.nx_type(one) == type
        assert Array.nx_type(other) == type
        assert Array.shape(one) == {Array.count(other)}
      end

      {:ok, bytes} = Array.open(path, {:bytes, 4})
      assert Array.nx_type(bytes) == nil
      assert Enum.to_list(bytes) == [<<0::32>>, <<0::32>>]
    end

    test "records are packed, and bytes are skipped", %{path: path} do
      array = records(path, 3)
      assert {:ok, %{stride: 25}} = Array.info(array)
      assert Array.nx_type(array) == nil
      assert Array.at(array, 2) == %{id: 2, at: 15, name: <<2, 1, 2>>, x: 1.0}
      assert Array.at(array, -3) == record(0)
      assert Array.at(array, 3) == nil
      assert Array.at(array, -4) == nil

      assert binary_part(File.read!(path), 25, 25) ==
               <<1::little-64, 5::big-64, 1, 1, 2, 0, 0, 0.5::little-float-32>>
    end

    test "invalid types raise, whether the file exists or not" do
      for {type, message} <- [
            {:u7, ~r/unknown type :u7/},
            {{:f, 16}, ~r/unknown type \{:f, 16\}/},
            {:float64, ~r/did you mean :f64/},
            {{:bytes, 0}, ~r/has 1 to/},
            {{:bytes, :x}, ~r/has 1 to/},
            {[], ~r/unknown type \[\]/},
            {[a: 4], ~r/at least one field/},
            {[a: 0, b: :u8], ~r/skips no bytes/},
            {[a: :u8, a: :u16], ~r/:a is given twice/},
            {[{1, :u8}], ~r/atom or a string/},
            {[{nil, :u8}], ~r/atom or a string/},
            {[{:a, :u8}, :b], ~r/a field is \{name, type\}/},
            {[a: {:bytes, 0x7FFF_FFFF}, b: :u8], ~r/at most/},
            {[a: [b: :u8]], ~r/unknown type/}
          ] do
        assert_raise ArgumentError, message, fn -> Array.open("no/such/file", type) end
      end

      for {options, message} <- [
            {[offset: -1], ~r/offset: must be/},
            {[count: 1.0], ~r/count: must be/},
            {[shape: [2]], ~r/shape: must be/},
            {[shape: {-1}], ~r/shape: must be/},
            {[count: 5, shape: {2, 3}], ~r/not the product/},
            {[count: 1, count: 1], ~r/given twice/},
            {[count: 0x2000_0000_0000_0000], ~r/no file has/},
            {[offset: 0x8000_0000_0000_0000], ~r/offset: must be/},
            {[:none], ~r/unknown option :none/}
          ] do
        assert_raise ArgumentError, message, fn -> Array.open("no/such/file", :f64, options) end
      end

      assert_raise ArgumentError, ~r/unknown/, fn ->
        Array.open("no/such/file", :npy, count: 1)
      end

      assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> Array.of("file", :u8) end
      assert {:error, :enoent} = Array.open("no/such/file", :f64)
      assert_raise Emmap.Error, ~r/no such file/, fn -> Array.open!("no/such/file", :f64) end
    end
  end

  describe "the end" do
    test "an array with an open end has the whole records of the map", %{path: path} do
      File.write!(path, <<0::little-32, 1::little-32, 2::little-32, 9, 9>>)
      {:ok, array} = Array.open(path, {:u32, :little}, offset: 4)
      assert Enum.to_list(array) == [1, 2]
      assert Array.at(array, 2) == nil
      {:ok, past} = Array.open(path, {:u32, :little}, offset: 100)
      assert {Array.count(past), Enum.to_list(past), Array.at(past, 0)} == {0, [], nil}
      assert {Array.sum(past), Array.min(past), Array.max(past)} == {0, nil, nil}
      assert Array.binary_search(past, 1) == {:none, 0}
      assert Array.view(past) == {:ok, ""}
      assert Array.to_binary(past) == ""
    end

    test "the field of an incomplete record is not an element", %{path: path} do
      array = records(path, 2)
      File.write!(path, <<7::little-64, 8::big-64>>, [:append])
      {:ok, longer} = Array.open(path, @record)
      assert Array.count(longer) == 2

      for field <- [:id, :at, :name, :x] do
        column = Array.column(longer, field)
        assert Array.at(column, 1) == Array.at(array, 1)[field]
        assert Array.at(column, 2) == nil
        assert Array.get_many(column, [2, 1]) == [nil, Array.at(array, 1)[field]]
      end
    end

    test "a given number of records", %{path: path} do
      File.write!(path, <<1, 2, 3, 4>>)
      assert {:ok, array} = Array.open(path, :u8, count: 2, offset: 1)
      assert Enum.to_list(array) == [2, 3]
      assert Array.at(array, 2) == nil
      assert {:error, {:bad_format, :length}} = Array.open(path, :u8, count: 5)

      assert_raise Emmap.Error, ~r/shorter than the elements/, fn ->
        Array.open!(path, :u8, shape: {3, 2})
      end

      assert_raise ArgumentError, ~r/fixed number/, fn -> Array.append(array, 1) end
    end

    test "a new file has room for them", %{path: path} do
      {:ok, array} = Array.open(path, :f64, [:create, count: 10, offset: 16])
      assert File.stat!(path).size == 96
      assert Array.sum(array) == 0.0
      assert :ok = Array.put(array, 9, 1)
      assert Array.at(array, -1) == 1.0
    end

    test "a closed array", %{path: path} do
      array = records(path, 2)
      :ok = Array.close(array)
      id = Array.column(%{array | fixed: 2}, :id)

      for call <- [
            fn -> Array.at(array, 0) end,
            fn -> Array.at(id, 0) end,
            fn -> Array.count(array) end,
            fn -> Array.sum(id) end,
            fn -> Array.min(array, :id) end,
            fn -> Array.binary_search(id, 1) end,
            fn -> Array.get_many(id, [0]) end,
            fn -> Array.to_binary(id) end,
            fn -> Enum.to_list(array) end
          ] do
        assert_raise Emmap.Error, ~r/it is closed/, call
      end

      assert {:error, :closed} = Array.append(array, record(1))
      assert {:error, :closed} = Array.view(%{array | fixed: 2})
      assert {:error, :closed} = Array.sync(array)
      assert {:error, :closed} = Array.info(array)
      assert {:error, :closed} = Array.info(%{array | fixed: 2})
      assert {:error, :closed} = Array.close(array)
      assert inspect(array) =~ "closed"
    end
  end

  describe "writing" do
    test "values that a type does not have" do
      for {type, value, message} <- [
            {:u8, 256, ~r/u8/},
            {:i16, 1.0, ~r/i16/},
            {:u64, -1, ~r/u64/},
            {:f32, 1.0e39, ~r/f32/},
            {:f64, "1", ~r/f64/},
            {{:bytes, 2}, "abc", ~r/at most 2 bytes/},
            {[a: :u8], %{a: 256}, ~r/:a: :u8 needs an integer from 0 to 2\^8 - 1/},
            {[a: :u8], %{}, ~r/no field :a/},
            {[a: :u8], %{a: 1, b: 2}, ~r/no field :b/},
            {[a: :u8], [a: 1], ~r/a record is a map/},
            {[a: :u8], 1, ~r/a record is a map/}
          ] do
        {:ok, mem} = Emmap.open([:anon, size: 64])
        {:ok, array} = Array.of(mem, type)

        for put <- [&Array.put/3, fn array, n, v -> Array.put_many(array, [{0, v}, {n, v}]) end] do
          assert_raise ArgumentError, message, fn -> put.(array, 1, value) end
        end

        assert {:ok, <<0::512>>} = Emmap.pread(mem, 0, 64)
      end
    end

    test "integers become floats, infinities and NaN have names" do
      array = numbers({:f32, :big}, [1, :infinity, :neg_infinity, :nan, -0.5])
      assert Enum.to_list(array) == [1.0, :infinity, :neg_infinity, :nan, -0.5]
      assert Array.get_many(array, [3, 1]) == [:nan, :infinity]
    end

    test "an index without an element", %{path: path} do
      array = records(path, 2)
      column = Array.column(array, :id)

      for array <- [array, column], index <- [2, -3] do
        value = if array == column, do: 1, else: record(1)
        assert_raise ArgumentError, ~r/the array has 2/, fn -> Array.put(array, index, value) end

        assert_raise ArgumentError, ~r/the array has 2/, fn ->
          Array.put_many(array, [{0, value}, {index, value}])
        end
      end

      assert Enum.to_list(array) == [record(0), record(1)]
      assert File.stat!(path).size == 50
      assert_raise ArgumentError, ~r/an index is/, fn -> Array.at(array, {0, 0}) end
      assert_raise ArgumentError, ~r/an index is/, fn -> Array.at(array, 1.0) end
    end

    test "put_many joins neighbours, in any order, and a later pair wins", %{path: path} do
      array = records(path, 300)

      pairs =
        for(n <- 299..0//-1, do: {n, record(n + 1)}) ++ for(n <- 0..299, do: {n, record(2 * n)})

      assert :ok = Array.put_many(array, pairs)
      assert Enum.to_list(array) == for(n <- 0..299, do: record(2 * n))
      column = Array.column(array, :x)
      assert :ok = Array.put_many(column, %{0 => 7, 299 => -1.5})
      assert Array.at(array, 299) == %{record(598) | x: -1.5}
      assert Array.at(array, 0).x == 7.0
      assert :ok = Array.put_many(array, [])
      assert_raise ArgumentError, ~r/\{index, value\}/, fn -> Array.put_many(array, [1]) end
    end

    test "long runs are written whole" do
      {:ok, mem} = Emmap.open([:anon, size: 800_000])
      {:ok, array} = Array.of(mem, {:u64, :big})
      assert :ok = Array.put_many(array, for(n <- 0..99_999, do: {n, n}))
      assert Enum.to_list(array) == Enum.to_list(0..99_999)
    end

    test "a read-only map", %{path: path} do
      records(path, 2)
      {:ok, array} = Array.open(path, @record)
      assert {:error, :eacces} = Array.put(array, 0, record(0))
      assert {:error, :eacces} = Array.put_many(array, [{0, record(0)}])
      assert {:error, :eacces} = Array.put(Array.column(array, :id), 0, 1)
      assert {:error, :eacces} = Array.append(array, record(0))
    end
  end

  describe "append" do
    test "elements, lists and streams", %{path: path} do
      {:ok, array} = Array.open(path, {:u16, :big}, [:create, offset: 2])
      assert {:ok, 0} = Array.append(array, 1)
      assert {:ok, 1} = Array.append(array, [2, 3])
      assert {:ok, 3} = Array.append(array, 4..5)
      assert {:ok, 5} = Array.append(array, Stream.map([6], & &1))
      assert {:ok, 6} = Array.append(array, [])
      assert Enum.to_list(array) == [1, 2, 3, 4, 5, 6]
      assert File.read!(path) == <<0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6>>
      assert_raise ArgumentError, fn -> Array.append(array, [7, -1]) end
      assert Array.count(array) == 6
    end

    test "where it is not possible", %{path: path} do
      array = records(path, 1)

      assert_raise ArgumentError, ~r/a column/, fn ->
        Array.append(Array.column(array, :id), 1)
      end

      assert_raise ArgumentError, ~r/a column/, fn -> Array.append(Array.column(array, :x), 1) end
      assert_raise ArgumentError, ~r/fixed/, fn -> Array.append(Array.slice(array, 0, 1), 1) end
      {:ok, mem} = Emmap.open([:anon, size: 8])
      {:ok, anonymous} = Array.of(mem, :u8)
      assert {:error, reason} = Array.append(anonymous, 1)
      assert reason in [:enospc, :enotsup]
      {:ok, mem} = Emmap.open(path, [:write, :fixed_size])
      {:ok, fixed} = Array.of(mem, @record)
      assert {:error, :enospc} = Array.append(fixed, record(1))
      {:ok, mem} = Emmap.open(path, [:append])
      {:ok, appending} = Array.of(mem, @record)
      assert {:error, :eacces} = Array.append(appending, record(1))
      {:ok, mem} = Emmap.open(path, [:write, max_size: 60])
      {:ok, limited} = Array.of(mem, @record)
      assert {:ok, 1} = Array.append(limited, record(1))
      assert {:error, :enospc} = Array.append(limited, record(2))
      assert Array.count(limited) == 2
      assert File.stat!(path).size == 50
    end

    test "an incomplete record is overwritten, and other handles see the rest", %{path: path} do
      [one, other] = for _ <- 1..2, do: records(path, 0)
      {:ok, 0} = Array.append(one, [record(0), record(1)])
      File.write!(path, "crash", [:append])
      assert Array.count(other) == 0
      assert {:ok, 2} = Array.append(other, record(2))
      assert Enum.to_list(other) == for(n <- 0..2, do: record(n))
      assert Array.count(one) == 2
      assert :ok = Array.reattach(one)
      assert Enum.to_list(one) == for(n <- 0..2, do: record(n))
      assert File.stat!(path).size == 75
    end

    test "many processes, with handles of their own", %{path: path} do
      records(path, 0)

      1..8
      |> Enum.map(fn me ->
        Task.async(fn ->
          array =
            if rem(me, 2) == 0, do: Array.open!(path, @record, [:write]), else: records(path, 0)

          for n <- 1..200 do
            value = me * 1000 + n

            {:ok, index} =
              Array.append(array, for(k <- 0..2, do: %{record(k) | id: value, at: k}))

            # They follow each other.
            assert for(k <- 0..2, do: Array.at(array, index + k).at) == [0, 1, 2]
            index
          end
        end)
      end)
      |> Task.await_many(60_000)
      |> Enum.concat()
      |> Enum.sort()
      |> then(&assert &1 == Enum.to_list(0..(3 * 8 * 200 - 3)//3))

      array = Array.open!(path, @record)
      assert Array.count(array) == 4800

      assert Enum.frequencies(Array.column(array, :id)) ==
               for(me <- 1..8, n <- 1..200, into: %{}, do: {me * 1000 + n, 3})
    end
  end

  describe "sums, minima, maxima" do
    test "of each type, compared with Enum" do
      for type <- [:u8, :i8, {:u16, :big}, :i16, :u32, {:i32, :big}, :u64, {:i64, :big}] do
        {name, _} = if is_tuple(type), do: type, else: {type, nil}
        <<sign, bits::binary>> = to_string(name)
        bits = String.to_integer(bits)
        least = if sign == ?i, do: -Bitwise.bsl(1, bits - 1), else: 0
        most = least + Bitwise.bsl(1, bits) - 1

        for count <- [1, 2, 15, 16, 17, 1000, 1024, 1025, 5000] do
          values = [least, most | for(_ <- 1..count, do: Enum.random(least..most))]
          array = numbers(type, values)
          assert Array.sum(array) == Enum.sum(values)
          assert Array.min(array) == least
          assert Array.max(array) == most
          part = Array.slice(array, 2, count)
          assert Array.sum(part) == values |> Enum.drop(2) |> Enum.sum()
          assert Array.min(part) == values |> Enum.drop(2) |> Enum.min()
          assert Array.max(part) == values |> Enum.drop(2) |> Enum.max()
        end
      end
    end

    test "more than 64 bits" do
      values = List.duplicate(0xFFFF_FFFF_FFFF_FFFF, 3000)
      assert Array.sum(numbers(:u64, values)) == Enum.sum(values)
      values = List.duplicate(-0x8000_0000_0000_0000, 3000)
      assert Array.sum(numbers(:i64, values)) == Enum.sum(values)
    end

    test "in several steps, with the same bits as in one" do
      count = 3_000_000
      {:ok, mem} = Emmap.open([:anon, size: 8 * count])
      bytes = for n <- 1..count, into: <<>>, do: <<1 / n::float-64-native>>
      :ok = Emmap.pwrite(mem, 0, bytes)
      {:ok, array} = Array.of(mem, :f64)
      sum = Array.sum(array)
      assert_in_delta sum, :math.log(count) + 0.5772156649015329 + 1 / (2 * count), 1.0e-12
      for _ <- 1..3, do: assert(Array.sum(array) == sum)
      assert {Array.min(array), Array.max(array)} == {1 / count, 1.0}
      {:ok, integers} = Array.of(mem, :u64)
      wanted = for <<n::native-64 <- bytes>>, reduce: 0, do: (sum -> sum + n)
      assert Array.sum(integers) == wanted
      assert Array.max(integers) == 0x3FF0_0000_0000_0000
    end

    test "floats that are not finite" do
      assert Array.sum(numbers(:f64, [1.0, :infinity])) == :infinity
      assert Array.sum(numbers(:f64, [:neg_infinity, :infinity])) == :nan
      assert Array.sum(numbers(:f32, [1.0, :nan])) == :nan
      assert Array.sum(numbers(:f64, [1.7e308, 1.7e308])) == :infinity
      array = numbers({:f64, :big}, [1.0, :infinity, -2.0, :neg_infinity])
      assert {Array.min(array), Array.max(array)} == {:neg_infinity, :infinity}
      array = numbers(:f32, [1.0, :infinity, :nan] ++ List.duplicate(0.0, 3000))
      assert {Array.min(array), Array.max(array)} == {:nan, :nan}
    end

    test "of a field, and of what has none", %{path: path} do
      array = records(path, 5000)
      assert Array.sum(array, :id) == Enum.sum(0..4999)
      assert Array.sum(array, :at) == Enum.sum(for n <- 0..4999, do: n * 10 - 5)
      assert {Array.min(array, :x), Array.max(array, :x)} == {0.0, 2499.5}
      assert_raise ArgumentError, ~r/name a field/, fn -> Array.sum(array) end
      assert_raise ArgumentError, ~r/binaries have no/, fn -> Array.max(array, :name) end

      assert_raise ArgumentError, ~r/no field :y; there are :id, :at, :name, :x/, fn ->
        Array.sum(array, :y)
      end

      assert_raise ArgumentError, ~r/not an array of records/, fn ->
        Array.sum(Array.column(array, :x), :y)
      end
    end

    test "a killed process ends", %{path: path} do
      {:ok, array} = Array.open(path, :f64, [:create, :sparse, count: 500_000_000])
      pid = spawn(fn -> Array.sum(array) end)
      Process.sleep(20)
      monitor = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 1000
      Array.close(array)
      File.rm!(path)
    end
  end

  describe "sorted columns" do
    test "binary_search and range, compared with a list" do
      for _ <- 1..50 do
        values = Enum.sort(for _ <- 1..Enum.random(1..60), do: Enum.random(-20..20))
        array = numbers(Enum.random([:i8, {:i16, :big}, :i64, :f32, {:f64, :big}]), values)

        for value <- -22..22 do
          index = Enum.find_index(values, &(&1 >= value)) || length(values)
          found = if value in values, do: :ok, else: :none
          assert Array.binary_search(array, value) == {found, index}

          last = value + Enum.random(-2..10)
          inside = Enum.filter(values, &(&1 >= value and &1 <= last))
          assert array |> Array.range(value, last) |> Enum.map(&round/1) == inside
        end
      end
    end

    test "values outside of the type" do
      array = numbers(:u8, [0, 7, 255])
      assert Array.binary_search(array, -1) == {:none, 0}
      assert Array.binary_search(array, 256) == {:none, 3}
      assert Array.binary_search(array, Bitwise.bsl(1, 200)) == {:none, 3}
      assert Array.binary_search(array, -Bitwise.bsl(1, 200)) == {:none, 0}

      assert array |> Array.range(-Bitwise.bsl(1, 70), Bitwise.bsl(1, 70)) |> Enum.to_list() == [
               0,
               7,
               255
             ]

      assert array |> Array.range(8, 6) |> Enum.to_list() == []

      assert_raise ArgumentError, ~r/an integer is needed/, fn ->
        Array.binary_search(array, 1.0)
      end

      assert Array.binary_search(numbers(:u64, [0xFFFF_FFFF_FFFF_FFFF]), 0xFFFF_FFFF_FFFF_FFFF) ==
               {:ok, 0}

      floats = numbers(:f64, [:neg_infinity, -0.0, 1.5, :infinity, :nan, :nan])
      assert Array.binary_search(floats, 0) == {:ok, 1}
      assert Array.binary_search(floats, :infinity) == {:ok, 3}
      assert Array.binary_search(floats, 1.6) == {:none, 3}
      assert floats |> Array.range(:neg_infinity, :infinity) |> Array.count() == 4
      assert_raise ArgumentError, ~r/a number/, fn -> Array.binary_search(floats, :nan) end

      assert_raise ArgumentError, ~r/represent/, fn ->
        Array.binary_search(floats, Bitwise.bsl(1, 2000))
      end
    end

    test "records by a field", %{path: path} do
      array = records(path, 200)
      assert Array.binary_search(array, :at, 15) == {:ok, 2}
      assert Array.binary_search(array, :at, 16) == {:none, 3}
      assert array |> Array.range(:at, 10, 40) |> Enum.map(& &1.id) == [2, 3, 4]
      assert Array.binary_search(array, :name, <<5>>) == {:none, 5}
      assert Array.binary_search(array, :name, <<5, 1, 2>>) == {:ok, 5}
      assert array |> Array.range(:name, <<3>>, <<5, 1, 2>>) |> Enum.map(& &1.id) == [3, 4, 5]

      assert_raise ArgumentError, ~r/at most 3/, fn ->
        Array.binary_search(array, :name, "abcd")
      end

      assert_raise ArgumentError, ~r/name the field/, fn -> Array.binary_search(array, 1) end
      # A part of a part.
      later = Array.range(array, :at, 1000, 1_000_000)
      assert later |> Array.range(:id, 150, 152) |> Array.sum(:x) == 226.5
    end
  end

  describe "slices, chunks and columns" do
    test "slice", %{path: path} do
      array = records(path, 10)
      ids = fn part -> part |> Array.column(:id) |> Enum.to_list() end
      assert ids.(Array.slice(array, 3, 2)) == [3, 4]
      assert ids.(Array.slice(array, -3, 2)) == [7, 8]
      assert ids.(Array.slice(array, -30, 2)) == [0, 1]
      assert ids.(Array.slice(array, 8, 5)) == [8, 9]
      assert ids.(Array.slice(array, 11, 5)) == []
      part = Array.slice(array, 2, 5)
      assert ids.(Array.slice(part, 4, 9)) == [6]
      assert Array.at(part, 5) == nil
      assert Array.at(Array.column(part, :id), -1) == 6
      {:ok, 10} = Array.append(array, record(10))
      assert Array.count(part) == 5
      assert_raise ArgumentError, fn -> Array.slice(array, 0, -1) end
    end

    test "chunks are all of it, in order", %{path: path} do
      array = records(path, 103)

      for n <- [1, 2, 7, 103, 200] do
        chunks = Array.chunks(array, n)
        assert length(chunks) == min(n, 103)
        assert Enum.flat_map(chunks, &Enum.to_list/1) == Enum.to_list(array)
        sizes = Enum.map(chunks, &Array.count/1)
        assert Enum.max(sizes) - Enum.min(sizes) <= 1
      end

      sum =
        array
        |> Array.chunks(4)
        |> Task.async_stream(&Array.sum(&1, :id))
        |> Enum.reduce(0, fn {:ok, sum}, all -> sum + all end)

      assert sum == Enum.sum(0..102)
      assert_raise ArgumentError, fn -> Array.chunks(array, 0) end
    end

    test "a column is an array of the same memory", %{path: path} do
      array = records(path, 4000)
      column = Array.column(array, :at)
      assert Enum.to_list(column) == for(n <- 0..3999, do: n * 10 - 5)
      assert Array.nx_type(column) == {:s, 64}

      assert Array.info(column) ==
               {:ok,
                %{
                  type: {:i64, :big},
                  nx_type: {:s, 64},
                  shape: {4000},
                  count: 4000,
                  order: :c,
                  offset: 8,
                  stride: 25
                }}

      :ok = Array.put(column, 7, -1)
      assert Array.at(array, 7) == %{record(7) | at: -1}

      assert Array.to_binary(column) ==
               for(n <- Enum.to_list(column), into: <<>>, do: <<n::native-64>>)

      names = Array.column(array, :name)
      assert Array.to_binary(names) == for(n <- 0..3999, into: <<>>, do: record(n).name)
      assert_raise ArgumentError, ~r/to_binary/, fn -> Array.view(column) end
      assert_raise ArgumentError, ~r/name a field/, fn -> Array.to_binary(array) end
    end
  end

  describe "protocols" do
    test "Enumerable", %{path: path} do
      array = records(path, 2000)
      column = Array.column(array, :id)
      assert Enum.count(array) == 2000
      assert Enum.at(array, 1999) == record(1999)
      assert Enum.slice(column, 5..9) == [5, 6, 7, 8, 9]
      assert Enum.slice(column, 5..11//3) == [5, 8, 11]
      assert Enum.member?(column, 77)
      refute Enum.member?(column, -77)
      assert Enum.take(column, 3) == [0, 1, 2]
      assert column |> Stream.map(& &1) |> Enum.take(1) == [0]
      assert [column, column] |> Stream.zip() |> Enum.at(1500) == {1500, 1500}
      assert Enum.sum(column) == Array.sum(column)
      assert Enum.reverse(column) |> hd() == 1999
      # More than one piece, and the elements that there were at the beginning.
      seen =
        Enum.map(array, fn %{id: id} ->
          if(id == 0, do: Array.append(array, record(0)))
          id
        end)

      assert seen == Enum.to_list(0..1999)
    end

    test "Access", %{path: path} do
      array = records(path, 5)
      assert array[1] == record(1)
      assert array[-1] == record(4)
      assert array[5] == nil
      assert array[:x][3] == 1.5
      assert array[:y] == nil
      assert get_in(array, [Access.key(:mem)]) == array.mem
      assert_raise ArgumentError, ~r/changes in place/, fn -> put_in(array[1], record(2)) end
      assert_raise ArgumentError, ~r/removed/, fn -> pop_in(array[1]) end
    end

    test "Inspect" do
      assert inspect(numbers(:u8, [65, 66])) == "#Emmap.Array<:u8 {2} [65, 66]>"
      assert inspect(numbers(:u8, Enum.to_list(1..100)), limit: 3) =~ "{100} [1, 2, 3, ...]>"
      assert inspect(numbers([a: :u8], [%{a: 1}])) == "#Emmap.Array<[a: :u8] {1} [%{a: 1}]>"
    end

    test "an array is not a handle" do
      assert_raise ArgumentError, ~r/not a handle of Emmap.open, but of Emmap.Array/, fn ->
        Emmap.get(numbers(:u8, [1]), 0, :u8)
      end
    end

    test "what is no array" do
      {:ok, mem} = Emmap.open([:anon, size: 8])

      for call <- [
            &Array.count/1,
            &Array.sum/1,
            &Array.at(&1, 0),
            &Array.shape/1,
            &Array.append(&1, 1),
            &Array.chunks(&1, 1)
          ] do
        assert_raise ArgumentError, ~r/not an array, but a handle/, fn -> call.(mem) end
        assert_raise ArgumentError, ~r/not an array/, fn -> call.([1]) end
        assert_raise ArgumentError, ~r/whole result/, fn -> call.(Array.of(mem, :u8)) end
      end
    end
  end

  describe "tensors" do
    test "a shape, and indices with a number for each dimension", %{path: path} do
      File.write!(path, for(n <- 0..23, into: <<>>, do: <<n::native-16>>))
      {:ok, array} = Array.open(path, :u16, shape: {2, 3, 4})
      assert Array.count(array) == 24
      assert Array.shape(array) == {2, 3, 4}

      assert for(i <- 0..1, j <- 0..2, k <- 0..3, do: Array.at(array, {i, j, k})) ==
               Enum.to_list(0..23)

      assert Array.at(array, {2, 0, 0}) == nil
      assert Array.at(array, {0, -1, 0}) == nil
      assert Array.get_many(array, [{1, 2, 3}, {0, 0, 9}]) == [23, nil]
      assert array[{1, 0, 0}] == 12
      assert_raise ArgumentError, ~r/each dimension/, fn -> Array.at(array, {0, 0}) end
      # Up to the call of Nx.
      assert {:ok, binary} = Array.view(array)
      assert binary == File.read!(path)
      assert Array.nx_type(array) == {:u, 16}
      {:ok, scalar} = Array.open(path, :u16, shape: {})
      assert {Array.count(scalar), Array.at(scalar, {})} == {1, 0}
    end

    test "other byte orders are swapped in a copy, and refused as a view" do
      other = if <<1::native-16>> == <<1::little-16>>, do: :big, else: :little
      array = numbers({:f64, other}, [1.5, -2.0])
      assert Array.to_binary(array) == <<1.5::float-native-64, -2.0::float-native-64>>
      assert_raise ArgumentError, ~r/another byte order/, fn -> Array.view(array) end
      assert {:ok, <<1>>} = Array.view(numbers({:u8, other}, [1]))
    end

    test "a large copy" do
      {:ok, mem} = Emmap.open([:anon, size: 4_000_000])
      {:ok, array} = Array.of(mem, {:u32, :big}, offset: 3)
      :ok = Array.put(array, 999_998, 7)
      binary = Array.to_binary(array)
      assert byte_size(binary) == 3_999_996
      assert binary_part(binary, 3_999_992, 4) == <<7::native-32>>
    end
  end
end
