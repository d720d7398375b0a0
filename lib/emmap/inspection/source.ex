defmodule Emmap.Inspection.Source do
  @moduledoc false
  # A file that is being inspected. It is mapped read-only, so that it cannot be changed, and so that truncating it
  # in the meantime is an error that can be reported.
  #
  # Its holes are not accessed. They are zeros, a small file may have more of them than can be read, and
  # on some file systems (tmpfs) a page of a hole takes space on the disk once it is read through a map.

  import Emmap.Handle, only: [handle: 1]

  # The maximum number of bytes to read at once.
  @most 1_048_576

  @enforce_keys [:mem, :path, :size]
  defstruct [:mem, :path, :size]

  @type t :: %__MODULE__{mem: Emmap.t(), path: binary, size: non_neg_integer}

  @doc "The bytes at `position`: fewer than `count` if the file ends there. Raises `Emmap.Error`."
  @spec read(t, Emmap.position(), non_neg_integer) :: binary
  def read(source, position, count) do
    pieces = pieces(source, position, min(position + count, source.size), 1)

    for piece <- pieces, into: "" do
      with {:zeros, count} <- piece, do: :binary.copy(<<0>>, count)
    end
  end

  @doc """
  The bytes from `position` to `stop`, which must be inside the file, in units of the given number of bytes. The last unit
  may be shorter. Returns, in order, binaries of about 1 MiB at most, or of one unit, and `{:zeros, units}` for units in
  holes. Raises `Emmap.Error`.
  """
  @spec pieces(t, Emmap.position(), Emmap.position(), pos_integer) :: Enumerable.t()
  def pieces(source, position, stop, unit),
    do: Stream.unfold({position, position}, &piece(&1, source, stop, unit))

  defp piece({position, _data_end}, _source, stop, _unit) when position >= stop, do: nil

  defp piece({position, data_end}, source, stop, unit) when position < data_end do
    units = min(units(data_end - position, unit), max(div(@most, unit), 1))
    count = min(units * unit, stop - position)
    # The last unit may extend into a hole.
    read = if unit == 1, do: &data/3, else: &read/3
    {read.(source, position, count), {position + count, data_end}}
  end

  defp piece({position, _data_end}, source, stop, unit) do
    case next_data(source, position) do
      {:ok, {from, data_end}} when from - position < unit ->
        piece({position, data_end}, source, stop, unit)

      {:ok, {from, data_end}} when from < stop ->
        zeros = div(from - position, unit)
        {{:zeros, zeros}, {position + zeros * unit, data_end}}

      {:error, reason} ->
        failed!(source, reason)

      _none_before_stop ->
        {{:zeros, units(stop - position, unit)}, {stop, stop}}
    end
  end

  # The first range of data at or after `position`: its start and its end.
  defp next_data(%{mem: handle(ref)}, position),
    do: Emmap.Native.next_data(ref, position)

  @doc "The first position from `position` on that is not in a hole; `nil` if only holes follow. Raises `Emmap.Error`."
  @spec data_from(t, Emmap.position()) :: Emmap.position() | nil
  def data_from(source, position) do
    case next_data(source, position) do
      {:ok, {from, _data_end}} -> from
      {:error, reason} -> failed!(source, reason)
      _none -> nil
    end
  end

  defp units(count, unit), do: div(count + unit - 1, unit)

  defp data(source, position, count) do
    case Emmap.pread(source.mem, position, count) do
      {:ok, bytes} when byte_size(bytes) == count -> bytes
      {:error, reason} -> failed!(source, reason)
      _the_file_was_longer -> failed!(source, :estale)
    end
  end

  @spec failed!(t, atom) :: no_return
  defp failed!(source, reason),
    do: raise(Emmap.Error, op: :read, path: source.path, reason: reason)
end
