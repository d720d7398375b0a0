defmodule OutboxTest.Client do
  # Reads and manages queues of RabbitMQ. Compiled where its client is on the code path.
  require Record

  for {name, record} <- [
        params: :amqp_params_network,
        message: :amqp_msg,
        queue_declare: :"queue.declare",
        queue_declare_ok: :"queue.declare_ok",
        queue_delete: :"queue.delete",
        basic_consume: :"basic.consume",
        basic_consume_ok: :"basic.consume_ok",
        basic_deliver: :"basic.deliver"
      ] do
    fields = Record.extract(record, from_lib: "amqp_client/include/amqp_client.hrl")
    Record.defrecordp(name, record, fields)
  end

  @doc "Takes all messages of a durable queue, in order."
  def drain(port, queue) do
    with_channel(port, fn channel ->
      queue_declare_ok(message_count: count) =
        :amqp_channel.call(channel, queue_declare(queue: queue, durable: true))

      consume = basic_consume(queue: queue, no_ack: true)
      :amqp_channel.subscribe(channel, consume, self())
      receive do: (basic_consume_ok() -> :ok)

      for _ <- 1..count//1 do
        receive do
          {basic_deliver(), message(payload: payload)} -> payload
        after
          60_000 -> raise "a message of #{count} does not come"
        end
      end
    end)
  end

  def delete(port, queue) do
    with_channel(port, &:amqp_channel.call(&1, queue_delete(queue: queue)))
  end

  defp with_channel(port, fun) do
    {:ok, connection} = :amqp_connection.start(params(port: port))
    {:ok, channel} = :amqp_connection.open_channel(connection)

    try do
      fun.(channel)
    after
      :amqp_connection.close(connection)
    end
  end
end
