defmodule Install.SourceTest do
  # emmap is built from source: as a dependency of each kind, again, at once, read-only, and without cargo.
  use Emmap.Test.InstallCase

  defp library(package), do: Path.join(package, "priv/native/emmap_nif.so")
  defp inode(file), do: File.stat!(file).inode

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
    repository = repository!(package!(Path.join(dir, "repository")))
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
        output = ran!(mix.(["run", "-e", "Consumer.run()"]))
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
        output = ran!(mix.(["run", "-e", "Consumer.run()"]))
        refute output =~ "Compiling the library"
        File.touch!(installed, {{2020, 1, 1}, {0, 0, 0}})
        assert {output, 1} = mix.(["compile", "--force"])
        assert output =~ "is missing or older than its sources, and #{read_only} is read-only"

      {output, _} ->
        skipped("a read-only source tree", "it takes a mount: #{output}")
    end
  end

  test "in an umbrella", %{tmp_dir: dir} do
    write!(dir, "mix.exs", """
    defmodule All.MixProject do
      use Mix.Project
      def project, do: [apps_path: "apps", version: "1.0.0", deps: []]
    end
    """)

    paths = ~s|, build_path: "../../_build", deps_path: "../../deps", lockfile: "../../mix.lock"|

    app = project!(Path.join(dir, "apps/consumer"), "path: #{inspect(@package)}", project: paths)

    assert {_, 0} = mix(dir, ["compile"])
    runs!(dir)
    runs!(app)
  end

  test "in a release, started from another folder", %{tmp_dir: dir} do
    project!(dir, "path: #{inspect(@package)}")
    assert {_, 0} = mix(dir, ["release", "--quiet"], env: [{"MIX_ENV", "prod"}])
    # What is moved to another machine has all it needs.
    moved = Path.join(dir, "moved")
    File.rename!(Path.join(dir, "_build/prod/rel/consumer"), moved)
    elsewhere = Path.join(dir, "elsewhere")
    File.mkdir_p!(elsewhere)

    ran!(command(Path.join(moved, "bin/consumer"), elsewhere, ["eval", "Consumer.run()"]))
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
