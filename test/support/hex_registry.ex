defmodule Emmap.Test.HexRegistry do
  @moduledoc "A registry of Hex on 127.0.0.1, with emmap and the stand-in for rustler_precompiled, and nothing else."

  import Emmap.Test.Consumer, only: [command: 4, mix: 2]
  alias Emmap.Test.{FileServer, Package}

  @doc """
  Publishes a package, and the library of this machine, in a registry that ends with the caller. Returns `:artifacts`, the
  address of the library, and `:env`, which makes mix ask this registry only.
  """
  def start!(folder, package) do
    public = Path.join(folder, "public")
    for name <- ["tarballs", "artifacts"], do: File.mkdir_p!(Path.join(public, name))
    Package.release!(package, Path.join(public, "artifacts"))

    stand_in = Path.join(folder, "rustler_precompiled")
    File.cp_r!("test/fixtures/rustler_precompiled", stand_in)
    for source <- [package, stand_in], do: publish!(source, public)

    {_, 0} = command("openssl", folder, ~w(genrsa -out key.pem 2048), [])
    {_, 0} = mix(folder, ~w(hex.registry build public --name=hexpm --private-key=key.pem))

    address = "http://127.0.0.1:#{FileServer.start!(public)}"

    %{
      artifacts: address <> "/artifacts",
      env: [
        {"HEX_HOME", Path.join(folder, "hex")},
        {"HEX_MIRROR", address},
        {"HEX_UNSAFE_REGISTRY", "1"},
        {"HEX_NO_VERIFY_REPO_ORIGIN", "1"}
      ]
    }
  end

  defp publish!(source, public) do
    tarball = Path.join(source, "package.tar")
    {output, 0} = mix(source, ["hex.build", "--output", tarball])
    [_, name, version] = Regex.run(~r/Building (\S+) (\S+)/, output)
    File.rename!(tarball, Path.join(public, "tarballs/#{name}-#{version}.tar"))
  end
end
