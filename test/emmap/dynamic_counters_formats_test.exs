defmodule Emmap.DynamicCountersFormatsTest do
  # Files that an earlier version wrote, their inspection, and a reader in Python.
  use ExUnit.Case, async: true

  import Bitwise
  alias Emmap.{Counters, Inspection}

  @moduletag :tmp_dir
  @golden "test/fixtures/formats/dynamic-counters-v1.bin"
  @reader "guides/python/emmap_dynamic_counters.py"
  # The first directory and its slots are before the first counter.
  @first 16_384 + 128 + 8192
  @long String.duplicate("long ", 60)

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "c.cnt")
    File.cp!(@golden, path)
    %{path: path}
  end

  defp expected do
    [{"requests", 40}, {"errors", -2}, {@long, 7}] ++
      for n <- 1..600, do: {"GET /users/#{n}", n}
  end

  test "version 1: a copy is examined, as after a reboot, and has the same counters", %{
    path: path
  } do
    c = Counters.open!(path, [:requests], dynamic: true)
    assert [{:requests, 40} | rest] = Enum.to_list(c)
    assert rest == tl(expected())
    assert {:ok, %{count: 603, recoveries: 2, dropped: 0, dynamic: true}} = Counters.info(c)
    assert Counters.add_get(c, "GET /users/600", 1) == 601
    assert Counters.add_get(c, "new", 1) == 1
    assert File.stat!(path).size == File.stat!(@golden).size
  end

  test "what mix emmap.inspect shows of it, and that it changes nothing", %{path: path} do
    before = File.read!(path)
    assert {:ok, report} = Inspection.file(path, values: 3)

    assert %{format: :dynamic_counters, status: :intact, bad_format: nil, problems: []} = report

    assert [%{state: :current, fields: %{stripes: 1, sequence: 1}}, %{state: :same}] =
             report.headers

    assert %{
             count: 603,
             named: true,
             write_concurrency: false,
             sum: 180_345,
             largest: %{key: "GET /users/600", value: 600},
             smallest: %{key: "errors", value: -2},
             values: [%{key: "requests", value: 40}, %{key: "errors"}, %{key: @long}],
             lock: 0,
             log: 0,
             recoveries: 1,
             dropped: 0
           } = report.contents

    assert Inspection.text(report) =~ "dynamic counters, version 1, intact"
    assert Inspection.json(report) =~ ~s("format":"dynamic_counters")
    assert File.read!(path) == before
  end

  test "counters that are being used are sound, too", %{tmp_dir: directory} do
    path = Path.join(directory, "used.cnt")
    c = Counters.open!(path, dynamic: true, write_concurrency: true)

    user =
      Task.async(fn -> for n <- 1..20_000, do: Counters.add(c, "n#{rem(n * 7, 9000)}", 1) end)

    for _ <- 1..10, do: assert({:ok, %{status: :intact}} = Inspection.file(path))
    Task.await(user)

    assert {:ok,
            %{status: :intact, contents: %{count: 9000, sum: 20_000, write_concurrency: true}}} =
             Inspection.file(path, values: :infinity)
  end

  # Where, and what the report has of it.
  for {what, at, expected} <- [
        {"a header", 32, "header at 0, salt"},
        {"the other header", 4096 + 24, "number of stripes"},
        {"the count", 8456, "count: is"},
        {"the end", 8448, "end: is"},
        {"the directory word", 8464 + 5, "directory: "},
        {"a hash", @first + 8, "counter at #{@first}: its checksum"},
        {"a name", @first + 26, "counter at #{@first}: its checksum"},
        {"the rest of a long name", @first + 3 * 128 + 5,
         "counter at #{@first + 256}: its checksum"},
        {"a kind", @first + 18, "entry at #{@first}: it is not an entry"},
        {"a slot", 16_384 + 128 + 60, nil}
      ] do
    test "a flipped bit in #{what} is found", %{path: path} do
      before = File.read!(path)
      flip(path, unquote(at))
      assert {:ok, %{problems: problems}} = Inspection.file(path)

      assert_reported(problems, unquote(expected))

      # Opening it returns the counters, or refuses it and changes nothing.
      case Counters.open(path, dynamic: true) do
        {:ok, c} -> assert Enum.count(c) in 602..603
        {:error, {:bad_format, _}} -> assert byte_size(before) == File.stat!(path).size
      end
    end
  end

  # The first directory was replaced by a larger one.
  defp assert_reported(problems, nil), do: assert(problems == [])

  defp assert_reported(problems, message),
    do: assert(Enum.any?(problems, &(&1.message =~ message)), inspect(problems))

  defp flip(path, at) do
    bytes = File.read!(path)
    rest = binary_part(bytes, at + 1, byte_size(bytes) - at - 1)
    File.write!(path, [binary_part(bytes, 0, at), bxor(:binary.at(bytes, at), 0x40), rest])
  end

  test "files that are too short", %{path: path} do
    bytes = File.read!(path)
    # The last entries are gone.
    File.write!(path, binary_part(bytes, 0, 65_536))
    assert {:ok, %{status: :damaged}} = Inspection.file(path)
    c = Counters.open!(path, dynamic: true)
    assert Enum.take(c, 3) == Enum.take(expected(), 3)
    assert Enum.count(c) in 300..603
    short = path <> ".short"
    File.write!(short, binary_part(bytes, 0, 16_000))
    assert {:ok, %{bad_format: :length, contents: nil}} = Inspection.file(short)
    assert Counters.open(short, dynamic: true) == {:error, {:bad_format, :length}}
  end

  @python System.find_executable("python3")
  unless @python, do: @tag(skip: "no python3 here")

  test "a Python program reads them, also while they are used", %{path: path, tmp_dir: directory} do
    assert python(["read", path, "check"]) == expected()
    used = Path.join(directory, "used.cnt")
    c = Counters.open!(used, dynamic: true, write_concurrency: true)

    names = for n <- 0..200, do: String.duplicate("ü", n)
    for {name, n} <- Enum.with_index(names), do: Counters.add(c, name, n - 100)
    task = Task.async(fn -> for n <- 1..30_000, do: Counters.add(c, "n#{rem(n, 3000)}", 1) end)
    assert Enum.take(python(["read", used, ""]), 201) == Enum.take(c, 201)
    Task.await(task)
    assert python(["read", used, "check"]) == Enum.to_list(c)
    flip(path, @first + 26)
    assert python(["read", path, "check"]) == "the entry at #{@first}"
  end

  unless @python, do: @tag(skip: "no python3 here")

  test "a Python program finds a counter by the documented hash", %{path: path} do
    # Only with the package xxhash; the test of the core has a hash that it computed.
    if match?({_, 0}, System.cmd("python3", ["-c", "import xxhash"], stderr_to_stdout: true)) do
      assert python(["find", path, "GET /users/123"]) == [{"GET /users/123", 123}]
    end
  end

  defp python(arguments) do
    code = """
    import importlib.util, struct, sys
    spec = importlib.util.spec_from_file_location("reader", #{inspect(Path.expand(@reader))})
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    what, path, third = sys.argv[1:]
    if what == "read":
        try: found = reader.read(path, third == "check").items()
        except reader.Damaged as error: sys.exit(print("damaged:", error))
    else:
        import xxhash
        file = open(path, "rb").read()
        salt, = struct.unpack_from("<Q", file, 32)
        name = third.encode()
        hash = xxhash.xxh3_64_intdigest(name, salt)
        word, = struct.unpack_from("=Q", file, 8464)
        first, slots, found = (word >> 8) * 128, 1 << (word & 0xff), []
        for step in range(slots):
            slot, = struct.unpack_from("=Q", file, first + (hash + step) % slots * 8)
            if slot == 0: break
            if slot >> 40 != hash >> 40: continue
            at = (slot & 0xffffffffff) * 128
            if file[at + 24:at + 24 + len(name)] == name and file[at + 16] == len(name):
                found.append([third, *struct.unpack_from("=q", file, at)])
    for name, value in found: print(name.encode().hex(), value, sep=",")
    """

    environment = [{"PYTHONDONTWRITEBYTECODE", "1"}]
    {said, 0} = System.cmd("python3", ["-c", code | arguments], env: environment)

    case String.split(said, "\n", trim: true) do
      ["damaged: " <> why] -> why
      lines -> for line <- lines, do: pair(String.split(line, ","))
    end
  end

  defp pair([name, value]), do: {Base.decode16!(name, case: :lower), String.to_integer(value)}
end
