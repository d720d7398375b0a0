defmodule Emmap.InspectionTensorsTest do
  # `.npy` and `.safetensors` files, of which only the header describes what is there.
  use ExUnit.Case, async: true
  alias Emmap.Inspection

  @moduletag :tmp_dir
  @npy "test/fixtures/npy"
  @safetensors "test/fixtures/safetensors/model.safetensors"

  defp report(path, options \\ []) do
    {:ok, report} = Inspection.file(path, options)
    # What it says is what an open returns, and it can be shown.
    opened =
      case report.format do
        :npy -> Emmap.Array.open(path, :npy)
        :safetensors -> Emmap.Safetensors.open(path)
        :plain -> {:ok, :plain}
      end

    if report.bad_format,
      do: assert(opened == {:error, {:bad_format, report.bad_format}}),
      else: assert(match?({:ok, _}, opened))

    assert Inspection.json(report) =~ ~s("format":"#{report.format}")
    assert is_binary(Inspection.text(report))
    report
  end

  test "files of NumPy" do
    report = report(Path.join(@npy, "f64.npy"), values: 4)
    assert %{format: :npy, status: :intact, bad_format: nil, problems: []} = report

    assert [%{at: 0, bytes: 128, fields: %{descr: "<f8", fortran_order: false, shape: [2, 3]}}] =
             report.headers

    assert %{count: 6, stride: 8, first: 128, values: ["1.5", "-2.0", "3.25", ":infinity"]} =
             report.contents

    text = Inspection.text(report)
    assert text =~ "an array of NumPy (.npy), version 1.0, intact"
    assert text =~ "type <f8, shape (2, 3), row-major"
    assert text =~ "and 2 more"

    report = report(Path.join(@npy, "record.npy"), values: :infinity)
    assert %{name: "größe", type: "{:f32, :big}"} in report.contents.fields
    assert %{name: "", type: "2 bytes skipped"} in report.contents.fields
    assert length(report.contents.values) == 3
    assert Inspection.text(report) =~ "record of 5 fields"
    assert report(Path.join(@npy, "empty.npy")).contents.values == []
    assert Inspection.text(report(Path.join(@npy, "fortran.npy"))) =~ "column-major"

    for path <- Path.wildcard(Path.join(@npy, "*.npy")),
        do: assert(report(path).status == :intact)
  end

  test "damaged files of NumPy", %{tmp_dir: directory} do
    path = Path.join(directory, "a.npy")
    bytes = File.read!(Path.join(@npy, "big.npy"))

    for {status, why, bytes} <- [
          {:intact, nil, bytes <> "more"},
          {:damaged, :length, binary_part(bytes, 0, byte_size(bytes) - 1)},
          {:damaged, :length, binary_part(bytes, 0, 64)},
          {:damaged, :length, binary_part(bytes, 0, 6)},
          {:damaged, :header, String.replace(bytes, "False", "Wrong")},
          {:damaged, :type, String.replace(bytes, ">i2", ">i3")},
          {:damaged, :shape, String.replace(bytes, "(3,)", "(-3,)")},
          {:unknown, :version, String.replace(bytes, <<"NUMPY", 1>>, <<"NUMPY", 9>>)}
        ] do
      File.write!(path, bytes)
      report = report(path)
      assert {report.format, report.status, report.bad_format} == {:npy, status, why}
    end
  end

  test "tensors" do
    report = report(@safetensors, values: 2)
    assert %{format: :safetensors, status: :intact, bad_format: nil} = report
    assert report.contents.count == 6
    assert [%{name: _, type: _, shape: _, at: _, bytes: _}, _] = report.contents.tensors
    assert %{key: "name", value: "Łódź"} in report.contents.metadata
    text = Inspection.text(report)
    assert text =~ "tensors (.safetensors), intact"
    assert text =~ "and 4 more"
    assert length(report(@safetensors, values: :infinity).contents.tensors) == 6
  end

  test "damaged tensors, and what only looks like them", %{tmp_dir: directory} do
    path = Path.join(directory, "a.safetensors")
    bytes = File.read!(@safetensors)

    for {format, why, bytes} <- [
          {:safetensors, :length, bytes <> "x"},
          {:safetensors, :length, binary_part(bytes, 0, byte_size(bytes) - 1)},
          {:safetensors, :length, binary_part(bytes, 0, 40)},
          {:safetensors, :header, String.replace(bytes, "shape", "shake", global: false)},
          {:safetensors, :type, String.replace(bytes, "F32", "F99")},
          {:plain, nil, <<0::64, "{\"">>},
          {:plain, nil, <<9::little-64, "[1,2]">>},
          {:plain, nil, <<9::little-64, "{x">>},
          {:plain, nil, "{\"a\":1}"}
        ] do
      File.write!(path, bytes)
      report = report(path)
      assert {report.format, report.bad_format} == {format, why}
      assert report.status == if(why, do: :damaged, else: :intact)
    end
  end
end
