# Numbers in a map beside Emmap.pread and Emmap.pwrite with the bit syntax, in one run.
#
#     mix run bench/typed.exs

Code.require_file("harness.exs", __DIR__)

defmodule Bench.Typed do
  import Bench.Harness

  # A loop per operation, so that every side pays for the same loop.
  for {name, body} <- [
        empty: quote(do: {mem, 64}),
        pread: quote(do: {:ok, _} = Emmap.pread(mem, 64, 8)),
        pread_u64: quote(do: {:ok, <<_::native-64>>} = Emmap.pread(mem, 64, 8)),
        pread_f64: quote(do: {:ok, <<_::float-native-64>>} = Emmap.pread(mem, 64, 8)),
        get_u8: quote(do: {:ok, _} = Emmap.get(mem, 64, :u8)),
        get_u64: quote(do: {:ok, _} = Emmap.get(mem, 64, :u64)),
        get_u32_big: quote(do: {:ok, _} = Emmap.get(mem, 64, {:u32, :big})),
        get_f64: quote(do: {:ok, _} = Emmap.get(mem, 64, :f64)),
        atomic: quote(do: {:ok, _} = Emmap.patomic_read(mem, 64)),
        pwrite: quote(do: :ok = Emmap.pwrite(mem, 64, "12345678")),
        pwrite_u64: quote(do: :ok = Emmap.pwrite(mem, 64, <<n::native-64>>)),
        put_u64: quote(do: :ok = Emmap.put(mem, 64, :u64, n)),
        put_u8: quote(do: :ok = Emmap.put(mem, 64, :u8, 7)),
        put_f64: quote(do: :ok = Emmap.put(mem, 64, :f64, 0.5))
      ] do
    def unquote(name)(_mem, 0), do: :ok

    def unquote(name)(mem, n) do
      unquote(
        Macro.prewalk(body, fn
          {variable, meta, context} when variable in [:mem, :n] and is_atom(context) ->
            {variable, meta, nil}

          other ->
            other
        end)
      )

      unquote(name)(mem, n - 1)
    end
  end

  def run do
    {:ok, mem} = Emmap.open([:anon, size: 65_536])
    :ok = Emmap.put(mem, 64, :f64, 0.5)
    empty = compare([{:empty, 2_000_000, &empty(mem, &1)}]).empty
    IO.puts(String.pad_trailing("ns a call", 34) <> "       emmap    the other   ratio   at most")

    for {name, ours, theirs, limit} <- [
          {"get u64 : pread 8", &get_u64(mem, &1), &pread(mem, &1), 1.0},
          {"get u64 : pread, match", &get_u64(mem, &1), &pread_u64(mem, &1), 1.0},
          {"get f64 : pread, match", &get_f64(mem, &1), &pread_f64(mem, &1), 1.0},
          {"get {u32, big} : pread 8", &get_u32_big(mem, &1), &pread(mem, &1), 1.0},
          {"get u8 : pread 8", &get_u8(mem, &1), &pread(mem, &1), 1.0},
          {"get u64 : patomic_read", &get_u64(mem, &1), &atomic(mem, &1), ""},
          {"put u64 : pwrite of a made binary", &put_u64(mem, &1), &pwrite_u64(mem, &1), 1.0},
          {"put u64 : pwrite 8", &put_u64(mem, &1), &pwrite(mem, &1), ""},
          {"put u8 : pwrite 8", &put_u8(mem, &1), &pwrite(mem, &1), ""},
          {"put f64 : pwrite 8", &put_f64(mem, &1), &pwrite(mem, &1), ""}
        ] do
      result = compare([{:ours, 500_000, ours}, {:theirs, 500_000, theirs}], 11)
      row(name, result.ours - empty, result.theirs - empty, limit)
    end
  end
end

Bench.Typed.run()
