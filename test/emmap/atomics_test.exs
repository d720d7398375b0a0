defmodule Emmap.AtomicsTest do
  use ExUnit.Case, async: true
  import Bitwise

  @moduletag :tmp_dir
  @least -0x8000_0000_0000_0000
  @most 0x7FFF_FFFF_FFFF_FFFF

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "words")
    %{path: path, mem: Emmap.open!(path, [:write, :create, size: 4096])}
  end

  test "each operation returns the value before", %{mem: mem} do
    assert {:ok, 0} = Emmap.patomic(mem, 0, :add, 10)
    assert {:ok, 10} = Emmap.patomic(mem, 0, :add, 10)
    assert {:ok, 20} = Emmap.patomic(mem, 0, :sub, 5)
    assert {:ok, 15} = Emmap.patomic(mem, 0, :sub, 12)
    assert {:ok, 3} = Emmap.patomic(mem, 0, :and, 7)
    assert {:ok, 3} = Emmap.patomic(mem, 0, :or, 7)
    assert {:ok, 7} = Emmap.patomic(mem, 0, :xor, 9)
    assert {:ok, 14} = Emmap.patomic(mem, 0, :xchg, 10)
    assert {:ok, 10} = Emmap.patomic(mem, 0, :band, 2)
    assert {:ok, 2} = Emmap.patomic(mem, 0, :bor, 4)
    assert {:ok, 6} = Emmap.patomic(mem, 0, :bxor, 1)
    assert {:ok, 7} = Emmap.patomic(mem, 0, :min, -3)
    assert {:ok, -3} = Emmap.patomic(mem, 0, :max, 5)
    assert :ok = Emmap.patomic_cas(mem, 0, 5, 6)
    assert 6 = Emmap.patomic_cas(mem, 0, 5, 7)
    assert {:ok, 6} = Emmap.patomic_read(mem, 0)
    assert :ok = Emmap.patomic_write(mem, 0, @least)
    assert {:ok, @least} = Emmap.patomic_read(mem, 0)
  end

  test "the integer is the file's eight bytes, native and signed", %{mem: mem, path: path} do
    {:ok, 0} = Emmap.patomic(mem, 16, :sub, 2)
    assert <<_::binary-16, -2::signed-native-64, _::binary>> = File.read!(path)
    :ok = Emmap.pwrite(mem, 24, <<12::signed-native-64>>)
    assert {:ok, 12} = Emmap.patomic_read(mem, 24)
  end

  # The model: OTP's own atomics, with values near every border.
  test "wraps and answers as :atomics does", %{mem: mem} do
    model = :atomics.new(1, signed: true)
    seed = String.to_integer(System.get_env("EMMAP_SEED") || "#{:rand.uniform(1_000_000)}")
    :rand.seed(:exsss, {seed, 3, 4})

    for step <- 1..20_000 do
      {operation, arguments} = operation()
      ours = attempt(fn -> ours(mem, operation, arguments) end)
      theirs = attempt(fn -> theirs(model, operation, arguments) end)

      assert ours == theirs,
             "seed #{seed} (EMMAP_SEED), step #{step}: #{operation} #{inspect(arguments)}: #{inspect({ours, theirs})}"
    end
  end

  defp operation do
    value = fn ->
      border = Enum.random([0, 1, -1, @least, @most, 0xFFFF_FFFF_FFFF_FFFF, 1 <<< 62, 1 <<< 32])
      Enum.random([border, border + :rand.uniform(5) - 3, :rand.uniform(1 <<< 62)])
    end

    case :rand.uniform(6) do
      1 -> {:add, [value.()]}
      2 -> {:sub, [value.()]}
      3 -> {:put, [value.()]}
      4 -> {:exchange, [value.()]}
      5 -> {:compare_exchange, [Enum.random([value.(), :current]), value.()]}
      6 -> {:get, []}
    end
  end

  defp attempt(act) do
    act.()
  rescue
    ArgumentError -> :argument_error
  end

  # Each returns the new value, or the result of compare_exchange.
  defp ours(mem, :compare_exchange, [:current, new]) do
    {:ok, now} = Emmap.patomic_read(mem, 8)
    ours(mem, :compare_exchange, [now, new])
  end

  defp ours(mem, :compare_exchange, [expected, new]) do
    Emmap.patomic_cas(mem, 8, expected, new)
  end

  defp ours(mem, :get, []), do: elem(Emmap.patomic_read(mem, 8), 1)
  defp ours(mem, :put, [value]), do: Emmap.patomic_write(mem, 8, value)
  defp ours(mem, :exchange, [value]), do: elem(Emmap.patomic(mem, 8, :xchg, value), 1)

  defp ours(mem, operation, [value]) do
    {:ok, _} = Emmap.patomic(mem, 8, operation, value)
    elem(Emmap.patomic_read(mem, 8), 1)
  end

  defp theirs(model, :compare_exchange, [:current, new]),
    do: :atomics.compare_exchange(model, 1, :atomics.get(model, 1), new)

  defp theirs(model, :compare_exchange, [expected, new]),
    do: :atomics.compare_exchange(model, 1, expected, new)

  defp theirs(model, :get, []), do: :atomics.get(model, 1)
  defp theirs(model, :put, [value]), do: :atomics.put(model, 1, value)
  defp theirs(model, :exchange, [value]), do: :atomics.exchange(model, 1, value)
  defp theirs(model, :add, [value]), do: :atomics.add_get(model, 1, value)
  defp theirs(model, :sub, [value]), do: :atomics.sub_get(model, 1, value)

  test "min and max are signed, and bit operations take either sign", %{mem: mem} do
    for a <- [0, 1, -1, @least, @most], b <- [0, 1, -1, @least, @most] do
      for {operation, fun} <- [min: &min/2, max: &max/2, and: &band/2, or: &bor/2, xor: &bxor/2] do
        :ok = Emmap.patomic_write(mem, 0, a)
        assert {:ok, ^a} = Emmap.patomic(mem, 0, operation, b)
        assert {:ok, fun.(a, b)} == Emmap.patomic_read(mem, 0)
      end
    end
  end

  test "16: misaligned, across the end, read-only", %{mem: mem, path: path} do
    for position <- [1, 4, 7, 4089, 4092, 4096, 4104, -8, -1, 1 <<< 63, 1 <<< 64] do
      assert {:error, :einval} = Emmap.patomic(mem, position, :add, 1)
      assert {:error, :einval} = Emmap.patomic_cas(mem, position, 0, 1)
      assert {:error, :einval} = Emmap.patomic_read(mem, position)
      assert {:error, :einval} = Emmap.patomic_write(mem, position, 1)
    end

    assert {:ok, 0} = Emmap.patomic(mem, 4088, :add, 1)
    read_only = Emmap.open!(path)
    assert {:error, :eacces} = Emmap.patomic(read_only, 0, :add, 1)
    assert {:error, :eacces} = Emmap.patomic_cas(read_only, 0, 0, 1)
    assert {:error, :eacces} = Emmap.patomic_write(read_only, 0, 1)
    assert {:ok, 1} = Emmap.patomic_read(read_only, 4088)
    # The address counts, too: half a word into the file is none.
    odd = Emmap.open!(path, [:write, offset: 4, length: 64])
    assert {:error, :einval} = Emmap.patomic(odd, 0, :add, 1)
  end

  test "17: values outside 64 bits, and values that are not integers", %{mem: mem} do
    for value <- [1 <<< 64, -(1 <<< 63) - 1, 1 <<< 80, 1.0, :one, "1"] do
      assert_raise ArgumentError, ~r/64 bits/, fn -> Emmap.patomic(mem, 0, :add, value) end
      assert_raise ArgumentError, ~r/64 bits/, fn -> Emmap.patomic_write(mem, 0, value) end
      assert_raise ArgumentError, ~r/64 bits/, fn -> Emmap.patomic_cas(mem, 0, 0, value) end
    end

    assert_raise ArgumentError, ~r/signed/, fn -> Emmap.patomic_write(mem, 0, 1 <<< 63) end
    assert_raise ArgumentError, ~r/valid are :add/, fn -> Emmap.patomic(mem, 0, :mul, 2) end
    assert_raise ArgumentError, ~r/position/, fn -> Emmap.patomic(mem, :first, :add, 2) end
    assert {:ok, 0} = Emmap.patomic_read(mem, 0)
  end

  test "no add is lost between processes", %{mem: mem} do
    1..8
    |> Enum.map(fn _ ->
      Task.async(fn -> for _ <- 1..20_000, do: {:ok, _} = Emmap.patomic(mem, 40, :add, 3) end)
    end)
    |> Task.await_many()

    assert {:ok, 480_000} = Emmap.patomic_read(mem, 40)
  end

  test "after close, and on what is no handle", %{mem: mem} do
    :ok = Emmap.close(mem)
    assert {:error, :closed} = Emmap.patomic(mem, 0, :add, 1)
    foreign = Emmap.Handle.new(make_ref(), nil)
    assert_raise ArgumentError, ~r/this node/, fn -> Emmap.patomic(foreign, 0, :add, 1) end
  end

  test "the Erlang names", %{mem: mem} do
    assert {:ok, 0} = :emmap.patomic_add(mem, 0, 10)
    assert {:ok, 10} = :emmap.patomic_sub(mem, 0, 7)
    assert {:ok, 3} = :emmap.patomic_and(mem, 0, 2)
    assert {:ok, 2} = :emmap.patomic_or(mem, 0, 5)
    assert {:ok, 7} = :emmap.patomic_xor(mem, 0, 9)
    assert {:ok, 14} = :emmap.patomic_xchg(mem, 0, 1)
    assert {true, 1} = :emmap.patomic_cas(mem, 0, 1, 2)
    assert {false, 2} = :emmap.patomic_cas(mem, 0, 1, 3)
    assert {:error, :einval} = :emmap.patomic_cas(mem, 4, 1, 3)
    assert {:ok, 2} = :emmap.patomic(mem, 0, :bxor, 3)
    assert {:ok, 1} = :emmap.patomic_read_integer(mem, 0)
    assert :ok = :emmap.patomic_write_integer(mem, 0, 9)
    assert {:ok, 9} = :emmap.patomic_read_integer(mem, 0)
  end
end
