defmodule Mix.Tasks.Emmap.InspectTest do
  # The shell of Mix is one for all.
  use ExUnit.Case, async: false
  alias Mix.Tasks.Emmap.Inspect, as: Task

  @moduletag :tmp_dir
  @counters "test/fixtures/formats/counters-v1-named.bin"
  @old "test/fixtures/formats/counters-v0-predecessor.bin"

  setup %{tmp_dir: directory} do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
    damaged = Path.join(directory, "damaged.cnt")
    <<start::binary-size(24), _, rest::binary>> = File.read!(@counters)
    File.write!(damaged, [start, 77, rest])
    unknown = Path.join(directory, "unknown.cnt")
    <<header::binary-size(76), _::32, rest::binary>> = File.read!(@counters)
    header = binary_part(header, 0, 8) <> <<9>> <> binary_part(header, 9, 67)
    File.write!(unknown, [header, <<:erlang.crc32(header)::little-32>>, rest])
    %{damaged: damaged, unknown: unknown}
  end

  # The exit status, and what was printed to standard output and error.
  defp run(arguments) do
    status =
      try do
        Task.run(arguments)
      catch
        :exit, {:shutdown, status} -> {:exit, status}
      end

    {status, printed(:info), printed(:error)}
  end

  defp printed(kind) do
    receive do
      {:mix_shell, ^kind, [text]} -> [IO.chardata_to_string(text) | printed(kind)]
    after
      0 -> []
    end
  end

  test "sound files: no status, each in turn" do
    assert {:ok, [counters, old, plain], []} = run([@counters, @old, "README.md"])
    assert counters =~ "#{@counters}: counters, version 1, intact\n"
    assert counters =~ ~r/largest requests: 40\n.*\n +requests  40\n +errors +2\n/
    assert counters =~ "header    at 4096: the same"
    assert old =~ "counters of the predecessor, intact"
    assert plain =~ "README.md: a plain file\n"
  end

  test "damage is 1, what cannot be read is 2", %{damaged: damaged, unknown: unknown} do
    assert {{:exit, 1}, [_, text], []} = run([@counters, damaged])
    assert text =~ "DAMAGED"
    assert text =~ "byte 24: header at 0, number of counters"
    assert {{:exit, 2}, [text], []} = run([unknown])
    assert text =~ "of a version or byte order that this version of Emmap does not read"
    assert text =~ "byte 8: header at 0, version"

    assert {{:exit, 2}, [_, _], ["nowhere: no such file or directory"]} =
             run([damaged, "nowhere", @old])
  end

  test "what is no file", %{tmp_dir: directory} do
    fifo = Path.join(directory, "fifo")
    {_, 0} = System.cmd("mkfifo", [fifo])

    for {path, message} <- [
          {fifo, "not a regular file"},
          {"/dev/zero", "not a regular file"},
          {directory, "a directory"},
          {Path.join(directory, "none"), "no such file or directory"},
          {"", "no such file or directory"}
        ] do
      assert {{:exit, 2}, [], [text]} = run([path])
      assert text =~ "#{path}: #{message}"
      assert {{:exit, 2}, [json], []} = run(["--json", path])
      assert json =~ ~s("error":")
    end
  end

  test "--json is one object a line", %{damaged: damaged} do
    assert {{:exit, 2}, lines, []} = run(["--json", @counters, damaged, "nowhere"])
    assert [sound, damaged, nowhere] = lines
    assert sound =~ ~s("status":"intact")
    assert sound =~ ~s("sum":42)
    assert damaged =~ ~s("status":"damaged")

    assert nowhere ==
             ~s({"error":"enoent","message":"no such file or directory","path":"nowhere"})

    refute Enum.any?(lines, &(&1 =~ "\n"))
  end

  test "--values" do
    assert {:ok, [text], []} = run(["--values", "1", @old])
    assert text =~ "0  50\n              and 2 more"
    assert {:ok, [text], []} = run([@old, "--values", "all"])
    assert text =~ "2  1\n"
    refute text =~ " more\n"
  end

  test "a caller's mistake says how it is called" do
    for arguments <- [[], ["--json"], ["--jsn", "x"], ["--values", "x"], ["--values", "x", "y"]] do
      assert_raise Mix.Error, ~r/mix emmap.inspect \[--json\]/, fn -> Task.run(arguments) end
    end
  end

  # A project of a user: it need not start, nor compile.
  @tag :slow
  @tag timeout: 300_000
  test "as a task of a dependency, whose user's application is not started", %{tmp_dir: directory} do
    File.mkdir_p!(Path.join(directory, "lib"))

    File.write!(Path.join(directory, "mix.exs"), """
    defmodule User.MixProject do
      use Mix.Project
      def project, do: [app: :user, version: "0.1.0", deps: [{:emmap, path: #{inspect(File.cwd!())}}]]
      def application, do: [mod: {User, []}]
    end
    """)

    File.write!(Path.join(directory, "lib/user.ex"), """
    defmodule User do
      use Application
      def start(_type, _arguments), do: File.write!("started", "") && {:error, :must_not_start}
    end
    """)

    mix = fn arguments ->
      System.cmd("mix", arguments,
        cd: directory,
        env: [{"MIX_ENV", "prod"}],
        stderr_to_stdout: true
      )
    end

    assert {_, 0} = mix.(["deps.compile"])
    file = Path.expand(@counters)
    assert {text, 0} = mix.(["emmap.inspect", "--json", file])
    assert text =~ ~s("sum":42)
    assert {text, 2} = mix.(["emmap.inspect", file, "nowhere"])
    assert text =~ "nowhere: no such file"
    refute File.exists?(Path.join(directory, "started"))
  end
end
