defmodule Emmap.Test.Consumer do
  @moduledoc """
  A user's project, and the package as it reaches him.

  What cargo builds for them is built quickly instead of well, and once: in a folder below `_build`
  which stays for the next run.
  """

  @checkout File.cwd!()
  @rust ~w(cargo rustc rustup)

  @doc """
  The files of the package, and no others, in a new folder. `:checksums` is the text of a checksum file, and
  `:publishing` what `publish!/2` sets.
  """
  def package!(folder, options \\ []) do
    File.rm_rf!(folder)

    for pattern <- Mix.Project.config()[:package][:files],
        found <- Path.wildcard(Path.join(@checkout, pattern), match_dot: true),
        not (Path.basename(found) =~ "checksum-") do
      target = Path.join(folder, Path.relative_to(found, @checkout))
      File.mkdir_p!(Path.dirname(target))
      File.cp_r!(found, target)
    end

    if text = options[:checksums],
      do: File.write!(Path.join(folder, "checksum-Elixir.Emmap.Native.exs"), text)

    publish!(folder, Keyword.get(options, :publishing, []))
  end

  @doc "Sets values of `@publishing` in a copy of `mix.exs`, as whoever publishes the package will."
  def publish!(folder, values) do
    file = Path.join(folder, "mix.exs")

    text =
      for {key, value} <- values, reduce: File.read!(file) do
        text ->
          wanted = ~r/^    #{key}: [^,\n]*/m
          true = text =~ wanted
          Regex.replace(wanted, text, "    #{key}: #{inspect(value)}")
      end

    File.write!(file, text)
    folder
  end

  @doc """
  A project that depends on emmap as `dependency` says (the options of a dependency, as code), and
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
    #{readme_example()}
        IO.puts("the README's example ran")
      end
    end
    """)

    if config = options[:config],
      do: write!(folder, "config/config.exs", "import Config\n" <> config)

    folder
  end

  @doc "The first block of Elixir in the README."
  def readme_example do
    [_, code] =
      Regex.run(~r/^```elixir\n(.*?)^```/ms, File.read!(Path.join(@checkout, "README.md")))

    code
  end

  def write!(folder, file, text) do
    path = Path.join(folder, file)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
    path
  end

  @doc "Runs mix in a project: `{output, status}`. `:env`, and `:rust` false for a PATH without cargo."
  def mix(folder, arguments, options \\ []),
    do: command("mix", folder, arguments, options)

  @doc "The same for any command."
  def command(command, folder, arguments, options \\ []) do
    env = if Keyword.get(options, :rust, true), do: [], else: [{"PATH", path_without_rust()}]

    # Questions of mix are not answered.
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
