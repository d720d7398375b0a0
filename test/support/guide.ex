defmodule Emmap.Test.Guide do
  @moduledoc """
  Runs a page as its reader would: all blocks of code, one after the other, in an empty folder.

    * `elixir`, `erlang`: bindings, aliases and imports go on from block to block, as in a shell; a match is an
      assertion. A block that begins with `def` or `import Config` is checked as what it is.
    * `sh`, `python`: run by `sh -eu` and `python3`, and must exit with 0.
    * A block that installs emmap (`def deps`, `Mix.install`, `rebar.config`) is not run, but what it asks for must be
      what there is: `installable!/1`.
    * A block whose first line is a comment with only the name of a file (`# lib/hits.ex`) is written to
      that file. Elixir and Erlang are compiled, too.
    * `text` directly after a block is the output of that block. `…` in it matches anything in a line, and alone on a line
      for any lines.

  Blocks without an interpreter are skipped, and named in the result, together with the blocks that follow
  `<!-- after python -->`.
  """

  @fence ~r/(?:^<!-- after (\w+) -->\n\n)?^```(\w*)\n(.*?)^```$/ms
  @checkout File.cwd!()
  @package Mix.Project.config()[:publishing][:package]
  @any_lines "(?s:.*)"
  @file_name ~r/\A(?:#|%|\/\/) ([\w.\/-]+\.\w+)\n/

  @doc "The blocks of a page that can be run here, in order: `{language, code, line}`."
  def blocks(page) do
    for {{needed, language, code, line}, _shown} <- page |> File.read!() |> scan(),
        language != "text" and available?(needed) and available?(language),
        do: {language, code, line}
  end

  # Each with the text that directly follows it, which is what it prints, or with nil.
  defp scan(text) do
    found = Regex.scan(@fence, text, return: :index)

    # Nothing that a page shows as code is missed: indented, in other fences, in one that is not closed.
    fences = ~r/^ *(?:`{3,}|~{3,})/m |> Regex.scan(text) |> length()

    if fences != 2 * length(found),
      do: raise("#{fences} fences, and #{length(found)} blocks that can be run")

    blocks =
      for {[{at, length}, needed, language, code], next} <- Enum.zip(found, tl(found) ++ [nil]) do
        line = text |> binary_part(0, at) |> String.split("\n") |> length()
        block = {part(text, needed), part(text, language), part(text, code), line + 1}
        {block, shown(text, at + length, next)}
      end

    # What is shown belongs to what shows it.
    printed =
      for {{_, language, code, _}, shown} <- blocks,
          shown && language != "text" && !named(code),
          do: shown

    texts = for {{_, "text", code, _}, _} <- blocks, do: code

    if texts != printed,
      do: raise("a block of text that nothing prints: #{inspect(texts -- printed)}")

    blocks
  end

  defp shown(text, stop, [{next, _}, _needed, language, code]) do
    between = binary_part(text, stop, next - stop)
    if part(text, language) == "text" and String.trim(between) == "", do: part(text, code)
  end

  defp shown(_text, _stop, nil), do: nil

  defp part(_text, {-1, 0}), do: ""
  defp part(text, {at, length}), do: binary_part(text, at, length)

  @doc """
  Makes a Mix project that depends on emmap, compiled, in which commands of a page such as `mix run` work.
  It is copied from one that is kept from run to run.
  """
  def project!(folder) do
    kept = Path.expand("_build/guide-project")
    File.mkdir_p!(kept)

    File.write!(Path.join(kept, "mix.exs"), """
    defmodule MyApp.MixProject do
      use Mix.Project
      def project, do: [app: :my_app, version: "1.0.0", deps: [{:emmap, path: #{inspect(@checkout)}}]]
    end
    """)

    compile =
      &System.cmd("mix", ["compile"], cd: &1, env: [{"MIX_ENV", nil}], stderr_to_stdout: true)

    :global.trans({__MODULE__, self()}, fn -> {_, 0} = compile.(kept) end)
    {_, 0} = System.cmd("cp", ["-a", kept <> "/.", folder])
    {_, 0} = compile.(folder)
    folder
  end

  @doc "Runs a page in a folder: how many blocks ran, and the languages that were left out."
  def run(page, folder) do
    page = Path.expand(page)
    blocks = page |> File.read!() |> scan()

    File.cd!(folder, fn ->
      env = Code.env_for_eval(file: page)
      state = %{elixir: {[], env}, erlang: [], missing: [], ran: 0, page: page}

      blocks
      |> Enum.reduce(state, fn {block, shown}, state -> step(block, shown, state) end)
      |> Map.take([:ran, :missing])
    end)
  end

  defp step({_needed, "text", _code, _line}, _shown, state), do: state

  defp step({needed, language, code, line}, shown, state) do
    cond do
      missing = Enum.find([needed, language], &(not available?(&1))) ->
        %{state | missing: Enum.uniq([missing | state.missing])}

      file = named(code) ->
        File.mkdir_p!(Path.dirname(file))
        File.write!(file, code)
        counted(compile(Path.extname(file), file, state))

      true ->
        {printed, state} = printed(fn -> execute({language, code, line}, state) end)
        compare!(printed, shown)
        counted(state)
    end
  rescue
    error ->
      message = "#{Path.basename(state.page)}:#{line}: #{Exception.message(error)}\n\n#{code}"
      reraise RuntimeError, [message: message], __STACKTRACE__
  end

  defp counted(state), do: %{state | ran: state.ran + 1}

  defp named(code) do
    with [_, file] <- Regex.run(@file_name, code), do: file
  end

  defp available?("python"), do: System.find_executable("python3") != nil
  defp available?(_language), do: true

  # Files

  defp compile(".ex", file, state) do
    _ = Code.compile_file(file)
    state
  end

  defp compile(".exs", file, state), do: check_config(File.read!(file), state)

  defp compile(".erl", file, state) do
    {:ok, module} = :compile.file(to_charlist(file), [:return_errors])
    {:module, ^module} = :code.load_abs(to_charlist(Path.basename(file, ".erl")))
    state
  end

  defp compile(".py", file, state) do
    if available?("python"),
      do: command!("python3", ["-m", "py_compile", file], state),
      else: state
  end

  # The versions that are here already, for they built the library.
  defp compile(".toml", _file, state) do
    File.cp!(Path.join(@checkout, "native/Cargo.lock"), "Cargo.lock")
    state
  end

  defp compile(".config", file, state) do
    {:ok, [_ | _] = terms} = :file.consult(to_charlist(file))
    for {:deps, deps} <- terms, do: installable!(Enum.map(deps, &from_rebar/1))
    state
  end

  defp compile(_extension, _file, state), do: state

  defp check_config(code, state) do
    [_ | _] = Config.Reader.eval!("config.exs", code)
    state
  end

  defp from_rebar({name, {:git, url, _ref}}), do: {name, git: to_string(url)}
  defp from_rebar({name, version}), do: {name, to_string(version)}

  # Code

  @doc """
  Dependencies that install emmap: this version from Hex, or, while `@publishing` in `mix.exs` names no package,
  a checkout by `path:` or `git:`.
  """
  def installable!(deps, package \\ @package) do
    case Keyword.fetch!(deps, :emmap) do
      [{scm, where}] when package == nil and scm in [:path, :git] and is_binary(where) ->
        :ok

      wanted when package != nil and is_binary(wanted) ->
        Version.match?(version(), wanted) || raise "emmap #{wanted} is not this version"
        :ok

      wanted ->
        raise "emmap cannot be installed by #{inspect(wanted)}, as the package is #{inspect(package)}"
    end
  end

  defp execute({"elixir", "import Config" <> _ = code, _line}, state),
    do: check_config(code, state)

  defp execute({"elixir", "def " <> _ = code, line}, state) do
    module = "defmodule Functions#{line} do\n#{code}\nend\n"
    check = "#{inspect(__MODULE__)}.installable!(Functions#{line}.deps())"
    execute({"elixir", module <> check, line}, state)
  end

  # Emmap is there already.
  defp execute({"elixir", "Mix.install(" <> _ = code, _line}, state) do
    {_, _, [deps | _]} = Code.string_to_quoted!(code)
    {deps, _} = Code.eval_quoted(deps, [], file: state.page)
    installable!(deps)
    state
  end

  defp execute({"elixir", code, line}, state) do
    {binding, env} = state.elixir
    quoted = Code.string_to_quoted!(code, file: state.page, line: line)
    {_value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
    %{state | elixir: {binding, env}}
  end

  defp execute({"erlang", code, line}, state) do
    {:ok, tokens, _} = :erl_scan.string(to_charlist(code), line)

    binding =
      tokens
      |> Enum.chunk_while([], &to_dot/2, fn [] -> {:cont, []} end)
      |> Enum.reduce(state.erlang, fn tokens, binding ->
        {:ok, expressions} = :erl_parse.parse_exprs(tokens)
        {:value, _value, binding} = :erl_eval.exprs(expressions, binding)
        binding
      end)

    %{state | erlang: binding}
  end

  defp execute({"sh", code, _line}, state), do: command!("sh", ["-euc", code], state)
  defp execute({"python", code, _line}, state), do: command!("python3", ["-c", code], state)

  defp execute({language, _code, _line}, _state),
    do: raise(ArgumentError, "nothing runs blocks of #{inspect(language)}")

  defp version do
    _ = Application.load(:emmap)
    :emmap |> Application.spec(:vsn) |> to_string()
  end

  defp to_dot({:dot, _} = dot, tokens), do: {:cont, Enum.reverse([dot | tokens]), []}
  defp to_dot(token, tokens), do: {:cont, [token | tokens]}

  defp command!(command, arguments, state) do
    env = [{"MIX_ENV", nil}, {"ERL_CRASH_DUMP", "/dev/null"}]
    {output, status} = System.cmd(command, arguments, env: env, stderr_to_stdout: true)
    IO.write(output)
    if status != 0, do: raise("it exits with #{status}: #{output}")
    state
  end

  # What is printed

  defp printed(run) do
    {:ok, device} = StringIO.open("")
    leader = Process.group_leader()
    Process.group_leader(self(), device)

    try do
      state = run.()
      {:ok, {_, output}} = StringIO.close(device)
      {output, state}
    after
      Process.group_leader(self(), leader)
    end
  end

  defp compare!(_printed, nil), do: :ok

  defp compare!(printed, wanted) do
    pattern =
      wanted
      |> String.trim()
      |> String.split("\n")
      |> Enum.map_join("\n", &pattern/1)
      # Also none at all.
      |> String.replace(@any_lines <> "\n", "(?s:.*\n)?")
      |> String.replace("\n" <> @any_lines, "(?s:\n.*)?")

    trimmed = printed |> String.split("\n") |> Enum.map_join("\n", &String.trim_trailing/1)

    unless Regex.match?(Regex.compile!("\\A#{pattern}\\z", "u"), String.trim(trimmed)),
      do: raise("it prints\n#{printed}\nand not\n#{wanted}")
  end

  defp pattern("…"), do: @any_lines
  defp pattern(line), do: line |> Regex.escape() |> String.replace("…", ".*?")
end
