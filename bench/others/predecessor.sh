#!/bin/sh
# Builds saleyn/emmap, the predecessor, which is not a part of this repository, as a module of another name, `predecessor`, so
# that it runs in one VM with ours: predecessor.sh SOURCE FOLDER. SOURCE is a checkout of it, and stays as it is.
set -eu
[ $# -eq 2 ] || { echo "usage: predecessor.sh SOURCE FOLDER" >&2; exit 2; }
source=$1
folder=$2
mkdir -p "$folder/src" "$folder/ebin" "$folder/priv"

include=$(erl -noshell -eval '
  Root = code:root_dir(),
  Folders = [filename:join([Root, "erts-" ++ erlang:system_info(version), "include"]), filename:join([Root, "usr", "include"])],
  Found = [F || F <- Folders, filelib:is_file(filename:join(F, "erl_nif.h"))],
  io:put_chars(hd(Found ++ [""])), halt().')
[ -n "$include" ] || { echo "bench/others: this OTP has no erl_nif.h (Debian: apt-get install erlang-dev)" >&2; exit 1; }

cp "$source"/c_src/*.hpp "$folder/src/"
sed 's/ERL_NIF_INIT(emmap,/ERL_NIF_INIT(predecessor,/' "$source/c_src/emmap.cpp" >"$folder/src/predecessor.cpp"
# It looks for its library below the module where no application has its name.
sed -e 's/^-module(emmap)\./-module(predecessor)./' -e 's/code:priv_dir(emmap)/code:priv_dir(predecessor)/' \
  "$source/src/emmap.erl" >"$folder/src/predecessor.erl"

# As its own Makefile does.
flags=""
[ "$(uname)" != Darwin ] || flags="-undefined dynamic_lookup"
# shellcheck disable=SC2086 # none or two flags
${CXX:-c++} -O3 -DNDEBUG -std=c++17 -fPIC -shared $flags -I "$include" -o "$folder/priv/emmap.so" "$folder/src/predecessor.cpp"
erlc -o "$folder/ebin" "$folder/src/predecessor.erl"
echo "$folder/ebin"
