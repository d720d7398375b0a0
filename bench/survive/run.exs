# What survives: 1,000 acknowledged operations of each, then `kill -9` of the OS process; the same, then a power failure; and the same
# after the sync that each has. How many are there afterwards? `make survive`, or mix run bench/survive/run.exs; ONLY=queue,dets for some.
Code.require_file("../build.exs", __DIR__)
Bench.Build.run()
:logger.set_primary_config(:level, :error)

defmodule Bench.Survive.Run do
  alias Bench.{Outside, Results, VM}
  alias Bench.Survive.{Contenders, Power}

  def run do
    only = System.get_env("ONLY", "") |> String.split(",", trim: true)
    folder = Path.join(System.tmp_dir!(), "emmap_survive_#{System.pid()}")
    File.mkdir_p!(folder)
    power = Power.possible()
    with {:error, why} <- power, do: IO.puts("no power failures here: #{why}")

    try do
      {rows, missing} =
        for {name, _, _, _} = contender <- Contenders.all(), only == [] or "#{name}" in only do
          contender(contender, folder, power)
        end
        |> Enum.split_with(&is_list/1)

      if only == [], do: write(rows, missing, power)
    after
      File.rm_rf!(folder)
    end
  end

  defp contender({name, label, operation, sync}, folder, power) do
    if Contenders.there?(name) and python(name) do
      {killed, took} = killed(name, fresh(folder))
      failed = if power == :ok, do: failed(name, fresh(folder), false)
      synced = if power == :ok and sync, do: failed(name, fresh(folder), true)

      IO.puts(
        "#{label}: #{killed} after kill -9, #{failed || "?"} after a power failure, #{synced || "-"} after #{sync || "no sync"}"
      )

      each = Bench.time(took * 1000 / Contenders.count())

      [
        label,
        operation,
        each,
        found(killed),
        found(failed),
        sync || "",
        if(sync, do: found(synced), else: "")
      ]
    else
      IO.puts("#{label}: missing here")
      label
    end
  end

  # Whether the program in Python has its library.
  defp python(name) do
    cond do
      not Contenders.python?(name) ->
        true

      name in [:lmdb, :lmdb_nosync] ->
        match?(
          {_, 0},
          System.cmd(Outside.python() || "false", ["-c", "import lmdb"], stderr_to_stdout: true)
        )

      true ->
        Outside.python() != nil
    end
  end

  defp found(nil), do: "?"
  defp found(count), do: Bench.thousands(count)

  defp fresh(folder) do
    folder = Path.join(folder, "#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    folder
  end

  defp killed(name, folder) do
    {port, took} = worked(name, folder, false)
    VM.kill(port)
    {found_in(name, folder, false), took}
  end

  defp failed(name, folder, sync?) do
    image = Power.create(Path.join(folder, "image"))
    {:ok, {_, at} = mounted} = Power.mount(image, folder)
    {port, _} = worked(name, at, sync?)
    copy = Power.fail(image)
    VM.kill(port)
    Power.unmount(mounted)

    case Power.mount(copy, folder) do
      {:ok, {_, at} = mounted} ->
        found = found_in(name, at, true)
        Power.unmount(mounted)
        found

      {:error, _} ->
        0
    end
  end

  # All of them acknowledged, by a program that waits; and the microseconds that they took.
  defp worked(name, folder, sync?) do
    {port, _} = vm = start(name, folder, sync?)

    receive do
      {^port, {:data, "DONE " <> took}} -> {vm, took |> Integer.parse() |> elem(0)}
      {^port, {:exit_status, status}} -> raise "#{name} ended with #{status}"
    after
      120_000 -> raise "#{name} takes too long"
    end
  end

  defp start(name, folder, sync?) do
    if Contenders.python?(name) do
      sync = if sync?, do: "1", else: "0"
      options = [:binary, :exit_status, args: [script(), "work", "#{name}", folder, sync]]
      port = Port.open({:spawn_executable, Outside.python()}, options)
      {:os_pid, pid} = Port.info(port, :os_pid)
      {port, pid}
    else
      VM.start(Contenders, :work, [name, folder, sync?])
    end
  end

  defp found_in(name, folder, rebooted?) do
    if Contenders.python?(name) do
      {output, 0} = System.cmd(Outside.python(), [script(), "found", "#{name}", folder])
      output |> String.trim() |> String.to_integer()
    else
      VM.call(Contenders, :found, [name, folder, rebooted?])
    end
  end

  defp script, do: Path.join(__DIR__, "databases.py")

  defp write(rows, missing, power) do
    header = [
      "1,000 operations of",
      "operation",
      ">time",
      ">kept after `kill -9`",
      ">kept after a power failure",
      "its sync",
      ">kept after that sync and a power failure"
    ]

    table = Results.table(header, rows)

    left_out =
      if missing == [],
        do: "",
        else: "\nNot installed for this run, and left out: #{Enum.join(missing, ", ")}.\n"

    why =
      with {:error, why} <- power,
           do: "\nThe power failures were not tested: #{why}.\n",
           else: (_ -> "")

    File.write!(Path.join(Results.folder(), "survive.md"), table <> "\n" <> left_out <> why)
    IO.puts("the table is in #{Path.relative_to_cwd(Results.folder())}/survive.md")
  end
end

Bench.Survive.Run.run()
