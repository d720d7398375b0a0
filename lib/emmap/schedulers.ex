defmodule Emmap.Schedulers do
  @moduledoc false
  # Waits for native calls that nothing counts.

  @doc """
  Returns once every process that runs on a normal scheduler now has given it up: each native call that may not wait, and
  began before, is over.
  """
  @spec await() :: :ok
  def await do
    # A process that is bound to a scheduler runs there when the one that runs there now is done.
    1..:erlang.system_info(:schedulers_online)
    |> Enum.map(fn scheduler ->
      # The types of OTP do not have this option.
      arguments = [fn -> :ok end, [:monitor, priority: :high, scheduler: scheduler]]
      {_, monitor} = apply(:erlang, :spawn_opt, arguments)
      {scheduler, monitor}
    end)
    |> Enum.each(fn {scheduler, monitor} -> await(scheduler, monitor) end)
  end

  defp await(scheduler, monitor) do
    receive do
      {:DOWN, ^monitor, _, _, _} -> :ok
    after
      100 -> if idle?(scheduler), do: demonitor(monitor), else: await(scheduler, monitor)
    end
  end

  # A scheduler that was taken offline meanwhile, or is blocked, runs nothing.
  defp idle?(scheduler) do
    :erlang.system_info(:multi_scheduling) != :enabled or
      :erlang.system_info(:schedulers_online) < scheduler
  end

  defp demonitor(monitor) do
    true = Process.demonitor(monitor, [:flush])
    :ok
  end
end
