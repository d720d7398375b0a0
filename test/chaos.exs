# `make chaos SECONDS=600 SEED=1 VMS=2`: see Emmap.Test.Chaos. Several VMs work on the same files.
seconds = String.to_integer(System.get_env("SECONDS", "600"))
seed = String.to_integer(System.get_env("SEED", "#{:rand.uniform(1_000_000)}"))
vms = String.to_integer(System.get_env("VMS", "1"))

on_disk = fn act ->
  directory = Path.join(System.tmp_dir!(), "emmap_chaos_#{System.pid()}")
  File.mkdir_p!(directory)
  arguments = ~w(-t tmpfs -o size=32m emmap_chaos) ++ [directory]
  mounted? = match?({_, 0}, System.cmd("mount", arguments, stderr_to_stdout: true))

  IO.puts(
    "seed #{seed}, #{seconds} s, #{vms} VM, " <>
      if(mounted?, do: "a disk of 32 MB", else: "no disk of its own: it is never full")
  )

  try do
    act.(directory)
  after
    if mounted?, do: System.cmd("umount", ["-l", directory], stderr_to_stdout: true)
    File.rm_rf!(directory)
  end
end

one = fn directory ->
  result = Emmap.Test.Chaos.run(directory, seconds, seed)

  for {{name, answer}, count} <- Enum.sort(result.usual),
      do: IO.puts(String.pad_leading("#{count}", 10) <> "  #{name} #{inspect(answer)}")

  IO.inspect(result.before, label: "before")
  IO.inspect(result.left, label: "left")
  IO.inspect(result.strange, label: "strange")
  if result.strange != [] or result.left.live != {0, 0} or result.left.ours != 0, do: 1, else: 0
end

many = fn directory ->
  statuses =
    for n <- 1..vms do
      Task.async(fn ->
        environment = [
          {"CHAOS_DIRECTORY", directory},
          {"SEED", "#{seed + 1000 * n}"},
          {"VMS", "1"}
        ]

        options = [env: environment, into: IO.stream(:stdio, :line), stderr_to_stdout: true]
        {_, status} = System.cmd("mix", ["run", "--no-compile", "test/chaos.exs"], options)
        status
      end)
    end
    |> Task.await_many(:infinity)

  Enum.max(statuses)
end

status =
  case System.get_env("CHAOS_DIRECTORY") do
    nil when vms > 1 -> on_disk.(many)
    nil -> on_disk.(one)
    directory -> one.(directory)
  end

if status != 0, do: System.halt(status)
