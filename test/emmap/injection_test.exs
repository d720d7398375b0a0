defmodule Emmap.InjectionTest do
  # Every system call that the library makes fails once in every way, and each time the answer is exact, the
  # file as it was, and nothing kept.
  use ExUnit.Case, async: true
  alias Emmap.Test.{ChildVM, CLibrary}

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  test "every system call of every operation fails in every way", %{tmp_dir: directory} do
    case CLibrary.build("inject", directory) do
      {:ok, library} ->
        control = Path.join(directory, "control")
        File.write!(control, <<0::64*64>>)

        {played, wrong, left} =
          ChildVM.run!(
            "Emmap.Test.Inject.run(#{inspect(Path.join(directory, "stage"))}, #{inspect(control)})",
            env: [{"LD_PRELOAD", library <> ".so"}, {"EMMAP_INJECT", control}],
            timeout: 580
          )

        rows = Enum.map_join(wrong, "\n", &inspect(&1, limit: 9, printable_limit: 40))
        assert wrong == [], rows
        assert left == ["data"]
        assert played > 2000

      {:error, why} ->
        IO.puts("skipped: #{why}")
    end
  end
end
