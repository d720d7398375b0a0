defmodule WorkflowsTest do
  # What runs on a code host: actions that cannot change, no more rights than needed, and commands that run here, too.
  use ExUnit.Case, async: true

  @files Path.wildcard(".github/workflows/*.yml")

  defp texts, do: for(file <- @files, do: {file, File.read!(file)})

  test "each action is pinned by the digest of a commit, and says its version" do
    actions =
      for {file, text} <- texts(),
          [_, action] <- Regex.scan(~r/^ *(?:- )?uses: *(.*)$/m, text) do
        assert action =~
                 ~r/^[\w.-]+\/[\w.-]+@[0-9a-f]{40} # (v\d+\.\d+\.\d+|master of \d{4}-\d\d-\d\d)$/,
               "#{file}: #{action}"

        action
      end

    assert length(actions) > 20

    # One commit of each.
    names = for action <- Enum.uniq(actions), do: action |> String.split("@") |> hd()
    assert names == Enum.uniq(names)
  end

  test "no job keeps the token of the checkout, and rights are given to single jobs" do
    for {file, text} <- texts() do
      assert text =~ ~r/^permissions:\n  contents: read\n\n/m, file
      steps = String.split(text, ~r/^ +- (?=uses: actions\/checkout@)/m)
      assert length(steps) > 1

      for step <- tl(steps),
          do: assert(step =~ ~r/\A[^\n]*\n +with:\n +persist-credentials: false\n/, file)
    end
  end

  test "every command that make runs is a target" do
    makefile = File.read!("Makefile")

    targets =
      for {_, text} <- texts(), [_, target] <- Regex.scan(~r/\bmake ([a-z-]+)/, text) do
        assert makefile =~ ~r/^#{target}:/m, target
        target
      end

    for target <- ~w(test-rust loom deny fuzz miri lint docs test-install),
        do: assert(target in targets, target)
  end
end
