# Producers, each of which pushes its numbers in order. One that was killed begins again with 1: the queue knows what it has.
[path, producers, count, max_size] = System.argv()
[producers, count, max_size] = Enum.map([producers, count, max_size], &String.to_integer/1)

defmodule Pusher do
  def push(_queue, _producer, number, count) when number > count, do: :ok

  def push(queue, producer, number, count) do
    payload = "#{producer} #{number} " <> String.duplicate(".", 50)

    case Emmap.Queue.push(queue, {"orders", payload}, id: {producer, number}, timeout: 100) do
      pushed when pushed in [:ok, :duplicate] ->
        push(queue, producer, number + 1, count)

      {:error, :full} ->
        if queue.full == :error, do: Process.sleep(2)
        push(queue, producer, number, count)
    end
  end
end

# Every other one waits for space in the call.
queues = for full <- [:error, :block], do: Emmap.Queue.open!(path, max_size: max_size, full: full)

1..producers
|> Enum.map(fn producer ->
  queue = Enum.at(queues, rem(producer, 2))
  Task.async(fn -> Pusher.push(queue, producer, 1, count) end)
end)
|> Task.await_many(:infinity)
