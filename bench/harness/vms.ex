defmodule Bench.VMs do
  @moduledoc false
  # Short calls, measured in several VMs. Where the code of a call is in memory differs between VMs and costs up to 6 ns per call, so
  # the least time of one VM is often not that of the next. The least time of several is.

  alias Bench.{Comparison, VM}

  @vms 5

  @doc """
  The comparisons that a function of a group returns, in lists of any shape: each has the rounds of all VMs. Its arguments end with
  a new folder.
  """
  def compare(module, function, arguments, folder, vms \\ @vms) do
    vms = if Bench.quick?(), do: 1, else: vms

    merged =
      1..vms
      |> Enum.map(fn n ->
        own = Path.join(folder, "vm#{n}")
        File.mkdir_p!(own)
        call = [module, function, arguments ++ [own], vms]
        compared = VM.call(__MODULE__, :serve, call, waiting: :busy)
        File.rm_rf!(own)
        compared
      end)
      |> merge()

    report(merged)
    merged
  end

  @doc "Of a VM of its own, which gets its part of the time of each comparison."
  def serve(module, function, arguments, vms) do
    Comparison.share(vms)
    apply(module, function, arguments)
  end

  defp merge([%Comparison{} | _] = same), do: Comparison.merge(same)
  defp merge([[] | _]), do: []

  defp merge([[_ | _] | _] = lists),
    do: [merge(Enum.map(lists, &hd/1)) | merge(Enum.map(lists, &tl/1))]

  defp report(%Comparison{} = comparison), do: Comparison.report(comparison)
  defp report(list), do: Enum.each(list, &report/1)
end
