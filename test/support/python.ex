defmodule Emmap.Test.Python do
  @moduledoc "Python programs that use the module of the guide, with the C library."

  @native Path.expand("../../native", __DIR__)
  @guide Path.expand("../../guides/python", __DIR__)

  @doc "The programs that are missing here."
  def missing,
    do: for(program <- ~w(python3 cargo), !System.find_executable(program), do: program)

  @doc "Builds the C library, and returns its path."
  def library! do
    target = Path.expand(System.get_env("CARGO_TARGET_DIR") || Path.join(@native, "target"))
    # In the directory that the NIF library was built in, so that most of it is there already.
    arguments = ~w(build --quiet --release --locked --package emmap_c --target-dir) ++ [target]
    {said, status} = System.cmd("cargo", arguments, cd: @native, stderr_to_stdout: true)
    if status != 0, do: raise("emmap_c: #{said}")
    triple = System.get_env("CARGO_BUILD_TARGET") || ""
    extension = if :os.type() == {:unix, :darwin}, do: "dylib", else: "so"
    library = Path.join([target, triple, "release", "libemmap_c.#{extension}"])
    true = File.exists?(library)
    library
  end

  @doc "The environment in which a program finds the module, and the module the library."
  def environment(library) do
    [
      {~c"EMMAP_LIBRARY", to_charlist(library)},
      {~c"PYTHONPATH", to_charlist(@guide)},
      {~c"PYTHONDONTWRITEBYTECODE", ~c"1"}
    ]
  end

  @doc "The interpreter itself: `python3` may be a script (pyenv), whose death is not that of the program."
  def executable! do
    {path, 0} = System.cmd("python3", ["-c", "import sys; print(sys.executable)"])
    String.trim(path)
  end
end
