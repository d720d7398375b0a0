# A checkout needs Elixir and cargo, and nothing from Hex. `tools/setup` brings Elixir where it can.
export LANG ?= C.UTF-8
export ELIXIR_ERL_OPTIONS ?= +fnu

.PHONY: build demo test test-rust test-install test-all test-broker bad-days chaos queue-kills blocks-kills twice loom miri fuzz deny bench survive lint docs setup clean

setup:
	@tools/setup

build: setup
	mix compile

demo: setup
	mix run demo/demo.exs

# The default run. Its last line names the tests that it leaves out.
test: setup
	mix test
	$(MAKE) test-rust
	@echo "left out: tests tagged :slow and :install (run them with 'make test-all'), and :broker ('make test-broker')"

test-all: setup
	mix test --include slow --include install
	$(MAKE) test-rust CRASH_IMAGES=100000
	$(MAKE) loom

# The Rust crates alone. CRASH_IMAGES: how many images of crashes for each structure (default: as each test says).
test-rust:
	$(if $(CRASH_IMAGES),EMMAP_CRASH_IMAGES=$(CRASH_IMAGES)) cargo test --quiet --locked --manifest-path native/Cargo.toml

# Every way to install emmap, each as a user's project does it; and what is in the package. Parts that need Hex are skipped
# where it is missing; HEX=required makes that a failure.
test-install: setup
	$(if $(HEX),EMMAP_HEX=$(HEX)) mix test --only install test/install

# The outbox of examples/ with a RabbitMQ that it starts: MESSAGES (100000), and meanwhile KILLS (50) with -9 of the pushing and
# the forwarding VM, and RESTARTS (10) of the broker, which SIGNAL=kill kills, too. SEED repeats a run's choices. Says so where
# RabbitMQ is missing.
test-broker: setup
	mix test --only broker test/examples/outbox_broker_test.exs

# Every row of what must be survived, each in a VM of its own, as a table with what the user got.
bad-days: setup
	mix test test/bad_days --formatter ExUnit.CLIFormatter --formatter Emmap.Test.BadDayTable

# Maps, and programs that truncate and delete their files and fill the disk, for SECONDS (600), in VMS (1) VMs on the same
# files. SEED repeats a run's choices.
chaos: setup
	MIX_ENV=test mix run test/chaos.exs

# Two VMs, two Rust programs and a Python program on one queue, killed with -9 ROUNDS (2000) times at random, then a quarter as
# often across PID namespaces. SEED repeats a run's choices.
queue-kills: setup
	MIX_ENV=test mix run test/queue_kills.exs

# Two VMs and two Rust programs on one file of blocks, killed with -9 ROUNDS (500) times at random. SEED repeats a run's choices.
blocks-kills: setup
	MIX_ENV=test mix run test/blocks_kills.exs

# Which functions the VM survives on a live binary that another process writes to; SECONDS (4) for each.
twice: setup
	MIX_ENV=test mix run test/twice.exs

# Every order in which threads can meet, with up to two preemptions: copies under the lock, lost
# pages and their repair, the slots of the guard, growth under readers, closing, and these together.
loom:
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=$${LOOM_MAX_PREEMPTIONS:-2} CARGO_PROFILE_RELEASE_LTO=off \
	  cargo test --quiet --locked --release --target-dir native/target/loom --manifest-path native/Cargo.toml \
	  --package emmap_core --test loom

# The tests of the core that Miri can run. Brings the nightly Rust that they need, with rustup.
miri:
	tools/miri

# Licenses, duplicates, sources and advisories of the crates (needs `cargo install cargo-deny`). Without a network:
# CHECKS="licenses bans sources".
CHECKS ?=
deny:
	cargo deny --locked --manifest-path native/Cargo.toml check $(CHECKS)

# Any options, and any bytes as a file of a structure, each for so many seconds (needs `cargo install
# cargo-fuzz`). What is worth keeping goes to native/fuzz/corpus, which `cargo test` replays.
FUZZ_SECONDS ?= 60
fuzz:
	cd native && for target in options counters dynamic_counters queue blocks table snapshot; do \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz $$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=20 -max_len=1024 || exit 1; \
	done

# Every hot operation, and what a user would choose instead, in one run of up to 10 minutes: tables, plots and headlines in
# bench/results/. ONLY=reads,queue runs these groups; QUICK=1 takes a minute, and writes to the folder of builds. What is not
# on the BEAM is compared with, too, after bench/others/get.
bench: setup
	[ -n "$(QUICK)" ] || bench/prepare
	mix run bench/run.exs

# 1,000 acknowledged operations of everything that keeps data, then kill -9, or a power failure (root): how many are there.
survive: setup
	mix run bench/survive/run.exs

lint: setup
	tools/typos
	mix format --check-formatted
	cargo fmt --all --check --manifest-path native/Cargo.toml
	cargo clippy --quiet --locked --all-targets --manifest-path native/Cargo.toml -- -D warnings
	mix compile --force --warnings-as-errors
	MIX_ENV=test mix compile --force --warnings-as-errors
	mix run tools/benchmarks.exs
	tools/dialyzer

docs: setup
	tools/docs

clean:
	mix clean
	cargo clean --manifest-path native/Cargo.toml
