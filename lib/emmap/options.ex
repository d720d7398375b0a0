defmodule Emmap.Options do
  # One row per option: its value when it is given as an atom or as {name, value}, its description,
  # and the systems that support it. The table in the module's documentation is made from these rows.
  @access [
    read: "read the file (always on: every map can be read)",
    write: "write to the map too",
    create: "create the file if it does not exist; implies `:write`",
    exclusive: "with `:create`: `{:error, :eexist}` if the file exists",
    truncate:
      "truncate an existing file to 0 bytes first; needs `:write`. `{:error, :ebusy}` while this VM holds live binaries of it",
    append:
      "every write of this handle goes to the end of the file, whatever its position, in one piece, even if other handles and programs append at the same time; implies `:write`. Any other change of the map returns `{:error, :eacces}`. See [Appending](choosing-options.md#appending)"
  ]
  @sharing [
    shared: "(default) writes change the file and are visible to everyone who has it mapped",
    private:
      "copy-on-write: writes stay in this map and never change the file or its size; pages that were not written may still change with the file",
    anon:
      "memory without a file, zeroed, readable and writable; needs `{:size, n}` and takes no path"
  ]
  @reading [
    direct: "reads return live binaries, which *are* the mapped memory, instead of copies",
    lock:
      "(default) each `pread` and `pwrite`, whatever its length, is atomic with respect to every other `pread` and `pwrite` on this map",
    nolock: "no lock: a read may see parts of a concurrent write"
  ]
  @shape [
    fixed_size:
      "the map never changes its size: a write past the end returns `{:error, :enospc}`; with `:create` it needs `:size` or `:length`",
    fit:
      "a file longer than `:size` (or `:offset` + `:length`) is truncated to that size; needs `:write`. `{:error, :ebusy}` while this VM holds live binaries of it",
    sparse: "creating and growing leave holes instead of allocating blocks; needs `:write`",
    auto_unlink:
      "removes the file's name at the last `close`, or, with `:direct`, when the last live binary is collected. For a symbolic link, the link is removed. Nothing is removed if the name no longer leads to the file, or if the VM stops first"
  ]
  @paging [
    noreserve: "reserve no swap for private pages (MAP_NORESERVE)",
    fixed:
      "with `{:address, a}`: maps at exactly this address. If it, or the page before or after, is in use, the result is `{:error, :eexist}`"
  ]
  @linux [
    populate: "read all pages at open (MAP_POPULATE)",
    nonblock: "with `:populate`: only pages already in memory (MAP_NONBLOCK)",
    hugetlb:
      "huge pages (MAP_HUGETLB) for `:anon` maps; files on hugetlbfs have them without this option",
    huge_2mb:
      "huge pages of 2 MiB; `{:error, :enotsup}` for a file on hugetlbfs with pages of another size",
    huge_1gb: "huge pages of 1 GiB; otherwise the same as `:huge_2mb`",
    shared_validate: "shared, and the kernel refuses flags that it does not know",
    sync:
      "with `:shared_validate`, on persistent memory: the allocation of a block is durable before it can be written to (MAP_SYNC); the data in it still needs a sync"
  ]
  @macos [nocache: "pages are not kept in the page cache (MAP_NOCACHE)"]

  @values [
    size: {:size, "extends the file to at least `n` bytes; needs `:write` (or `:anon`)"},
    offset: {:size, "the map begins `n` bytes into the file; any `n`, page-aligned or not"},
    length:
      {:size,
       "the map is `n` bytes long; 0 means everything up to the end of the file. A write past its end never makes the map grow; `resize/2` and `grow/1` extend it only if it covers the whole file. With `:write` and without `:private`, a shorter file is extended to `:offset` + `n`; otherwise, the map covers the bytes that exist"},
    max_size:
      {:size,
       "the map never grows beyond `n` bytes; needs `:write` (or `:anon`), and a map of the whole file"},
    max_inc_size:
      {:size, "`grow/1` doubles the map, but adds at most `n` bytes (default 64 MiB)"},
    chmod: {:mode, "the exact mode of a new file (default: 0666 minus the umask)"},
    address:
      {:size,
       "maps at this address, which must be page-aligned, if it is free, otherwise at another one"}
  ]

  @groups [
    {"all", @access ++ @sharing ++ @reading ++ @shape ++ @paging},
    {"Linux", @linux},
    {"macOS", @macos}
  ]

  # A list, because a table is wider than a terminal.
  @flag_rows (for {systems, rows} <- @groups, {name, text} <- rows do
                only = if systems == "all", do: "", else: " (#{systems})"
                "  * `#{inspect(name)}`#{only} – #{text}\n"
              end)
  @value_rows for {name, {_, text}} <- @values, do: "  * `{:#{name}, n}` – #{text}\n"

  @moduledoc """
  The options of `Emmap.open/2`. [Choosing options](choosing-options.md) explains when to use which.

  #{@flag_rows}
  With a number:

  #{@value_rows}
  Sizes, lengths and offsets are in bytes. Positions and offsets count from 0. If the system does not support an option,
  the result is `{:error, :enotsup}`. An option that does not exist, is given twice, or contradicts another one raises
  an `ArgumentError` that names the option and lists the valid ones. `:append` contradicts `:private`, `:anon`,
  `:fixed_size`, `:fit`, `:sparse`, `:size`, `:offset`, `:length`, `:max_size`, `:max_inc_size` and `:shared_validate`.

  `:size`, `:truncate`, `:fit`, and `:length` if it is combined with `:write` and not with `:private`, change the size of the file under a lock that
  other maps of it also take. If another program has the whole file locked, such an open waits for 2 seconds and then returns
  `{:error, :ebusy}`.

      iex> Emmap.open("data.bin", [:raed])
      ** (ArgumentError) unknown option :raed (did you mean :read?); valid are #{Enum.map_join(Enum.flat_map(@groups, fn {_, rows} -> Keyword.keys(rows) end), ", ", &inspect/1)}, #{Enum.map_join(@values, ", ", fn {name, _} -> "{:#{name}, n}" end)}
  """

  @flags Enum.flat_map(@groups, fn {_, rows} -> Keyword.keys(rows) end)
  @valid Enum.map_join(@flags, ", ", &inspect/1) <>
           ", " <> Enum.map_join(@values, ", ", fn {name, _} -> "{:#{name}, n}" end)

  # Pairs of options that exclude each other.
  @contradictions [
    [:shared, :private],
    [:shared, :shared_validate],
    [:private, :shared_validate],
    [:private, :sync],
    [:append, :private],
    [:append, :anon],
    [:append, :fixed_size],
    [:append, :fit],
    [:append, :sparse],
    [:append, :size],
    [:append, :offset],
    [:append, :length],
    [:append, :max_size],
    [:append, :max_inc_size],
    [:append, :shared_validate],
    [:private, :truncate],
    [:private, :fit],
    [:private, :max_size],
    [:private, :max_inc_size],
    [:offset, :max_size],
    [:offset, :max_inc_size],
    [:lock, :nolock],
    [:huge_2mb, :huge_1gb],
    [:fixed_size, :max_size],
    [:fixed_size, :max_inc_size],
    [:anon, :create],
    [:anon, :exclusive],
    [:anon, :truncate],
    [:anon, :auto_unlink],
    [:anon, :fit],
    [:anon, :sparse],
    [:anon, :offset],
    [:anon, :chmod],
    [:anon, :sync]
  ]

  # An option, and the options that it needs.
  @needs [
    exclusive: [:create],
    truncate: [:write, :create, :append],
    fit: [:write, :create],
    sparse: [:write, :create],
    size: [:write, :create, :anon],
    max_size: [:write, :create, :anon],
    max_inc_size: [:write, :create, :anon],
    chmod: [:create],
    fixed: [:address],
    nonblock: [:populate],
    sync: [:shared_validate],
    fit: [:size, :length],
    anon: [:size, :length]
  ]

  @typedoc "One option: see the list above. Sizes, lengths and offsets are in bytes."
  @type option ::
          unquote(
            (@flags ++ for({name, _} <- @values, do: {name, quote(do: non_neg_integer)}))
            |> Enum.reverse()
            |> Enum.reduce(&{:|, [], [&1, &2]})
          )
  @typedoc "A list of options, in any order."
  @type t :: [option]

  @doc false
  # The request that `Emmap.Native.open/1` expects. `path` is `nil` for an anonymous map.
  @spec request!(binary | nil | {:fd, non_neg_integer}, t) :: map
  def request!({:fd, number}, options) do
    given = collect(options)

    for option <- [:create, :exclusive, :chmod, :auto_unlink], is_map_key(given, option) do
      raise ArgumentError,
            "#{name(option)} works only with a path, and not with a file that is already open"
    end

    %{request("", given) | path: nil, fd: number}
  end

  def request!(path, options), do: request(path, collect(options))

  defp request(path, given) do
    has? = &is_map_key(given, &1)

    for [one, other] <- @contradictions, has?.(one) and has?.(other) do
      raise ArgumentError,
            "#{name(one)} and #{name(other)} contradict each other; #{valid()}"
    end

    for {option, any} <- @needs, has?.(option) and not Enum.any?(any, has?) do
      raise ArgumentError,
            "#{name(option)} needs #{Enum.map_join(any, " or ", &name/1)}"
    end

    if is_nil(path) and not has?.(:anon),
      do: raise(ArgumentError, "a map without a path needs :anon")

    if has?.(:private) and has?.(:size) and not has?.(:anon) do
      raise ArgumentError,
            ":private and {:size, n} contradict each other: a private map never changes its file; #{valid()}"
    end

    if path && has?.(:anon),
      do: raise(ArgumentError, ":anon takes no path: Emmap.open([:anon, size: n])")

    # Otherwise, a new file would be a map of 0 bytes permanently.
    least = max((given[:size] || 0) - (given[:offset] || 0), given[:length] || 0)

    if has?.(:create) and has?.(:fixed_size) and least <= 0,
      do: raise(ArgumentError, ":create with :fixed_size needs {:size, n} or {:length, n}")

    %{
      path: path,
      fd: nil,
      keep_size: false,
      write: Enum.any?([:write, :create, :append, :anon], has?),
      create: has?.(:create),
      exclusive: has?.(:exclusive),
      truncate: has?.(:truncate),
      append: has?.(:append),
      sharing: sharing(has?),
      direct: has?.(:direct),
      offset: given[:offset] || 0,
      length: given[:length],
      size: given[:size],
      fit: has?.(:fit),
      fixed_size: has?.(:fixed_size),
      max_size: given[:max_size],
      max_inc_size: given[:max_inc_size] || 64 * 1024 * 1024,
      sparse: has?.(:sparse),
      lock: not has?.(:nolock),
      auto_unlink: has?.(:auto_unlink),
      given: given(has?),
      chmod: given[:chmod],
      address: given[:address],
      fixed: has?.(:fixed),
      noreserve: has?.(:noreserve),
      populate: has?.(:populate),
      nonblock: has?.(:nonblock),
      huge: Enum.find([:huge_2mb, :huge_1gb, :hugetlb], has?),
      sync: has?.(:sync),
      nocache: has?.(:nocache)
    }
  end

  # The flags that were given, a bit for each, in the order of the list above.
  defp given(has?) do
    for {flag, bit} <- Enum.with_index(@flags), has?.(flag), reduce: 0 do
      given -> Bitwise.bor(given, Bitwise.bsl(1, bit))
    end
  end

  @doc false
  # The flags of a map, in the order of the list above: those of `given` whose bits are set, and `others`.
  @spec flags(non_neg_integer, [atom]) :: [atom]
  def flags(given, others) do
    for {flag, bit} <- Enum.with_index(@flags),
        Bitwise.band(given, Bitwise.bsl(1, bit)) != 0 or flag in others,
        do: flag
  end

  defp valid, do: "valid are #{@valid}"

  defp sharing(has?) do
    cond do
      has?.(:private) -> :private
      has?.(:shared_validate) -> :shared_validate
      true -> :shared
    end
  end

  defp collect(options) when is_list(options) do
    given =
      Enum.reduce(options, %{}, fn option, given ->
        {name, value} = check(option)

        if is_map_key(given, name),
          do: raise(ArgumentError, "option #{name(name)} is given twice; #{valid()}")

        Map.put(given, name, value)
      end)

    # An offset of 0 is the default.
    with %{offset: 0} <- given, do: Map.delete(given, :offset)
  end

  defp collect(other) do
    raise ArgumentError, "options must be a list, got #{inspect(other)}; #{valid()}"
  end

  defp check(flag) when flag in @flags, do: {flag, true}

  for {name, {kind, _}} <- @values do
    defp check({unquote(name), value}),
      do: {unquote(name), value!(unquote(kind), unquote(name), value)}
  end

  defp check(other),
    do: raise(ArgumentError, "unknown option #{inspect(other)}#{meant(other)}; #{valid()}")

  # Options of `File.open/2` that Emmap does not have, and the reason.
  @of_files [
    binary: "reads always return binaries: leave it out",
    raw: "a handle already behaves like a raw file: leave it out",
    utf8:
      "bytes are read and written unchanged: for characters, use Emmap.device(mem, encoding: :unicode)",
    charlist: "reads return binaries: leave it out",
    list: "reads return binaries: leave it out",
    delayed_write: "a write is in the file immediately, and needs no system call: leave it out",
    read_ahead: "a map has no buffer: leave it out; Emmap.prefetch/3 reads ahead",
    compressed: "a map shows the bytes that are in the file",
    ram: "for memory without a file, use Emmap.open([:anon, size: n])",
    directory: "only regular files can be mapped"
  ]
  @of_files @of_files ++ [encoding: @of_files[:utf8]]

  # The option whose name is most similar to the given one, if one is similar.
  defp meant({name, _value}), do: meant(name)

  for {name, why} <- @of_files do
    defp meant(unquote(name)), do: unquote(" (an option of File.open: #{why})")
  end

  defp meant(given) when is_atom(given) or (is_binary(given) and byte_size(given) < 100) do
    names = @flags ++ Keyword.keys(@values)
    likeness = &String.jaro_distance(to_string(given), to_string(&1))
    best = Enum.max_by(names, likeness)
    if likeness.(best) > 0.8, do: " (did you mean #{name(best)}?)", else: ""
  end

  defp meant(_other), do: ""

  defp value!(:size, _, n) when is_integer(n) and n >= 0 and n < 0x8000_0000_0000_0000, do: n
  defp value!(:mode, _, n) when is_integer(n) and n >= 0 and n <= 0o7777, do: n

  defp value!(:mode, name, other) do
    raise ArgumentError, "{:#{name}, n} takes a file mode, 0 to 0o7777, got #{inspect(other)}"
  end

  defp value!(:size, name, other) do
    raise ArgumentError,
          "{:#{name}, n} takes an integer number of bytes, 0 to 2^63 - 1, got #{inspect(other)}"
  end

  for {name, _} <- @values, do: defp(name(unquote(name)), do: unquote("{:#{name}, n}"))
  defp name(name), do: inspect(name)
end
