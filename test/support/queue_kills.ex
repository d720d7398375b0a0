defmodule Emmap.Test.QueueKills do
  @moduledoc """
  Two VMs, two Rust programs and a Python program on one queue, each a producer, a consumer that acknowledges, and a reader,
  and each killed with -9 at random times; every other Rust program ends itself instead, after a random store, mostly with the
  lock of the queue. What they noted of what they did is compared with what the queue delivers in the end.
  """

  alias Emmap.Queue
  alias Emmap.Test.{ChildProgram, Python, QueueWorker}

  @kinds %{1 => :pushed, 2 => :delivered, 3 => :acknowledged, 4 => :released}
  @manifest Path.expand("../../native/Cargo.toml", __DIR__)
  @python Path.expand("queue_worker.py", __DIR__)
  # The workers that are killed, each in its place. Those with an identity push with it, and go on under it.
  @workers %{
    0 => %{program: :rust, identity: true},
    1 => %{program: :rust, identity: false},
    2 => %{program: :vm, identity: true},
    3 => %{program: :vm, identity: false},
    4 => %{program: :python, identity: true}
  }
  # Each of these has a PID namespace of its own, where there are namespaces.
  @in_namespace [0, 2, 4]
  # The most that a consumer checks out at once: what it may have acknowledged without having noted it.
  @batch 4
  # So often a new file is begun, and everything is compared.
  @kills_of_a_file 50

  @doc "Builds the Rust program, and returns its path."
  def program! do
    arguments = ~w(build --quiet --release --locked --package emmap_core --example queue_worker)
    {_, 0} = System.cmd("cargo", arguments ++ ["--manifest-path", @manifest])
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(Path.dirname(@manifest), "target")
    Path.join([target, "release", "examples", "queue_worker"])
  end

  @doc """
  Kills `rounds` participants. Returns how much was done and how long survivors needed; `:problems` lists the problems. With
  `namespaces: true`, one of each kind lives in a PID namespace of its own. Without Python here, the others do it alone.
  """
  def run(directory, rounds, seed, options \\ []) do
    :rand.seed(:exsss, {seed, seed, seed})
    programs = programs!()

    empty = %{
      kills: %{},
      at_stores: 0,
      pushed: 0,
      delivered: 0,
      acknowledged: 0,
      pushes: [],
      problems: []
    }

    rounds
    |> files()
    |> Enum.with_index()
    |> Enum.reduce(empty, fn {kills, index}, sum ->
      folder = Path.join(directory, "#{index}")
      File.mkdir_p!(folder)
      found = one_file(programs, folder, kills, options)
      if found.problems == [], do: File.rm_rf!(folder)

      Map.merge(sum, found, fn
        key, before, new when key in [:problems, :pushes] -> before ++ new
        :kills, before, new -> Map.merge(before, new, fn _, before, new -> before + new end)
        _key, before, new -> before + new
      end)
    end)
  end

  @doc "Says what is left out here, or nothing."
  def left_out do
    case Python.missing() do
      [] -> nil
      missing -> "skipped: the Python program, for there is no #{Enum.join(missing, " and no ")}"
    end
  end

  # What each kind of worker is started with: without Python, without that kind.
  defp programs! do
    # So that a VM can start while the others work.
    nice = [System.find_executable("nice"), "-n", "10"]
    programs = %{rust: nice ++ [program!()], vm: [System.find_executable("erl") | vm_arguments()]}

    case Python.missing() do
      [] ->
        python = nice ++ [Python.executable!(), @python]
        Map.merge(programs, %{python: python, library: Python.library!()})

      _ ->
        programs
    end
  end

  defp vm_arguments do
    ~w(-noinput -noshell +fnu +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none) ++
      ["-pa", Application.app_dir(:emmap, "ebin"), Application.app_dir(:elixir, "ebin")]
  end

  defp files(rounds) when rounds > @kills_of_a_file,
    do: [@kills_of_a_file | files(rounds - @kills_of_a_file)]

  defp files(rounds), do: [rounds]

  defp one_file(programs, folder, kills, options) do
    path = Path.join(folder, "queue")
    queue = Queue.open!(path, format: :binary, segment_size: 65_536, max_size: 2_097_152)
    {:ok, reader} = Queue.reader(queue, "audit")
    world = %{programs: programs, folder: folder, path: path, queue: queue, options: options}

    places = for {place, %{program: program}} <- @workers, programs[program], do: place

    workers =
      for place <- places, into: %{}, do: {place, start(world, place, 0, place * 1_000_000, 0)}

    state = %{
      workers: workers,
      ended: [],
      kills: %{},
      at_stores: 0,
      pushes: [],
      own: 0,
      problems: []
    }

    state = Enum.reduce(1..kills, state, fn _, state -> kill_one(world, state) end)
    state = Enum.reduce(places, state, fn place, state -> elem(stop(world, state, place), 0) end)
    # What the queue's own consumer and the reader have left.
    left = %{"consumer" => drain(queue), "reader" => drain(reader)}
    check = check(path)
    :ok = Queue.close(queue)
    found = judge(state, left)

    %{
      kills: state.kills,
      at_stores: state.at_stores,
      pushed: found.pushed,
      delivered: found.delivered,
      acknowledged: found.acknowledged,
      pushes: state.pushes,
      problems: state.problems ++ check ++ found.problems
    }
  end

  defp start(world, place, incarnation, producer, first) do
    logs = Path.join(world.folder, "#{place}-#{incarnation}")
    %{program: kind, identity: identity} = @workers[place]
    program = world.programs[kind]
    arguments = [world.path, logs, "#{producer}", "#{first}", if(identity, do: "1", else: "0")]

    command =
      case kind do
        :rust ->
          program ++ ["work" | arguments]

        :python ->
          program ++ arguments

        :vm ->
          code =
            "'Elixir.Emmap.Test.QueueWorker':work(" <>
              "<<\"#{world.path}\">>,<<\"#{logs}\">>,#{producer},#{first},#{identity})."

          program ++ ["-eval", code]
      end

    command =
      if namespace?(world, place),
        do:
          [System.find_executable("unshare"), "--pid", "--fork", "--kill-child=SIGKILL"] ++
            command,
        else: command

    environment = if kind == :python, do: Python.environment(world.programs.library), else: []
    [executable | arguments] = command

    port =
      Port.open({:spawn_executable, executable}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: arguments,
        env: [{~c"ERL_CRASH_DUMP", ~c"/dev/null"} | environment]
      ])

    pid = ChildProgram.end_with_caller(port)

    %{
      port: port,
      pid: pid,
      place: place,
      incarnation: incarnation,
      producer: producer,
      first: first,
      logs: logs
    }
  end

  defp kill_one(world, state) do
    Process.sleep(:rand.uniform(30))
    place = choose(state)
    {state, worker} = stop(world, state, place)
    state = put_in(state.kills[@workers[place].program], kills(state, place) + 1)
    state = probe(world, state)

    {producer, first} =
      if @workers[place].identity,
        do: {worker.producer, next_number(worker)},
        else: {worker.producer + 1, 0}

    started = start(world, place, worker.incarnation + 1, producer, first)
    put_in(state.workers[place], started)
  end

  # One that works, most of the time, and of these often one of the kind that was killed least: a VM takes so long to start
  # that it would hardly ever be killed.
  defp choose(state) do
    all = Map.keys(state.workers)
    working = for place <- all, working?(state.workers[place]), do: place
    seldom = fn places -> places |> Enum.shuffle() |> Enum.min_by(&kills(state, &1)) end

    case :rand.uniform(10) do
      1 -> Enum.random(all)
      2 -> all |> seldom.() |> await_work(state, 500)
      _ when working == [] -> Enum.random(all)
      n when n < 6 -> Enum.random(working)
      _ -> seldom.(working)
    end
  end

  defp kills(state, place), do: Map.get(state.kills, @workers[place].program, 0)

  defp await_work(place, state, left) do
    if left > 0 and not working?(state.workers[place]) do
      Process.sleep(10)
      await_work(place, state, left - 1)
    else
      place
    end
  end

  defp working?(worker) do
    match?({:ok, %{size: size}} when size > 400, File.stat(worker.logs <> ".producer"))
  end

  # Kills a worker. It must not have ended before.
  defp stop(world, state, place) do
    {worker, workers} = Map.pop!(state.workers, place)
    at_store? = @workers[place].program == :rust and working?(worker) and :rand.uniform(2) == 1

    if at_store? do
      # A push has about 20 stores, a checkout and an acknowledgement as many.
      Port.command(worker.port, "die #{:rand.uniform(60)}\n")
    else
      children = if namespace?(world, place), do: children(worker.pid), else: []
      System.cmd("kill", ["-9", "#{worker.pid}" | children], stderr_to_stdout: true)
    end

    {status, output} = exit_of(worker.port, "")

    problems =
      if status == 137,
        do: [],
        else: ["worker #{place}-#{worker.incarnation} ended with #{status}: #{output}"]

    state = %{
      state
      | workers: workers,
        ended: [worker | state.ended],
        at_stores: state.at_stores + if(at_store?, do: 1, else: 0),
        problems: state.problems ++ problems
    }

    {state, worker}
  end

  defp namespace?(world, place), do: world.options[:namespaces] && place in @in_namespace

  # The program in a namespace, to be killed, too: unshare may die before it has said that its child shall die with it. Once
  # it is stopped, it starts none any more.
  defp children(pid) do
    System.cmd("kill", ["-STOP", "#{pid}"], stderr_to_stdout: true)
    await_stop(pid, 1_000)
    String.split(File.read!("/proc/#{pid}/task/#{pid}/children"))
  end

  defp await_stop(_pid, 0), do: :ok

  defp await_stop(pid, left) do
    # The state comes after the name, which is in parentheses.
    [_, state] = Regex.run(~r/\) (.)/, File.read!("/proc/#{pid}/stat"))

    if state not in ["T", "Z"] do
      Process.sleep(1)
      await_stop(pid, left - 1)
    end
  end

  defp exit_of(port, output) do
    receive do
      {^port, {:data, data}} -> exit_of(port, output <> data)
      {^port, {:exit_status, status}} -> {status, output}
    after
      20_000 -> {:alive, output}
    end
  end

  # How long a survivor needs for a push after the death, from when it was killed: the lock may have been the dead one's.
  defp probe(world, state) do
    number = state.own
    item = QueueWorker.item(9_000_000_000, number)
    {time, pushed} = :timer.tc(fn -> Queue.push(%{world.queue | max_size: -1}, item) end)
    state = %{state | pushes: [time | state.pushes], own: number + 1}

    if pushed == :ok,
      do: state,
      else: %{state | problems: ["a survivor's push: #{inspect(pushed)}" | state.problems]}
  end

  defp next_number(worker) do
    case List.last(read(worker.logs <> ".producer")) do
      nil -> worker.first
      {:pushed, {_, number}, _, _} -> number + 1
    end
  end

  defp drain(queue) do
    case Queue.checkout(queue) do
      {:ok, item, receipt} ->
        :ok = Queue.ack(queue, receipt)
        [{QueueWorker.parse!(item), Queue.attempts(receipt)} | drain(queue)]

      :empty ->
        []

      error ->
        [{error, 0}]
    end
  end

  defp check(path) do
    case System.cmd(program!(), ["check", path], stderr_to_stdout: true) do
      {"sound\n", 0} -> []
      {output, _} -> ["the state is not sound: #{output}"]
    end
  end

  defp read(log) do
    case File.read(log) do
      {:ok, bytes} ->
        for <<kind::little-64, producer::little-64, number::little-64, time::little-64,
              attempts::little-64 <- bytes>>,
            do: {Map.fetch!(@kinds, kind), {producer, number}, time, attempts}

      {:error, :enoent} ->
        []
    end
  end

  # Compares what was noted with what was left.
  defp judge(state, left) do
    own = for number <- 0..(state.own - 1)//1, do: {9_000_000_000, number}

    pushed =
      for(
        worker <- state.ended,
        {:pushed, item, _, _} <- read(worker.logs <> ".producer"),
        do: item
      ) ++ own

    sides =
      for cursor <- ["consumer", "reader"] do
        logs = for worker <- state.ended, do: read("#{worker.logs}.#{cursor}")
        side(cursor, pushed, logs, left[cursor])
      end

    %{
      pushed: length(pushed),
      delivered: sides |> Enum.map(& &1.delivered) |> Enum.sum(),
      acknowledged: sides |> Enum.map(& &1.acknowledged) |> Enum.sum(),
      problems: Enum.flat_map(sides, & &1.problems)
    }
  end

  defp side(cursor, pushed, logs, left) do
    records = Enum.concat(logs)
    acknowledged = for {:acknowledged, item, time, _} <- records, do: {item, time}
    when_acknowledged = Map.new(acknowledged)
    left_items = for {item, _attempts} <- left, do: item
    left_set = MapSet.new(left_items)
    # Killed between an acknowledgement and its note: only what was delivered last.
    in_flight = logs |> Enum.flat_map(&unsettled/1) |> MapSet.new()

    lost =
      for item <- pushed,
          not is_map_key(when_acknowledged, item),
          item not in left_set,
          item not in in_flight,
          do: "#{cursor}: lost #{inspect(item)}"

    again =
      for {:delivered, item, start, _} <- records,
          start > Map.get(when_acknowledged, item, :infinity),
          do: "#{cursor}: delivered after its acknowledgement #{inspect(item)}"

    left_after =
      for item <- left_items,
          is_map_key(when_acknowledged, item),
          do: "#{cursor}: left after its acknowledgement #{inspect(item)}"

    twice =
      for {items, what} <- [
            {Enum.map(acknowledged, &elem(&1, 0)), "acknowledged"},
            {left_items, "left"},
            {for({:delivered, item, _, 1} <- records, do: item), "delivered first"}
          ],
          item <- items -- Enum.uniq(items),
          do: "#{cursor}: #{what} twice #{inspect(item)}"

    firsts =
      for(log <- logs, do: for({:delivered, item, _, 1} <- log, do: item)) ++
        [for({item, 1} <- left, do: item)]

    disorder =
      for items <- firsts,
          {producer, numbers} <- Enum.group_by(items, &elem(&1, 0), &elem(&1, 1)),
          numbers != Enum.sort(numbers),
          do: "#{cursor}: the order of #{producer} is not kept"

    %{
      delivered: Enum.count(records, &match?({:delivered, _, _, _}, &1)),
      acknowledged: length(acknowledged),
      problems: Enum.flat_map([lost, again, left_after, twice, disorder], &Enum.take(&1, 5))
    }
  end

  # Of one life: what was delivered last, and neither acknowledged nor released as far as it was noted.
  defp unsettled(log) do
    log
    |> Enum.reverse()
    |> Enum.take_while(&match?({:delivered, _, _, _}, &1))
    |> Enum.take(@batch)
    |> Enum.map(fn {:delivered, item, _, _} -> item end)
  end

  @doc """
  Microseconds from the death of a program that has an item until a waiting survivor in this VM has it, for so many deaths. It
  dies with the item checked out (`"hold"`), and with the lock of the queue, too (`"lock"`).
  """
  def takeovers(directory, count, what) do
    program = program!()
    path = Path.join(directory, "takeover_#{what}")
    queue = Queue.open!(path, format: :binary)

    times =
      for _ <- 1..count do
        :ok = Queue.push(queue, "item")

        port =
          Port.open({:spawn_executable, program}, [:binary, :exit_status, args: [what, path]])

        pid = ChildProgram.end_with_caller(port)
        receive do: ({^port, {:data, "held\n"}} -> :ok)
        survivor = Task.async(fn -> {Queue.pop(queue, 10_000), System.os_time(:microsecond)} end)
        Process.sleep(20)
        # A shell's own clock and kill: starting a program takes longer than what is measured.
        command = "LC_ALL=C; now=$EPOCHREALTIME; kill -9 #{pid}; echo ${now/./}"
        {killed, 0} = System.cmd("bash", ["-c", command])
        {{:ok, "item"}, taken} = Task.await(survivor, 20_000)
        receive do: ({^port, {:exit_status, _}} -> :ok)
        taken - String.to_integer(String.trim(killed))
      end

    :ok = Queue.close(queue)
    Enum.sort(times)
  end

  @doc "How many of 1,000 acknowledged operations are there after `kill -9`, for each of three libraries."
  def kept(directory) do
    for name <- ["Emmap.Queue", "dets", "disk_log"] do
      path = Path.join(directory, "kept_#{name}")
      {set_up, operation, count} = operations(name, path)

      code = """
      #{set_up}
      for n <- 1..1_000, do: :ok = #{operation}
      IO.puts("done")
      Process.sleep(:infinity)
      """

      ebin = Application.app_dir(:emmap, "ebin")

      port =
        Port.open({:spawn_executable, System.find_executable("elixir")}, [
          :binary,
          :exit_status,
          args: ["-pa", ebin, "-e", code]
        ])

      pid = ChildProgram.end_with_caller(port)
      receive do: ({^port, {:data, "done\n"}} -> :ok)
      {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
      receive do: ({^port, {:exit_status, _}} -> :ok)
      {name, count.()}
    end
  end

  defp operations("Emmap.Queue", path) do
    {"q = Emmap.Queue.open!(#{inspect(path)})", "Emmap.Queue.push(q, n)",
     fn ->
       queue = Queue.open!(path)
       count = Queue.length(queue)
       Queue.close(queue)
       count
     end}
  end

  defp operations("dets", path) do
    {"{:ok, t} = :dets.open_file(:t, file: ~c#{inspect(path)})", ":dets.insert(t, {n, n})",
     fn ->
       case :dets.open_file(:emmap_kept, file: to_charlist(path)) do
         {:ok, table} ->
           count = :dets.info(table, :size)
           :dets.close(table)
           count

         {:error, _} ->
           0
       end
     end}
  end

  defp operations("disk_log", path) do
    {"{:ok, l} = :disk_log.open(name: :l, file: ~c#{inspect(path)})", ":disk_log.log(l, n)",
     fn ->
       opened = :disk_log.open(name: :emmap_kept, file: to_charlist(path), repair: true)

       count =
         if elem(opened, 0) in [:ok, :repaired],
           do: chunks(:disk_log.chunk(:emmap_kept, :start)),
           else: 0

       :disk_log.close(:emmap_kept)
       count
     end}
  end

  defp chunks(:eof), do: 0
  defp chunks({:error, _}), do: 0

  defp chunks(chunk),
    do: length(elem(chunk, 1)) + chunks(:disk_log.chunk(:emmap_kept, elem(chunk, 0)))
end
