defmodule Emmap.Descriptor do
  @moduledoc false
  # An open file that is passed instead of a path.

  import Emmap.Handle, only: [handle: 1]
  alias Emmap.{Collected, Native}

  @doc "Whether a term is an open file."
  defguard is_descriptor(source)
           when (is_tuple(source) and elem(source, 0) in [:fd, :file_descriptor]) or
                  is_pid(source) or is_port(source)

  @doc "Calls `open` with the number of the file's descriptor, which is valid for the duration of the call."
  @spec with_number(term, (integer -> answer)) :: answer | {:error, Emmap.reason()}
        when answer: term
  def with_number({:fd, number}, open) when is_integer(number) and number in 0..0x7FFF_FFFF,
    do: open.(number)

  def with_number(handle(ref), open) do
    with {:ok, descriptor, number} <- Collected.retry(fn -> Native.descriptor_open(ref) end) do
      try do
        open.(number)
      after
        Native.descriptor_close(descriptor)
      end
    end
  end

  def with_number({:file_descriptor, :prim_file, _} = file, open) do
    with <<number::native-32>> <- :prim_file.get_handle(file) do
      answer = open.(number)

      # Used again here, so that the file is not collected, and its number not reused, before this.
      _ = :prim_file.get_handle(file)
      answer
    end
  end

  # A handle that was opened without `:binary`, which returns lists.
  def with_number({:file_descriptor, :raw_file_io_list, file}, open), do: with_number(file, open)

  def with_number({:fd, other}, _open) do
    raise ArgumentError,
          "{:fd, n} takes the number of an open descriptor, 0 or more, got #{inspect(other)}"
  end

  def with_number(_device, _open) do
    raise ArgumentError,
          "this file has no accessible descriptor: pass its path, or a file that was opened with :raw and without " <>
            ":delayed_write, :compressed and :ram"
  end
end
