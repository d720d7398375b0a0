defmodule Emmap.MistakesTest do
  # What a new user does wrong, and what the error says of it.
  use ExUnit.Case, async: true

  alias Emmap.{Blocks, Counters, Queue}

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    path = Path.join(directory, "data")
    File.write!(path, "0123456789")
    %{path: path, mem: Emmap.open!(path, [:write])}
  end

  defp says(call) do
    try do
      call.()
    rescue
      error in [ArgumentError, FunctionClauseError] -> Exception.message(error)
    else
      result -> flunk("no error, but #{inspect(result)}")
    end
  end

  test "options of File.open", %{path: path} do
    for {option, hint} <- [
          binary: "reads always return binaries",
          raw: "like a raw file",
          utf8: "Emmap.device(mem, encoding: :unicode)",
          delayed_write: "leave it out",
          read_ahead: "Emmap.prefetch/3",
          compressed: "the bytes that are in the file",
          ram: "[:anon, size: n]"
        ] do
      said = says(fn -> Emmap.open(path, [:read, option]) end)
      assert said =~ "unknown option #{inspect(option)} (an option of File.open: "
      assert said =~ hint
      assert says(fn -> :emmap.open(path, [:read, option]) end) =~ hint
      assert says(fn -> Emmap.open!(path, [:read, option]) end) =~ hint
    end

    assert says(fn -> Emmap.open(path, encoding: :utf8) end) =~ "encoding: :unicode)"
    assert says(fn -> Emmap.open(path, delayed_write: 100) end) =~ "leave it out"
  end

  test "the whole result of an open", %{path: path, tmp_dir: directory} do
    {:ok, mem} = opened = Emmap.open(path, [:write])

    calls = [
      &Emmap.pread(&1, 0, 1),
      &Emmap.pread(&1, [{0, 1}]),
      &Emmap.pwrite(&1, 0, "x"),
      &Emmap.read(&1, 1),
      &Emmap.read_line/1,
      &Emmap.view(&1, 0, 1),
      &Emmap.write(&1, "x"),
      &Emmap.position(&1, 0),
      &Emmap.patomic(&1, 0, :add, 1),
      &Emmap.get(&1, 0, :u8),
      &Emmap.put(&1, 0, :u8, 1),
      &Emmap.find(&1, "x"),
      &Emmap.size/1,
      &Emmap.resize(&1, 10),
      &Emmap.sync/1,
      &Emmap.close/1,
      &Emmap.dup/1,
      &Emmap.info/1,
      &Emmap.monitor/1,
      &Emmap.make_read_only/1,
      &Emmap.window(&1, 0, 1),
      &Emmap.advise(&1, 0, 0, :normal),
      &Emmap.allocate(&1, 0, 1),
      &Emmap.stream!/1,
      &Emmap.chunks!(&1, 2),
      &Emmap.device/1,
      &Emmap.open(&1, []),
      &:emmap.pread(&1, 0, 1),
      &:emmap.patomic_add(&1, 0, 1),
      &:emmap.count_lines/1,
      &:emmap.store_block(&1, "x"),
      &:emmap.read_blocks/1
    ]

    for call <- calls, given <- [opened, {:error, :enoent}] do
      said = says(fn -> call.(given) end)
      expected = if given == opened, do: "whole result of", else: "error of a file"
      assert said =~ expected, "#{inspect(call)}: #{said}"
    end

    # Another node's handle has another reference.
    assert says(fn -> Emmap.size({:file_descriptor, Emmap.File, {make_ref(), nil, nil}}) end) =~
             "not an open Emmap handle"

    counters = Counters.open(Path.join(directory, "counters"), 2)
    queue = Queue.open(Path.join(directory, "queue"))
    blocks = Blocks.open(Path.join(directory, "blocks"), block_size: 64)

    for {call, given} <- [
          {&Counters.add(&1, 0, 1), counters},
          {&Counters.get(&1, 0), counters},
          {&Counters.close/1, counters},
          {&Counters.to_list/1, counters},
          {&:emmap.inc_counter(&1, 0), counters},
          {&Queue.push(&1, 1), queue},
          {&Queue.pop/1, queue},
          {&Queue.close/1, queue},
          {&Queue.length/1, queue},
          {&Blocks.store(&1, "x"), blocks},
          {&Blocks.read(&1, 0), blocks},
          {&Blocks.close/1, blocks}
        ] do
      assert says(fn -> call.(given) end) =~ "whole result of"
      assert says(fn -> call.({:error, :enoent}) end) =~ "error of a file"
      assert says(fn -> call.(mem) end) =~ "a handle of Emmap.open"
    end

    {:ok, counters} = counters
    assert says(fn -> Emmap.pread(counters, 0, 8) end) =~ "of Emmap.Counters"
    assert says(fn -> Emmap.pread(path, 0, 8) end) =~ "{:ok, mem} = Emmap.open(path)"
  end

  test "types of Nx and of others", %{mem: mem} do
    for {type, meant} <- [
          {{:f, 32}, :f32},
          {{:s, 64}, :i64},
          {{:u, 8}, :u8},
          {:s32, :i32},
          {:int16, :i16},
          {:uint64, :u64},
          {:float, :f32},
          {:double, :f64},
          {"f32", :f32},
          {"float64", :f64},
          {:U8, :u8},
          {{{:f, 64}, :big}, :f64}
        ] do
      assert says(fn -> Emmap.get(mem, 0, type) end) =~
               "unknown type #{inspect(type)} (did you mean #{inspect(meant)}?)"

      assert says(fn -> Emmap.put(mem, 0, type, 1) end) =~ "(did you mean #{inspect(meant)}?)"
    end

    for type <- [:u7, {:bf, 16}, "text", 8, nil, {:u8, :middle}] do
      said = says(fn -> Emmap.get(mem, 0, type) end)
      assert said =~ "unknown type #{inspect(type)}; valid are :u8"
    end
  end

  test "a regular expression", %{mem: mem} do
    for call <- [&Emmap.find/2, &Emmap.rfind/2, &Emmap.find_all/2, &Emmap.count/2] do
      said = says(fn -> call.(mem, ~r/[0-9]+/) end)
      assert said =~ "cannot be a regular expression, got ~r/[0-9]+/"
      assert said =~ "Regex.run"
    end

    assert says(fn -> Emmap.compile_pattern(~r/a/) end) =~ "Regex.run"
  end

  test "errors of a type show what was passed", %{mem: mem} do
    for {call, shown} <- [
          {fn -> Emmap.view(mem, "start", 1) end, "in bytes, got <<\"start\">>"},
          {fn -> Emmap.view(mem, 0, -5) end, "0 or more, got -5"},
          {fn -> Emmap.term(mem, 0, :all) end, "got all"},
          {fn -> Emmap.string(mem, nil, 1) end, "got nil"},
          {fn -> Emmap.patomic(mem, 0, :add, 1.5) end, "64 bits, got 1.5"},
          {fn -> Emmap.patomic(mem, :start, :add, 1) end, "got start"},
          {fn -> Emmap.patomic_cas(mem, 0, 0, "x") end, "got <<\"x\">>"},
          {fn -> Emmap.get(mem, "0", :u64) end, "got <<\"0\">>"},
          {fn -> Emmap.put(mem, 0, :u8, 256) end, "from 0 to 255, got 256"},
          {fn -> Emmap.put(mem, 0, :f32, "1.0") end, "got <<\"1.0\">>"},
          {fn -> Emmap.fill(mem, 0, 5, 256) end, "from 0 to 255, got 256"},
          {fn -> Emmap.fill(mem, 0, "5", 0) end, "got <<\"5\">>"},
          {fn -> Emmap.copy(mem, 0, nil, 1) end, "got nil"},
          {fn -> Emmap.prefetch(mem, 0, "x") end, "got 0 and \"x\""},
          {fn -> Emmap.resize(mem, "10") end, "got \"10\""},
          {fn -> Emmap.view(mem, String.duplicate("long", 1000), 1) end, "…"}
        ] do
      said = says(call)
      assert said =~ shown
      assert String.length(said) < 250
    end
  end

  test "mix emmap.inspect --help" do
    for option <- ["--help", "-h"] do
      said = ExUnit.CaptureIO.capture_io(fn -> Mix.Tasks.Emmap.Inspect.run([option]) end)
      assert said =~ "mix emmap.inspect FILE..."
      assert said =~ "--json"
      assert said =~ "Exit status"
    end
  end

  test "h Emmap.open shows ten options, and no page is wider than a terminal needs" do
    {:docs_v1, _, _, _, %{"en" => options}, _, _} = Code.fetch_docs(Emmap.Options)
    refute options =~ "| ---"
    {:docs_v1, _, _, _, _, _, functions} = Code.fetch_docs(Emmap)
    [open] = for {{:function, :open, 2}, _, _, %{"en" => doc}, _} <- functions, do: doc

    for option <-
          ~w(:write :create :append :truncate :direct :private :fixed_size :anon) ++
            ["{:size, n}", "{:offset, n}"],
        do: assert(open =~ "* `#{option}`", option)
  end

  test "emmap:open/4: what becomes longer", %{path: path} do
    for {options, offset, length, size, file, resized} <- [
          {[:write], 0, 100, 100, 100, {:ok, 200}},
          {[:create], 0, 100, 100, 100, {:ok, 200}},
          {[], 0, 100, 10, 10, {:error, :eacces}},
          {[:write], 0, 5, 5, 10, {:error, :enospc}},
          {[:write], 4, 100, 100, 104, {:error, :enospc}},
          {[:write], 4, 0, 6, 10, {:error, :enospc}},
          {[:write, :private], 0, 100, 10, 10, {:error, :enospc}},
          {[:write, :fixed_size], 0, 100, 100, 100, {:error, :enospc}},
          {[:write], 0, 0, 10, 10, {:ok, 20}}
        ] do
      File.write!(path, "0123456789")
      assert {:ok, mem} = :emmap.open(path, offset, length, options)
      assert {:ok, size} == Emmap.size(mem)
      assert File.stat!(path).size == file
      assert :emmap.resize(mem) == resized, inspect({options, offset, length})
      Emmap.close(mem)
    end
  end
end
