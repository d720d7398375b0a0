defmodule Emmap.Test.Resources do
  @moduledoc "Counts what must be released: file descriptors, maps, mappings and handles."

  @doc "Descriptors and maps of this OS process that belong to files below `directory`."
  def held(directory) do
    fds =
      for fd <- File.ls!("/proc/self/fd"),
          # Not through the file server: there may be hundreds.
          {:ok, target} <- [:prim_file.read_link("/proc/self/fd/#{fd}")],
          target = List.to_string(target),
          String.starts_with?(target, directory),
          do: target

    maps =
      for line <- "/proc/self/maps" |> File.read!() |> String.split("\n"),
          String.contains?(line, directory),
          do: line

    {length(fds), length(maps)}
  end

  @doc "Polls until `check` is true; collects garbage of this process meanwhile."
  def eventually(check, deadline \\ 5_000) do
    :erlang.garbage_collect()

    cond do
      check.() ->
        true

      deadline <= 0 ->
        false

      true ->
        Process.sleep(10)
        eventually(check, deadline - 10)
    end
  end
end
