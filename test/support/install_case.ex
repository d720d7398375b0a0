defmodule Emmap.Test.InstallCase do
  @moduledoc """
  A way to install emmap, as a user's project does it: `make test-install`. `@package` is the package in a folder of its
  own, which stays as it is or is put back.
  """
  use ExUnit.CaseTemplate

  # One place, so that cargo knows it again.
  @package Path.expand("_build/install-package")

  using do
    quote do
      import Emmap.Test.{Consumer, Package}

      @moduletag :tmp_dir
      @moduletag :install
      @moduletag timeout: 900_000
      @package unquote(@package)
      # A package that is published, as `@publishing` in mix.exs says it. Nothing listens at that address.
      @published [
        package: "emmap",
        repository: "https://127.0.0.1:1/emmap",
        artifacts: "https://127.0.0.1:1/emmap/releases"
      ]
    end
  end

  setup_all do
    Emmap.Test.Package.package!(@package)
    on_exit(fn -> File.rm_rf!(@package) end)
  end
end
