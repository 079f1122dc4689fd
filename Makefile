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

# step NAME,COMMANDS: runs them and prints how long they took.
define step
	@start=$$SECONDS; echo "==> $(1)"; $(2); echo "<== $(1): $$((SECONDS - start)) s"
endef

.PHONY: help deps build build-inject check unit lab test demo bench-sip bench-slice clean

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

check: deps ## format, clippy, documentation, benches type-checked, architecture test
	$(call step,fmt,$(CARGO) fmt --all --check)
	$(call step,clippy,$(CARGO) clippy --locked --workspace --all-targets -- -D warnings)
	$(call step,doc,RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps)
	$(call step,architecture,$(CARGO) test --locked -q -p locus-lab --test architecture)

unit: deps
	$(call step,unit tests,$(CARGO) test --locked -q --workspace --exclude locus-lab --exclude locus-bench)
	$(call step,unit tests of lab and benches,$(CARGO) test --locked -q -p locus-lab -p locus-bench --lib)

# The lab tests, one at a time: every file of tests/tests but the architecture test.
lab: build build-inject
	@for file in tests/tests/*.rs; do \
		name=$$(basename $$file .rs); start=$$SECONDS; \
		[ $$name != architecture ] || continue; echo "==> lab: $$name"; \
		$(AS_ROOT) $(CARGO) test --locked -q -p locus-lab --test $$name -- --test-threads=1 --nocapture; \
		echo "<== lab: $$name: $$((SECONDS - start)) s"; \
	done

test: ## everything CI runs: check, unit tests, lab tests, a quick demo
	$(call step,build,$(MAKE) build)
	$(call step,check,$(MAKE) check)
	$(call step,unit,$(MAKE) unit)
	$(call step,lab,$(MAKE) lab)
	$(call step,demo QUICK=1,$(MAKE) demo QUICK=1)

demo: build ## a cluster in network namespaces answers calls; KEEP=1, QUICK=1, SCENE=name
	@$(SUDO) $(RELEASE)/demo

bench-sip: build ## CPU of INVITE to 302: constant, locus_lookup, usrloc lookup
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-sip

bench-slice: build ## accepted to visible at 1,000 updates/s; one look-up in ns
	@$(AS_ROOT) $(CARGO) run --release --locked -q -p locus-bench --bin bench-slice

clean: ## removes target/
	@$(CARGO) clean
