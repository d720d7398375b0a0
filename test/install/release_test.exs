defmodule Install.ReleaseTest do
  # The library of a release: when it is used, and that it is installed without cargo.
  use Emmap.Test.InstallCase

  alias Emmap.Test.FileServer

  defp last_line(text), do: text |> String.split("\n") |> List.last()

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

  describe "from the artifact of a release" do
    setup %{tmp_dir: dir} do
      artifacts = Path.join(dir, "artifacts")
      package = package!(Path.join(dir, "package"), publishing: @published)
      %{artifacts: artifacts, package: package, artifact: release!(package, artifacts)}
    end

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
      ran!(command(release, dir, ["eval", "Consumer.run()"], rust: false))

      # Without a mirror, from the address in mix.exs, in the folder of the version.
      folder = "releases/v#{Mix.Project.config()[:version]}"
      File.mkdir_p!(Path.join(artifacts, folder))
      File.cp!(artifact, Path.join([artifacts, folder, name]))
      publish!(package, artifacts: "http://127.0.0.1:#{port}/releases")
      user = project!(Path.join(dir, "published"), "path: #{inspect(package)}")
      refute runs!(user, rust: false) =~ "cargo"
      asked = "#{folder}/#{name}"
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
          why = "it could not be fetched: " <> last_line(String.trim(output))
          skipped("an installation by rustler_precompiled", why)
      end
    end
  end
end
