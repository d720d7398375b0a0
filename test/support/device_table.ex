defmodule Emmap.Test.DeviceTable do
  @moduledoc """
  Every request of both protocols in many variants: `docs/device.md` is made of this table.

  A row is `{code, options}`. `:content` is what the file holds, `:differs` the number of the difference in
  the documentation of `Emmap.Device`, where there is one; the rest is for `Emmap.Test.DeviceScript`.
  """

  @text "first line\nsecond\r\nthird"
  # 8191 bytes, so that the second byte of "ł" is the first of the next block of 8 KB, and the like for 64 KB.
  @border String.duplicate("a", 8191) <>
            "ł" <> String.duplicate("b", 57_342) <> "€" <> "end\nlast"
  @polish "Łódź\nŻółć\r\nkoniec"
  @latin1 <<"caf", 0xE9, "\nna", 0xEF, "ve\n">>
  @forms "foo(X) ->\n    X + 1.\nbar() -> ok.\n"
  @unicode [content: @polish, encoding: :unicode]
  @lists [content: @text, binary: false]
  @utf16 [
    content: :unicode.characters_to_binary(@polish, :utf8, {:utf16, :little}),
    encoding: {:utf16, :little}
  ]

  def groups do
    [
      {"put_chars", put_chars()},
      {"get_chars", get_chars()},
      {"get_line", get_line()},
      {"get_until", get_until()},
      {"setopts, getopts, requests, and unknown requests", control()},
      {"Functions of IO, io and other modules", functions()},
      {"The requests of :file", file()},
      {"Read-only", read_only()}
    ]
  end

  def text, do: @text

  defp put_chars do
    [
      {~S|io(d, {:put_chars, :latin1, "abc"})|, []},
      {~S|io(d, {:put_chars, :unicode, "abc"})|, []},
      {~S|io(d, {:put_chars, :unicode, ["a", ?b, [[]], "ż"]})|, @unicode},
      {~S|io(d, {:put_chars, :latin1, [0xE9, "x"]})|, []},
      {~S|io(d, {:put_chars, :latin1, [0xE9, <<0xE9>>]})|, @unicode},
      {~S|io(d, {:put_chars, :unicode, "é"})|, []},
      {~S|io(d, {:put_chars, :unicode, "łódź"})|, []},
      {~S|io(d, {:put_chars, :unicode, [?a, 322]})|, []},
      {~S|io(d, {:put_chars, :latin1, [322]})|, []},
      {~S|io(d, {:put_chars, :latin1, [322]})|, @unicode},
      {~S|io(d, {:put_chars, :unicode, <<"a", 0xFF>>})|, @unicode},
      {~S|io(d, {:put_chars, :unicode, <<"a", 0xC5>>})|, @unicode},
      {~S|io(d, {:put_chars, :unicode, [0xD800]})|, @unicode},
      {~S|io(d, {:put_chars, :latin1, [:atom]})|, []},
      {~S|io(d, {:put_chars, :unicode, [:atom]})|, [differs: 2]},
      {~S|io(d, {:put_chars, :unicode, :atom})|, [differs: 2]},
      {~S|io(d, {:put_chars, :utf8, "ż"})|, @unicode},
      {~S|io(d, {:put_chars, :ebcdic, "a"})|, [differs: 2]},
      {~S|io(d, {:put_chars, :unicode, ""})|, []},
      {~S|io(d, {:put_chars, :unicode, "x"})|, @utf16},
      {~S|io(d, {:put_chars, :unicode, :io_lib, :format, ["~p~n", [[1, 2]]]})|, []},
      {~S|io(d, {:put_chars, :unicode, :erlang, :error, [:no]})|, []},
      {~S|io(d, {:put_chars, :unicode, :erlang, :self, []})|, []},
      {~S|io(d, {:put_chars, :unicode, :no_module, :no_function, []})|, []},
      {~S|io(d, {:put_chars, :unicode, :erlang, :exit, [:no]})|, []},
      {~S|io(d, {:put_chars, :unicode, :erlang, :throw, ["thrown"]})|, [differs: 6]},
      {~S|io(d, {:put_chars, "old"})|, []},
      {~S|io(d, {:put_chars, :io_lib, :format, ["~w", [:old]]})|, []},
      {~S|{io(d, {:get_chars, :latin1, "", 3}), io(d, {:put_chars, :latin1, "XY"})}|, []},
      {~S|{io(d, {:get_line, :unicode, ""}), io(d, {:put_chars, :unicode, "ó"})}|, @unicode},
      {~S|{:file.position(d, {:eof, 3}), io(d, {:put_chars, :latin1, "gap"})}|, []},
      {~S|io(d, {:put_chars, :latin1, String.duplicate("x", 200_000)})|, []}
    ]
  end

  defp get_chars do
    [
      {~S|io(d, {:get_chars, :latin1, "", 5})|, []},
      {~S|io(d, {:get_chars, :unicode, "", 5})|, []},
      {~S|io(d, {:get_chars, :latin1, "", 5})|, @lists},
      {~S|io(d, {:get_chars, :latin1, {:format, "~p", [1]}, 0})|, []},
      {~S|io(d, {:get_chars, :latin1, "", 0})|, @lists},
      {~S|io(d, {:get_chars, :latin1, "", 0})|, [content: ""]},
      {~S|io(d, {:get_chars, :latin1, "", 1})|, [content: ""]},
      {~S|io(d, {:get_chars, :latin1, "", -1})|, []},
      {~S|io(d, {:get_chars, :latin1, "", :all})|, []},
      {~S|io(d, {:get_chars, :latin1, "", 1.0})|, []},
      {~S|io(d, {:get_chars, :latin1, "", 1000})|, []},
      {~S|{io(d, {:get_chars, :latin1, "", 24}), io(d, {:get_chars, :latin1, "", 1})}|, []},
      {~S|{io(d, {:get_chars, :latin1, "", 20}), io(d, {:get_chars, :latin1, "", 20})}|, []},
      {~S|io(d, {:get_chars, :unicode, "", 4})|, [content: @latin1]},
      {~S|io(d, {:get_chars, :unicode, "", 4})|, [content: @latin1, binary: false]},
      {~S|io(d, {:get_chars, :unicode, "", 6})|, @unicode},
      {~S|io(d, {:get_chars, :unicode, "", 6})|, [binary: false] ++ @unicode},
      {~S|io(d, {:get_chars, :unicode, "", 1000})|, @unicode},
      {~S|io(d, {:get_chars, :unicode, "", 6})|, @utf16},
      {~S|io(d, {:get_chars, :unicode, "", 1000})|, @utf16},
      {~S|io(d, {:get_chars, :latin1, "", 1})|, @unicode},
      {~S|io(d, {:get_chars, :latin1, "", 1})|, [binary: false] ++ @unicode},
      {~S|io(d, {:get_chars, :latin1, "", 2})|, [content: "éà", encoding: :unicode]},
      {~S|io(d, {:get_chars, :utf8, "", 2})|, @unicode},
      {~S|io(d, {:get_chars, :ebcdic, "", 2})|, [differs: 2]},
      {~S|io(d, {:get_chars, "", 4})|, []},
      {~S|:crypto.hash(:md5, io(d, {:get_chars, :unicode, "", 8192}))|,
       [content: @border, encoding: :unicode]},
      {~S|String.slice(io(d, {:get_chars, :unicode, "", 65_536}), -3, 3)|,
       [content: @border, encoding: :unicode]},
      {~S|{String.length(io(d, {:get_chars, :unicode, "", 65_534})), io(d, {:get_chars, :unicode, "", 2})}|,
       [content: @border, encoding: :unicode]},
      {~S|io(d, {:get_chars, :unicode, "", 3})|, [content: "abc\xFFd", encoding: :unicode]},
      {~S|io(d, {:get_chars, :unicode, "", 2})|,
       [content: "abc\xFFd", encoding: :unicode, differs: 4]},
      {~S|io(d, {:get_chars, :unicode, "", 4})|, [content: "abc\xFFd", encoding: :unicode]},
      {~S|io(d, {:get_chars, :unicode, "", 1})|, [content: "\xFF", encoding: :unicode]},
      {~S|io(d, {:get_chars, :unicode, "", 3})|, [content: "ab\xC5", encoding: :unicode]},
      {~S|io(d, {:get_chars, :unicode, "", 1})|, [content: "\xC5", encoding: :unicode]},
      {~S|{io(d, {:get_chars, :unicode, "", 2}), io(d, {:get_chars, :unicode, "", 1})}|,
       [content: "ab\xC5", encoding: :unicode, differs: 5]}
    ]
  end

  defp get_line do
    [
      {~S|for _ <- 1..4, do: io(d, {:get_line, :latin1, ""})|, []},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :unicode, ""})|, []},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :latin1, ""})|, @lists},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :unicode, ""})|, @unicode},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :unicode, ""})|, [binary: false] ++ @unicode},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :unicode, ""})|, @utf16},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :unicode, ""})|, [binary: false] ++ @utf16},
      {~S|io(d, {:get_line, :unicode, ""})|, [content: @latin1]},
      {~S|io(d, {:get_line, :latin1, ""})|, @unicode},
      {~S|io(d, {:get_line, :latin1, ""})|, [content: "éà\n", encoding: :unicode]},
      {~S|for _ <- 1..4, do: io(d, {:get_line, :latin1, ""})|, [content: "\n\r\n\r"]},
      {~S|io(d, {:get_line, :latin1, ""})|, [content: "a\rb\r\r\nc"]},
      {~S|io(d, {:get_line, :latin1, ""})|, [content: ""]},
      {~S|io(d, {:get_line, ""})|, []},
      {~S|io(d, {:get_line, :ebcdic, ""})|, [differs: 2]},
      {~S|io(d, {:get_line, :unicode, ""})|, [content: "a\xFFb\n", encoding: :unicode]},
      {~S|io(d, {:get_line, :unicode, ""})|, [content: "fine\na\xFFb\n", encoding: :unicode]},
      {~S|io(d, {:get_line, :unicode, ""})|, [content: "cut\xC5", encoding: :unicode]},
      {~S|:crypto.hash(:md5, io(d, {:get_line, :unicode, ""}))|,
       [content: @border, encoding: :unicode]},
      {~S|byte_size(io(d, {:get_line, :latin1, ""}))|,
       [content: String.duplicate("x", 8191) <> "\r\nnext"]},
      {~S|{io(d, {:get_line, :latin1, ""}), :file.position(d, :cur)}|, []}
    ]
  end

  defp get_until do
    [
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :fread, [~c"~s ~s"]})|, []},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :fread, [~c"~d"]})|, []},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :fread, [~c"~s"]})|, @lists},
      {~S|for _ <- 1..3, do: io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|,
       [content: @forms]},
      {~S|for _ <- 1..3, do: io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|,
       [content: @forms, binary: false]},
      {~S|{io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]}), io(d, {:get_line, :unicode, ""})}|,
       [content: @forms]},
      {~S|io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|,
       [content: "x(\"żółć\"). y.", encoding: :unicode]},
      {~S|io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|,
       [content: "x(\"\xFF\"). y.", encoding: :unicode]},
      {~S|io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|,
       [content: String.duplicate(" ", 20_000) <> "foo(\n\xFF).", encoding: :unicode]},
      {~S|io(d, {:get_until, :unicode, "", :erl_scan, :tokens, [1]})|, [content: ""]},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, []})|, []},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [5]})|, []},
      {~S|io(d, {:get_until, :latin1, "", :io_lib, :collect_chars, [5]})|, []},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [5]})|, @lists},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [5]})|, @unicode},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [5]})|, [content: @latin1]},
      {~S|io(d, {:get_until, :latin1, "", :io_lib, :collect_chars, [5]})|, @unicode},
      {~S|io(d, {:get_until, :latin1, "", :io_lib, :collect_chars, [2]})|,
       [content: "aéł", encoding: :unicode]},
      {~S|io(d, {:get_until, :latin1, "", :io_lib, :fread, [~c"~ts"]})|, @unicode},
      {~S|io(d, {:get_until, :latin1, "", :io_lib, :fread, [~c"~c"]})|,
       [content: "aéł", encoding: :unicode]},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [3]})|, @utf16},
      {~S|io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [500]})|, [differs: 8]},
      {~S|String.slice(io(d, {:get_until, :unicode, "", :io_lib, :collect_chars, [9000]}), 8190, 3)|,
       [content: @border, encoding: :unicode]},
      {~S|io(d, {:get_until, "", :io_lib, :collect_chars, [3]})|, []},
      {~S|io(d, {:get_until, :ebcdic, "", :io_lib, :collect_chars, [3]})|, [differs: 2]},
      {~S|io(d, {:get_until, :unicode, "", :no_module, :no_function, []})|, []},
      {~S|io(d, {:get_until, :unicode, "", :erlang, :max, []})|, []},
      {~S|io(d, {:get_until, :unicode, "", Emmap.Test.DeviceTable, :throws, []})|, [differs: 6]},
      {~S|io(d, {:get_until, :unicode, "", Emmap.Test.DeviceTable, :exits, []})|, []}
    ]
  end

  def throws(_continuation, _characters), do: throw({:stop, "thrown", []})
  def exits(_continuation, _characters), do: exit(:no)

  defp control do
    [
      {~S|io(d, :getopts)|, []},
      {~S|io(d, :getopts)|, @unicode},
      {~S|io(d, :getopts)|, [binary: false] ++ @utf16},
      {~S|{io(d, {:setopts, [binary: false]}), io(d, {:get_line, :latin1, ""}), io(d, :getopts)}|,
       []},
      {~S|{io(d, {:setopts, [:list]}), io(d, {:get_line, :latin1, ""})}|, []},
      {~S|{io(d, {:setopts, [:binary]}), io(d, {:get_line, :latin1, ""})}|, @lists},
      {~S|{io(d, {:setopts, [list: false]}), io(d, :getopts)}|, @lists},
      {~S|{io(d, {:setopts, [encoding: :unicode]}), io(d, {:get_line, :unicode, ""})}|,
       [content: @polish]},
      {~S|{io(d, {:get_chars, :unicode, "", 1}), io(d, {:setopts, [:latin1]}), io(d, {:get_line, :latin1, ""})}|,
       @unicode},
      {~S|{io(d, {:setopts, [:unicode, :binary]}), io(d, :getopts)}|, @lists},
      {~S|{io(d, {:setopts, [encoding: :utf8]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [encoding: {:utf32, :little}]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [encoding: :utf16]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [encoding: :ebcdic]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [echo: false]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [:list, encoding: :ebcdic]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [:list, :unicode, echo: false]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [:list, :binary]}), io(d, :getopts)}|, []},
      {~S|{io(d, {:setopts, [encoding: :utf8, encoding: :latin1]}), io(d, :getopts)}|, []},
      {~S|io(d, {:setopts, []})|, []},
      {~S|io(d, {:setopts, :binary})|, [differs: 3]},
      {~S|io(d, {:requests, []})|, []},
      {~S|io(d, {:requests, [{:put_chars, :latin1, "a"}, {:put_chars, :latin1, "b"}]})|, []},
      {~S|io(d, {:requests, [{:get_chars, :latin1, "", 3}, {:get_line, :latin1, ""}]})|, []},
      {~S|io(d, {:requests, [{:put_chars, :latin1, "a"}, {:get_chars, :latin1, "", -1}, {:put_chars, :latin1, "b"}]})|,
       []},
      {~S|io(d, {:requests, [{:get_chars, :latin1, "", 100}, {:get_line, :latin1, ""}, {:put_chars, :latin1, "b"}]})|,
       []},
      {~S|io(d, {:requests, [{:get_until, :unicode, "", :io_lib, :fread, [~c"~d"]}, {:put_chars, :latin1, "b"}]})|,
       []},
      {~S|io(d, {:requests, [{:requests, [{:put_chars, :latin1, "a"}]}, {:setopts, [:list]}, {:get_chars, :latin1, "", 2}]})|,
       []},
      {~S|io(d, {:requests, [:unheard, {:put_chars, :latin1, "b"}]})|, [differs: 3]},
      {~S|io(d, {:requests, :none})|, [differs: 3]},
      {~S|io(d, {:get_geometry, :columns})|, [differs: 3]},
      {~S|io(d, {:get_password, :unicode})|, [differs: 3]},
      {~S|io(d, :unheard)|, [differs: 3]},
      {~S|io(d, {})|, [differs: 3]}
    ]
  end

  defp functions do
    [
      {~S|IO.puts(d, "written")|, []},
      {~S|IO.puts(d, "żółw")|, @unicode},
      {~S|IO.puts(d, "żółw")|, []},
      {~S|IO.write(d, [?a, "b"])|, []},
      {~S|IO.binwrite(d, <<0xE9, 0>>)|, []},
      {~S|IO.binwrite(d, <<0xE9, 0>>)|, @unicode},
      {~S|IO.inspect(d, %{a: 1}, label: "x")|, []},
      {~S|IO.read(d, :line)|, []},
      {~S|IO.read(d, 7)|, @unicode},
      {~S|IO.read(d, :eof)|, []},
      {~S|IO.read(d, :eof)|, @unicode},
      {~S|IO.read(d, :eof)|, [content: ""]},
      {~S|IO.binread(d, 7)|, []},
      {~S|IO.binread(d, :line)|, []},
      {~S|IO.binread(d, :eof)|, []},
      {~S|{IO.gets(d, "prompt"), IO.getn(d, "prompt", 3)}|, []},
      {~S|Enum.to_list(IO.stream(d, :line))|, []},
      {~S|Enum.to_list(IO.stream(d, 5))|, @unicode},
      {~S|Enum.to_list(IO.binstream(d, 5))|, []},
      {~S|is_struct(Enum.into(["a", "b\n"], IO.stream(d, :line)))|, []},
      {~S|:io.format(d, "~p ~ts~n", [{:a, 1}, "x"])|, []},
      {~S|:io.format(d, "~s", [:x, :too_many])|, []},
      {~S|:io.put_chars(d, "x")|, []},
      {~S|:io.nl(d)|, []},
      {~S|:io.write(d, {:a, [1]})|, []},
      {~S|:io.get_line(d, "")|, []},
      {~S|:io.get_chars(d, "", 3)|, @lists},
      {~S|:io.fread(d, "", ~c"~s ~s")|, []},
      {~S|for _ <- 1..4, do: :io.fread(d, "", ~c"~d,")|, [content: "1,2, 3,"]},
      {~S|{:io.fread(d, "", ~c"~s"), :io.get_line(d, "")}|, []},
      {~S|for _ <- 1..3, do: :io.scan_erl_form(d, "")|, [content: @forms]},
      {~S|for _ <- 1..3, do: :io.parse_erl_form(d, "")|, [content: @forms]},
      {~S|for _ <- 1..2, do: :io.read(d, "")|, [content: "{a, \"b\"}. [1"]},
      {~S|:io.parse_erl_exprs(d, "")|, [content: "X = 1, X + 1."]},
      {~S|:io.scan_erl_exprs(d, "")|, [content: "X = 1, y"]},
      {~S|{:io.columns(d), :io.rows(d)}|, []},
      {~S|{:io.setopts(d, encoding: :unicode), :io.getopts(d)}|, []},
      {~S|:io.requests(d, [{:put_chars, :unicode, "a"}, :nl, {:format, "~p", [1]}])|, []},
      {~S|:io.printable_range()|, []},
      {~S|leader(d, fn -> IO.puts("from group leader") end)|, []},
      {~S|leader(d, fn -> Code.eval_string("IO.puts(1 + 1)") end)|, []},
      {~S|leader(d, fn -> :erl_eval.expr({:call, 1, {:remote, 1, {:atom, 1, :io}, {:atom, 1, :format}}, [{:string, 1, ~c"x~n"}]}, []) end)|,
       []},
      {~S|leader(d, fn -> {IO.gets(""), IO.read(:line)} end)|, []},
      {~S|File.close(d)|, []},
      {~S|{File.close(d), File.close(d), IO.binread(d, 1)}|, []},
      {~S|{File.close(d), :io.put_chars(d, "x")}|, []}
    ]
  end

  defp file do
    [
      {~S|:file.read(d, 5)|, []},
      {~S|:file.read(d, 0)|, []},
      {~S|:file.read(d, -1)|, []},
      {~S|:file.read(d, 100)|, @lists},
      {~S|:file.read(d, 2)|, @unicode},
      {~S|{:file.read(d, 100), :file.read(d, 1)}|, []},
      {~S|for _ <- 1..4, do: :file.read_line(d)|, []},
      {~S|:file.write(d, ["a", ?b])|, []},
      {~S|:file.write(d, <<0xE9>>)|, @unicode},
      {~S|:file.write(d, [:atom])|, []},
      {~S|:file.write(d, [300])|, []},
      {~S|:file.pread(d, 6, 4)|, []},
      {~S|:file.pread(d, 6, 4)|, @lists},
      {~S|:file.pread(d, 6, 0)|, []},
      {~S|:file.pread(d, 100, 1)|, []},
      {~S|:file.pread(d, -1, 1)|, []},
      {~S|:file.pread(d, {:eof, -5}, 10)|, []},
      {~S|{:file.read(d, 6), :file.pread(d, {:cur, 5}, 6)}|, []},
      {~S|{:file.read(d, 6), :file.pread(d, :cur, 4)}|, []},
      {~S|{:file.read(d, 6), :file.pread(d, {:cur, 0}, 4)}|, []},
      {~S|{:file.read(d, 6), :file.pread(d, {:cur, -7}, 4)}|, []},
      {~S|:file.pread(d, :nowhere, 4)|, []},
      {~S|:file.pread(d, [{0, 5}, {20, 10}, {100, 1}])|, []},
      {~S|:file.pread(d, [{0, 5}, {-1, 1}])|, []},
      {~S|file(d, {:pread, 0, -1})|, []},
      {~S|file(d, {:pread, 0, :all})|, []},
      {~S|:file.pread(d, 1, 2)|, [content: "aéł", encoding: :unicode]},
      {~S|:file.pread(d, 3, 1)|, [content: "aéł", encoding: :unicode]},
      {~S|:file.pwrite(d, 6, "LINE")|, []},
      {~S|:file.pwrite(d, 30, "gap")|, []},
      {~S|:file.pwrite(d, -1, "x")|, []},
      {~S|:file.pwrite(d, :eof, "x")|, []},
      {~S|{:file.read(d, 6), :file.pwrite(d, :cur, "x")}|, []},
      {~S|{:file.read(d, 6), :file.pwrite(d, {:cur, -2}, ["x", ?y])}|, []},
      {~S|:file.pwrite(d, [{0, "FIRST"}, {6, ["LI", "NE"]}])|, []},
      {~S|:file.pwrite(d, [{0, "FIRST"}, {-1, "x"}])|, []},
      {~S|:file.pwrite(d, 0, [:atom])|, []},
      {~S|:file.pwrite(d, 0, <<0xE9>>)|, @unicode},
      {~S|:file.position(d, 5)|, []},
      {~S|:file.position(d, :eof)|, []},
      {~S|:file.position(d, {:eof, -100})|, []},
      {~S|:file.position(d, -1)|, []},
      {~S|:file.position(d, 1000)|, []},
      {~S|:file.position(d, :nowhere)|, []},
      {~S|{:file.read(d, 6), :file.position(d, :cur), :file.position(d, {:cur, 2}), :file.read(d, 2)}|,
       []},
      {~S|{:io.get_line(d, ""), :file.position(d, {:cur, -1}), :file.read(d, 2)}|, []},
      {~S|{:io.get_line(d, ""), :file.position(d, {:cur, -100}), :file.read(d, 2)}|, []},
      {~S|{:file.position(d, 6), :file.truncate(d)}|, []},
      {~S|{:file.position(d, 100), :file.truncate(d)}|, []},
      {~S|{:file.read(d, 6), :file.truncate(d)}|, [differs: 4]},
      {~S|{:file.read(d, 6), :file.position(d, :cur), :file.truncate(d)}|, []},
      {~S|{:file.sync(d), :file.datasync(d)}|, []},
      {~S|:file.advise(d, 0, 0, :will_need)|, []},
      {~S|:file.advise(d, 0, 10, :sequential)|, []},
      {~S|:file.advise(d, 0, 10, :unheard)|, []},
      {~S|:file.advise(d, -1, 10, :normal)|, []},
      {~S|:file.allocate(d, 0, 10)|, []},
      {~S|:file.allocate(d, 0, 100)|, []},
      {~S|:file.allocate(d, -1, 100)|, []},
      {~S|with {:ok, info} <- :file.read_file_info(d), do: {elem(info, 1), elem(info, 2)}|, []},
      {~S|with {:ok, info} <- :file.read_file_info(d, time: :posix), do: is_integer(elem(info, 5))|,
       []},
      {~S|:file.ipread_s32bu_p32bu(d, 0, 10)|, [content: <<3::32, 8::32, "abc">>]},
      {~S|{:file.copy(d, other), File.read!(other)}|, []},
      {~S|{:file.copy(d, other, 7), File.read!(other), :file.position(d, :cur)}|, []},
      {~S|:file.copy(other, d)|, []},
      {~S|File.copy(d, other)|, []},
      {~S|:file.sendfile(d, self(), 0, 0, [])|, []},
      {~S|:file.consult(d)|, []},
      {~S|:file.close(d)|, []},
      {~S|{:file.close(d), :file.close(d)}|, []},
      {~S|{:file.close(d), :file.read(d, 1), :file.position(d, 0)}|, []},
      {~S|file(d, :unheard)|, [differs: 3]},
      {~S|file(d, {:read, 1, 2, 3, 4})|, [differs: 3]}
    ]
  end

  defp read_only do
    read = [access: :read]

    [
      {~S|io(d, {:put_chars, :latin1, "x"})|, [differs: 7] ++ read},
      {~S|:file.write(d, "x")|, [differs: 7] ++ read},
      {~S|:file.pwrite(d, 0, "x")|, [differs: 7] ++ read},
      {~S|:file.truncate(d)|, [differs: 7] ++ read},
      {~S|:file.sync(d)|, read},
      {~S|:file.read(d, 5)|, read},
      {~S|for _ <- 1..4, do: :file.read_line(d)|, read}
    ]
  end
end
