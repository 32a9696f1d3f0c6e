# The two commands of a new machine are `make run` and `make test`. `make` alone shows them all.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build run test clients sim lint fmt bench

TARGET := $(or $(CARGO_TARGET_DIR),target)
SKERRY := $(TARGET)/release/skerry

help: ## This list
	@echo 'Skerry: a Kafka-compatible broker in one small binary.'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make run ARGS="--data-dir /tmp/one"    hands settings on; all of them: $(SKERRY) start --help'
	@echo '  make sim SEEDS=1..1000 PROFILE=sim     more seeds, by a program that is faster and takes longer to build'

setup: ## Install what this machine lacks for a build (says what and why; needs root only for packages)
	@scripts/setup

build: setup ## Build the release binary, target/release/skerry
	@[ -x $(SKERRY) ] || echo 'build: the release binary; about 7 minutes on 2 cores the first time, seconds later'
	@cargo build --release --locked --bin skerry

run: build ## Build, and start one node: Kafka on 127.0.0.1:9092, data in ./skerry-data
	@exec $(SKERRY) start $(ARGS)

test: ## All tests: Rust, simulator (225 seeds, planted bugs), real Kafka clients
	@scripts/setup test
	@scripts/test

clients: build ## Only the real Kafka clients, against the release binary
	@tests/clients/run --broker-bin $(SKERRY)

SEEDS ?= 1..100
PROFILE ?= dev
sim: setup ## Only the simulator: 100 seeds of crashes, power cuts and broken networks
	@cargo build --locked --profile $(PROFILE) --bin skerry-sim
	@$(TARGET)/$(PROFILE:dev=debug)/skerry-sim run --seeds $(SEEDS) --jobs $$(nproc)

lint: ## Formatting and lints, both as errors
	@scripts/setup lint
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Format the Rust code
	@cargo fmt --all

bench: build ## Skerry beside Apache Kafka on this machine, in one run (about 20 minutes)
	@bench/compare/run --broker-bin $(SKERRY) $(ARGS)
