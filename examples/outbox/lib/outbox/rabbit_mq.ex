defmodule Outbox.RabbitMQ do
  @moduledoc """
  Publishes `{routing_key, payload}` to RabbitMQ, persistent and with publisher confirms, by RabbitMQ's own Erlang client.

  Options: `:queues`, which are declared durable; `:exchange` (the default one, whose routing keys are names of queues);
  `:host`, `:port`, `:username`, `:password`, `:virtual_host`.
  """
  @behaviour Outbox
  require Record

  for {name, record} <- [
        amqp_params_network: :amqp_params_network,
        amqp_msg: :amqp_msg,
        p_basic: :P_basic,
        queue_declare: :"queue.declare",
        confirm_select: :"confirm.select",
        basic_publish: :"basic.publish",
        basic_ack: :"basic.ack",
        basic_nack: :"basic.nack",
        basic_return: :"basic.return"
      ] do
    fields = Record.extract(record, from_lib: "amqp_client/include/amqp_client.hrl")
    Record.defrecordp(name, record, fields)
  end

  @defaults [queues: [], exchange: "", host: ~c"localhost", port: 5672] ++
              [username: "guest", password: "guest", virtual_host: "/"]

  @impl true
  def connect(options) do
    options = Keyword.merge(@defaults, options)

    params =
      amqp_params_network(
        host: options[:host],
        port: options[:port],
        username: options[:username],
        password: options[:password],
        virtual_host: options[:virtual_host],
        # Seconds. A broker that is silent for twice as long is away.
        heartbeat: 10,
        connection_timeout: 5_000
      )

    connection = started!(connection(params))
    channel = started!(:amqp_connection.open_channel(connection))
    # Its messages come in the order in which it sends them: this one after the last confirmation.
    Process.monitor(channel)

    for queue <- options[:queues],
        do: :amqp_channel.call(channel, queue_declare(queue: queue, durable: true))

    :amqp_channel.call(channel, confirm_select())
    :ok = :amqp_channel.register_confirm_handler(channel, self())
    :ok = :amqp_channel.register_return_handler(channel, self())
    {channel, options[:exchange]}
  end

  @impl true
  def publish({channel, exchange}, {routing_key, payload}) do
    # `mandatory`: the broker confirms a message that it has no queue for, too, but returns it first.
    publish = basic_publish(exchange: exchange, routing_key: routing_key, mandatory: true)
    message = amqp_msg(props: p_basic(delivery_mode: 2), payload: payload)
    :amqp_channel.call(channel, publish, message)
  end

  @impl true
  def confirmation({channel, _exchange}, timeout) do
    receive do
      basic_ack(delivery_tag: number, multiple: multiple) ->
        {:confirmed, numbers(number, multiple)}

      basic_nack(delivery_tag: number, multiple: multiple) ->
        {:refused, numbers(number, multiple)}

      {basic_return(reply_text: text), _message} ->
        exit({:returned, text})

      {:DOWN, _monitor, :process, ^channel, reason} ->
        exit({:disconnected, reason})
    after
      timeout -> :none
    end
  end

  defp numbers(number, true), do: 1..number
  defp numbers(number, false), do: number..number

  defp started!({:ok, pid}), do: pid
  defp started!({:error, reason}), do: exit({:not_connected, reason})

  # Opened by a process that closes it when the caller has ended, even if that was before it was open.
  defp connection(params) do
    owner = self()
    answer = make_ref()

    spawn(fn ->
      owner_ended = Process.monitor(owner)

      with {:ok, connection} <- :amqp_connection.start(params) do
        connection_ended = Process.monitor(connection)
        send(owner, {answer, {:ok, connection}})

        receive do
          {:DOWN, ^connection_ended, _, _, _} -> :ok
          {:DOWN, ^owner_ended, _, _, _} -> :amqp_connection.close(connection, 5_000)
        end
      else
        error -> send(owner, {answer, error})
      end
    end)

    receive do: ({^answer, result} -> result)
  end
end
