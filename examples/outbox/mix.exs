defmodule Outbox.MixProject do
  use Mix.Project

  def project do
    [app: :outbox, version: "1.0.0", elixir: "~> 1.14", deps: deps()]
  end

  # RabbitMQ's Erlang client: on the code path by `ERL_LIBS`, or from Hex.
  def application, do: [extra_applications: [:logger, :amqp_client]]

  defp deps do
    # From Hex: `{:amqp_client, "~> 3.12"}`.
    [{:emmap, path: "../.."}]
  end
end
