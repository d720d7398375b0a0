%% The Erlang side of floor.c: `sh build.sh FOLDER', then FOLDER in the code path.
%%
%% handle/1,2 make a handle that `file' calls this module with: the baseline for calls of Emmap through `file', whose own
%% dispatch costs 10 to 15 ns. No module behind it can avoid these.
-module(floor_nif).
-export([nop/0, open/2, add/3, copy_out/3, view/3, copy_in/3]).
-export([open_small/1, close_small/2, open_on_scheduler/1, close_on_scheduler/2]).
-export([handle/1, handle/2, pread/3, pwrite/3]).
-on_load(load/0).

load() -> erlang:load_nif(filename:rootname(code:which(?MODULE)), 0).

nop() -> erlang:nif_error(not_loaded).
open(_Path, _Length) -> erlang:nif_error(not_loaded).
open_small(_Path) -> erlang:nif_error(not_loaded).
close_small(_Fd, _Base) -> erlang:nif_error(not_loaded).
open_on_scheduler(_Path) -> erlang:nif_error(not_loaded).
close_on_scheduler(_Fd, _Base) -> erlang:nif_error(not_loaded).
add(_Map, _Offset, _Value) -> erlang:nif_error(not_loaded).
copy_out(_Map, _Offset, _Count) -> erlang:nif_error(not_loaded).
view(_Map, _Offset, _Count) -> erlang:nif_error(not_loaded).
copy_in(_Map, _Offset, _Data) -> erlang:nif_error(not_loaded).

handle(Map) -> handle(Map, copy).
handle(Map, How) when How =:= copy; How =:= view -> {file_descriptor, ?MODULE, {Map, How}}.

pread({file_descriptor, _, {Map, copy}}, Offset, Count) -> copy_out(Map, Offset, Count);
pread({file_descriptor, _, {Map, view}}, Offset, Count) -> view(Map, Offset, Count).

pwrite({file_descriptor, _, {Map, _}}, Offset, Data) -> copy_in(Map, Offset, Data).
