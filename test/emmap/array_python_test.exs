defmodule Emmap.ArrayPythonTest do
  # NumPy and an array on the same file, at the same time: each reads what the other has written.
  use ExUnit.Case, async: true
  alias Emmap.Array

  @moduletag :tmp_dir

  @script """
  import sys
  try:
      import numpy as np
  except ImportError:
      print("no numpy")
      sys.exit()
  dtype = np.dtype([("id", "<u8"), ("at", ">i8"), ("name", "S5"), ("gap", "V3"), ("x", "<f4")])
  rows = np.memmap(sys.argv[1], dtype=dtype, mode="r+", offset=int(sys.argv[2]))
  print("ready", len(rows), flush=True)
  for line in sys.stdin:
      print(eval(line), flush=True)
  """

  defp python(directory, arguments, script \\ @script) do
    path = Path.join(directory, "script.py")
    File.write!(path, script)

    case System.find_executable("python3") do
      nil ->
        nil

      python ->
        Port.open({:spawn_executable, python}, [:binary, line: 1000, args: [path | arguments]])
    end
  end

  defp line(port) do
    assert_receive {^port, {:data, {:eol, line}}}, 20_000
    line
  end

  defp ask(port, expression) do
    Port.command(port, expression <> "\n")
    line(port)
  end

  for offset <- [0, 16] do
    test "records from byte #{offset} on", %{tmp_dir: directory} do
      path = Path.join(directory, "records")

      type = [
        id: {:u64, :little},
        at: {:i64, :big},
        name: {:bytes, 5},
        gap: 3,
        x: {:f32, :little}
      ]

      {:ok, array} = Array.open(path, type, [:create, offset: unquote(offset)])
      rows = for n <- 0..99, do: %{id: n, at: -n * 1000, name: "n#{n}", x: n / 4}
      {:ok, 0} = Array.append(array, rows)
      port = python(directory, [path, "#{unquote(offset)}"])

      case port && line(port) do
        "ready 100" ->
          assert ask(port, "rows['id'].sum()") == "4950"
          assert ask(port, "rows['at'][99]") == "-99000"
          assert ask(port, "rows['name'][7].decode()") == "n7"
          assert ask(port, "float(rows['x'].sum())") == "#{Array.sum(array, :x)}"
          assert ask(port, "int(np.searchsorted(rows['id'], 42))") == "42"

          # Both write to the same memory.
          assert ask(port, "rows.__setitem__(3, (77, -5, b'numpy', b'', 2.5))") == "None"
          assert Array.at(array, 3) == %{id: 77, at: -5, name: "numpy", x: 2.5}
          :ok = Array.put(array, 4, %{id: 88, at: 6, name: "beam", x: -1})

          assert ask(port, "rows[4]['id'], rows[4]['at'], rows[4]['name'], rows[4]['x']") =~
                   ~r/88.*6.*beam.*-1.0/

          :ok = array |> Array.column(:x) |> Array.put(5, 100)
          assert ask(port, "float(rows['x'][5])") == "100.0"

        missing ->
          assert missing in [nil, "no numpy"]
          IO.puts("skipped: NumPy is missing")
      end
    end
  end

  test "sums of random numbers, as NumPy's", %{tmp_dir: directory} do
    path = Path.join(directory, "numbers")

    script = """
    import sys
    try:
        import numpy as np
    except ImportError:
        print("no numpy")
        sys.exit()
    random = np.random.default_rng(5)
    (random.random(1_000_003) - 0.3).astype(sys.argv[2]).tofile(sys.argv[1])
    a = np.memmap(sys.argv[1], dtype=sys.argv[2], mode="r")
    print(repr(float(a.astype("f8").sum())), float(a.min()), float(a.max()), flush=True)
    sys.stdin.read()
    """

    for {descr, type} <- [{"<f8", {:f64, :little}}, {">f4", {:f32, :big}}] do
      port = python(directory, [path, descr], script)

      case port && line(port) do
        result when result in [nil, "no numpy"] ->
          IO.puts("skipped: NumPy is missing")

        result ->
          [sum, least, greatest] = result |> String.split() |> Enum.map(&String.to_float/1)
          {:ok, array} = Array.open(path, type)
          assert Array.count(array) == 1_000_003
          # Both are exact to about 1e-15 of the sum of the amounts.
          assert_in_delta Array.sum(array), sum, 1.0e-9
          assert {Array.min(array), Array.max(array)} == {least, greatest}
      end
    end
  end
end
