defmodule PublishingTest do
  # The name of the package and its addresses are set in one place. While they are not, nothing depends on them.
  use ExUnit.Case, async: true

  import Emmap.Test.Package, only: [publish!: 2]

  @moduletag :tmp_dir
  @version Mix.Project.config()[:version]
  @publishing Mix.Project.config()[:publishing]
  @keys [:package, :repository, :artifacts]
  @repository "https://git.example/owner/emmap"
  @published [
    package: "emmap",
    repository: @repository,
    artifacts: @repository <> "/releases/download"
  ]

  # What depends on the settings, in a folder with no more than is needed to say it.
  defp project!(folder, values) do
    for file <- ~w(mix.exs docs/ex_doc.exs tools/publishing) do
      target = Path.join(folder, file)
      File.mkdir_p!(Path.dirname(target))
      File.cp!(file, target)
    end

    publish!(folder, values)
  end

  defp version!(folder, version) do
    file = Path.join(folder, "mix.exs")
    text = File.read!(file)

    File.write!(
      file,
      String.replace(text, ~s(@version "#{@version}"), ~s(@version "#{version}"))
    )

    folder
  end

  defp config(folder) do
    code = """
    Mix.start()
    Code.require_file("mix.exs")
    config = Mix.Project.config()
    answer = {config[:source_url], Map.new(config[:package]), config[:docs].()[:source_ref], config[:library]}
    IO.puts(Base.encode64(:erlang.term_to_binary(answer)))
    """

    {output, 0} = System.cmd("elixir", ["-e", code], cd: folder, env: [{"EMMAP_BUILD", nil}])
    output |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
  end

  defp publishing(folder, arguments \\ []) do
    {output, status} =
      System.cmd(Path.expand("tools/publishing", folder), arguments, stderr_to_stdout: true)

    {String.trim(output), status}
  end

  test "not set: no links, no download, and a version that cannot be published", %{tmp_dir: dir} do
    project!(dir, for(key <- @keys, do: {key, nil}))
    assert {nil, package, nil, {:source, "no release is published yet"}} = config(dir)
    assert %{name: nil, links: links} = package
    assert links == %{}

    for key <- @keys, do: assert(publishing(dir, ["#{key}"]) == {"", 0})
    assert {why, 1} = publishing(dir)
    assert why =~ "@publishing in mix.exs does not set: package repository artifacts"

    # One that is missing is enough.
    publish!(dir, Keyword.delete(@published, :repository))
    assert {why, 1} = publishing(dir)
    assert why =~ "does not set: repository ("

    # Whether Hex is there or not: nothing is asked and nothing is sent.
    assert {output, 1} = System.cmd("mix", ["hex.publish"], cd: dir, stderr_to_stdout: true)
    assert output =~ why
  end

  test "set: links, downloads and documentation follow", %{tmp_dir: dir} do
    dir |> project!(@published) |> version!("2.2.0-rc.0")

    assert {@repository, package, "v2.2.0-rc.0", {:source, "there is no checksum" <> _}} =
             config(dir)

    assert %{name: "emmap", links: %{"Source" => @repository}} = package
    File.write!(Path.join(dir, "checksum-Elixir.Emmap.Native.exs"), "%{}")
    assert {_, _, _, :precompiled} = config(dir)

    for {key, value} <- @published, do: assert(publishing(dir, ["#{key}"]) == {value, 0})
    assert publishing(dir) == {"", 0}
  end

  test "an application is not published under the name of another package", %{tmp_dir: dir} do
    project!(dir, Keyword.put(@published, :package, "mapped"))
    assert {why, 1} = publishing(dir)
    assert why =~ "the package is mapped and the application is emmap"

    # The name that is given over has users: of versions up to 2.1.4.
    publish!(dir, @published)

    for {version, status} <- [{"2.1.4", 1}, {"2.1.3", 1}, {"2.1.5", 0}, {"3.0.0-rc.0", 0}] do
      folder = Path.join(dir, version)
      File.mkdir_p!(folder)
      folder |> project!(@published) |> version!(version)
      assert {why, ^status} = publishing(folder)
      if status == 1, do: assert(why =~ "version #{version} is not above 2.1.4")
    end
  end

  test "the tools read what Mix reads" do
    for {key, value} <- @publishing,
        do: assert(publishing(".", ["#{key}"]) == {value || "", 0})

    assert Keyword.keys(@publishing) == @keys
  end

  test "the release workflow attests and drafts only what may be published" do
    [_before | jobs] =
      ".github/workflows/release.yml" |> File.read!() |> String.split(~r/^  (?=\w+:$)/m)

    steps = for job <- jobs, step <- String.split(job, ~r/^      - /m), do: {job, step}

    guarded =
      for {job, step} <- steps, step =~ ~r/attest-build-provenance|gh release/, do: {job, step}

    assert length(guarded) == 3

    for {job, step} <- guarded do
      assert step =~ "if: needs.version.outputs.publish == 'true'\n"
      assert job =~ ~r/needs: (version$|\[version, )/m
    end

    [check] = for {_, step} <- steps, step =~ "id: publishing", do: step
    assert check =~ "if: github.ref_type == 'tag'"
    assert check =~ ~r/tools\/publishing$.*publishing repository.*publish=true/ms
  end

  # The files of the project, without those that are built.
  @patterns ~w(*.md mix.exs Makefile .formatter.exs native/*.toml native/*/Cargo.toml native/.cargo/* native/emmap_*/**/*.rs) ++
              for(
                folder <- ~w(lib test docs guides livebooks tools demo bench .ci .github),
                do: folder <> "/**"
              )
  @files Enum.flat_map(@patterns, &Path.wildcard(&1, match_dot: true))

  test "no file has an address that belongs to somebody else" do
    files = Enum.filter(@files, &File.regular?/1)
    assert length(files) > 150

    # "owner/name" of a repository that this project never had.
    address = ~r{github\.com/emmap\b|\bemmap/emmap(?![_.\w-])}
    assert "see https://github.com/" <> "emmap/emmap." =~ address

    for file <- files,
        file != "test/publishing_test.exs",
        do: refute(File.read!(file) =~ address, file)
  end
end
