defmodule Emmap.Test.BadDay do
  @moduledoc """
  For the tests of `test/bad_days`: each is a row of the table of bad days, named `"row: what happens"`,
  and runs in a VM of its own. `make bad-days` prints the table.
  """

  alias Emmap.Test.{BadDayTable, ChildVM}

  defmacro __using__(_) do
    quote do
      use ExUnit.Case, async: true
      import Emmap.Test.BadDay

      @moduletag :tmp_dir
      @moduletag timeout: 180_000

      setup %{tmp_dir: directory} do
        path = Path.join(directory, "data")
        File.write!(path, "0123456789")
        %{path: path, dir: directory}
      end
    end
  end

  @doc """
  Runs `code` in a VM of its own, with `path` (a file of ten digits) and `dir` bound; gives its last
  value, and fails if the VM died. Options as `ChildVM.run/2`.
  """
  def child(%{path: path, dir: directory} = context, code, options \\ []) do
    answer = ChildVM.run!(bound(path, directory) <> code, options)
    noted(context, answer)
  end

  @doc "The term, which the table shows as what the user got."
  def noted(context, got) do
    BadDayTable.note(context.test, inspect(got, limit: 12, printable_limit: 60))
    got
  end

  @doc "As `child/3`, for a VM that may die: `{:ok, answer} | {:died, status, output}`."
  def attempt(%{path: path, dir: directory} = context, code, options \\ []) do
    answer = ChildVM.run(bound(path, directory) <> code, options)

    case answer do
      {:died, status, _} -> BadDayTable.note(context.test, "exit status #{status}")
      {:ok, got} -> noted(context, got)
    end

    answer
  end

  defp bound(path, directory),
    do: "path = #{inspect(path)}; dir = #{inspect(directory)}; _ = {path, dir}\n" <> helpers()

  # What most rows need: another program that cuts, lengthens or overwrites the file.
  defp helpers do
    """
    cut = fn path, size ->
      {:ok, raw} = :file.open(path, [:raw, :read, :write])
      {:ok, _} = :file.position(raw, size)
      :ok = :file.truncate(raw)
      :ok = :file.close(raw)
    end
    _ = cut
    """
  end

  @doc "Says in the table and on the screen why a row could not be tried here."
  def skipped(context, why) do
    BadDayTable.note(context.test, "skipped: #{why}")
    IO.puts("skipped (#{context.test}): #{why}")
  end

  @doc """
  A disk of 1 MB (tmpfs) or 8 MB (ext4 in a file, of which so many percent are kept for root): `{:ok, folder}` or
  `{:error, why}`.
  """
  def disk(context, kind, percent \\ 0)

  def disk(context, :tmpfs, _percent),
    do: mount(context, "disk", ~w(-t tmpfs -o size=1m emmap_test))

  def disk(%{dir: directory} = context, :ext4, percent) do
    image = Path.join(directory, "image")
    File.write!(image, "")
    {_, 0} = System.cmd("truncate", ["-s", "8M", image])

    case System.cmd(
           "sh",
           [
             "-c",
             "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -m #{percent} -O ^has_journal '#{image}'"
           ],
           stderr_to_stdout: true
         ) do
      {_, 0} -> mount(context, "disk", ["-o", "loop", image])
      {why, _} -> {:error, "no ext4 here: #{String.trim(why)}"}
    end
  end

  @doc "Mounts a file system over a folder for the time of a test: `{:ok, folder}` or `{:error, why}`."
  def mount(%{dir: directory}, name, arguments) do
    folder = Path.join(directory, name)
    File.mkdir_p!(folder)

    case System.cmd("mount", arguments ++ [folder], stderr_to_stdout: true) do
      {_, 0} ->
        ExUnit.Callbacks.on_exit(fn ->
          System.cmd("umount", ["-l", folder], stderr_to_stdout: true)
        end)

        {:ok, folder}

      {why, _} ->
        {:error, "no mount here: #{String.trim(why)}"}
    end
  end
end

defmodule Emmap.Test.BadDayTable do
  @moduledoc "An ExUnit formatter that prints the bad days as a table in Markdown."
  use GenServer

  @doc "Keeps what a row's user got, if a table is being made."
  def note(test, text) do
    if :ets.whereis(__MODULE__) != :undefined,
      do: :ets.insert(__MODULE__, {test, System.unique_integer([:monotonic]), text})
  end

  @impl true
  def init(_options) do
    :ets.new(__MODULE__, [:named_table, :public, :bag])
    {:ok, []}
  end

  @impl true
  def handle_cast({:test_finished, %ExUnit.Test{} = test}, rows) do
    # After the words of its group, if it has one.
    [_, row, happens] = Regex.run(~r/(\d[^:]*): (.*)/s, to_string(test.name))
    got = for {_, _, text} <- Enum.sort(:ets.lookup(__MODULE__, test.name)), do: text

    lived =
      case test.state do
        nil -> "passed"
        {:failed, _} -> "**BROKEN**"
        _ -> "not run"
      end

    {:noreply, [{row, happens, Enum.join(got, "; "), lived} | rows]}
  end

  def handle_cast({:suite_finished, _}, rows) do
    IO.puts("""

    #{Date.utc_today()}, OTP #{System.otp_release()}, Elixir #{System.version()}, #{kernel()}

    | group | event | value that the test checks | result |
    | --- | --- | --- | --- |\
    """)

    for {row, happens, got, lived} <- Enum.sort_by(rows, &order/1) do
      IO.puts("| #{row} | #{happens} | #{code(got)} | #{lived} |")
    end

    broken = Enum.count(rows, &(elem(&1, 3) == "**BROKEN**"))
    IO.puts("\n#{length(rows)} rows, #{broken} broken")
    {:noreply, rows}
  end

  def handle_cast(_event, rows), do: {:noreply, rows}

  defp order({row, happens, _, _}), do: {row |> Integer.parse() |> elem(0), happens}

  defp code(""), do: ""
  defp code("skipped" <> _ = text), do: text
  defp code("exit" <> _ = text), do: text

  defp code(text) do
    text = text |> String.replace("|", "\\|") |> String.replace("\n", " ")
    "`#{if String.length(text) > 160, do: String.slice(text, 0, 159) <> "…", else: text}`"
  end

  defp kernel do
    {name, 0} = System.cmd("uname", ["-srm"])
    String.trim(name)
  end
end
