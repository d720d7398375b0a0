defmodule Emmap.TypedTest do
  use ExUnit.Case, async: true
  import Bitwise

  @moduletag :tmp_dir

  @integers [
    {:u8, 8, 0..0xFF},
    {:i8, 8, -0x80..0x7F},
    {:u16, 16, 0..0xFFFF},
    {:i16, 16, -0x8000..0x7FFF},
    {:u32, 32, 0..0xFFFF_FFFF},
    {:i32, 32, -0x8000_0000..0x7FFF_FFFF},
    {:u64, 64, 0..0xFFFF_FFFF_FFFF_FFFF},
    {:i64, 64, -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF}
  ]

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "numbers")
    File.write!(path, :binary.copy(<<0xA5>>, 200))
    %{path: path, mem: Emmap.open!(path, [:write])}
  end

  # What Elixir's own bit syntax makes of the same value.
  defp bytes({name, order}, value), do: bytes(name, order, value)
  defp bytes(name, value), do: bytes(name, :native, value)

  defp bytes(name, order, value) do
    case {name in [:f32, :f64], bits(name), order} do
      {true, bits, :big} -> <<value::float-big-size(bits)>>
      {true, bits, :little} -> <<value::float-little-size(bits)>>
      {true, bits, :native} -> <<value::float-native-size(bits)>>
      {false, bits, :big} -> <<value::big-size(bits)>>
      {false, bits, :little} -> <<value::little-size(bits)>>
      {false, bits, :native} -> <<value::native-size(bits)>>
    end
  end

  defp bits(name), do: name |> to_string() |> String.slice(1, 2) |> String.to_integer()

  defp orders(name), do: [name | for(order <- [:big, :little, :native], do: {name, order})]

  test "integers of each type, order and alignment, compared with the bit syntax", %{mem: mem} do
    for {name, bits, least..most} <- @integers, type <- orders(name), at <- [0, 1, 3, 64, 101] do
      bytes = div(bits, 8)

      for value <- [least, least + 1, 0, 1, 2, most - 1, most, Enum.random(least..most)] do
        {:ok, before} = Emmap.pread(mem, 0, 200)
        assert :ok = Emmap.put(mem, at, type, value)
        assert {:ok, ^value} = Emmap.get(mem, at, type)
        {:ok, now} = Emmap.pread(mem, 0, 200)
        # Not a byte besides.
        assert now ==
                 binary_part(before, 0, at) <>
                   bytes(type, value) <>
                   binary_part(before, at + bytes, 200 - at - bytes)
      end

      for value <- [least - 1, most + 1, least - (1 <<< 70), most + (1 <<< 70), 1.0, :nan, "1"] do
        message = ~r/an? #{name} is an integer from #{least} to #{most}/
        assert_raise ArgumentError, message, fn -> Emmap.put(mem, at, type, value) end
      end
    end
  end

  test "numbers of eight bytes, in two pages and at the end, with a lock and without" do
    for options <- [[], [:nolock]] do
      {:ok, mem} = Emmap.open([:anon, size: 8192] ++ options)

      for type <- [:u64, :i64, :f64, {:u64, :big}] do
        for at <- [4088, 4089, 4095, 4096, 8184] do
          assert :ok = Emmap.put(mem, at, type, 7)
          assert {:ok, value} = Emmap.get(mem, at, type)
          assert value == 7
        end

        for at <- [8185, 8191, 8192, 1 <<< 62], do: assert(Emmap.get(mem, at, type) == :eof)
        for at <- [-1, 1 <<< 70], do: assert(Emmap.get(mem, at, type) == {:error, :einval})
        assert_raise ArgumentError, fn -> Emmap.get(mem, :start, type) end
      end

      :ok = Emmap.close(mem)
      assert Emmap.get(mem, 0, :u64) == {:error, :closed}
    end
  end

  test "floats", %{mem: mem} do
    for {name, values} <- [
          f32: [0.0, -0.0, 1.5, -2.25, 3.4028234663852886e38, 1.401298464324817e-45],
          f64: [0.0, -0.0, 0.1, -1.0e-320, 1.7976931348623157e308, 5.0e-324]
        ],
        type <- orders(name),
        value <- values do
      assert :ok = Emmap.put(mem, 5, type, value)
      assert {:ok, read} = Emmap.get(mem, 5, type)
      # The sign of a zero, too.
      assert <<read::float>> == <<value::float>>
      assert Emmap.pread(mem, 5, div(bits(name), 8)) == {:ok, bytes(type, value)}
    end

    # Rounded to the nearest.
    :ok = Emmap.put(mem, 0, :f32, 0.1)
    assert {:ok, 0.10000000149011612} = Emmap.get(mem, 0, :f32)
    # Integers of any size.
    for {value, read} <- [{7, 7.0}, {-3, -3.0}, {1 <<< 80, 1.2089258196146292e24}] do
      for type <- [:f32, :f64] do
        :ok = Emmap.put(mem, 1, type, value)
        assert {:ok, ^read} = Emmap.get(mem, 1, type)
      end
    end

    for value <- [3.5e38, -3.5e38, 1 <<< 130, -(1 <<< 130), 1 <<< 5000, :inf, "1", nil] do
      assert_raise ArgumentError, ~r/an f32 is a number from -3.4/, fn ->
        Emmap.put(mem, 0, :f32, value)
      end
    end

    for value <- [1 <<< 1024, -(1 <<< 1024), :inf, "1"] do
      assert_raise ArgumentError, ~r/an f64 is a number from -1.79/, fn ->
        Emmap.put(mem, 0, :f64, value)
      end
    end
  end

  test "values that are not finite have names, for reading and writing", %{mem: mem} do
    for {name, infinity, nans} <- [
          {:f32, 0x7F80_0000, [0x7FC0_0000, 0x7F80_0001, 0xFFFF_FFFF, 0x7FFF_0000]},
          {:f64, 0x7FF0 <<< 48, [0x7FF8 <<< 48, (0x7FF0 <<< 48) + 1, 0xFFFF_FFFF_FFFF_FFFF]}
        ],
        order <- [:big, :little] do
      bits = bits(name)
      integer = {:"u#{bits}", order}

      for nan <- nans do
        :ok = Emmap.put(mem, 3, integer, nan)
        assert {:ok, :nan} = Emmap.get(mem, 3, {name, order})
      end

      :ok = Emmap.put(mem, 3, integer, infinity)
      assert {:ok, :infinity} = Emmap.get(mem, 3, {name, order})
      :ok = Emmap.put(mem, 3, integer, infinity + (1 <<< (bits - 1)))
      assert {:ok, :neg_infinity} = Emmap.get(mem, 3, {name, order})

      for value <- [:nan, :infinity, :neg_infinity] do
        assert :ok = Emmap.put(mem, 3, {name, order}, value)
        assert {:ok, ^value} = Emmap.get(mem, 3, {name, order})
      end
    end
  end

  test "the end, places that are none, and what grows", %{mem: mem, path: path} do
    for {name, bits} <- [u8: 8, i16: 16, u32: 32, f32: 32, i64: 64, f64: 64] do
      bytes = div(bits, 8)
      assert {:ok, _} = Emmap.get(mem, 200 - bytes, name)
      for past <- 1..bytes, do: assert(:eof = Emmap.get(mem, 200 - bytes + past, name))

      for at <- [-1, 1 <<< 64, -(1 <<< 70)],
          do: assert({:error, :einval} = Emmap.get(mem, at, name))

      assert :eof = Emmap.get(mem, 1 <<< 62, name)
      assert {:error, :einval} = Emmap.put(mem, -1, name, 1)
      assert {:error, :einval} = Emmap.put(mem, (1 <<< 63) - 1, name, 1)
    end

    assert File.stat!(path).size == 200
    assert :ok = Emmap.put(mem, 197, {:u32, :big}, 0x0102_0304)
    assert File.stat!(path).size == 201
    assert {:ok, <<1, 2, 3, 4>>} = Emmap.pread(mem, 197, 10)
    assert :ok = Emmap.put(mem, 300, :u8, 9)
    assert {:ok, 0} = Emmap.get(mem, 292, :u64)

    fixed = Emmap.open!(path, [:write, :fixed_size])
    assert {:error, :enospc} = Emmap.put(fixed, 300, :u16, 1)
    assert {:ok, 9} = Emmap.get(fixed, 300, :u8)
    read_only = Emmap.open!(path)
    assert {:error, :eacces} = Emmap.put(read_only, 0, :u8, 1)
    assert {:error, :eacces} = Emmap.fill(read_only, 0, 1, 1)
    assert {:error, :eacces} = Emmap.copy(read_only, 0, 1, 1)
    assert {:ok, 9} = Emmap.get(read_only, 300, :u8)

    for call <- typed_calls() do
      :ok = call.(mem)
    end

    :ok = Emmap.close(mem)
    for call <- typed_calls(), do: assert({:error, :closed} = call.(mem))
    assert {:error, :closed} = Emmap.get(mem, 0, :u8)
  end

  defp typed_calls,
    do: [&Emmap.put(&1, 0, :u8, 1), &Emmap.fill(&1, 0, 1, 1), &Emmap.copy(&1, 0, 1, 1)]

  test "unknown types and handles", %{mem: mem} do
    for type <- [:u24, :s8, :f16, "u8", {:u8, :middle}, {:u8}, nil, 8] do
      assert_raise ArgumentError, ~r/unknown type .*valid are :u8, :i8/, fn ->
        Emmap.get(mem, 0, type)
      end

      assert_raise ArgumentError, ~r/unknown type/, fn -> Emmap.put(mem, 0, type, 1) end
    end

    assert_raise ArgumentError, ~r/position must be an integer/, fn ->
      Emmap.get(mem, 1.0, :u8)
    end

    for call <- [
          &Emmap.get(&1, 0, :u8),
          &Emmap.put(&1, 0, :u8, 1),
          &Emmap.put(&1, 0, :f32, 1.0),
          &Emmap.fill(&1, 0, 1, 1),
          &Emmap.copy(&1, 0, 1, 1)
        ] do
      assert_raise ArgumentError, ~r/not an open Emmap handle/, fn -> call.(:mem) end
    end
  end

  describe "fill" do
    test "sets a range and nothing besides, inline and dirty", %{mem: mem} do
      :ok = Emmap.resize(mem, 3_000_000)

      for {at, count} <- [{0, 1}, {3, 0}, {17, 100}, {1, 65_536}, {4095, 65_537}, {1, 2_999_999}] do
        {:ok, before} = Emmap.pread(mem, 0, 3_000_000)
        byte = Enum.random(0..255)
        assert :ok = Emmap.fill(mem, at, count, byte)
        {:ok, now} = Emmap.pread(mem, 0, 3_000_000)
        rest = binary_part(before, at + count, 3_000_000 - at - count)
        assert now == binary_part(before, 0, at) <> :binary.copy(<<byte>>, count) <> rest
      end
    end

    test "past the end", %{mem: mem, path: path} do
      assert :ok = Emmap.fill(mem, 198, 4, ?x)
      assert {:ok, <<0xA5, "xxxx">>} = Emmap.pread(mem, 197, 10)
      assert :ok = Emmap.fill(mem, 100_000, 200_000, ?y)
      assert File.stat!(path).size == 300_000
      assert {:ok, <<0, "y">>} = Emmap.pread(mem, 99_999, 2)
      assert {:ok, "y"} = Emmap.pread(mem, 299_999, 2)
      fixed = Emmap.open!(path, [:write, :fixed_size])
      assert {:error, :enospc} = Emmap.fill(fixed, 299_999, 2, 0)
      assert {:ok, "y"} = Emmap.pread(mem, 299_999, 2)
      # Nothing to write makes nothing longer, as with pwrite.
      assert :ok = Emmap.fill(mem, 500_000, 0, 0)
      assert :ok = Emmap.pwrite(mem, 500_000, "")
      assert File.stat!(path).size == 300_000
      assert {:error, :einval} = Emmap.fill(mem, -1, 1, 0)
      assert {:error, :einval} = Emmap.fill(mem, 1, (1 <<< 63) - 1, 0)
      assert {:error, :einval} = Emmap.fill(mem, 1, 1 <<< 70, 0)
      assert File.stat!(path).size == 300_000
    end

    test "what is no byte and no count", %{mem: mem} do
      for byte <- [-1, 256, 1.0, "x", nil, 1 <<< 70] do
        assert_raise ArgumentError, ~r/byte must be an integer from 0 to 255/, fn ->
          Emmap.fill(mem, 0, 1, byte)
        end
      end

      assert_raise ArgumentError, ~r/number of bytes/, fn -> Emmap.fill(mem, 0, -1, 0) end
    end
  end

  describe "copy" do
    test "overlapping either way, beside binaries", %{mem: mem} do
      :ok = Emmap.resize(mem, 400_000)
      :ok = Emmap.pwrite(mem, 0, :rand.bytes(400_000))

      for {from, to, count} <- [
            {0, 1, 100},
            {1, 0, 100},
            {5, 5, 50},
            {0, 300, 0},
            {10, 8000, 5000},
            {0, 7, 300_000},
            {7, 0, 300_000},
            {100_000, 90_000, 300_000},
            {0, 100_000, 300_000}
          ] do
        {:ok, before} = Emmap.pread(mem, 0, 400_000)
        assert :ok = Emmap.copy(mem, from, to, count)
        {:ok, now} = Emmap.pread(mem, 0, 400_000)
        rest = binary_part(before, to + count, 400_000 - to - count)
        assert now == binary_part(before, 0, to) <> binary_part(before, from, count) <> rest
      end
    end

    test "the end", %{mem: mem, path: path} do
      :ok = Emmap.pwrite(mem, 190, "0123456789")

      for {from, count} <- [{191, 10}, {200, 1}, {0, 201}, {1 <<< 62, 1}, {0, 1 <<< 70}] do
        assert {:error, :einval} = Emmap.copy(mem, from, 0, count)
        assert {:error, :einval} = Emmap.copy(mem, from, 1000, count)
      end

      for {from, to} <- [{-1, 0}, {0, -1}, {1 <<< 64, 0}, {0, 1 <<< 64}],
          do: assert({:error, :einval} = Emmap.copy(mem, from, to, 1))

      assert File.stat!(path).size == 200
      assert :ok = Emmap.copy(mem, 190, 195, 10)
      assert File.stat!(path).size == 205
      assert {:ok, "012340123456789"} = Emmap.pread(mem, 190, 100)
      assert :ok = Emmap.copy(mem, 0, 400_000, 200)
      assert File.stat!(path).size == 400_200
      fixed = Emmap.open!(path, [:write, :fixed_size])
      assert {:error, :enospc} = Emmap.copy(fixed, 0, 400_199, 2)
      assert :ok = Emmap.copy(mem, 1000, 0, 0)
      assert_raise ArgumentError, ~r/number of bytes/, fn -> Emmap.copy(mem, 0, 1, -1) end
    end

    # Each writer's range is of one byte; a copy of half of one would mix two.
    test "atomic towards writes, long ones too", %{mem: mem} do
      :ok = Emmap.resize(mem, 400_000)
      :ok = Emmap.fill(mem, 0, 400_000, ?a)

      writer =
        spawn_link(fn ->
          for byte <- Stream.cycle(~c"abc"), do: :ok = Emmap.fill(mem, 0, 200_000, byte)
        end)

      for _ <- 1..200 do
        :ok = Emmap.copy(mem, 0, 200_000, 200_000)
        {:ok, <<first, _::binary>> = copied} = Emmap.pread(mem, 200_000, 200_000)
        copied == :binary.copy(<<first>>, 200_000) || flunk("torn")
      end

      Process.unlink(writer)
      Process.exit(writer, :kill)
    end
  end

  test "writes to a private map do not reach the file", %{path: path} do
    mem = Emmap.open!(path, [:write, :private])
    :ok = Emmap.put(mem, 0, :u32, 7)
    :ok = Emmap.fill(mem, 8, 4, ?x)
    :ok = Emmap.copy(mem, 8, 12, 4)
    assert {:ok, 7} = Emmap.get(mem, 0, :u32)
    assert {:ok, "xxxxxxxx"} = Emmap.pread(mem, 8, 8)
    assert File.read!(path) == :binary.copy(<<0xA5>>, 200)
  end

  test "4: truncated under typed access", %{path: path} do
    for call <- [
          "Emmap.get(mem, 30_000, :u64)",
          "Emmap.put(mem, 30_000, :f32, 1.0)",
          "Emmap.fill(mem, 30_000, 10, 0)",
          "Emmap.fill(mem, 0, 400_000, 0)",
          "Emmap.copy(mem, 0, 30_000, 10)",
          "Emmap.copy(mem, 300_000, 0, 10)",
          "Emmap.copy(mem, 0, 100_000, 300_000)"
        ] do
      assert Emmap.Test.ChildVM.run!("""
             path = #{inspect(path)}
             File.write!(path, :binary.copy("x", 400_000))
             {:ok, mem} = Emmap.open(path, [:write, :fixed_size])
             {:ok, raw} = :file.open(path, [:raw, :read, :write])
             {:ok, _} = :file.position(raw, 5000)
             :ok = :file.truncate(raw)
             {#{call}, Emmap.get(mem, 0, :u8)}
             """) == {{:error, :estale}, {:error, :estale}}
    end
  end

  test "from Erlang", %{mem: mem} do
    assert :ok = :emmap.put(mem, 1, {:u16, :big}, 258)
    assert {:ok, 258} = :emmap.get(mem, 1, {:u16, :big})
    assert :ok = :emmap.fill(mem, 3, 2, 7)
    assert :ok = :emmap.copy(mem, 1, 5, 4)
    assert {:ok, <<1, 2, 7, 7, 1, 2, 7, 7>>} = :emmap.pread(mem, 1, 8)
  end
end
