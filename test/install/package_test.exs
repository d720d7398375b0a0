defmodule Install.PackageTest do
  # What is in the package, and the package as Hex delivers it.
  use Emmap.Test.InstallCase

  alias Emmap.Test.HexRegistry

  test "the files that mix.exs names: those that git tracks, and nothing that is built or tested" do
    patterns = Mix.Project.config()[:package][:files]

    case System.cmd("git", ["ls-files", "--" | patterns], stderr_to_stdout: true) do
      {tracked, 0} ->
        tracked = String.split(tracked, "\n", trim: true)
        assert {files() -- tracked, tracked -- files()} == {[], []}

      {_, _} ->
        skipped("whether git tracks the files of the package", "this is not a git repository")
    end

    for file <- files(),
        do: refute(file =~ ~r{(^|/)(_build|bench|deps|fuzz|priv|target|tests?|tools)/}, file)

    # What no build on Linux needs.
    {docs, _} = Code.eval_file("docs/ex_doc.exs")
    pages = for page <- docs[:extras], do: if(is_tuple(page), do: elem(page, 0), else: page)
    assert length(pages) > 20

    others =
      ~w(LICENSE native/.cargo/config.toml native/emmap_c/include/emmap.h guides/python/emmap_queue.py)

    assert ([docs[:logo] | pages] ++ others) -- files() == []
  end

  test "as Hex unpacks it: the same files, which build where no checkout is around them" do
    if hex?() do
      # The checkout is above every folder of `:tmp_dir`.
      dir = Path.join(System.tmp_dir!(), "emmap-package-#{System.pid()}")
      on_exit(fn -> File.rm_rf!(dir) end)
      package = Path.join(dir, "package")
      assert {_, 0} = mix(File.cwd!(), ["hex.build", "--unpack", "--output", package])

      unpacked = package |> Path.join("**") |> Path.wildcard(match_dot: true)
      unpacked = for file <- unpacked, File.regular?(file), do: Path.relative_to(file, package)
      # The checkout of a release has checksums.
      checksums = Path.wildcard("checksum-*.exs")
      expected = ["hex_metadata.config" | files() ++ checksums]
      assert {unpacked -- expected, expected -- unpacked} == {[], []}

      user = project!(Path.join(dir, "user"), "path: #{inspect(package)}")
      assert runs!(user, env: [{"EMMAP_BUILD", "1"}]) =~ "Compiling the library"
    else
      skipped("the package as Hex unpacks it", "Hex is missing here")
    end
  end

  test "from a registry of Hex: without cargo, and from source", %{tmp_dir: dir} do
    if hex?() do
      package = package!(Path.join(dir, "package"), publishing: @published)
      registry = HexRegistry.start!(Path.join(dir, "registry"), package)
      version = Mix.Project.config()[:version]

      config = "config :emmap, artifacts_url: #{inspect(registry.artifacts)}\n"
      user = project!(Path.join(dir, "user"), inspect("~> #{version}"), config: config)

      assert {output, 0} = mix(user, ["deps.get"], env: registry.env)
      assert output =~ ~r/emmap #{Regex.escape(version)}/
      assert File.exists?(Path.join(user, "deps/emmap/checksum-Elixir.Emmap.Native.exs"))
      refute runs!(user, rust: false, env: registry.env) =~ ~r/cargo/i
      library = "_build/dev/lib/emmap/priv/native/libemmap_nif-v#{version}-nif-2.16-*.so"
      assert [_] = Path.wildcard(Path.join(user, library))

      File.rm_rf!(Path.join(user, "_build"))
      env = [{"EMMAP_BUILD", "1"} | registry.env]
      assert runs!(user, env: env) =~ "Compiling the library of emmap with cargo"
    else
      skipped("an installation from a registry of Hex", "Hex is missing here")
    end
  end
end
