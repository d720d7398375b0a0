# `make blocks-kills ROUNDS=500 SEED=1`: see Emmap.Test.BlocksKills.
alias Emmap.Test.BlocksKills

rounds = String.to_integer(System.get_env("ROUNDS", "500"))
seed = String.to_integer(System.get_env("SEED", "#{:rand.uniform(1_000_000)}"))
directory = Path.join(System.tmp_dir!(), "emmap_blocks_kills_#{System.pid()}")
File.mkdir_p!(directory)
IO.puts("seed #{seed}")
{time, found} = :timer.tc(fn -> BlocksKills.run(directory, rounds, seed) end)

IO.puts(
  "#{found.rounds} kills in #{div(time, 1_000_000)} s: #{found.operations} operations that had returned, none lost; #{found.blocks} blocks"
)

File.rm_rf!(directory)
