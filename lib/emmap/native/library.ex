defmodule Emmap.Native.Library do
  @moduledoc false
  # Where the NIF library of this build is: built by cargo (the compiler in mix.exs), or the
  # library of the release, which rustler_precompiled downloads and checks while this module is compiled.

  @targets ~w(
    aarch64-apple-darwin
    aarch64-unknown-linux-gnu
    aarch64-unknown-linux-musl
    arm-unknown-linux-gnueabihf
    riscv64gc-unknown-linux-gnu
    x86_64-apple-darwin
    x86_64-unknown-linux-gnu
    x86_64-unknown-linux-musl
  )

  config = Mix.Project.config()

  # Read so that Mix reports when they have changed since. mix.exs has already used them.
  _ = Application.compile_env(:rustler_precompiled, [:force_build, :emmap])
  _ = Application.compile_env(:rustler_precompiled, :force_build_all)

  @path (case config[:library] do
           {:source, _why} ->
             "priv/native/emmap_nif"

           :precompiled ->
             options = [
               otp_app: :emmap,
               crate: "emmap_nif",
               version: config[:version],
               # A mirror serves the same files, because their checksums are in the package.
               base_url:
                 Application.compile_env(
                   :emmap,
                   :artifacts_url,
                   "#{config[:publishing][:artifacts]}/v#{config[:version]}"
                 ),
               targets: @targets,
               # The oldest version is enough, because later VMs load it.
               nif_versions: ["2.16"],
               force_build: false
             ]

             # The function behind `use RustlerPrecompiled`. Its load function has a constant load_info, but
             # ours depends on the configuration of the running system.
             case apply(RustlerPrecompiled, :__using__, [Emmap.Native, options]) do
               {:ok, %{load_from: {:emmap, path}}} ->
                 path

               {:error, message} ->
                 raise "emmap found no precompiled library: #{message}\n\n" <>
                         "EMMAP_BUILD=1 builds it from source, with cargo (https://rustup.rs)."
             end
         end)

  @doc "The path of the library, relative to the application's directory, without its extension."
  @spec path() :: String.t()
  def path, do: @path

  @doc "The systems for which a release has a library, as Rust names them."
  @spec targets() :: [String.t()]
  def targets, do: @targets
end
