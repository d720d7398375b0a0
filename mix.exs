defmodule Emmap.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://github.com/emmap/emmap"

  def project do
    [
      app: :emmap,
      version: @version,
      elixir: "~> 1.14",
      description: "Memory-mapped files: handles that are files, binaries that are the file",
      compilers: [:cargo] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: System.get_env("CI") == "true"],
      start_permanent: false,
      # Mix asks for Hex as soon as one Hex package is listed, so a checkout lists none.
      deps: [],
      package: package(),
      source_url: @source_url
    ]
  end

  def application, do: [extra_applications: []]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{"GitHub" => @source_url},
      files:
        ~w(lib native/.cargo native/Cargo.toml native/Cargo.lock native/emmap_core/src native/emmap_nif/src) ++
          ~w(native/emmap_core/Cargo.toml native/emmap_nif/Cargo.toml) ++
          ~w(mix.exs README.md CHANGELOG.md LICENSE .formatter.exs docs)
    ]
  end
end

defmodule Mix.Tasks.Compile.Cargo do
  @moduledoc false
  # Builds the NIF library with cargo and puts it where `Emmap.Native` loads it from.
  use Mix.Task.Compiler

  @library "emmap_nif"

  @impl true
  def run(_args) do
    cargo =
      System.find_executable("cargo") ||
        Mix.raise(
          "emmap builds a Rust library and found no cargo: install Rust (https://rustup.rs) and run this again"
        )

    native = Path.join(File.cwd!(), "native")
    target = Path.expand(System.get_env("CARGO_TARGET_DIR") || Path.join(native, "target"))
    args = ~w(build --release --locked --package #{@library})
    # cargo is quiet unless it builds something; what it says goes to standard error.
    options = [cd: native, env: [{"CARGO_TARGET_DIR", target}], into: IO.stream(:stdio, :line)]

    case System.cmd(cargo, ["--quiet" | args], [stderr_to_stdout: true] ++ options) do
      {_, 0} -> install(Path.join([target, "release", library_file()]))
      {_, status} -> Mix.raise("cargo #{Enum.join(args, " ")} ended with #{status}")
    end
  end

  @impl true
  def clean do
    File.rm_rf(installed())
    :ok
  end

  defp install(built) do
    installed = installed()

    if File.exists?(installed) and same?(built, installed) do
      :noop
    else
      # By rename, never by copying over: a VM may have the old one loaded.
      File.mkdir_p!(Path.dirname(installed))
      fresh = "#{installed}.#{System.pid()}"
      File.cp!(built, fresh)
      File.rename!(fresh, installed)
      Mix.Project.build_structure()
      :ok
    end
  end

  defp same?(one, other), do: File.read!(one) == File.read!(other)

  defp installed, do: Path.join([File.cwd!(), "priv", "native", "#{@library}.so"])

  defp library_file do
    case :os.type() do
      {:unix, :darwin} -> "lib#{@library}.dylib"
      {:unix, _} -> "lib#{@library}.so"
      _ -> Mix.raise("emmap needs POSIX memory maps and signals: Windows has neither")
    end
  end
end
