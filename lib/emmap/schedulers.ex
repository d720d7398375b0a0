defmodule Emmap.Schedulers do
  @moduledoc false
  # Waits for native calls that are not counted.

  @doc """
  Returns once every process that now runs on a normal scheduler has stopped running there. Each native call that began
  before and that cannot wait is then finished.
  """
  @spec await() :: :ok
  def await do
    # A process that is bound to a scheduler runs after the process that runs there now.
    1..:erlang.system_info(:schedulers_online)
    |> Enum.map(fn scheduler ->
      # OTP's types do not have this option.
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

  # A scheduler that was taken offline in the meantime, or is blocked, runs nothing.
  defp idle?(scheduler) do
    :erlang.system_info(:multi_scheduling) != :enabled or
      :erlang.system_info(:schedulers_online) < scheduler
  end

  defp demonitor(monitor) do
    true = Process.demonitor(monitor, [:flush])
    :ok
  end
end
