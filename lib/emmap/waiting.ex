defmodule Emmap.Waiting do
  @moduledoc false
  # Calls that have to wait for another call or another program wait in their process. The native call has already returned
  # `{:wait, kind}`, so that no scheduler waits. A separate thread repeats the call and sends the result.
  # native/emmap_nif/src/waiting.rs explains why.

  alias Emmap.{Bare, Native}

  # Waiting for the right to change the size of the file.
  @size 0
  # The longest wait for that, from the start of the call. Once the call has its turn, it ends by itself.
  @longest 2_000

  @doc """
  Makes a call of `Emmap.Native`, and waits for its result if necessary. The first argument is the reference of a
  handle, a path, or a request to open a file.
  """
  defmacro patient(call) do
    {bindings, call, name, arguments} = bound(call)

    # Generated, because some calls return only tuples.
    quote generated: true do
      unquote_splicing(bindings)

      case unquote(call) do
        result when not is_tuple(result) -> result
        result -> Emmap.Waiting.finish(result, unquote(name), unquote(arguments))
      end
    end
  end

  @doc "As `patient/1`, for a call whose result `Emmap.Bare` wraps."
  defmacro patient(call, kind) do
    {bindings, call, name, arguments} = bound(call)

    quote do
      unquote_splicing(bindings)

      case unquote(call) do
        result when unquote(Bare.usual(kind, quote(do: result))) -> {:ok, result}
        result -> Emmap.Waiting.finish(result, unquote(name), unquote(arguments), unquote(kind))
      end
    end
  end

  # The call, with variables as its arguments: each of these is evaluated once.
  defp bound({{:., _, [_module, name]} = function, meta, arguments}) do
    variables = Macro.generate_arguments(length(arguments), __MODULE__)

    bindings =
      for {variable, argument} <- Enum.zip(variables, arguments),
          do: quote(do: unquote(variable) = unquote(argument))

    {bindings, {function, meta, variables}, name, variables}
  end

  @doc """
  The result of a native call that has returned `result`. It is a function, so that the code of a call that does not wait
  is short, which saves 1 to 2 ns.
  """
  @spec finish(term, atom, [term]) :: term
  def finish({:wait, kind}, name, arguments), do: elsewhere(kind, name, arguments)

  def finish({:wait, kind, name, one, other}, _name, [first | _]),
    do: elsewhere(kind, name, [first, one, other])

  def finish(result, _name, _arguments), do: result

  @spec finish(term, atom, [term], Bare.kind()) :: term
  def finish(result, name, arguments, kind),
    do: result |> finish(name, arguments) |> wrap(kind)

  # Not in `Emmap.Bare`, which need not be loaded at run time: without descriptors, no module can be.
  defp wrap(data, :data) when is_binary(data), do: {:ok, data}
  defp wrap(integer, :integer) when is_integer(integer), do: {:ok, integer}
  defp wrap({:error, _} = error, :value), do: error
  defp wrap(:eof, :value), do: :eof
  defp wrap(value, :value), do: {:ok, value}
  defp wrap(other, _kind), do: other

  @spec elsewhere(0..3, atom, [term]) :: term
  def elsewhere(kind, name, [first | _] = arguments) do
    place = place(first)
    # Created here, so that the VM does not search the older messages.
    tag = make_ref()

    case Native.wait(kind, place, tag, name, arguments) do
      {:ok, number} ->
        receive do
          {^tag, result} -> result
          {^tag, :raise, reason} -> :erlang.error(reason)
        after
          longest(kind) ->
            if Native.wait_cancel(kind, place, number) do
              {:error, :ebusy}
            else
              receive do
                {^tag, result} -> result
                {^tag, :raise, reason} -> :erlang.error(reason)
              end
            end
        end

      {:error, _} = error ->
        error
    end
  end

  defp place(%{path: path}), do: path
  defp place(ref_or_path), do: ref_or_path

  defp longest(@size), do: @longest
  defp longest(_kind), do: :infinity
end
