defmodule Emmap.PanicTest do
  # A panic in the library is an error of its own kind, whatever NIF it happens in, and the VM lives.
  use ExUnit.Case, async: true

  @native Path.expand("../../native", __DIR__)

  defmodule Native do
    @panics [panic_hot: 0, panic_elsewhere: 0, panic_cold: 0]

    # `load_nif` asks for a stub of each NIF of the library.
    for {name, arity} <- @panics ++ Keyword.delete(Emmap.Native.__info__(:functions), :load) do
      def unquote(name)(unquote_splicing(Macro.generate_arguments(arity, __MODULE__))),
        do: :erlang.nif_error(:not_loaded)
    end

    def load(path), do: :erlang.load_nif(String.to_charlist(path), {false, false})
  end

  setup_all do
    target = Path.expand(System.get_env("CARGO_TARGET_DIR") || Path.join(@native, "target"))
    options = ~w(--quiet --locked --package emmap_nif --features panics --target-dir)
    {_, 0} = System.cmd("cargo", ["build" | options] ++ [target], cd: @native)

    # load_nif takes no other ending, and another build may replace the file.
    [built] = Path.wildcard(Path.join(target, "debug/libemmap_nif.{so,dylib}"))
    copy = Path.join(System.tmp_dir!(), "emmap-panics-#{System.pid()}")
    File.cp!(built, copy <> ".so")
    on_exit(fn -> File.rm!(copy <> ".so") end)
    :ok = Native.load(copy)
  end

  for name <- [:panic_hot, :panic_elsewhere, :panic_cold] do
    test "#{name}" do
      error = assert_raise ErlangError, fn -> Native.unquote(name)() end
      assert error.original == :nif_panicked
      # Again: nothing was left behind.
      assert catch_error(Native.unquote(name)()) == :nif_panicked
    end
  end

  test "the library that is installed has none of them" do
    library = Application.app_dir(:emmap, "priv/native/emmap_nif.so")
    refute File.read!(library) =~ "panic_elsewhere"
  end
end
