# What a person types here. `make test` is what must hold before a change is merged.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Seconds for which each fuzz target runs.
FUZZ_SECONDS ?= 60

# Times that each cell of the failover matrix runs, and how many run at once.
export MATRIX_ROUNDS ?= 20
export MATRIX_JOBS ?= 1

# Seconds for which clients look for stale reads; the switches take a third more.
STALE_SECONDS ?= 600

# Versions of the servers, as .ci/servers names them.
VERSIONS ?= redis-6.2 redis-8.0 valkey-8 valkey-9

# Seconds for which worlds are simulated; the first world, 0 in each `make test`.
SIM_SECONDS ?= 600
SIM_FIRST ?= $(shell date +%s)000000

# Commands that are compared with a bare Redis, and the first sequence of them.
DIFF_COMMANDS ?= 1000000
DIFF_FIRST ?= $(shell date +%s)000000

# The simulation with a fast library and its assertions.
SIMULATION = cargo test --locked --test simulation \
    --config 'profile.dev.package.switchman.opt-level=3' \
    --config 'profile.dev.package.switchman.codegen-units=1' \
    --config 'profile.dev.lto="thin"' --config 'profile.dev.incremental=false'

.PHONY: help demo test test-live failover-matrix stale-reads simulation differential size versions \
    clients lint bench fuzz tools

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Redis, replicas and Sentinels on loopback, Switchman before them, a failover on show
	.ci/tools demo
	cargo run --locked --quiet -- demo

test: tools lint ## Lint, then all tests, with real servers and clients
	cargo test --locked
	SWITCHMAN_SIM_SECONDS=60 $(SIMULATION)

test-live: tools ## The tests against real Redis servers and Sentinels only
	cargo test --locked --test live

failover-matrix: tools ## Each fault MATRIX_ROUNDS times, to be resumed; then a table, and what was not kept
	.ci/failover-matrix

stale-reads: tools ## Clients that look for reads behind their own writes, for STALE_SECONDS, replication delayed
	SWITCHMAN_STALE_SECONDS=$(STALE_SECONDS) \
	    cargo test --locked --test live stale:: -- --nocapture --test-threads 1

simulation: ## Invented worlds from SIM_FIRST on for SIM_SECONDS: no promise may be broken in any
	SWITCHMAN_SIM_SECONDS=$(SIM_SECONDS) SWITCHMAN_SIM_FIRST=$(SIM_FIRST) $(SIMULATION) -- --nocapture

differential: tools ## DIFF_COMMANDS commands through Switchman and to a bare Redis: no reply may differ
	SWITCHMAN_DIFF_COMMANDS=$(DIFF_COMMANDS) SWITCHMAN_DIFF_FIRST=$(DIFF_FIRST) \
	    cargo test --locked --test live differential:: -- --nocapture --test-threads 1

size: tools ## Values of 512 MB, clients up to the limit of open files, a minute of transactions: what they cost
	SWITCHMAN_VALUE_MIB=512 SWITCHMAN_VALUE_ROUNDS=5 SWITCHMAN_IDLE_CLIENTS=20000 \
	    SWITCHMAN_TRANSACTION_SECONDS=60 \
	    cargo test --locked --release --test live size:: -- --nocapture --test-threads 1

versions: tools ## The tests against real servers with each of VERSIONS, and a line on each
	.ci/versions $(VERSIONS)

clients: tools ## The tests with real client libraries only
	cargo test --locked --test clients

lint: ## Formatting, clippy and documentation, without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items --quiet

bench: ## Switchman beside other proxies and its consistencies side by side, then nanoseconds of its parts
	.ci/tools bench
	cargo bench --locked --bench compare
	cargo bench --locked --bench compare -- consistency
	cargo bench --locked --bench micro

fuzz: ## Each fuzz target for FUZZ_SECONDS (needs nightly Rust and cargo-fuzz)
	for target in $$(cargo +nightly fuzz list --fuzz-dir tests/fuzz); do \
	    cargo +nightly fuzz run --fuzz-dir tests/fuzz "$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

tools:
	@.ci/tools test
