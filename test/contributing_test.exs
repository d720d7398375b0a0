defmodule ContributingTest do
  # What CONTRIBUTING.md names is there.
  use ExUnit.Case, async: true

  @text File.read!("CONTRIBUTING.md")

  test "the commands are targets of the Makefile, and all of its targets are told" do
    makefile = File.read!("Makefile")
    targets = for [_, target] <- Regex.scan(~r/^([a-z-]+):/m, makefile), do: target
    told = for [_, target] <- Regex.scan(~r/\bmake ([a-z-]+)/, @text), uniq: true, do: target
    assert told -- targets == []
    assert (targets -- told) -- ["setup", "build", "clean"] == []
  end

  test "the table of the house leads to files, and forgets no folder" do
    rows =
      for [_, cell] <- Regex.scan(~r/^\| (`[^|]*) \|[^|]*\|$/m, @text),
          not (cell =~ ~r/make |sh /),
          do: cell

    assert length(rows) > 10

    paths =
      for row <- rows,
          [_, path] <- Regex.scan(~r/`([^`]+)`/, row) do
        # A second name means the same folder.
        Enum.find([path, Path.join("lib/emmap", path)], &File.exists?/1) || flunk("no #{path}")
      end

    for folder <- ~w(lib test native bench demo docs livebooks),
        do: assert(Enum.any?(paths, &String.starts_with?(&1, folder)), "no #{folder}")
  end

  # The tag needs Elixir's :logger application, which tests do not start. Before Elixir 1.15 the runner crashes without it, and
  # ends as if the tests of the file had passed.
  test "no test captures the log, unless it starts Elixir's logger" do
    for file <- Path.wildcard("test/**/*_test.exs"), file != "test/contributing_test.exs" do
      text = File.read!(file)
      refute text =~ "capture_log" and not (text =~ "ensure_all_started(:logger)"), file
    end
  end

  test "security: reports go where they can be made" do
    security = File.read!("SECURITY.md")
    assert @text =~ "SECURITY.md"

    if url = Mix.Project.config()[:source_url] do
      assert security =~ "#{url}/security/advisories/new"
    else
      assert security =~ "has no public address yet"
      refute security =~ "://"
    end
  end

  test "releasing: what is to be set, and where" do
    [_, releasing] = String.split(@text, "\n## Releasing\n")
    for {key, _} <- Mix.Project.config()[:publishing], do: assert(releasing =~ "`#{key}:`")
    assert releasing =~ "`tools/publishing`"
  end
end
