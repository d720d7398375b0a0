defmodule Emmap.Test.BlocksKills do
  @moduledoc """
  Two VMs and two Rust programs on one file of blocks, each killed with -9 at random times. What each noted of what it did is compared with
  what is in the file.
  """

  alias Emmap.Blocks
  alias Emmap.Test.{BlocksWorker, ChildProgram}

  @manifest Path.expand("../../native/Cargo.toml", __DIR__)
  @workers %{1 => :rust, 2 => :rust, 3 => :vm, 4 => :vm}

  @doc "Builds the Rust program, and returns its path."
  def program! do
    arguments = ~w(build --quiet --release --locked --package emmap_core --example blocks_worker)
    {_, 0} = System.cmd("cargo", arguments ++ ["--manifest-path", @manifest])
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(Path.dirname(@manifest), "target")
    Path.join([target, "release", "examples", "blocks_worker"])
  end

  @doc "Kills `rounds` participants. Returns how many operations had returned; raises at the first one that was lost."
  def run(directory, rounds, seed) do
    :rand.seed(:exsss, {seed, seed, seed})
    path = Path.join(directory, "blocks")
    blocks = Blocks.open!(path, block_size: 64)
    world = %{directory: directory, path: path, blocks: blocks, rust: program!()}
    ports = for {worker, _} <- @workers, into: %{}, do: {worker, start(world, worker, 0)}

    {ports, operations} =
      Enum.reduce(1..rounds, {ports, 0}, fn round, {ports, operations} ->
        worker = Enum.random(Map.keys(@workers))
        Process.sleep(:rand.uniform(50))
        kill(ports[worker])
        {_held, more} = judge(world, worker)
        {Map.put(ports, worker, start(world, worker, round)), operations + more}
      end)

    Enum.each(ports, fn {_, port} -> kill(port) end)
    {held, more} = @workers |> Map.keys() |> Enum.map(&judge(world, &1)) |> Enum.unzip()
    count = held |> Enum.map(&map_size/1) |> Enum.sum()
    # Each address belongs to one of them.
    ^count = held |> Enum.flat_map(&Map.keys/1) |> Enum.uniq() |> length()
    ^count = Blocks.count(blocks)
    {:ok, %{blocks: ^count, damaged: []}} = Blocks.check(blocks)
    :ok = Blocks.sync(blocks)
    {:ok, %{replaced: 0}} = Blocks.info(blocks)
    :ok = Blocks.close(blocks)
    {:ok, %{status: :intact}} = Emmap.Inspection.file(path, values: :infinity)
    %{rounds: rounds, operations: operations + Enum.sum(more), blocks: count}
  end

  defp log(world, worker), do: Path.join(world.directory, "log#{worker}")

  defp start(world, worker, round) do
    log = log(world, worker)
    unless File.exists?(log), do: File.write!(log, "")
    arguments = [world.path, log, "#{worker}", "#{(round + 1) * 1_000_000}"]

    {program, arguments} =
      case @workers[worker] do
        :rust ->
          {world.rust, arguments}

        :vm ->
          ebins = for app <- [:emmap, :elixir], do: Application.app_dir(app, "ebin")
          paths = Enum.flat_map(ebins, &["-pa", &1])
          main = ["-eval", "'Elixir.Emmap.Test.BlocksWorker':main(init:get_plain_arguments())"]

          {System.find_executable("erl"),
           ~w(-noinput +fnu) ++ paths ++ main ++ ["-extra" | arguments]}
      end

    port =
      Port.open({:spawn_executable, program}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 1000,
        args: arguments
      ])

    _ = ChildProgram.end_with_caller(port)

    receive do
      {^port, {:data, {:eol, "works"}}} -> port
      {^port, said} -> raise "worker #{worker} does not start: #{inspect(said)}"
    after
      60_000 -> raise "worker #{worker} does not start"
    end
  end

  defp kill(port) do
    case Port.info(port, :os_pid) do
      {:os_pid, pid} -> {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
      nil -> :ok
    end

    receive do
      {^port, {:data, said}} -> raise "a worker says #{inspect(said)}"
      {^port, {:exit_status, 137}} -> :ok
      {^port, {:exit_status, status}} -> raise "a worker ended by itself: #{status}"
    end
  end

  # What a dead worker has in the file, which is what its log says, with or without what was going on.
  defp judge(world, worker) do
    log = log(world, worker)
    bytes = File.read!(log)
    # A record may be incomplete.
    bytes = binary_part(bytes, 0, div(byte_size(bytes), 24) * 24)
    {held, pending} = BlocksWorker.replay(bytes)

    there =
      for {address, <<^worker::little-64, number::little-64, _::binary>> = data} <- world.blocks,
          into: %{} do
        true = data == BlocksWorker.block(worker, number)
        {address, number}
      end

    unless there == held or done?(pending, held, there) do
      missing = Map.drop(held, Map.keys(there))
      added = Map.drop(there, Map.keys(held))

      raise "worker #{worker}: pending #{inspect(pending)}, missing #{inspect(missing)}, more #{inspect(added)}"
    end

    # The next incarnation goes on from here.
    words = for {address, number} <- there, word <- [1, address, number], do: <<word::little-64>>
    File.write!(log, words)
    # Each that had returned has two records, but for what the log began with.
    {there, div(byte_size(bytes), 48)}
  end

  defp done?({:store, number}, held, there) do
    case Map.to_list(Map.drop(there, Map.keys(held))) do
      [{address, ^number}] -> there == Map.put(held, address, number)
      _ -> false
    end
  end

  defp done?({:free, address}, held, there), do: there == Map.delete(held, address)
  defp done?({:write, address, number}, held, there), do: there == Map.put(held, address, number)
  defp done?(nil, _held, _there), do: false
end
