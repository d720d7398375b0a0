# `make twice SECONDS=4 ONLY=re`: which functions the VM survives on a live binary that another process writes to.
#
# Each candidate runs in a VM of its own, for some seconds, on a map that a writer switches between two
# contents. `once` and `twice` are the classes of the guide "Live binaries". A function that is listed as `once` and
# dies makes this exit with 1. A function that lives here is not proven to be safe.
alias Emmap.Test.ChildVM

seconds = System.get_env("SECONDS", "4")
only = Regex.compile!(System.get_env("ONLY", ""))

# Large contents of the same size, as code.
letters =
  ~S'{:binary.copy("ab", 1_000_000), :binary.copy("zé", 1_000_000) |> binary_part(0, 2_000_000)}'

bytes = ~S'{:binary.copy("a", 2_000_000), :binary.copy(<<255>>, 2_000_000)}'
narrow_wide = ~S'{:binary.copy("aaaa", 500_000), :binary.copy("😀", 500_000)}'
two_wide = ~S'{:binary.copy("aa", 1_000_000), :binary.copy("é", 1_000_000)}'
digits = ~S'{:binary.copy("7", 3_000), :binary.copy("0", 2_999) <> "x"}'
few_digits = ~S'{"1234567890123456", "0000000000000x34"}'

floats =
  ~S'{"1.5e10    " |> String.trim_trailing() |> String.pad_trailing(40, "0"), String.pad_trailing("12.", 40, "34")}'

base64 = ~S'{:binary.copy("QUJD", 500_000), :binary.copy("??==", 500_000)}'
name = ~S'{:binary.copy("a", 40), :binary.copy("é", 20)}'

json =
  ~S'{"[" <> :binary.copy("12,", 300_000) <> "3]", "[" <> :binary.copy("\"\",", 300_000) <> "3]"}'

lines = ~S'{:binary.copy("abcdefghi\n", 200_000), :binary.copy("a\nc\ne\ng\ni\n", 200_000)}'

small = ~S'{:binary.copy("aaaa", 25_000), :binary.copy("😀", 25_000)}'
invalid = ~S'{:binary.copy("é", 50_000), :binary.copy(<<255>>, 100_000)}'
shifted = ~S'{:binary.copy("a", 100_000), "é" <> :binary.copy("ź", 49_999)}'

numbers = ~S"""
n = 200_000
head = <<131, 108, n::32>>
{head <> :binary.copy(<<119, 7, "unicode">>, n) <> <<106>>, head <> :binary.copy(<<70, 1.5::float>>, n) <> <<106>>}
"""

terms = ~S"""
n = 400_000
head = <<131, 108, n::32>>
{head <> :binary.copy(<<98, 0, 0, 1, 45>>, n) <> <<106>>, head <> :binary.copy(<<109, 0, 0, 0, 0>>, n) <> <<106>>}
"""

packets = ~S'{<<60_000::32, 0::480_000>>, <<10::32, 0xFFFFFFFF::32, -1::479_968>>}'

# {class, name, contents, expression with `live`}
candidates = [
  {:twice, ":erlang.binary_to_term/1", terms, ":erlang.binary_to_term(live)"},
  {:twice, ":erlang.binary_to_term/1, atoms and floats", numbers, ":erlang.binary_to_term(live)"},
  {:twice, ":erlang.binary_to_term(live, [:safe])", numbers,
   ":erlang.binary_to_term(live, [:safe])"},
  {:twice, ":unicode.characters_to_binary(live, :latin1)", bytes,
   ":unicode.characters_to_binary(live, :latin1)"},
  {:twice, "IO.binwrite/2 to File.open(path, [:utf8])", bytes,
   "File.open!(\"/dev/null\", [:write, :utf8], &IO.binwrite(&1, live))"},
  {:twice, ":unicode.characters_to_list(live, :latin1)", bytes,
   ":unicode.characters_to_list(live, :latin1)"},
  {:twice, ":unicode.characters_to_list(live), String.to_charlist/1", small,
   ":unicode.characters_to_list(live)"},
  {:twice, ":io_lib.format(\"~ts\", [live])", small, ":io_lib.format(\"~ts\", [live])"},
  {:twice, ":binary.match/2 of one byte", letters, ":binary.match(live, \"z\")"},
  {:twice, ":binary.matches/2 of one byte", letters, ":binary.matches(live, \"z\")"},
  {:twice, ":binary.split/2 at one byte, String.split/2", letters,
   ":binary.split(live, \"z\", [:global])"},
  {:twice, ":binary.replace/3 of one byte, String.replace/3", letters,
   ":binary.replace(live, \"z\", \"xy\", [:global])"},
  {:twice, "String.contains?/2 of one byte", letters, "String.contains?(live, \"z\")"},
  {:twice, ":re.run/3 with :unicode", invalid,
   "{:ok, p} = :re.compile(\"^[^x]*(?:z|y)\", [:unicode]); :re.run(live, p)"},
  {:twice, ":re.run/3 with :unicode, a property", invalid,
   "{:ok, p} = :re.compile(\"^\\\\p{L}*(?:z|y)\", [:unicode]); :re.run(live, p)"},
  {:twice, "Regex.run(~r/…/iu, live)", invalid, "Regex.run(~r/^É*(?:z|y)/iu, live)"},
  # Reading twice, but not seen to die.
  {:twice, ":unicode.characters_to_binary(live, :unicode)", shifted,
   ":unicode.characters_to_binary(live, :unicode)"},
  {:twice, ":unicode.characters_to_binary([live, …], :unicode)", shifted,
   ":unicode.characters_to_binary([live, ?é], :unicode)"},
  {:twice, ":erlang.binary_to_atom/2", name,
   "live |> :erlang.binary_to_atom(:utf8) |> :erlang.atom_to_list()"},
  {:twice, ":erlang.binary_to_existing_atom/2", name,
   "_ = {:erlang.binary_to_atom(:binary.copy(\"a\", 40)), :erlang.binary_to_atom(:binary.copy(\"é\", 20))}; live |> :erlang.binary_to_existing_atom(:utf8) |> :erlang.atom_to_list()"},
  {:once, ":unicode.characters_to_binary(live, :unicode, :latin1)", two_wide,
   ":unicode.characters_to_binary(live, :unicode, :latin1)"},
  {:once, ":unicode.characters_to_binary(live, :unicode, :utf16)", narrow_wide,
   ":unicode.characters_to_binary(live, :unicode, :utf16)"},
  {:once, ":unicode.characters_to_binary(live, :utf16)", narrow_wide,
   ":unicode.characters_to_binary(live, :utf16)"},
  {:once, ":unicode.characters_to_nfc_binary/1, String.normalize/2", narrow_wide,
   "live |> binary_part(0, 100_000) |> :unicode.characters_to_nfc_binary()"},
  {:once, ":re.run/3 without :unicode", letters, ":re.run(live, \"(a|b)(?=z)|z.\", [:global])"},
  {:once, ":re.run/3 without :unicode, backtracking", small, ":re.run(live, \"^[^x]*(?:z|y)\")"},
  {:once, ":binary.match/2, longer patterns", letters, ":binary.match(live, \"abz\")"},
  {:once, ":binary.matches/2, a longer pattern", letters, ":binary.matches(live, \"ba\")"},
  {:once, ":binary.matches/2, many patterns", letters,
   ":binary.matches(live, [\"ba\", \"zéz\", \"abab\", \"a\"])"},
  {:once, ":binary.split/3, String.split/2, two bytes", letters,
   ":binary.split(live, \"zé\", [:global])"},
  {:once, ":binary.replace/4, a longer pattern", letters,
   ":binary.replace(live, \"ab\", \"xyz\", [:global])"},
  {:once, ":binary.copy/1, part/2, at/2", letters,
   "{:binary.copy(live), :binary.part(live, 5, 1_000), :binary.at(live, 7)}"},
  {:once, ":binary.decode_unsigned/1", digits, ":binary.decode_unsigned(live)"},
  {:once, ":binary.longest_common_prefix/1", letters,
   ":binary.longest_common_prefix([live, :binary.copy(\"ab\", 1_000_000)])"},
  {:once, ":binary.compile_pattern/1", name,
   ":binary.matches(\"aaaaaaaaaaaaa\", :binary.compile_pattern([live, binary_part(live, 3, 9)]))"},
  {:once, "matching bytes, <<c, rest::binary>>", letters,
   "for(<<c, d::16 <- live>>, reduce: 0, do: (s -> s + c + d))"},
  {:once, "matching UTF-8, <<c::utf8, rest::binary>>", narrow_wide,
   "for(<<c::utf8 <- live>>, do: c) |> List.to_string()"},
  {:once, "matching sizes, <<n::32, data::binary-size(n), …>>", packets,
   "case live do <<n::32, data::binary-size(n), rest::binary>> -> {:erlang.crc32(data), rest}; <<n::32, rest::binary>> -> {n, rest} end"},
  {:once, "String.valid?/1", narrow_wide, "String.valid?(live)"},
  {:once, "String.length/1, String.graphemes/1", narrow_wide,
   "live |> binary_part(0, 200_000) |> String.graphemes() |> length()"},
  {:once, "String.upcase/1, String.reverse/1", narrow_wide,
   "live |> binary_part(0, 200_000) |> String.upcase()"},
  {:once, "String.split/1, String.trim/1", narrow_wide,
   "live |> String.trim() |> String.split()"},
  {:once, "inspect/2", small, "inspect(live, printable_limit: :infinity, limit: :infinity)"},
  {:once, ":erlang.iolist_to_binary/1", letters, ":erlang.iolist_to_binary([live, live])"},
  {:once, "interpolation, <>", letters, ~S("#{live}#{live}" <> live)},
  {:once, ":erlang.binary_to_list/1", bytes, ":erlang.binary_to_list(live)"},
  {:once, ":erlang.crc32/1, adler32/1, md5/1", letters,
   "{:erlang.crc32(live), :erlang.adler32(live), :erlang.md5(live)}"},
  {:once, ":crypto.hash/2, :crypto.mac/4", letters,
   "{:crypto.hash(:sha256, live), :crypto.mac(:hmac, :sha, \"key\", live)}"},
  {:once, ":crypto.crypto_one_time/5", letters,
   ":crypto.crypto_one_time(:aes_128_ctr, <<0::128>>, <<0::128>>, live, true)"},
  {:once, "IO.write/2 to File.open(path, [:utf8])", narrow_wide,
   "File.open!(\"/dev/null\", [:write, :utf8], &IO.write(&1, live))"},
  {:once, "IO.write/2 to File.open(path)", two_wide,
   "File.open!(\"/dev/null\", [:write], &IO.write(&1, live))"},
  {:once, "IO.write/2 to StringIO", narrow_wide,
   "{:ok, d} = StringIO.open(\"\"); IO.write(d, live); StringIO.close(d)"},
  {:once, "IO.puts/2 to the standard error", narrow_wide,
   "IO.puts(:standard_error, binary_part(live, 0, 100_000))"},
  {:once, ":zlib.compress/1, gzip/1", lines, ":zlib.gzip(binary_part(live, 0, 500_000))"},
  {:once, ":zlib.uncompress/1",
   ~S'z = :zlib.gzip(for(n <- 1..90_000, do: "#{n},")); {z, binary_part(z, 0, 10) <> :binary.copy("k", byte_size(z) - 10)}',
   ":zlib.gunzip(live)"},
  {:once, "Base.decode64/1", base64, "Base.decode64(live)"},
  {:once, ":base64.decode/1, encode/1", base64,
   ":base64.decode(:base64.encode(live)) |> :base64.decode()"},
  {:once, ":erlang.binary_to_integer/1, large", digits, ":erlang.binary_to_integer(live)"},
  {:once, ":erlang.binary_to_integer/1, small", few_digits, ":erlang.binary_to_integer(live)"},
  {:once, ":erlang.binary_to_float/1", floats, ":erlang.binary_to_float(live)"},
  {:once, ":erlang.phash2/1", letters, ":erlang.phash2(live)"},
  {:once, "==, compare, sort", letters,
   "copy = :binary.copy(live); {copy == live, copy < live, Enum.sort([live, copy, binary_part(live, 2, 70)])}"},
  {:once, "a key of a small map", name,
   "m = %{live => 1, \"b\" => 2, :binary.copy(live) => 3}; m = Map.put(m, live, 4) |> Map.merge(%{live => 9}); {m[live], Map.delete(m, live), :maps.to_list(m)}"},
  {:once, "a key of a large map", name,
   "m = Map.new(1..100, &{&1, &1}); m = Enum.reduce(1..20, m, &Map.put(&2, {live, &1}, &1)) |> Map.put(live, 1); m = Map.merge(m, Map.new(1..60, &{{live, &1}, &1})); {m[live], Map.delete(m, live) |> map_size(), :erlang.term_to_binary(m)}"},
  {:once, "a key in ETS, set", name,
   "t = :ets.new(:t, []); for n <- 1..300, do: :ets.insert(t, {{n, live}, live}); for n <- 1..300, do: :ets.take(t, {n, live}); :ets.tab2list(t); :ets.delete(t)"},
  {:once, "a key in ETS, ordered_set", name,
   "t = :ets.new(:t, [:ordered_set]); for n <- 1..300, do: :ets.insert(t, {{live, n}, live}); for n <- 1..300, do: :ets.take(t, {live, n}); :ets.tab2list(t); :ets.delete(t)"},
  {:once, ":erlang.term_to_binary/1", letters,
   ":erlang.term_to_binary([live, live]) |> :erlang.binary_to_term()"},
  {:once, ":erlang.term_to_binary(live, [:compressed])", lines,
   ":erlang.term_to_binary(binary_part(live, 0, 500_000), [:compressed]) |> :erlang.binary_to_term()"},
  {:once, ":erlang.decode_packet(:line | :http_bin | 4, live)", packets,
   "{:erlang.decode_packet(4, live, []), :erlang.decode_packet(:line, live, []), :erlang.decode_packet(:http_bin, live, [])}"},
  {:once, ":json.decode/1 (OTP 27)", json,
   "if Code.ensure_loaded?(:json), do: apply(:json, :decode, [live]), else: :none"},
  {:once, ":file.write/2, raw", letters,
   "{:ok, f} = :file.open(~c\"/dev/null\", [:raw, :write]); :ok = :file.write(f, live); :file.close(f)"},
  {:once, ":file.write/2, delayed_write", letters,
   "{:ok, f} = :file.open(~c\"/dev/null\", [:raw, :write, :delayed_write]); :ok = :file.write(f, live); :file.close(f)"},
  {:once, "IO.binwrite/2 to File.open(path)", letters,
   "File.open!(\"/dev/null\", [:write], &IO.binwrite(&1, live))"},
  {:once, "Emmap.pwrite/3", letters, "Emmap.pwrite(Process.get(:other), 0, live)"},
  {:once, "Emmap.find/3 with a live pattern", name,
   "Emmap.find_all(Process.get(:other), [live, binary_part(live, 2, 11)])"},
  {:once, "Emmap.term/3", terms, "Emmap.term(Process.get(:mem), 0, byte_size(live))"},
  {:once, "Emmap.string/3", narrow_wide,
   "{:ok, s} = Emmap.string(Process.get(:mem), 0, byte_size(live)); :unicode.characters_to_binary(s, :unicode, :utf16)"},
  {:once, "a device with encoding: :unicode, reading", narrow_wide,
   "device = Process.get(:device); :file.position(device, 0); {IO.read(device, 100_000), IO.read(device, :line), :io.fread(device, \"\", ~c\"~3c\")}"},
  {:once, "IO.binwrite/2 to a device with encoding: :unicode", bytes,
   "device = Process.get(:output); :file.position(device, 0); :ok = IO.binwrite(device, live)"},
  {:once, "IO.write/2 to a device with encoding: :unicode", small,
   "device = Process.get(:output); :file.position(device, 0); :ok = IO.write(device, live)"},
  {:once, ":io.format/3 to a device with encoding: :unicode", small,
   "device = Process.get(:output); :file.position(device, 0); :ok = :io.format(device, \"~ts\", [live])"}
]

code = fn contents, expression ->
  """
  defmodule Candidate do
    def run(live), do: (#{expression})

    def repeat(live, stop, runs, raised) do
      if System.monotonic_time(:millisecond) > stop do
        {runs, raised}
      else
        raised = try do
          _ = run(live)
          raised
        rescue
          _ -> raised + 1
        end
        repeat(live, stop, runs + 1, raised)
      end
    end
  end

  {a, b} = (#{contents})
  size = byte_size(a)
  ^size = byte_size(b)
  {:ok, mem} = Emmap.open([:anon, :direct, :nolock, size: size])
  :ok = Emmap.pwrite(mem, 0, a)
  {:ok, live} = Emmap.view(mem, 0, size)
  Process.put(:mem, mem)
  Process.put(:other, Emmap.open!([:anon, size: 4 * size]))
  {:ok, device} = Emmap.device(mem, encoding: :unicode)
  Process.put(:device, device)
  {:ok, output} = Emmap.device(Emmap.open!([:anon, size: 10 * size]), encoding: :unicode)
  Process.put(:output, output)
  spawn(fn -> Stream.repeatedly(fn -> Emmap.pwrite(mem, 0, b); Emmap.pwrite(mem, 0, a) end) |> Stream.run() end)
  answer = Candidate.repeat(live, System.monotonic_time(:millisecond) + #{seconds} * 1000, 0, 0)
  for pid <- Process.list(), do: :erlang.garbage_collect(pid)
  answer
  """
end

IO.puts(
  "OTP #{System.otp_release()}, Elixir #{System.version()}, #{seconds} s each\n\n| function | listed as | here |\n| --- | --- | --- |"
)

results =
  for {class, name, contents, expression} <- candidates, name =~ only do
    limit = String.to_integer(seconds) + 30
    began = System.monotonic_time(:millisecond)

    result =
      ChildVM.run(code.(contents, expression),
        timeout: limit,
        limits: "ulimit -c 0; exec 2>/dev/null",
        env: [{"ELIXIR_ERL_OPTIONS", "+fnu +S 2:2"}]
      )

    after_ms = System.monotonic_time(:millisecond) - began

    {verdict, text} =
      case result do
        {:ok, {runs, raised}} ->
          {:lived, "lived (#{runs} runs, #{raised} raised)"}

        {:died, 137, _} ->
          {:died, "hung or was out of memory"}

        {:died, status, output} when status < 128 ->
          {:died,
           "died (status #{status} after #{after_ms} ms): #{output |> String.replace(~r/[^ -~]+/, " ") |> String.slice(0, 160)}"}

        {:died, status, _} ->
          {:died, "died (signal #{status - 128} after #{after_ms} ms)"}
      end

    IO.puts("| `#{name}` | #{class} | #{text} |")
    {class, verdict}
  end

broken = Enum.count(results, &(&1 == {:once, :died}))

IO.puts(
  "\n#{length(results)} functions, #{Enum.count(results, &(elem(&1, 1) == :died))} died, #{broken} of them listed as read once"
)

if broken > 0, do: System.halt(1)
