defmodule Emmap.BadDays.TablesTest do
  # What happens to a table, and to one that is being built.
  use Emmap.Test.BadDay

  setup %{path: path} do
    File.rm!(path)
    :ok
  end

  @built """
  alias Emmap.Table
  records = for n <- 1..20_000, do: {"key \#{n}", :binary.copy(<<n::32>>, 25)}
  {:ok, _} = Table.build(path, records, sorted: true)
  table = Table.open!(path)
  """

  test "1: a table truncated while it is open", context do
    assert {[:estale], {:error, :estale}, 100, {:error, {:bad_format, :length}},
            {:error, {:bad_format, :length}}, :ok, true,
            :ok} =
             child(
               context,
               @built <>
                 """
                 live = Table.get(table, "key 20000")
                 whole = File.read!(path)
                 cut.(path, 10_000)
                 calls = [
                   &Table.get(&1, "key 1"), &Table.fetch(&1, "key 9999"), &Table.has_key?(&1, "key 20000"), &Enum.count(Table.keys(&1)),
                   &Enum.to_list/1, &Enum.to_list(Table.prefix(&1, "key 5"))
                 ]
                 raised = for call <- calls, uniq: true, do: (try do call.(table) rescue error in Emmap.Error -> error.reason end)
                 checked = Table.check(table)
                 opened = Table.open(path)
                 refused = Table.reattach(table)
                 File.write!(path, whole)
                 back = Table.reattach(table)
                 right = Enum.all?(records, fn {key, value} -> Table.get(table, key) == value end)
                 {raised, checked, byte_size(live), opened, refused, back, right, Table.check(table)}
                 """
             )
  end

  test "5: a table deleted, and replaced: open ones keep working", context do
    assert {true, true, "new", {:error, :enoent}} =
             child(
               context,
               @built <>
                 """
                 kept = fn -> Enum.all?(records, fn {key, value} -> Table.get(table, key) == value end) end
                 File.rm!(path)
                 deleted = kept.()
                 gone = Table.open(path)
                 {:ok, _} = Table.build(path, [{"key 1", "new"}])
                 {deleted, kept.(), Table.get(Table.open!(path), "key 1"), gone}
                 """
             )
  end

  for kind <- [:tmpfs, :ext4] do
    test "12: disk full while a table is built (#{kind})", context do
      case disk(context, unquote(kind)) do
        {:error, why} ->
          skipped(context, why)

        {:ok, disk} ->
          assert {[{:error, :enospc}], ["t"], "old", :ok, {:ok, %{count: 10}}} =
                   child(
                     %{context | path: Path.join(disk, "t")},
                     """
                     alias Emmap.Table
                     {:ok, _} = Table.build(path, [{"k", "old"}])
                     many = fn length -> Stream.map(1..400_000, &{"key \#{&1}", :binary.copy("v", length)}) end
                     # In the temporary files, in the records, and in a long value.
                     failed = for records <- [many.(100), Stream.take(many.(60), 120_000), [{"k", :binary.copy("v", 50_000_000)}]],
                       sorted <- [true, false], uniq: true,
                       do: Table.build(path, records, sorted: sorted, memory: 16_777_216)
                     files = path |> Path.dirname() |> File.ls!() |> Kernel.--(["lost+found"])
                     table = Table.open!(path)
                     {failed, files, table["k"], Table.check(table), Table.build(path, Enum.take(many.(5), 10)) |> then(fn {:ok, built} -> {:ok, Map.take(built, [:count])} end)}
                     """
                   )
      end
    end
  end

  test "31: kill -9 while a table is built: the old one is there, and the next build leaves one file",
       context do
    {:ok, _} = Emmap.Table.build(context.path, [{"k", "old"}])

    for _ <- 1..3 do
      assert {:died, 137, _} =
               attempt(
                 context,
                 """
                 records = Stream.map(1..1_000_000_000, &{"key \#{&1}", "value"})
                 report = fn %{done: done} -> if done > 500_000, do: System.cmd("kill", ["-9", System.pid()]) end
                 Emmap.Table.build(path, records, memory: 16_777_216, progress: report)
                 """
               )
    end

    old = Emmap.Table.open!(context.path)["k"]
    {:ok, _} = Emmap.Table.build(context.path, [{"k", "new"}])
    new = Emmap.Table.open!(context.path)["k"]
    assert noted(context, {old, new, File.ls!(context.dir)}) == {"old", "new", ["data"]}
  end

  test "29 (table): a corrupted file, any word of which is changed, also in a sound header",
       context do
    assert {:ok, true} =
             child(
               context,
               """
               alias Emmap.Table
               records = for n <- 1..300, do: {"key \#{n}", :binary.copy(<<n::16>>, rem(n, 70))}
               {:ok, _} = Table.build(path, records, sorted: true, seed: 1)
               whole = File.read!(path)
               :rand.seed(:exsss, {1, 2, 3})
               try_all = fn ->
                 case Table.open(path) do
                   {:error, {:bad_format, _}} -> :refused
                   {:ok, table} ->
                     calls = [&Enum.to_list/1, &Table.get(&1, "key 7"), &Table.has_key?(&1, "no"), &Enum.to_list(Table.prefix(&1, "key 1"))]
                     for call <- calls, do: (try do call.(table) rescue error in Emmap.Error -> error.reason end)
                     {:error, {:corrupt, _}} = Table.check(table)
                     Table.close(table)
                     :opened
                 end
               end
               results = for _ <- 1..1500 do
                 at = :rand.uniform(div(byte_size(whole), 8)) * 8 - 8
                 at = if at in 120..4088, do: 4096, else: at
                 <<start::binary-size(at), word::64, rest::binary>> = whole
                 other = Bitwise.bxor(word, 1 + :rand.uniform(0xFFFF_FFFF_FFFF))
                 <<header::binary-116, crc::binary-4, records::binary>> = <<start::binary, other::64, rest::binary>>
                 # The header is made sound again, so that its numbers are used.
                 crc = if at < 112, do: <<:erlang.crc32(header)::32-little>>, else: crc
                 File.write!(path, [header, crc, records])
                 if at in [24, 32], do: Table.open(path), else: try_all.()
               end
               {:ok, :opened in results}
               """
             )
  end
end
