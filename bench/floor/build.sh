#!/bin/sh
# Builds the floor for the OTP in the PATH: build.sh FOLDER (without FOLDER: a new temporary one). Prints the folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"

# The headers belong to the VM or, in some installations, to `usr`.
include=$(erl -noshell -eval '
  Root = code:root_dir(),
  Folders = [filename:join([Root, "erts-" ++ erlang:system_info(version), "include"]), filename:join([Root, "usr", "include"])],
  Found = [F || F <- Folders, filelib:is_file(filename:join(F, "erl_nif.h"))],
  io:put_chars(hd(Found ++ [""])), halt().')
[ -n "$include" ] || { echo "bench/floor: this OTP has no erl_nif.h (Debian: apt-get install erlang-dev)" >&2; exit 1; }

# On macOS the VM's functions are found when the library is loaded.
flags=""
[ "$(uname)" != Darwin ] || flags="-undefined dynamic_lookup"

# shellcheck disable=SC2086 # none or two flags
${CC:-cc} -O3 -fPIC -shared -Wall -Wextra -Werror $flags -I "$include" -o "$folder/floor_nif.so" "$here/floor.c"
erlc -Werror -o "$folder" "$here/floor_nif.erl"
echo "$folder"
