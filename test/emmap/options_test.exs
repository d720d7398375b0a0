defmodule Emmap.OptionsTest do
  use ExUnit.Case, async: true
  doctest Emmap.Options

  @valid ~w(read write create exclusive truncate shared private anon direct lock nolock auto_unlink
    noreserve populate nonblock hugetlb huge_2mb huge_1gb shared_validate sync nocache fit
    fixed_size fixed sparse)a
  @values ~w(size offset length max_size max_inc_size chmod address)a

  defp refused(options, pattern) do
    error = assert_raise ArgumentError, fn -> Emmap.open("file", options) end
    assert error.message =~ pattern
    error.message
  end

  test "an unknown option is named, with all valid ones" do
    for unknown <- [:raed, {:sise, 3}, {:write, true}, "write", 7] do
      message = refused([:read, unknown], "unknown option #{inspect(unknown)}")
      for name <- @valid, do: assert(message =~ inspect(name))
      for name <- @values, do: assert(message =~ "{:#{name}, n}")
    end
  end

  test "what was meant is guessed where it is near" do
    refused([:raed], "unknown option :raed (did you mean :read?); valid are")
    refused([sise: 3], "unknown option {:sise, 3} (did you mean {:size, n}?); valid are")
    refused([write: true], "(did you mean :write?)")
    refused(["creat"], "(did you mean :create?)")
    for far <- [:colour, 7, {}], do: refute(refused([far], "unknown option") =~ "did you mean")
  end

  test "memory without a file takes no path, and a new file of fixed size needs one" do
    refused([:anon, size: 5], ":anon takes no path")

    for size <- [[], [length: 0], [size: 0], [offset: 100, size: 50]] do
      refused(
        [:create, :fixed_size] ++ size,
        ":create with :fixed_size needs {:size, n} or {:length, n}"
      )
    end
  end

  test "from the start of the file on is what every map is" do
    assert Emmap.Options.request!("file", [:write, offset: 0, max_size: 5]) ==
             Emmap.Options.request!("file", [:write, max_size: 5])
  end

  test "a doubled option is named" do
    refused([:read, :read], ":read is given twice")
    refused([size: 1, size: 1], "{:size, n} is given twice")
  end

  test "contradictions are named" do
    for options <- [
          [:shared, :private],
          [:private, :shared_validate],
          [:lock, :nolock],
          [:private, :write, :truncate],
          [:private, :write, :fit, size: 5],
          [:huge_2mb, :huge_1gb],
          [:write, :fixed_size, max_size: 5],
          [:anon, :write, :create],
          [:anon, :auto_unlink, size: 5],
          [:anon, offset: 5, size: 5]
        ] do
      message = refused(options, "contradict")
      assert Enum.count(options, &(message =~ name(&1) <> " ")) >= 2
    end
  end

  test "an option that needs another says which" do
    refused([:truncate], ":truncate needs :write or :create")
    refused([:write, :exclusive], ":exclusive needs :create")
    refused([:fixed], ":fixed needs {:address, n}")
    refused([:sync], ":sync needs :shared_validate")
    refused([:anon], ":anon needs {:size, n} or {:length, n}")
    refused([size: 5], "{:size, n} needs :write or :create or :anon")
    refused([:write, :fit], ":fit needs {:size, n} or {:length, n}")
  end

  test "values are checked" do
    for value <- [-1, 1.5, :all, "5", 0x8000_0000_0000_0000] do
      refused([offset: value], "{:offset, n} takes an integer number of bytes")
    end

    refused([:write, :create, chmod: 0o10000], "0 to 0o7777")
    assert_raise ArgumentError, ~r/options must be a list/, fn -> Emmap.open("file", :read) end
    assert_raise ArgumentError, ~r/options must be a list/, fn -> Emmap.open("file", %{}) end

    assert_raise ArgumentError, ~r/a map without a path needs :anon/, fn ->
      Emmap.open([:read])
    end

    assert_raise ArgumentError, ~r/a path is/, fn -> Emmap.open(nil) end
  end

  test "every option has a row in the table" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Emmap.Options)
    for name <- @valid, do: assert(doc =~ "  * `#{inspect(name)}`")
    for name <- @values, do: assert(doc =~ "  * `{:#{name}, n}`")
  end

  defp name({name, _}), do: "{:#{name}, n}"
  defp name(name), do: inspect(name)
end
