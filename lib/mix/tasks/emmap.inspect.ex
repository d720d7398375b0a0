defmodule Mix.Tasks.Emmap.Inspect do
  @shortdoc "Shows the contents of a mapped file, and whether it is intact"

  @moduledoc """
  Shows the contents of counter, queue, block, table, `.npy` and `.safetensors` files, and whether they are intact.

      mix emmap.inspect FILE...

  Recognizes counter files (also those of saleyn/emmap, the earlier library), queues, blocks, tables, `.npy` and
  `.safetensors` files; anything else is a plain file. Prints the size, the disk space used, a bar that shows how much of the file is in memory, the headers,
  the values, and the problems with their positions. It changes nothing, and programs may use the files at the same
  time.

  ## Options

    * `--json` – prints one JSON object for each file, each on a line of its own, with the keys of
      `t:Emmap.Inspection.report/0`. For a file that could not be read, the object has the keys `"error"` (the reason)
      and `"message"`.
    * `--help` – prints this text
    * `--values N` – lists up to `N` counters, queue segments, groups of blocks, keys of a table, elements or tensors. `N` is a number (20 by default) or
      `all`

  ## Exit status

    * 0 – all files are intact
    * 1 – a file is damaged
    * 2 – a file could not be read (it does not exist, or is not a regular file), or it has a version or byte order that this
      version of Emmap does not know

  For several files, the exit status is the highest of these. Your application is not started. Without Mix, in a
  release, use `Emmap.Inspection`.
  """

  use Mix.Task

  alias Emmap.Inspection

  @help @moduledoc
  @usage "mix emmap.inspect [--json] [--values N|all] FILE..."

  @doc "Runs the task. Ends the VM with the exit status unless the status is 0."
  @impl true
  @spec run([binary]) :: :ok
  def run(arguments) do
    if Enum.any?(arguments, &(&1 in ["--help", "-h"])),
      do: Mix.shell().info(@help),
      else: inspect_files(arguments)
  end

  defp inspect_files(arguments) do
    {json?, options, files} = parse!(arguments)

    case files |> Enum.map(&inspect_file(&1, json?, options)) |> Enum.max() do
      0 -> :ok
      status -> exit({:shutdown, status})
    end
  end

  defp parse!(arguments) do
    case OptionParser.parse(arguments, strict: [json: :boolean, values: :string]) do
      {options, [_ | _] = files, []} ->
        {options[:json] || false, [values: values!(options[:values])], files}

      {_options, [], []} ->
        Mix.raise("no file given: #{@usage}")

      {_options, _files, [{option, _} | _]} ->
        Mix.raise("#{option} is not an option, or needs a value: #{@usage}")
    end
  end

  defp values!(nil), do: 20
  defp values!("all"), do: :infinity

  defp values!(text) do
    case Integer.parse(text) do
      {n, ""} when n >= 0 -> n
      _ -> Mix.raise("--values takes a number or all, got #{inspect(text)}: #{@usage}")
    end
  end

  defp inspect_file(file, json?, options) do
    case Inspection.file(file, options) do
      {:ok, report} ->
        Mix.shell().info(
          if json?, do: Inspection.json(report), else: [Inspection.text(report), "\n"]
        )

        status(report.status)

      {:error, reason} ->
        unread(file, reason, json?)
        2
    end
  end

  defp status(:intact), do: 0
  defp status(:damaged), do: 1
  defp status(:unknown), do: 2

  defp unread(file, reason, true),
    do: Mix.shell().info(Inspection.json(%{path: file, error: reason, message: message(reason)}))

  defp unread(file, reason, false),
    do: Mix.shell().error("#{Inspection.Text.name(file)}: #{message(reason)}")

  defp message(:enodev),
    do: "not a regular file, but a device, a FIFO, a socket, or a file that the kernel generates"

  defp message(:eisdir), do: "a directory, not a file"
  defp message(:estale), do: "it was truncated while it was read"
  defp message(reason), do: reason |> :file.format_error() |> List.to_string()
end
