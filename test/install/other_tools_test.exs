defmodule Install.OtherToolsTest do
  # Other tools than a Mix project: rebar3, a script, an escript.
  use Emmap.Test.InstallCase

  # REBAR_MIX is the address of a clone of the plugin, where Hex cannot be reached.
  test "with rebar3, as in the guide, three times in a row", %{tmp_dir: dir} do
    [_, config] =
      Regex.run(~r/^```erlang\n% rebar.config\n(.*?)^```/ms, File.read!("guides/from-erlang.md"))

    repository = repository!(package!(Path.join(dir, "repository")))
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
        skipped("the guide for rebar3", "rebar3 is missing here")

      {output, _} ->
        assert plugin == nil and output =~ "rebar_mix", output
        skipped("the guide for rebar3", "its plugin could not be fetched")
    end
  end

  test "Mix.install, as in the guides", %{tmp_dir: dir} do
    dependencies = inspect(emmap: [path: @package])
    script = write!(dir, "try.exs", "Mix.install(#{dependencies})\n#{readme_script()}")
    env = [{"MIX_INSTALL_DIR", Path.join(dir, "installs")}]
    ran!(command("elixir", dir, [script], env: env))
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
end
