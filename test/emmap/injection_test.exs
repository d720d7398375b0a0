defmodule Emmap.InjectionTest do
  # Every system call that the library makes fails once in every way, and each time the result is exact, the
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

  # What the library takes from others and that cannot fail, or is not the system's to refuse.
  @not_system_calls ~w(
    abort bcmp calloc free malloc realloc posix_memalign memchr memcmp memcpy memmove memset memrchr strlen
    clock_gettime clock_nanosleep nanosleep getenv geteuid getegid getpid gettid getauxval getrandom sched_yield sysconf pause raise
    dl_iterate_phdr dladdr dlopen dlsym sigaction sigaddset sigemptyset sigismember sigpending sigwait
    munmap poll syscall writev closedir dirfd
  )

  # `poll`, `syscall` (futex and random numbers) and `writev` (to standard error) are the standard library's own; unmapping
  # what is ours cannot be refused, nor can closing a directory.

  test "every system call that the library makes is one that can be made to fail" do
    nm = System.find_executable("nm")
    library = Application.app_dir(:emmap, "priv/native/emmap_nif.so")

    if nm && File.exists?(library) do
      {symbols, 0} = System.cmd(nm, ["-D", "--undefined-only", library])

      imported =
        for line <- String.split(symbols, "\n", trim: true),
            [name | _] = line |> String.split() |> List.last() |> String.split("@"),
            not (name =~ ~r/^(_|enif_|pthread_)/),
            do: name

      source = File.read!(Path.expand("../native/inject.c", __DIR__))
      # Definitions, by hand and by macro.
      by_hand = Regex.scan(~r/^\w[\w ]*[ *](\w+)\([^;]*\)$/m, source, capture: :all_but_first)
      by_macro = Regex.scan(~r/^WRAP\(\w+, \w+, (\w+),/m, source, capture: :all_but_first)
      wrapped = List.flatten(by_hand ++ by_macro)

      assert "pwrite64" in wrapped and "fcntl" in wrapped and length(imported) > 60
      assert imported -- (wrapped ++ @not_system_calls) == []
    else
      IO.puts("skipped: no nm")
    end
  end
end
