defmodule Emmap.PublicDocsTest do
  # Every public function has documentation and a spec, and those that a later release added have its version.
  use ExUnit.Case, async: true

  defp public do
    _ = Application.load(:emmap)
    {:ok, modules} = :application.get_key(:emmap, :modules)

    for module <- modules,
        not String.starts_with?(inspect(module), "Emmap.Test."),
        {:docs_v1, _, _, _, %{"en" => _}, meta, docs} <- [Code.fetch_docs(module)],
        do: {module, meta, docs}
  end

  # What ExDoc shows: `@doc false`, and callbacks of somebody else's behaviour, are hidden.
  defp functions(docs) do
    for {{kind, name, arity}, _, _, doc, meta} <- docs,
        kind in [:function, :macro] and doc != :hidden,
        do: {name, arity, doc, meta}
  end

  defp versions do
    for [_, version] <- Regex.scan(~r/^## \[?(\d[^\] ]*)/m, File.read!("CHANGELOG.md")),
        do: version
  end

  defp since_problem(since, where) do
    cond do
      # In the first release all are new.
      since == nil -> nil
      Version.parse(since) == :error -> "#{where}: #{inspect(since)} is not a version"
      # Until a version is released, its changes are listed under "Unreleased".
      versions() != [] and since not in versions() -> "#{where}: #{since} is not in the changelog"
      since == List.last(versions()) -> "#{where}: #{since} is the first release"
      true -> nil
    end
  end

  test "modules" do
    modules = public()

    assert Enum.all?(
             [Emmap, :emmap, Emmap.Counters, Emmap.Inspection],
             &List.keymember?(modules, &1, 0)
           )

    problems = for {module, meta, _} <- modules, do: since_problem(meta[:since], inspect(module))
    assert Enum.reject(problems, &is_nil/1) == []
  end

  test "functions" do
    problems =
      for {module, _, docs} <- public(),
          specs = specs(module),
          {name, arity, doc, meta} <- functions(docs),
          # Exceptions have these from `defexception`.
          not (function_exported?(module, :exception, 1) and
                 {name, arity} in [exception: 1, message: 1]) do
        where = Exception.format_mfa(module, name, arity)

        [
          if(not match?(%{"en" => <<_, _::binary>>}, doc), do: "#{where} has no documentation"),
          if({name, arity} not in specs, do: "#{where} has no spec"),
          since_problem(meta[:since], where)
        ]
      end

    assert problems |> List.flatten() |> Enum.reject(&is_nil/1) == []
    assert length(problems) > 100
  end

  test "types" do
    undocumented =
      for {module, _, docs} <- public(),
          {{:type, name, arity}, _, _, doc, _} <- docs,
          not is_map(doc),
          do: Exception.format_mfa(module, name, arity)

    assert undocumented == []
  end

  defp specs(module) do
    {:ok, specs} = Code.Typespec.fetch_specs(module)
    for {name_and_arity, _} <- specs, do: name_and_arity
  end
end
