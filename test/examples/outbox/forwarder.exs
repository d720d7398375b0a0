# The example, as an application would start it.
[path, port, max_items] = System.argv()
{:ok, _} = Application.ensure_all_started(:logger)
{:ok, _} = Application.ensure_all_started(:amqp_client)
broker = {Outbox.RabbitMQ, port: String.to_integer(port), queues: ["orders"]}

children = [
  {Emmap.Queue, path: path, name: :outbox},
  {Outbox, queue: :outbox, broker: broker, max_items: String.to_integer(max_items), retry: 200}
]

{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)
Process.sleep(:infinity)
