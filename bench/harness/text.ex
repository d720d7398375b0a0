defmodule Bench.Text do
  @moduledoc false
  # Text to read: the same on every machine.

  @block 16 * 1024 * 1024

  def write!(path, size) do
    :rand.seed(:exsss, {1, 2, 3})
    block = block()
    {:ok, file} = :file.open(path, [:raw, :write, :binary])

    for n <- 1..max(div(size, @block), 1) do
      rare =
        if rem(n, 8) == 0, do: "some quicksilver it was\n", else: "some silvers that were\n\n"

      :ok = :file.write(file, [block, rare])
    end

    :ok = :file.close(file)
  end

  @doc "`Station 17;12.3`, of 400 stations; so many blocks of them as fit in `size`."
  def write_rows!(path, size) do
    :rand.seed(:exsss, {1, 2, 3})

    rows =
      for _ <- 1..50_000 do
        t = :erlang.float_to_binary(:rand.uniform() * 80 - 30, decimals: 1)
        "Station #{:rand.uniform(400)};#{t}\n"
      end

    block = IO.iodata_to_binary(rows)
    {:ok, file} = :file.open(path, [:write, :raw, :binary])
    for _ <- 1..max(div(size, byte_size(block)), 1), do: :ok = :file.write(file, block)
    :ok = :file.close(file)
  end

  # A few words make up most of it, as in any language.
  defp block do
    common =
      List.to_tuple(
        ~w(the of and to in a is that for it was as with be by on not he his but at are from)
      )

    letters = List.to_tuple(~c"eeeetttaaooiinnsshhrrddlluccmmwfgypbvk")
    letter = fn _ -> elem(letters, :rand.uniform(tuple_size(letters)) - 1) end

    rare =
      List.to_tuple(
        for _ <- 1..20_000, do: to_string(Enum.map(1..(3 + :rand.uniform(7)), letter))
      )

    word = fn _ ->
      words = if :rand.uniform() < 0.5, do: common, else: rare
      elem(words, :rand.uniform(tuple_size(words)) - 1)
    end

    line = fn -> [Enum.map_intersperse(1..:rand.uniform(24), " ", word), "\n"] end
    text = line |> Stream.repeatedly() |> Enum.take(div(@block, 60)) |> IO.iodata_to_binary()
    fill = div(@block, byte_size(text)) + 1
    text |> :binary.copy(fill) |> binary_part(0, @block - 25) |> Kernel.<>("\n")
  end
end
