defmodule Emmap.ConcurrencyTest do
  use ExUnit.Case, async: false
  import Emmap.Test.Resources

  @moduletag :tmp_dir
  @moduletag timeout: 180_000
  @workers 16
  @slot 256
  @gigabyte 1024 * 1024 * 1024

  # 16 processes read and write a handle, one grows it from 4 KB to 1 GB and shrinks it again, over
  # and over, one closes it in the end.
  for options <- [[], [:direct]] do
    test "16 readers and writers, growth and close #{inspect(options)}", %{tmp_dir: directory} do
      path = Path.join(directory, "data")
      options = unquote(options)
      test = self()

      {pid, monitor} =
        spawn_monitor(fn ->
          {:ok, mem} = Emmap.open(path, [:write, :create, size: @workers * @slot] ++ options)
          workers = for n <- 0..(@workers - 1), do: Task.async(fn -> work(mem, n, 0) end)

          for _ <- 1..3 do
            for size <- [10_000, 1_000_000, 100_000_000, @gigabyte],
                do: :ok = Emmap.resize(mem, size)

            {:ok, %{size: @gigabyte}} = Emmap.info(mem)
            :ok = Emmap.pwrite(mem, @gigabyte - 5, "thend")
            {:ok, "thend"} = Emmap.pread(mem, @gigabyte - 5, 10)
            for size <- [100_000_000, 5000, @workers * @slot], do: :ok = Emmap.resize(mem, size)
          end

          Task.await(Task.async(fn -> :ok = Emmap.close(mem) end))
          send(test, {:rounds, Task.await_many(workers, 60_000)})
        end)

      assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 170_000
      assert_received {:rounds, rounds}
      # Everybody did real work before the close reached them.
      assert Enum.min(rounds) > 100
      assert File.stat!(path).size == @workers * @slot
      assert eventually(fn -> held(directory) == {0, 0} end)
    end
  end

  # Writes its own slot, reads it back whole, and reads where nobody writes; until closed.
  defp work(mem, n, round) do
    data = :binary.copy(<<rem(round, 256)>>, @slot)

    with :ok <- Emmap.pwrite(mem, n * @slot, data),
         {:ok, ^data} <- Emmap.pread(mem, n * @slot, @slot),
         {:ok, ^data} <- view(mem, n * @slot),
         zeros when zeros == :eof or zeros == {:ok, <<0::64>>} <-
           Emmap.pread(mem, 1_000_000 - 8, 8) do
      work(mem, n, round + 1)
    else
      {:error, :closed} -> round
    end
  end

  defp view(mem, position) do
    with {:ok, live} <- Emmap.view(mem, position, @slot), do: {:ok, :binary.copy(live)}
  end

  test "a pread of any length is atomic with respect to pwrites", %{tmp_dir: directory} do
    path = Path.join(directory, "atomic")

    for size <- [16, 4000, 60_000, 200_000] do
      {:ok, mem} = Emmap.open(path, [:write, :create, :fit, size: size])
      stop = :atomics.new(1, [])
      :ok = Emmap.pwrite(mem, 0, :binary.copy("0", size))

      writers =
        for letter <- ["a", "b"] do
          data = :binary.copy(letter, size)
          Task.async(fn -> write_until(mem, data, stop, 0) end)
        end

      for _ <- 1..2000 do
        {:ok, <<first, _::binary>> = data} = Emmap.pread(mem, 0, size)
        # Equal bytes throughout: no half of another write.
        assert data == :binary.copy(<<first>>, size)
      end

      :atomics.put(stop, 1, 1)
      assert Enum.all?(Task.await_many(writers, 60_000), &(&1 > 0))
    end
  end

  defp write_until(mem, data, stop, n) do
    :ok = Emmap.pwrite(mem, 0, data)
    if :atomics.get(stop, 1) == 1, do: n + 1, else: write_until(mem, data, stop, n + 1)
  end
end
