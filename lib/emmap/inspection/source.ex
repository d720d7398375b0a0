defmodule Emmap.Inspection.Source do
  @moduledoc false
  # A file that is being inspected: mapped read-only, so that it cannot be changed, and so that a file
  # that is cut meanwhile is an answer.

  @enforce_keys [:mem, :path, :size]
  defstruct [:mem, :path, :size]

  @type t :: %__MODULE__{mem: Emmap.t(), path: binary, size: non_neg_integer}

  @doc "The bytes at `position`: fewer than `count` where the file ends. Raises `Emmap.Error`."
  @spec read(t, Emmap.position(), non_neg_integer) :: binary
  def read(source, position, count) do
    case Emmap.pread(source.mem, position, count) do
      {:ok, bytes} -> bytes
      :eof -> ""
      {:error, reason} -> raise Emmap.Error, op: :read, path: source.path, reason: reason
    end
  end
end
