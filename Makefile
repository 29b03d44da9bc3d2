# kvd: set-up, run, test. `make run` and `make test` need Debian (or a relative of it) and Rust, and install the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SECONDS_PER_TARGET ?= 30
# The first seed of the simulation, and how many.
SEED ?= 0
SEEDS ?= 10000
FUZZ_TARGETS := log_segment log_roundtrip frames pickle packed store
PYTHON := .venv/bin/python3
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What is compared with kvd, by its packages, and what runs the comparison.
BENCH_PACKAGES := redis-server memcached python3-venv
RESULTS := docs/benchmarks
TABLES := $(RESULTS)/tables.md
# How often everything is measured, and for how many seconds each time.
ROUNDS ?= 3
SECONDS_EACH ?= 1
PEERS := cargo bench --locked --bench peers -- --results $(RESULTS)/results.json
MEASURED := --rounds $(ROUNDS) --seconds $(SECONDS_EACH)
# kvd once more, with its fault points. To compile it takes longer than to run it: it is not optimised.
FAULT_POINTS := --features fault-points --config profile.dev.package.kvd.opt-level=0
# What the tests use beside kvd's own needs: strace makes system calls fail, the file systems are filled up, a network has addresses.
TEST_PACKAGES := strace e2fsprogs xfsprogs iproute2 python3-venv

# Installs those of some packages that are missing.
define install
	@for package in $(1); do \
	    dpkg -s $$package >/dev/null 2>&1 || missing="$${missing:-} $$package"; \
	done; \
	if [ -n "$${missing:-}" ]; then \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; \
	fi
endef

.PHONY: help run build test check unit-tests doc-tests fuzz simulate bench-peers setup setup-tests setup-bench clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: setup ## Build kvd and start it on ./data.
	cargo run --release --locked -- --data-dir ./data

build: setup ## Build the release binary.
	cargo build --release --locked

test: setup setup-tests check unit-tests doc-tests fuzz ## Run everything that has to pass.

check: ## Formatting, lints and documentation, warnings denied.
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features fault-points -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

unit-tests: ## Unit and integration tests.
	KVD_PYTHON="$(CURDIR)/$(PYTHON)" cargo nextest run --locked
	cargo nextest run --locked $(FAULT_POINTS) --test it -E 'test(fault_points)'
	cargo bench --locked --profile dev --bench peers -- --smoke --servers kvd,bare

doc-tests: ## The examples in the documentation.
	cargo test --locked --doc

fuzz: ## Run each fuzz target for SECONDS_PER_TARGET seconds (30), as many at a time as there are processors.
	cargo +nightly fuzz build
	@mkdir -p $(FUZZ_TARGETS:%=fuzz/corpus/%)
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P "$$(nproc)" -I TARGET cargo +nightly fuzz run TARGET \
	    fuzz/corpus/TARGET fuzz/seeds/TARGET fuzz/minimised/TARGET -- \
	    -max_total_time=$(SECONDS_PER_TARGET) -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1

simulate: setup ## Play SEEDS (10,000) of the simulation, from SEED (0) on.
	KVD_SEED=$(SEED) KVD_SEEDS=$(SEEDS) cargo test --release --locked --lib simulation::whatever -- --nocapture

bench-peers: setup setup-bench ## Compare kvd with Redis, memcached and a bare ROUTER: tables and plots in docs/benchmarks.
	@mkdir -p $(RESULTS)
	@printf '%s\n' '# Tables of make bench-peers' '' 'What they mean: [benchmarks.md](../benchmarks.md).' > $(TABLES).new
	$(PEERS) --loads $(MEASURED) --servers kvd,kvd-second,redis,redis-second,memcached,bare | tee -a $(TABLES).new
	$(PEERS) --sizes $(MEASURED) --servers kvd,redis,memcached | tee -a $(TABLES).new
	$(PEERS) --packed $(MEASURED) --servers kvd,redis | tee -a $(TABLES).new
	$(PEERS) --half --start $(MEASURED) --servers kvd,redis,memcached | tee -a $(TABLES).new
	$(PEERS) --reads --replay --compaction --rounds $(ROUNDS) --seconds 2 --servers kvd,redis | tee -a $(TABLES).new
	$(PEERS) --pauses --scale --seconds 2 --rounds 1 --servers kvd,redis,memcached | tee -a $(TABLES).new
	@mv $(TABLES).new $(TABLES)
	$(PYTHON) benches/plots.py $(RESULTS)/results.json

setup-bench: ## Install the servers to compare with, and what draws the plots.
	$(call install,$(BENCH_PACKAGES))
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@$(PYTHON) -c 'import matplotlib' 2>/dev/null || $(PYTHON) -m pip install --quiet --disable-pip-version-check 'matplotlib>=3.8,<4'

setup: ## Install what building needs: libzmq's headers.
	@if ! [ -e /usr/include/zmq.h ]; then \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends libzmq3-dev; \
	fi

setup-tests: ## Install what the tests need.
	$(call install,$(TEST_PACKAGES))
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@$(PYTHON) -c 'import zmq' 2>/dev/null || $(PYTHON) -m pip install --quiet --disable-pip-version-check 'pyzmq>=26,<28'
	@cargo nextest --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-nextest
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz

clean: ## Remove what was built, and the tests' Python.
	cargo clean
	rm -rf .venv fuzz/target fuzz/corpus
