defmodule Emmap.BlocksPythonTest do
  # Blocks that a VM and a Python program share, by the module that the guide shows.
  use ExUnit.Case, async: true

  alias Emmap.Blocks
  alias Emmap.Test.Python

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @missing Python.missing()
  if @missing != [], do: @moduletag(skip: "no #{Enum.join(@missing, " and no ")} here")

  setup_all do
    if @missing == [], do: %{library: Python.library!()}, else: :ok
  end

  setup %{tmp_dir: directory} do
    %{path: Path.join(directory, "blocks")}
  end

  defp python(code, context) do
    code = """
    import errno, os, signal, sys
    from emmap_blocks import Blocks
    def say(*words): print(*words, flush=True)
    blocks = Blocks(sys.argv[1], 16)
    #{code}
    """

    script = Path.join(context.tmp_dir, "program#{System.unique_integer([:positive])}.py")
    File.write!(script, code)

    # Not through a shell: a signal must reach the program itself.
    Port.open({:spawn_executable, Python.executable!()}, [
      :binary,
      :exit_status,
      line: 10_000,
      args: [script, context.path],
      env: Python.environment(context.library)
    ])
  end

  defp next_line(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, status}} -> {:exit, status}
    after
      60_000 -> flunk("the program says nothing")
    end
  end

  test "both store, read, replace and free", context do
    blocks = Blocks.open!(context.path, block_size: 16)
    {:ok, 0} = Blocks.store(blocks, "sixteen bytes...")

    port =
      python(
        """
        say(blocks[0].decode(), len(blocks), blocks.block_size)
        say(blocks.store(b"stored by Python"))
        blocks[0] = b"and written to.."
        try: blocks[5]
        except KeyError as error: say("KeyError", error)
        try: blocks.store(b"short")
        except ValueError as error: say(error)
        say(list(blocks))
        del blocks[0]
        blocks.sync()
        blocks.close()
        """,
        context
      )

    assert next_line(port) == "sixteen bytes... 1 16"
    assert next_line(port) == "1"
    assert next_line(port) == "KeyError 5"
    assert next_line(port) == "a block has 16 bytes, got 5"
    assert next_line(port) == "[0, 1]"
    assert next_line(port) == {:exit, 0}
    assert Enum.to_list(blocks) == [{1, "stored by Python"}]
  end

  test "a Python program that is killed loses nothing, and keeps nobody waiting", context do
    blocks = Blocks.open!(context.path, block_size: 16)

    port =
      python(
        """
        for n in range(1000):
            address = blocks.store(n.to_bytes(16, "little"))
            if n % 3 == 0: del blocks[address]
            say(address, n)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        context
      )

    told = told(port, [])
    assert length(told) == 1000
    kept = for [address, n] <- told, rem(n, 3) != 0, into: %{}, do: {address, n}
    assert kept == Map.new(blocks, fn {address, <<n::little-128>>} -> {address, n} end)
    assert Blocks.count(blocks) == map_size(kept)
    assert {:ok, %{damaged: []}} = Blocks.check(blocks)
    assert {:ok, _} = Blocks.store(blocks, <<0::128>>)
  end

  defp told(port, lines) do
    case next_line(port) do
      {:exit, _} -> Enum.reverse(lines)
      line -> told(port, [Enum.map(String.split(line), &String.to_integer/1) | lines])
    end
  end
end
