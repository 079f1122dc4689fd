# The one door: people and CI call the same targets. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO ?= cargo
export CARGO_TERM_PROGRESS_WHEN ?= never
unexport CARGO_TARGET_DIR
RELEASE := target/release
PRODUCTS := -p locsvc -p locus-agent -p locusctl -p locus-kamailio
# The lab needs root: namespaces, mounts and signals. Everything is built as whoever calls make; only
# the finished programs run under sudo, which keeps PATH, KEEP, QUICK, SCENE and LOCUS_REQUIRE_LAB.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$(PATH))
AS_ROOT := $(if $(SUDO),CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(SUDO)")

TARGET := x86_64-unknown-linux-gnu
FUZZ_SECONDS ?= 120
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1

# step NAME,COMMANDS: runs them and prints how long they took.
define step
	@start=$$SECONDS; echo "==> $(1)"; $(2); echo "<== $(1): $$((SECONDS - start)) s"
endef

.PHONY: help deps deps-fuzz build build-inject build-v2 check unit proofs lab test demo sim \
	soak-table soak-distribution fuzz sanitize bench-sip bench-slice bench-table bench-distribution \
	bench-channel clean

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

deps: ## installs what build, demo and test need; does nothing when all is there
	@tests/deps.sh
	@ffi/fetch-headers.sh

build: deps ## builds the release binaries and target/release/locus.so
	@$(CARGO) build --release --locked $(PRODUCTS)
	@ln -sf liblocus.so $(RELEASE)/locus.so
	@kamailio-module/check.sh $(RELEASE)/liblocus.so
	@$(CARGO) build --release --locked -p locus-lab --bin demo

# The module with a panic that can be injected into each entry, for the fault tests only.
build-inject: deps
	@$(CARGO) build --locked -p locus-kamailio --features inject --target-dir target/inject
	@ln -sf debug/liblocus.so target/inject/locus.so

# Daemons that speak a synthetic next version of the wire, for the upgrade tests only.
build-v2: deps
	@$(CARGO) build --locked -p locsvc -p locus-agent --features locsvc/synthetic-v2,locus-agent/synthetic-v2 \
		--target-dir target/v2

check: deps ## format, clippy, documentation, benches and fuzz targets type-checked, architecture test
	$(call step,fmt,$(CARGO) fmt --all --check)
	$(call step,clippy,$(CARGO) clippy --locked --workspace --all-targets -- -D warnings)
	$(call step,doc,RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps)
	$(call step,fuzz targets,$(CARGO) clippy --locked -q --no-default-features --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings)
	$(call step,architecture,$(CARGO) test --locked -q -p locus-lab --test architecture)

unit: deps
	$(call step,unit tests,$(CARGO) test --locked -q --workspace --exclude locus-lab --exclude locus-bench --exclude locus-proofs)
	$(call step,the next version of the wire,$(CARGO) test --locked -q -p locus-proto --features synthetic-v2)
	$(call step,unit tests of lab and benches,$(CARGO) test --locked -q -p locus-lab -p locus-bench --lib --bins)

proofs: deps ## the table under loom, single steps and 50 times kill -9; optimised, for the number of steps
	$(call step,loom,$(CARGO) test --release --locked -q -p locus-table --lib tests::protocol)
	$(call step,single step and kill -9,$(AS_ROOT) $(CARGO) test --release --locked -q -p locus-proofs -- --nocapture)

# The lab tests, one at a time: every file of tests/tests but the architecture test.
lab: build build-inject build-v2
	@for file in tests/tests/*.rs; do \
		name=$$(basename $$file .rs); start=$$SECONDS; \
		[ $$name != architecture ] || continue; echo "==> lab: $$name"; \
		$(AS_ROOT) $(CARGO) test --locked -q -p locus-lab --test $$name -- --test-threads=1 --nocapture; \
		echo "<== lab: $$name: $$((SECONDS - start)) s"; \
	done

test: ## everything CI runs: check, unit tests, proofs, lab tests, a quick demo
	$(call step,build,$(MAKE) build)
	$(call step,check,$(MAKE) check)
	$(call step,unit,$(MAKE) unit)
	$(call step,proofs,$(MAKE) proofs)
	$(call step,lab,$(MAKE) lab)
	$(call step,demo QUICK=1,$(MAKE) demo QUICK=1)

demo: build ## a cluster in network namespaces answers calls; KEEP=1, QUICK=1, SCENE=name
	@$(SUDO) $(RELEASE)/demo

soak-table: deps ## 1,000 kills of the table's writer; single steps over many batches (10 minutes)
	$(call step,1000 kills,LOCUS_KILLS=1000 $(AS_ROOT) $(CARGO) test --release --locked -q -p locus-proofs --test kill -- --nocapture)
	$(call step,single steps,$(AS_ROOT) $(CARGO) test --release --locked -q -p locus-proofs --test step -- --ignored --nocapture)

sim: deps ## the master and 1,000 nodes in one process and virtual time: ten criteria (10 minutes); SEED=n
	$(call step,simulation,LOCUS_SIM=full $(CARGO) test --release --locked -q -p locus-distribution --test sim -- --nocapture --test-threads=2 --skip criterion_09)
	$(call step,hostile datagrams and memory,LOCUS_SIM=full $(CARGO) test --release --locked -q -p locus-distribution --test sim -- --nocapture --test-threads=1 criterion_09)

soak-distribution: build ## 32 receivers under loss (minutes)
	$(call step,32 receivers,LOCUS_REQUIRE_LAB=1 $(AS_ROOT) $(CARGO) test --locked -q -p locus-lab --test multicast -- --ignored --test-threads=1 --nocapture)

deps-fuzz: deps
	@tests/deps.sh g++

fuzz: deps-fuzz ## any bytes to decoders, to the group's two ends and to a table's image; FUZZ_SECONDS=120 each
	@RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --locked \
		--manifest-path tests/fuzz/Cargo.toml --target $(TARGET) --target-dir target/fuzz
	@tests/fuzz/seed.sh target/fuzz/corpus
	@for name in decode datagram group_frame group image; do mkdir -p target/fuzz/corpus/$$name; \
		target/fuzz/$(TARGET)/release/$$name target/fuzz/corpus/$$name -max_total_time=$(FUZZ_SECONDS) \
			-len_control=0 -max_len=2048 -timeout=20 -artifact_prefix=target/fuzz/$$name-; \
	done

# Without loom, whose coroutines have stacks that AddressSanitizer does not know.
sanitize: deps ## table and mapping under AddressSanitizer, the table's threads under ThreadSanitizer
	@RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test --locked -q --target $(TARGET) \
		--target-dir target/asan -p locus-table --lib -- --skip tests::protocol
	@RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test --locked -q --target $(TARGET) \
		--target-dir target/asan -p locus-agent --lib -- edge::
	@rustup component add rust-src
	@RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread $(CARGO) test --locked -q -Zbuild-std --target $(TARGET) \
		--target-dir target/tsan -p locus-table --lib -- tests::threads tests::flip

bench-sip: build ## CPU of INVITE to 302: constant, locus_lookup, usrloc lookup
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-sip

bench-slice: build ## accepted to visible at 1,000 updates/s; one look-up in ns
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-slice

bench-table: build ## look-ups, updates, loads, routes of the table beside memory's limit and LMDB; QUICK=1
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-table

bench-distribution: build ## from the API to 1, 8 and 32 nodes: time, bytes, repairs, returns; QUICK=1
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-distribution

bench-channel: deps ## a connection under TLS beside a plain one
	@$(CARGO) bench --locked -q -p locus-identity

clean: ## removes target/
	@$(CARGO) clean
