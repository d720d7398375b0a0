# Numbers in a map compared with the floor's copies of 8 bytes, and with Emmap.pread and Emmap.pwrite with the bit syntax,
# in one run. Run by `make bench`.

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Typed do
  import Bench

  loop(empty(mem, n), do: _ = mem)
  loop(floor_pread(map, n), do: {:ok, _} = :floor_nif.copy_out(map, 64, 8))
  loop(floor_pwrite(map, n), do: :ok = :floor_nif.copy_in(map, 64, "12345678"))
  loop(pread(mem, n), do: {:ok, _} = Emmap.pread(mem, 64, 8))
  loop(pread_u64(mem, n), do: {:ok, <<_::native-64>>} = Emmap.pread(mem, 64, 8))
  loop(pread_f64(mem, n), do: {:ok, <<_::float-native-64>>} = Emmap.pread(mem, 64, 8))
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

  @calls 100_000
  @rounds 60

  def run(folder) do
    load_floor!()
    floor = :floor_nif.open(String.to_charlist(Path.join(folder, "floor")), 65_536)
    {:ok, mem} = Emmap.open([:anon, size: 65_536])
    :ok = Emmap.put(mem, 64, :f64, 0.5)
    empty = compare([{:empty, @calls, &empty(mem, &1)}], @rounds).empty

    header(
      "ns a call, best of #{rounds(@rounds)} rounds, empty loop taken off",
      "emmap",
      "the other"
    )

    for {name, ours, theirs, limit} <- [
          {"get u64 : floor's copy of 8", &get_u64(mem, &1), &floor_pread(floor, &1), 0.9},
          {"get u64 : pread 8", &get_u64(mem, &1), &pread(mem, &1), 1.0},
          {"get u64 : pread, match", &get_u64(mem, &1), &pread_u64(mem, &1), 1.0},
          {"get f64 : pread, match", &get_f64(mem, &1), &pread_f64(mem, &1), 1.0},
          {"get {u32, big} : pread 8", &get_u32_big(mem, &1), &pread(mem, &1), 1.0},
          {"get u8 : pread 8", &get_u8(mem, &1), &pread(mem, &1), 1.0},
          {"get u64 : patomic_read", &get_u64(mem, &1), &atomic(mem, &1), ""},
          {"put u64 : floor's copy of 8", &put_u64(mem, &1), &floor_pwrite(floor, &1), 1.3},
          {"put u64 : pwrite of a made binary", &put_u64(mem, &1), &pwrite_u64(mem, &1), 1.0},
          {"put u64 : pwrite 8", &put_u64(mem, &1), &pwrite(mem, &1), ""},
          {"put u8 : pwrite 8", &put_u8(mem, &1), &pwrite(mem, &1), ""},
          {"put f64 : pwrite 8", &put_f64(mem, &1), &pwrite(mem, &1), ""}
        ] do
      result = compare([{:ours, @calls, ours}, {:theirs, @calls, theirs}], @rounds)
      row(name, result.ours - empty, result.theirs - empty, limit)
    end
  end
end

Bench.main(&Bench.Typed.run/1)
