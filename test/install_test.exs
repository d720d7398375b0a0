defmodule InstallTest do
  # Every way to install emmap, each as a user's project does it. What is printed is a transcript.
  use ExUnit.Case, async: false

  import Emmap.Test.Consumer
  alias Emmap.Test.FileServer

  @moduletag :tmp_dir
  @moduletag :slow
  @moduletag timeout: 900_000

  @ran "the README's example ran"
  # One place, so that cargo knows it again.
  @package Path.expand("_build/install-package")
  # A package that is published, as `@publishing` in mix.exs says it. Nothing listens at that address.
  @published [
    package: "emmap",
    repository: "https://127.0.0.1:1/emmap",
    artifacts: "https://127.0.0.1:1/emmap/releases"
  ]

  setup_all do
    package!(@package)
    on_exit(fn -> File.rm_rf!(@package) end)
  end

  defp library(package), do: Path.join(package, "priv/native/emmap_nif.so")
  defp inode(file), do: File.stat!(file).inode

  defp runs!(folder, options \\ []) do
    {output, status} = mix(folder, ["run", "-e", "Consumer.run()"], options)
    assert status == 0 and output =~ @ran, output
    output
  end

  describe "from source" do
    test "a path dependency; a second compile does nothing; clean; a changed Rust file", %{
      tmp_dir: dir
    } do
      project!(dir, "path: #{inspect(@package)}")
      File.rm_rf!(Path.join(@package, "priv"))

      assert runs!(dir) =~ "Compiling the library of emmap with cargo"
      first = inode(library(@package))
      assert {"", 0} = mix(dir, ["compile"])
      # Nothing to build: then cargo is not needed, either.
      assert {"", 0} = mix(dir, ["compile"], rust: false)
      assert inode(library(@package)) == first

      # Another Mix environment uses the same library.
      refute runs!(dir, env: [{"MIX_ENV", "prod"}]) =~ "Compiling the library"
      assert inode(library(@package)) == first

      source = Path.join(@package, "native/emmap_nif/src/lib.rs")
      text = File.read!(source)
      File.write!(source, text <> "\n#[no_mangle]\npub static MARK: [u8; 9] = *b\"changed-1\";\n")
      on_exit(fn -> File.write!(source, text) end)
      refute File.read!(library(@package)) =~ "changed-1"
      assert runs!(dir) =~ "Compiling the library"
      assert File.read!(library(@package)) =~ "changed-1"
      # A new file under the old name: a VM that has the old one loaded keeps it.
      assert inode(library(@package)) != first

      assert {_, 0} = mix(@package, ["clean"])
      assert File.ls!(Path.join(@package, "priv/native")) == []
    end

    test "two builds at once, in two environments, from nothing", %{tmp_dir: dir} do
      File.rm_rf!(Path.join(@package, "priv"))

      builds =
        for env <- ["dev", "test"] do
          folder = project!(Path.join(dir, env), "path: #{inspect(@package)}")
          Task.async(fn -> runs!(folder, env: [{"MIX_ENV", env}]) end)
        end

      Task.await_many(builds, 600_000)
      assert File.ls!(Path.join(@package, "priv/native")) == ["emmap_nif.so"]

      # And in one project, which both share.
      folder = project!(Path.join(dir, "one"), "path: #{inspect(@package)}")
      File.rm_rf!(Path.join(@package, "priv"))

      for env <- ["dev", "test"] do
        Task.async(fn -> runs!(folder, env: [{"MIX_ENV", env}]) end)
      end
      |> Task.await_many(600_000)
    end

    test "a git dependency", %{tmp_dir: dir} do
      repository = package!(Path.join(dir, "repository"))
      git = ~w(-c user.name=test -c user.email=test@example.com)

      for arguments <- [~w(init -q), ~w(add -A), git ++ ~w(commit -q -m one)],
          do: assert({_, 0} = System.cmd("git", arguments, cd: repository))

      project!(Path.join(dir, "user"), "git: #{inspect("file://" <> repository)}")
      assert {_, 0} = mix(Path.join(dir, "user"), ["deps.get"])
      assert runs!(Path.join(dir, "user")) =~ "Compiling the library"
    end

    test "a read-only source tree, and what cargo prints", %{tmp_dir: dir} do
      File.rm_rf!(Path.join(@package, "priv"))
      File.rm_rf!(Path.join(@package, "native/target"))
      read_only = Path.join(dir, "read_only")
      File.mkdir_p!(read_only)
      user = project!(Path.join(dir, "user"), "path: #{inspect(read_only)}")
      # From nothing, with cargo's folder where a user has it.
      env = [{"CARGO_TARGET_DIR", nil}, {"CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"}]

      script = """
      mount --bind #{@package} #{read_only} && mount -o remount,ro,bind #{read_only} && exec "$@"
      """

      mix = fn arguments ->
        unshare = ["-m", "sh", "-c", script, "sh", "mix" | arguments]
        command("unshare", user, unshare, env: env)
      end

      case command("unshare", dir, ["-m", "true"]) do
        {_, 0} ->
          assert {output, 0} = mix.(["run", "-e", "Consumer.run()"])
          assert output =~ @ran
          assert output =~ "Compiling the library of emmap with cargo"
          assert output =~ ~r/^ *Compiling memmap2 /m
          assert {"", 0} = mix.(["compile"])
          assert {output, 0} = mix.(["run", "-e", "Consumer.run()"])
          refute output =~ "Compiling"
          refute File.exists?(Path.join(@package, "priv"))

          # A library that was built before is used, unless it is too old.
          installed = library(@package)
          File.mkdir_p!(Path.dirname(installed))
          File.cp!(Path.join(user, "_build/dev/lib/emmap/priv/native/emmap_nif.so"), installed)
          File.rm_rf!(Path.join(user, "_build"))
          assert {output, 0} = mix.(["run", "-e", "Consumer.run()"])
          assert output =~ @ran
          refute output =~ "Compiling the library"
          File.touch!(installed, {{2020, 1, 1}, {0, 0, 0}})
          assert {output, 1} = mix.(["compile", "--force"])
          assert output =~ "is missing or older than its sources, and #{read_only} is read-only"

        {output, _} ->
          IO.puts("\nskipped: a read-only source tree, as it takes a mount: #{output}")
      end
    end

    test "in an umbrella", %{tmp_dir: dir} do
      write!(dir, "mix.exs", """
      defmodule All.MixProject do
        use Mix.Project
        def project, do: [apps_path: "apps", version: "1.0.0", deps: []]
      end
      """)

      paths =
        ~s|, build_path: "../../_build", deps_path: "../../deps", lockfile: "../../mix.lock"|

      app =
        project!(Path.join(dir, "apps/consumer"), "path: #{inspect(@package)}", project: paths)

      assert {_, 0} = mix(dir, ["compile"])
      assert {output, 0} = mix(dir, ["run", "-e", "Consumer.run()"])
      assert output =~ @ran
      runs!(app)
    end

    test "in a release, started from another folder", %{tmp_dir: dir} do
      project!(dir, "path: #{inspect(@package)}")
      assert {output, 0} = mix(dir, ["release", "--quiet"], env: [{"MIX_ENV", "prod"}])
      # What is moved to another machine has all it needs.
      moved = Path.join(dir, "moved")
      File.rename!(Path.join(dir, "_build/prod/rel/consumer"), moved)
      elsewhere = Path.join(dir, "elsewhere")
      File.mkdir_p!(elsewhere)

      assert {started, 0} =
               command(Path.join(moved, "bin/consumer"), elsewhere, ["eval", "Consumer.run()"]),
             output

      assert started =~ @ran
      assert File.exists?(Path.join(elsewhere, "data.bin"))
    end

    test "without cargo, or with an old one, it says what is missing and why", %{tmp_dir: dir} do
      package = package!(Path.join(dir, "package"))
      project!(Path.join(dir, "user"), "path: #{inspect(package)}")

      assert {output, 1} = mix(Path.join(dir, "user"), ["compile"], rust: false)

      assert output =~
               "emmap is built from source here, because no release is published yet. " <>
                 "That takes cargo, and there is none on the PATH: install Rust 1.91 or later (https://rustup.rs)"

      old = write!(dir, "old/cargo", "#!/bin/sh\necho 'cargo 1.60.0 (d1fd9fe2c 2022-03-01)'\n")
      File.chmod!(old, 0o755)
      path = Path.dirname(old) <> ":" <> System.get_env("PATH")
      assert {output, 1} = mix(Path.join(dir, "user"), ["compile"], env: [{"PATH", path}])
      assert output =~ "That takes Rust 1.91 or later, and #{old} is 1.60.0: update it"
    end
  end

  describe "which library" do
    defp chosen(folder, options \\ []) do
      code = "IO.inspect(Mix.Project.config()[:library])"
      arguments = ["run", "--no-compile", "--no-deps-check", "--no-start", "-e", code]
      {output, 0} = mix(folder, arguments, options)
      output |> String.trim() |> Code.eval_string() |> elem(0)
    end

    test "a checkout: from source; a package: from the release, unless a setting says otherwise",
         %{tmp_dir: dir} do
      # Not before there is an address, even if there were checksums.
      package = package!(Path.join(dir, "package"), checksums: "%{}")
      assert chosen(package) == {:source, "no release is published yet"}
      package = package!(Path.join(dir, "package"), publishing: @published)
      assert {:source, "there is no checksum" <> _} = chosen(package)
      package = package!(Path.join(dir, "package"), publishing: @published, checksums: "%{}")

      # Mix would ask for Hex here. That it is listed is what hex.build needs, and all that is asked.
      stand_in!(package)
      assert chosen(package) == :precompiled

      for {name, why} <- [
            {"EMMAP_BUILD", "EMMAP_BUILD is set"},
            {"RUSTLER_PRECOMPILED_FORCE_BUILD_ALL", "RUSTLER_PRECOMPILED_FORCE_BUILD_ALL is set"}
          ],
          value <- ["1", "true"] do
        assert chosen(package, env: [{name, value}]) == {:source, why}
      end

      assert chosen(package, env: [{"EMMAP_BUILD", "0"}]) == :precompiled
    end

    # No Hex here, so that a dependency on rustler_precompiled would fail: these build from source.
    setup context do
      if context[:published] do
        before = File.read!(Path.join(@package, "mix.exs"))
        publish!(@package, @published)
        checksums = Path.join(@package, "checksum-Elixir.Emmap.Native.exs")
        File.write!(checksums, "%{}")

        on_exit(fn ->
          File.rm(checksums)
          File.write!(Path.join(@package, "mix.exs"), before)
        end)
      end

      :ok
    end

    for setting <- [":force_build, emmap: true", "force_build_all: true"] do
      @tag published: true
      test "config :rustler_precompiled, #{setting}", %{tmp_dir: dir} do
        config = "config :rustler_precompiled, #{unquote(setting)}\n"
        project!(dir, "path: #{inspect(@package)}", config: config)
        runs!(dir)
      end
    end

    @tag published: true
    test "EMMAP_BUILD=1", %{tmp_dir: dir} do
      project!(dir, "path: #{inspect(@package)}")
      runs!(dir, env: [{"EMMAP_BUILD", "1"}])
    end
  end

  # In place of rustler_precompiled from Hex, which the package lists.
  defp stand_in!(package) do
    file = Path.join(package, "mix.exs")
    text = File.read!(file)
    wanted = ~s|{:rustler_precompiled, "~> 0.8.2 or ~> 0.9.0", runtime: false}|
    assert text =~ wanted
    path = inspect(Path.expand("test/fixtures/rustler_precompiled"))
    File.write!(file, String.replace(text, wanted, "{:rustler_precompiled, path: #{path}}"))
  end

  describe "from the artifact of a release" do
    setup %{tmp_dir: dir} do
      artifacts = Path.join(dir, "artifacts")
      package = package!(Path.join(dir, "package"), publishing: @published)
      env = [{"ARTIFACTS", artifacts}]
      for tool <- ["artifact", "checksums"], do: copy_tool!(package, tool)
      {output, 0} = command("tools/artifact", package, [], env: env)
      {_, 0} = command("tools/checksums", package, [artifacts])
      # What was built is gone: only the artifact is left.
      File.rm_rf!(Path.join(package, "native/target"))
      %{artifacts: artifacts, package: package, artifact: output |> String.trim() |> last_line()}
    end

    defp copy_tool!(package, tool) do
      target = Path.join(package, "tools/#{tool}")
      File.mkdir_p!(Path.dirname(target))
      File.cp!("tools/#{tool}", target)
    end

    defp last_line(text), do: text |> String.split("\n") |> List.last()

    test "its name, what is in it, its checksum", %{package: package, artifact: artifact} do
      version = Mix.Project.config()[:version]
      {rustc, 0} = System.cmd("rustc", ["-vV"])
      [_, host] = Regex.run(~r/^host: (.*)$/m, rustc)
      name = "libemmap_nif-v#{version}-nif-2.16-#{host}.so"
      assert Path.basename(artifact) == name <> ".tar.gz"
      assert host in Emmap.Native.Library.targets()

      # One file, without a folder: rustler_precompiled unpacks it into priv/native.
      assert {:ok, [{entry, library}]} =
               :erl_tar.extract(String.to_charlist(artifact), [:memory, :compressed])

      assert List.to_string(entry) == name
      assert library =~ "nif_init"

      sum = Base.encode16(:crypto.hash(:sha256, File.read!(artifact)), case: :lower)
      {checksums, _} = Code.eval_file(Path.join(package, "checksum-Elixir.Emmap.Native.exs"))
      assert checksums == %{(name <> ".tar.gz") => "sha256:" <> sum}
    end

    test "installs and runs without cargo, by a stand-in for rustler_precompiled", context do
      %{tmp_dir: dir, artifacts: artifacts, package: package, artifact: artifact} = context
      stand_in!(package)
      port = FileServer.start!(artifacts)
      config = "config :emmap, artifacts_url: \"http://127.0.0.1:#{port}\"\n"

      user = project!(Path.join(dir, "user"), "path: #{inspect(package)}", config: config)
      refute runs!(user, rust: false) =~ "cargo"
      name = Path.basename(artifact)
      assert_received {:asked, ^name}

      # What the running system is configured to do holds for this library, too.
      for {guard, answer} <- [{true, ":ok"}, {false, ":off"}] do
        File.write!(Path.join(user, "config/config.exs"), [
          "import Config\n",
          config,
          "config :emmap, guard: #{guard}\n"
        ])

        assert {output, 0} = mix(user, ["run", "-e", "IO.inspect(Emmap.guard())"], rust: false)
        assert last_line(String.trim(output)) == answer
      end

      # A release takes the library along.
      assert {_, 0} = mix(user, ["release", "--quiet"], rust: false, env: [{"MIX_ENV", "prod"}])
      release = Path.join(user, "_build/prod/rel/consumer/bin/consumer")
      assert {output, 0} = command(release, dir, ["eval", "Consumer.run()"], rust: false)
      assert output =~ @ran

      # Without a mirror, from the address in mix.exs, in the folder of the version.
      publish!(package, artifacts: "http://127.0.0.1:#{port}/releases")
      user = project!(Path.join(dir, "published"), "path: #{inspect(package)}")
      refute runs!(user, rust: false) =~ "cargo"
      asked = "releases/v#{Mix.Project.config()[:version]}/#{name}"
      assert_received {:asked, ^asked}

      # Bytes that the checksum file does not name are not loaded.
      File.write!(artifact, "other bytes")
      other = project!(Path.join(dir, "other"), "path: #{inspect(package)}", config: config)
      assert {output, 1} = mix(other, ["compile"], rust: false)
      assert output =~ "emmap found no precompiled library: the integrity check failed"
      assert output =~ "EMMAP_BUILD=1 builds it from source"
    end

    test "installs and runs without cargo, by rustler_precompiled itself", context do
      %{tmp_dir: dir, artifacts: artifacts, package: package} = context
      port = FileServer.start!(artifacts)
      config = "config :emmap, artifacts_url: \"http://127.0.0.1:#{port}\"\n"
      user = project!(Path.join(dir, "user"), "path: #{inspect(package)}", config: config)
      env = [{"RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH", Path.join(dir, "cache")}]

      # Without a terminal, mix assumes that Hex is not to be installed.
      case mix(user, ["deps.get"], rust: false, env: env) do
        {_, 0} ->
          runs!(user, rust: false, env: env)
          assert_received {:asked, _}

        {output, _} ->
          IO.puts(
            "\nskipped: an installation by rustler_precompiled, as it could not be fetched: " <>
              last_line(String.trim(output))
          )
      end
    end
  end

  test "an escript says why it cannot work", %{tmp_dir: dir} do
    project!(dir, "path: #{inspect(@package)}", project: ", escript: [main_module: Main]")
    write!(dir, "lib/main.ex", "defmodule Main, do: (def main(_), do: Consumer.run())\n")
    assert {_, 0} = mix(dir, ["escript.build"])
    assert {output, 1} = command("./consumer", dir, [])
    assert output =~ "** (RuntimeError) the native library of emmap is not loaded"
    assert output =~ "escript"
    assert output =~ "Use a release (mix release)"
    # Nothing of the loader's before it.
    refute output =~ "on_load"
  end

  # REBAR_MIX is the address of a clone of the plugin, where Hex cannot be reached.
  test "with rebar3, as in the guide, three times in a row", %{tmp_dir: dir} do
    [_, config] =
      Regex.run(~r/^```erlang\n% rebar.config\n(.*?)^```/ms, File.read!("guides/from-erlang.md"))

    repository = package!(Path.join(dir, "repository"))
    git = ~w(-c user.name=test -c user.email=test@example.com)

    for arguments <- [~w(init -q -b main), ~w(add -A), git ++ ~w(commit -q -m one)],
        do: assert({_, 0} = System.cmd("git", arguments, cd: repository))

    plugin = System.get_env("REBAR_MIX")
    assert config =~ "{plugins, [rebar_mix]}" and config =~ "the address you cloned from"
    config = String.replace(config, "the address you cloned from", "file://" <> repository)
    plugins = "{plugins, [{rebar_mix, {git, #{inspect(plugin)}, {branch, \"master\"}}}]}"

    config =
      if plugin, do: String.replace(config, "{plugins, [rebar_mix]}", plugins), else: config

    user = Path.join(dir, "user")
    write!(user, "rebar.config", config)

    write!(user, "src/app.app.src", """
    {application, app, [{vsn, "1"}, {applications, [kernel, stdlib, emmap]}]}.
    """)

    write!(user, "src/app.erl", """
    -module(app).
    -export([run/0]).
    run() -> {ok, Mem} = emmap:open("x.bin", [create, {size, 10}]), emmap:pread(Mem, 0, 1).
    """)

    with rebar3 when rebar3 != nil <- System.find_executable("rebar3"),
         {first, 0} <- command(rebar3, user, ["compile"]) do
      assert first =~ "Compiling the library of emmap with cargo"
      assert {_, 0} = command(rebar3, user, ["compile"])
      assert {_, 0} = command(rebar3, user, ["compile"])
      code = "io:format(\"~p~n\", [app:run()]), halt()."
      libraries = [{"ERL_LIBS", Path.join(user, "_build/default/lib")}]
      assert {output, 0} = command("erl", user, ["-noshell", "-eval", code], env: libraries)
      assert output =~ "{ok,<<0>>}"
    else
      nil ->
        IO.puts("\nskipped: the guide for rebar3, as rebar3 is missing here")

      {output, _} ->
        assert plugin == nil and output =~ "rebar_mix", output
        IO.puts("\nskipped: the guide for rebar3, as its plugin could not be fetched")
    end
  end

  test "Mix.install, as in the guides", %{tmp_dir: dir} do
    dependencies = inspect(emmap: [path: @package])
    code = "Mix.install(#{dependencies})\n#{readme_example()}\nIO.puts(#{inspect(@ran)})"
    script = write!(dir, "try.exs", code)
    env = [{"MIX_INSTALL_DIR", Path.join(dir, "installs")}]
    assert {output, 0} = command("elixir", dir, [script], env: env)
    assert output =~ @ran
  end

  test "from Hex, as any user does: a registry on 127.0.0.1" do
    case mix(File.cwd!(), ["help", "hex.registry"]) do
      {_, 0} ->
        assert {output, 0} = command("tools/hex-smoke", File.cwd!(), [])
        assert output =~ "from Hex, without cargo: ok"
        assert output =~ "from Hex, from source: ok"

      {_, _} ->
        IO.puts("\nskipped: an installation from a Hex registry, as Hex is missing here")
    end
  end
end
