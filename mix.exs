defmodule Emmap.MixProject do
  use Mix.Project

  @version "1.0.0-rc.0"

  # What is published, and where. Nothing is decided yet, so nothing is set, and all that depends on it is off: links
  # and links to the source, libraries that are built already, attestation and drafts in the release workflow, and
  # `mix hex.publish`. This is the only place: tools/publishing reads these lines for the tools and the workflow.
  # "Releasing" in CONTRIBUTING.md describes both ways to decide.
  @publishing [
    # The package on Hex, which must have the name of the application: "emmap" on Hex is another library.
    package: nil,
    # The page of the repository: "https://github.com/OWNER/NAME"
    repository: nil,
    # The folder with one folder for each version: "https://github.com/OWNER/NAME/releases/download"
    artifacts: nil
  ]

  # Only a published package has it: it names the libraries of that release and their checksums.
  @checksums "checksum-Elixir.Emmap.Native.exs"

  def project do
    [
      app: :emmap,
      version: @version,
      elixir: "~> 1.14",
      description: "Memory-mapped files: handles that are files, binaries that are the file",
      compilers: [:emmap] ++ Mix.compilers() ++ [:erlang_docs],
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: System.get_env("CI") == "true"],
      start_permanent: false,
      deps: deps(library()),
      # Read by the compiler below and by Emmap.Native.Library: {:source, why} or :precompiled.
      library: library(),
      publishing: @publishing,
      package: package(),
      aliases: ["hex.publish": [&publishable!/1, "hex.publish"]],
      docs: &docs/0,
      name: "Emmap",
      source_url: @publishing[:repository]
    ]
  end

  def application, do: [extra_applications: []]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # Mix asks for Hex as soon as one Hex package is listed, so a checkout lists none, but for its pages.
  defp deps(:precompiled),
    do: [{:rustler_precompiled, "~> 0.8.2 or ~> 0.9.0", runtime: false} | deps_of_docs()]

  defp deps({:source, _why}), do: deps_of_docs()

  defp deps_of_docs do
    if Mix.env() == :docs, do: [{:ex_doc, "~> 0.35", only: :docs, runtime: false}], else: []
  end

  # The same for `MIX_ENV=docs mix docs` and for the ex_doc command of `make docs`.
  defp docs do
    {pages, _} = Code.eval_file(Path.join(__DIR__, "docs/ex_doc.exs"))
    if @publishing[:repository], do: [source_ref: "v#{@version}"] ++ pages, else: pages
  end

  defp publishable!(_arguments) do
    case System.cmd(Path.join(__DIR__, "tools/publishing"), [], stderr_to_stdout: true) do
      {_, 0} -> :ok
      {why, _} -> Mix.raise(String.trim(why))
    end
  end

  # Where the NIF library comes from. The settings are those of rustler_precompiled, and one of our own.
  defp library do
    force_build = Application.get_env(:rustler_precompiled, :force_build, [])

    cond do
      @publishing[:artifacts] == nil ->
        {:source, "no release is published yet"}

      not File.exists?(Path.join(__DIR__, @checksums)) ->
        {:source, "there is no #{@checksums}"}

      set?("EMMAP_BUILD") ->
        {:source, "EMMAP_BUILD is set"}

      set?("RUSTLER_PRECOMPILED_FORCE_BUILD_ALL") ->
        {:source, "RUSTLER_PRECOMPILED_FORCE_BUILD_ALL is set"}

      force_build[:emmap] ->
        {:source, "config :rustler_precompiled, :force_build names emmap"}

      force_build_all?() ->
        {:source, "config :rustler_precompiled, :force_build_all is true"}

      # rustler_precompiled has no libraries of such a version, either.
      "dev" in Version.parse!(@version).pre ->
        {:source, "#{@version} is no release"}

      true ->
        :precompiled
    end
  end

  defp set?(variable), do: System.get_env(variable) in ["1", "true"]

  defp force_build_all?,
    do: Application.get_env(:rustler_precompiled, :force_build_all, false) == true

  # ex_doc links to Hex wherever there is a package, and by the name of the application if the package has none.
  defp package, do: if(@publishing[:package] || Mix.env() != :docs, do: package(@publishing))

  defp package(publishing) do
    [
      name: publishing[:package],
      licenses: ["Apache-2.0"],
      links: if(url = publishing[:repository], do: %{"Source" => url}, else: %{}),
      files:
        ~w(lib native/.cargo native/Cargo.toml native/Cargo.lock native/emmap_core/src native/emmap_nif/src) ++
          ~w(native/emmap_core/Cargo.toml native/emmap_nif/Cargo.toml) ++
          ~w(native/emmap_c/Cargo.toml native/emmap_c/src native/emmap_c/include) ++
          ~w(mix.exs README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE .formatter.exs) ++
          ~w(docs guides livebooks) ++
          checksums()
    ]
  end

  # Hex takes no name of a file that is not there.
  defp checksums, do: if(File.exists?(Path.join(__DIR__, @checksums)), do: [@checksums], else: [])
end

defmodule Mix.Tasks.Compile.Emmap do
  @moduledoc false
  # Builds the NIF library with cargo and puts it where `Emmap.Native` loads it from. Does nothing
  # where the library of a release is used. Builds in the folder of the sources, so that all environments and
  # projects use one library; where that folder is read-only, in the build folder of the project.
  use Mix.Task.Compiler

  defmodule Progress do
    @moduledoc false
    # Prints what cargo says, line by line, except the lines for a build that had nothing to do or waited for another one.
    defstruct line: ""

    defimpl Collectable do
      def into(progress), do: {progress, &collect/2}

      defp collect(progress, {:cont, data}) do
        [rest | lines] = (progress.line <> data) |> String.split("\n") |> Enum.reverse()
        lines |> Enum.reverse() |> Enum.each(&print(&1, "\n"))
        %{progress | line: rest}
      end

      defp collect(progress, _done) do
        print(progress.line, "")
        progress
      end

      defp print(line, ending) do
        unless line =~ ~r/^ *(Finished |Blocking waiting for file lock)/,
          do: IO.write([line, ending])
      end
    end
  end

  @package "emmap_nif"
  @native Path.join(__DIR__, "native")

  @impl true
  def run(_args) do
    case Mix.Project.config()[:library] do
      :precompiled -> :noop
      {:source, why} -> build(library_file(), why)
    end
  end

  @impl true
  def clean do
    # What a build that was killed left behind is named after the library, too.
    folder = Path.dirname(installed())

    with {:ok, files} <- File.ls(folder) do
      for file <- files, file =~ @package, do: File.rm!(Path.join(folder, file))
    end

    :ok
  end

  defp build(file, why) do
    stale = stale?()

    cond do
      # A library in a read-only folder cannot be replaced.
      not writable?() and root() == __DIR__ and not stale -> linked(:noop)
      not writable?() and root() == __DIR__ -> Mix.raise(read_only())
      cargo = System.find_executable("cargo") -> build(cargo, file, stale, why)
      stale -> Mix.raise(no_cargo(why))
      true -> linked(:noop)
    end
  end

  defp build(cargo, file, stale, why) do
    target = Path.expand(System.get_env("CARGO_TARGET_DIR") || target())
    args = ~w(build --release --locked --package #{@package} --target-dir) ++ [target]

    if stale do
      check_version(cargo, why)
      Mix.shell().info("Compiling the library of emmap with cargo (some minutes, once)")
    end

    # Whether anything has changed, flags and toolchain included, is for cargo to say.
    options = [cd: @native, stderr_to_stdout: true, into: %Progress{}]

    case System.cmd(cargo, args, options) do
      {_, 0} ->
        # With CARGO_BUILD_TARGET cargo builds for another machine, in a folder of that name.
        folders = [target, System.get_env("CARGO_BUILD_TARGET") || "", "release", file]
        folders |> Enum.reject(&(&1 == "")) |> Path.join() |> install() |> linked()

      {_, status} ->
        Mix.raise("cargo #{Enum.join(args, " ")} ended with #{status}")
    end
  end

  defp install(built) do
    installed = installed()

    if File.exists?(installed) and File.read!(built) == File.read!(installed) do
      # So that it is not older than its sources.
      File.touch!(installed)
      :noop
    else
      # By rename, never by copying over: a VM may have the old one loaded.
      File.mkdir_p!(Path.dirname(installed))
      fresh = "#{installed}.#{System.pid()}"
      File.cp!(built, fresh)
      File.rename!(fresh, installed)
      :ok
    end
  end

  defp installed, do: Path.join([root(), "priv", "native", "#{@package}.so"])

  # Mix links the folder priv of the sources into the build folder, so one that is there is used.
  defp root do
    if writable?() or File.dir?(Path.join(__DIR__, "priv")),
      do: __DIR__,
      else: Mix.Project.app_path()
  end

  defp target do
    if writable?(),
      do: Path.join(@native, "target"),
      else: Path.join(Mix.Project.app_path(), "target")
  end

  defp writable?, do: File.stat!(__DIR__).access in [:write, :read_write]

  # Always: a build in another Mix environment may have made priv after this one looked for it.
  defp linked(result) do
    Mix.Project.build_structure()
    result
  end

  defp stale? do
    # From within, as the path to here may have characters that a wildcard reads otherwise.
    patterns = ~w(Cargo.* .cargo/* emmap_*/Cargo.toml emmap_*/src/**/*.rs)
    below = File.cd!(@native, fn -> Enum.flat_map(patterns, &wildcard/1) end)
    sources = Enum.map(below, &Path.join(@native, &1))

    Mix.Utils.stale?(sources, [installed()])
  end

  defp wildcard(pattern), do: Path.wildcard(pattern, match_dot: true)

  defp check_version(cargo, why) do
    needed = needed()

    with {"cargo " <> said, 0} <- System.cmd(cargo, ["--version"], cd: @native),
         [version | _] <- String.split(said),
         {:ok, version} <- Version.parse(version),
         # A nightly 1.91 is a 1.91.
         :lt <- Version.compare(%{version | pre: []}, needed <> ".0") do
      Mix.raise(
        "emmap is built from source here, because #{why}. That takes Rust #{needed} or later, and #{cargo} is " <>
          "#{version}: update it (rustup update), or install Rust from https://rustup.rs"
      )
    end
  end

  defp no_cargo(why) do
    "emmap is built from source here, because #{why}. That takes cargo, and there is none on the PATH: " <>
      "install Rust #{needed()} or later (https://rustup.rs) and run this again"
  end

  defp read_only do
    "#{installed()} is missing or older than its sources, and #{__DIR__} is read-only: " <>
      "remove the folder priv there, and emmap is built in the build folder of each project"
  end

  # Said in one place, for cargo and for us.
  defp needed do
    [_, needed] =
      Regex.run(~r/^rust-version = "(.*)"$/m, File.read!(Path.join(@native, "Cargo.toml")))

    needed
  end

  defp library_file do
    case :os.type() do
      {:unix, :darwin} -> "lib#{@package}.dylib"
      {:unix, _} -> "lib#{@package}.so"
      _ -> Mix.raise("emmap needs POSIX memory maps and signals: Windows has neither")
    end
  end
end

defmodule Mix.Tasks.Compile.ErlangDocs do
  @moduledoc false
  # Makes the Erlang shell's `h(emmap, open)` and `ht(emmap)` show specs and types: writes them into the
  # documentation chunks of the modules for Erlang, as Erlang has them there.
  use Mix.Task.Compiler

  @modules [:emmap, :emmap_queue]

  @impl true
  def run(_args) do
    results = Enum.map(@modules, &rewrite/1)
    if :ok in results, do: :ok, else: :noop
  end

  defp rewrite(module) do
    path = Path.join(Mix.Project.compile_path(), "#{module}.beam")

    case File.read(path) do
      {:ok, beam} -> path |> write(beam, rewritten(beam, erlang_debug_info?()))
      _ -> :noop
    end
  end

  # In OTP 27 and 28 `h/2` raises an error when a module has the debug information of another language. Elixir
  # itself wants its own, to check what is compiled a part at a time; so only projects that depend on this one get Erlang's:
  # as a dependency we are compiled for `:prod`, and these modules with every change.
  defp erlang_debug_info? do
    Mix.env() == :prod and System.otp_release() in ["27", "28"]
  end

  @doc "The module with specs in its documentation and, if so wanted, debug information of Erlang's."
  def rewritten(beam, erlang_debug_info?) do
    with {:ok, _module, chunks} = :beam_lib.all_chunks(beam),
         {_, docs} <- List.keyfind(chunks, ~c"Docs", 0, :none),
         {:ok, {_, abstract_code: {:raw_abstract_v1, forms}}} <-
           :beam_lib.chunks(beam, [:abstract_code]) do
      docs = docs |> :erlang.binary_to_term() |> with_signatures(forms)
      debug_info = {:debug_info_v1, :erl_abstract_code, {forms, []}}

      chunks =
        Enum.map(chunks, fn
          {~c"Docs", _} -> {~c"Docs", :erlang.term_to_binary(docs, [:compressed])}
          {~c"Dbgi", _} when erlang_debug_info? -> {~c"Dbgi", :erlang.term_to_binary(debug_info)}
          other -> other
        end)

      {:ok, beam} = :beam_lib.build_module(chunks)
      beam
    else
      # Compiled without what there would be to show.
      _ -> beam
    end
  end

  # Done before.
  defp write(_path, beam, beam), do: :noop

  # Whole or not at all: others may be reading it.
  defp write(path, _before, beam) do
    fresh = "#{path}.#{System.pid()}"
    File.write!(fresh, beam)
    File.rename!(fresh, path)
    :ok
  end

  defp with_signatures(docs, forms) do
    signatures = for form <- forms, key = key(form), into: %{}, do: {key, form}

    entries =
      for {key, line, signature, doc, meta} <- elem(docs, 6) do
        case signatures do
          %{^key => form} ->
            {key, line, signature, doc, Map.put(meta, :signature, [capitals(form)])}

          _ ->
            {key, line, signature, doc, meta}
        end
      end

    put_elem(docs, 6, entries)
  end

  defp key({:attribute, _, :spec, {{name, arity}, _}}), do: {:function, name, arity}

  defp key({:attribute, _, kind, {name, _, parameters}}) when kind in [:type, :opaque],
    do: {:type, name, length(parameters)}

  defp key(_form), do: nil

  # Variables, which Elixir writes small.
  defp capitals({:var, line, name}),
    do: {:var, line, name |> Atom.to_string() |> Macro.camelize() |> String.to_atom()}

  defp capitals(form) when is_tuple(form),
    do: form |> Tuple.to_list() |> capitals() |> List.to_tuple()

  defp capitals(forms) when is_list(forms), do: Enum.map(forms, &capitals/1)
  defp capitals(other), do: other
end
