defmodule Emmap.Waiting do
  @moduledoc false
  # Calls that have to wait for another call or another program wait in their process. The native call has already returned
  # `{:wait, kind}`, so that no scheduler waits. A separate thread repeats the call and sends the result.
  # native/emmap_nif/src/waiting.rs explains why.

  alias Emmap.Native

  # Waiting for the right to change the size of the file.
  @size 0
  # The longest wait for that, from the start of the call. Once the call has its turn, it ends by itself.
  @longest 2_000

  @doc """
  Makes a call of `Emmap.Native`, and waits for its result if necessary. The first argument is the reference of a
  handle, a path, or a request to open a file.
  """
  defmacro patient({{:., _, [_module, name]} = function, meta, arguments}) do
    variables = Macro.generate_arguments(length(arguments), __MODULE__)

    quote do
      unquote_splicing(
        for {variable, argument} <- Enum.zip(variables, arguments) do
          quote do: unquote(variable) = unquote(argument)
        end
      )

      case unquote({function, meta, variables}) do
        {:wait, kind} ->
          Emmap.Waiting.elsewhere(kind, unquote(name), unquote(variables))

        {:wait, kind, name, one, other} ->
          Emmap.Waiting.elsewhere(kind, name, [unquote(hd(variables)), one, other])

        result ->
          result
      end
    end
  end

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
