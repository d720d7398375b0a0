defmodule Bench.Groups.Typed do
  @moduledoc false
  # Numbers in a map compared with copies of 8 bytes, and with the bit syntax on these.
  import Bench

  loop(empty(mem, n), do: _ = mem)
  loop(floor_pread(map, n), do: {:ok, _} = :floor_nif.copy_out(map, 64, 8))
  loop(floor_pwrite(map, n), do: :ok = :floor_nif.copy_in(map, 64, "12345678"))
  loop(pread(mem, n), do: {:ok, _} = Emmap.pread(mem, 64, 8))
  loop(pread_u64(mem, n), do: {:ok, <<_::native-64>>} = Emmap.pread(mem, 64, 8))
  loop(pread_f64(mem, n), do: {:ok, <<_::float-native-64>>} = Emmap.pread(mem, 64, 8))
  loop(raw_u64(file, n), do: {:ok, <<_::native-64>>} = :file.pread(file, 64, 8))
  loop(get_u8(mem, n), do: {:ok, _} = Emmap.get(mem, 64, :u8))
  loop(get_u64(mem, n), do: {:ok, _} = Emmap.get(mem, 64, :u64))
  loop(get_u32_big(mem, n), do: {:ok, _} = Emmap.get(mem, 64, {:u32, :big}))
  loop(get_f64(mem, n), do: {:ok, _} = Emmap.get(mem, 64, :f64))
  loop(atomic(mem, n), do: {:ok, _} = Emmap.patomic_read(mem, 64))
  loop(pwrite(mem, n), do: :ok = Emmap.pwrite(mem, 64, "12345678"))
  loop(pwrite_u64(mem, n), do: :ok = Emmap.pwrite(mem, 64, <<n::native-64>>))
  loop(put_u64(mem, n), do: :ok = Emmap.put(mem, 64, :u64, n))
  loop(put_u8(mem, n), do: :ok = Emmap.put(mem, 64, :u8, 7))
  loop(put_f64(mem, n), do: :ok = Emmap.put(mem, 64, :f64, 0.5))

  def title, do: "Numbers"

  def run(folder) do
    [gets, puts] = Bench.VMs.compare(__MODULE__, :calls, [], folder)

    [
      {:note,
       "`Emmap.get/3` and `Emmap.put/4` create no binary. With `:file`, a binary has to be created and matched."},
      gets,
      puts,
      headline(
        gets,
        :pread_u64,
        "pread of 8 B and a match, compared with Emmap.get :u64",
        {:at_least, 1.0}
      ),
      headline(
        gets,
        :floor,
        "Emmap.get :u64, compared with the floor's copy of 8 B",
        {:at_most, 0.9}
      ),
      headline(
        puts,
        :floor,
        "Emmap.put :u64, compared with the floor's copy of 8 B",
        {:at_most, 1.3}
      )
    ]
  end

  @doc "Of several VMs."
  def calls(folder) do
    path = random_file(Path.join(folder, "data"), 65_536)
    floor = :floor_nif.open(String.to_charlist(path), 65_536)
    mem = Emmap.open!(path, [:write])
    :ok = Emmap.put(mem, 64, :f64, 0.5)
    open = fn -> :file.open(path, [:read, :raw, :binary]) |> elem(1) end

    gets =
      compare(
        "read a number",
        [
          side(:emmap, "Emmap.get :u64", &get_u64(mem, &1)),
          side(:f64, "Emmap.get :f64", &get_f64(mem, &1)),
          side(:u8, "Emmap.get :u8", &get_u8(mem, &1)),
          side(:big, "Emmap.get {:u32, :big}", &get_u32_big(mem, &1)),
          side(:atomic, "Emmap.patomic_read", &atomic(mem, &1)),
          side(:pread, "Emmap.pread of 8 B", &pread(mem, &1)),
          side(:pread_u64, "Emmap.pread and a match, u64", &pread_u64(mem, &1)),
          side(:pread_f64, "Emmap.pread and a match, f64", &pread_f64(mem, &1)),
          side(:floor, "the floor's copy of 8 B", &floor_pread(floor, &1)),
          side(:raw, "raw :file.pread and a match", &raw_u64(&1, &2),
            setup: open,
            teardown: &:file.close/1
          )
        ],
        empty: &empty(mem, &1),
        seconds: 3
      )

    puts =
      compare(
        "write a number",
        [
          side(:emmap, "Emmap.put :u64", &put_u64(mem, &1)),
          side(:f64, "Emmap.put :f64", &put_f64(mem, &1)),
          side(:u8, "Emmap.put :u8", &put_u8(mem, &1)),
          side(:pwrite, "Emmap.pwrite of 8 B", &pwrite(mem, &1)),
          side(:pwrite_u64, "Emmap.pwrite of a number made bytes", &pwrite_u64(mem, &1)),
          side(:floor, "the floor's copy of 8 B", &floor_pwrite(floor, &1))
        ],
        empty: &empty(mem, &1),
        seconds: 2
      )

    Emmap.close(mem)

    [gets, puts]
  end
end
