# `make chaos SECONDS=600 SEED=1`: see Emmap.Test.Chaos.
seconds = String.to_integer(System.get_env("SECONDS", "600"))
seed = String.to_integer(System.get_env("SEED", "#{:rand.uniform(1_000_000)}"))
directory = Path.join(System.tmp_dir!(), "emmap_chaos_#{System.pid()}")
File.mkdir_p!(directory)

mounted? =
  match?(
    {_, 0},
    System.cmd("mount", ~w(-t tmpfs -o size=32m emmap_chaos) ++ [directory],
      stderr_to_stdout: true
    )
  )

IO.puts(
  "seed #{seed}, #{seconds} s, #{if mounted?, do: "a disk of 32 MB", else: "no disk of its own: it is never full"}"
)

result =
  try do
    Emmap.Test.Chaos.run(directory, seconds, seed)
  after
    if mounted?, do: System.cmd("umount", ["-l", directory])
    File.rm_rf!(directory)
  end

for {{name, answer}, count} <- Enum.sort(result.usual),
    do: IO.puts(String.pad_leading("#{count}", 10) <> "  #{name} #{inspect(answer)}")

IO.inspect(result.before, label: "before")
IO.inspect(result.left, label: "left")
IO.inspect(result.strange, label: "strange")
if result.strange != [] or result.left.live != {0, 0} or result.left.ours != 0, do: System.halt(1)
