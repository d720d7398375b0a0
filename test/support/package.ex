defmodule Emmap.Test.Package do
  @moduledoc "The package that is published: its files, its settings and the built library of its release."

  import Emmap.Test.Consumer, only: [command: 4]

  @unpublished [package: nil, repository: nil, artifacts: nil]
  @checksums "checksum-Elixir.Emmap.Native.exs"

  @doc "The files of the package, as `mix.exs` names them. A checksum file belongs to a release, and is not one of them."
  def files do
    for path <- Mix.Project.config()[:package][:files],
        found <- Path.wildcard(path, match_dot: true),
        file <- regular(found),
        file != @checksums,
        do: file
  end

  defp regular(path) do
    if File.dir?(path),
      do:
        path |> Path.join("**") |> Path.wildcard(match_dot: true) |> Enum.filter(&File.regular?/1),
      else: [path]
  end

  @doc """
  Copies the files of the package to a new folder. `:checksums` is the text of a checksum file, and `:publishing` what
  `publish!/2` sets: by default, nothing is published.
  """
  def package!(folder, options \\ []) do
    File.rm_rf!(folder)
    for file <- files(), do: copy!(file, folder)

    if text = options[:checksums], do: File.write!(Path.join(folder, @checksums), text)
    publish!(folder, Keyword.get(options, :publishing, @unpublished))
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
  Builds the library of this machine as a release has it, from a copy of the package, into the folder `artifacts`, and
  writes the checksum file. Returns the path of the artifact. Only that is left of the build.
  """
  def release!(package, artifacts) do
    for tool <- ["tools/artifact", "tools/checksums"], do: copy!(tool, package)
    {output, 0} = command("tools/artifact", package, [], env: [{"ARTIFACTS", artifacts}])
    {_, 0} = command("tools/checksums", package, [artifacts], [])
    for folder <- ["tools", "native/target"], do: File.rm_rf!(Path.join(package, folder))
    output |> String.trim() |> String.split("\n") |> List.last()
  end

  @doc "Makes the package depend on the stand-in of `test/fixtures`, in place of rustler_precompiled from Hex."
  def stand_in!(package) do
    file = Path.join(package, "mix.exs")
    text = File.read!(file)
    wanted = ~s|{:rustler_precompiled, "~> 0.8.2 or ~> 0.9.0", runtime: false}|
    true = String.contains?(text, wanted)
    path = inspect(Path.expand("test/fixtures/rustler_precompiled"))
    File.write!(file, String.replace(text, wanted, "{:rustler_precompiled, path: #{path}}"))
  end

  @doc "Makes a folder a git repository with one commit."
  def repository!(folder) do
    git = ~w(-c user.name=test -c user.email=test@example.com)

    for arguments <- [~w(init -q -b main), ~w(add -A), git ++ ~w(commit -q -m one)],
        do: {_, 0} = System.cmd("git", arguments, cd: folder)

    folder
  end

  defp copy!(file, folder) do
    target = Path.join(folder, file)
    File.mkdir_p!(Path.dirname(target))
    File.cp!(file, target)
  end
end
