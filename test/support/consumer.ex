defmodule Emmap.Test.Consumer do
  @moduledoc """
  A user's project that depends on emmap, and the commands in it.

  What cargo builds for it is built quickly instead of well, and once: in a folder below `_build`
  which stays for the next run.
  """

  import ExUnit.Assertions

  @checkout File.cwd!()
  @rust ~w(cargo rustc rustup)
  @ran "the README's example ran"

  @doc """
  A project that depends on emmap as `dependency` says (the options or the version of a dependency, as code), and
  whose `Consumer.run/0` is the README's first example. `:config` is its configuration.
  """
  def project!(folder, dependency, options \\ []) do
    app = Keyword.get(options, :app, "consumer")

    write!(folder, "mix.exs", """
    defmodule #{Macro.camelize(app)}.MixProject do
      use Mix.Project
      def project, do: [app: :#{app}, version: "1.0.0", deps: [{:emmap, #{dependency}}]#{options[:project]}]
    end
    """)

    write!(folder, "lib/consumer.ex", """
    defmodule Consumer do
      def run do
    #{readme_script()}
      end
    end
    """)

    if config = options[:config],
      do: write!(folder, "config/config.exs", "import Config\n" <> config)

    folder
  end

  @doc "The first block of Elixir in the README, which prints that it ran."
  def readme_script do
    [_, code] =
      Regex.run(~r/^```elixir\n(.*?)^```/ms, File.read!(Path.join(@checkout, "README.md")))

    code <> "IO.puts(#{inspect(@ran)})"
  end

  def write!(folder, file, text) do
    path = Path.join(folder, file)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
    path
  end

  @doc "Runs the README's example in a project, and returns what was printed."
  def runs!(folder, options \\ []),
    do: ran!(mix(folder, ["run", "-e", "Consumer.run()"], options))

  @doc "The output of a command that ran the README's example."
  def ran!({output, status}) do
    assert status == 0 and output =~ @ran, output
    output
  end

  @doc "Says that a part of a test is left out, and why."
  def skipped(what, why), do: IO.puts("\nskipped: #{what}, as #{why}")

  @doc "Whether there is Hex. Where `EMMAP_HEX` is `required`, there must be."
  def hex? do
    hex? = match?({_, 0}, mix(@checkout, ["help", "hex.registry"]))
    assert hex? or System.get_env("EMMAP_HEX") != "required", "Hex is missing (mix local.hex)"
    hex?
  end

  @doc "Runs mix in a project: `{output, status}`. `:env`, and `:rust` false for a PATH without cargo."
  def mix(folder, arguments, options \\ []),
    do: command("mix", folder, arguments, options)

  @doc "The same for any command."
  def command(command, folder, arguments, options \\ []) do
    env = if Keyword.get(options, :rust, true), do: [], else: [{"PATH", path_without_rust()}]

    # Nothing replies to the questions that mix asks.
    script = ~s(exec timeout -k 5 500 "$@" </dev/null)

    System.cmd("sh", ["-c", script, "sh", command | arguments],
      cd: folder,
      stderr_to_stdout: true,
      env: own_environment() ++ env ++ Keyword.get(options, :env, [])
    )
  end

  # Ours is that of a test of the checkout; and what is built is to be there soon.
  defp own_environment do
    [
      {"MIX_ENV", nil},
      {"CI", nil},
      {"EMMAP_BUILD", nil},
      {"RUSTLER_PRECOMPILED_FORCE_BUILD_ALL", nil},
      {"CARGO_TARGET_DIR", Path.join(@checkout, "_build/install-cargo")},
      {"CARGO_PROFILE_RELEASE_LTO", "off"},
      {"CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"},
      {"CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"}
    ]
  end

  @doc "The PATH, with folders of links in place of those in which Rust's tools are."
  def path_without_rust do
    System.get_env("PATH")
    |> String.split(":")
    |> Enum.map_join(":", fn folder ->
      if Enum.any?(@rust, &File.exists?(Path.join(folder, &1))), do: links(folder), else: folder
    end)
  end

  defp links(folder) do
    name = folder |> :erlang.md5() |> Base.encode16()
    links = Path.join(@checkout, "_build/install-path/#{name}")

    unless File.dir?(links) do
      File.mkdir_p!(links)

      for file <- File.ls!(folder), file not in @rust do
        File.ln_s(Path.join(folder, file), Path.join(links, file))
      end
    end

    links
  end
end
