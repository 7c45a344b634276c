# Commands for people: `make demo`, `make test` and `make test-kvm`. They install what they miss, say so, and are
# quiet otherwise. Everything else is `cargo` and `cargo xtask`.

CARGO ?= cargo
ENVIRONMENT = debian:12

.PHONY: help demo test test-kvm build

help:
	@echo 'make demo      install missing host packages, build, prepare $(ENVIRONMENT), run a command in a microVM'
	@echo 'make test      install what the tests need and run them all'
	@echo 'make test-kvm  run the tests that need KVM, in a virtual machine with one if this host has none'
	@echo 'make build     build target/release/pyro'

demo:
	@scripts/install-packages demo
	@$(MAKE) --no-print-directory build
	@target/release/pyro env pull $(ENVIRONMENT) > /dev/null
	target/release/pyro run $(ENVIRONMENT) -- git --version

build:
	@echo '==> building target/release/pyro (a minute or two the first time)'
	@$(CARGO) build --quiet --release --locked --package pyro-cli

test:
	@scripts/install-packages test
	@$(MAKE) --no-print-directory test-environment
	@echo '==> checking and testing'
	@$(CARGO) xtask ci

test-kvm:
	@scripts/install-packages kvm
	@$(MAKE) --no-print-directory test-environment
	@PYRO_CACHE_DIR=$(CURDIR)/target/test-cache PYRO_STATE_DIR=$(CURDIR)/target/test-state \
		target/debug/pyro run --quiet $(ENVIRONMENT) -- true
	@$(CARGO) xtask test-kvm

# The environment that machine tests share is built before them, so that no test waits for it.
.PHONY: test-environment
test-environment:
	@echo '==> building target/debug/pyro (a minute or two the first time)'
	@$(CARGO) build --quiet --locked --package pyro-cli
	@echo '==> preparing $(ENVIRONMENT) for the tests'
	@PYRO_CACHE_DIR=$(CURDIR)/target/test-cache PYRO_STATE_DIR=$(CURDIR)/target/test-state \
		target/debug/pyro env pull $(ENVIRONMENT) > /dev/null
