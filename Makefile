# tapestry: a userspace virtual switch for containers.
# `make demo` shows it, `make test` proves it, `make bench` measures it.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   = -s -w -X main.version=$(VERSION)
FUZZTIME ?= 10s
BIN       = bin/tapestry

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup build test unit race lint integration interop fuzz bench bench-tunnel bench-compare demo cover generate clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## installs the programs that tests and the demo use (Debian, as root), else says what is missing
	@.ci/setup

build: ## the one static binary, bin/tapestry
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/tapestry

test: setup build lint unit race ## everything: unit, property, fuzz seeds, race, real namespaces, interop, generated docs
	@echo "tests passed; what was skipped, if anything, is named above"

unit: ## all tests once, without the race detector, and the coverage gate
	.ci/gotest -cover
	$(GO) run ./.ci/covergate

race: ## all tests under the race detector
	CGO_ENABLED=1 .ci/gotest -race

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt'ed: $$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

integration: build ## real namespaces and the kernel, with the tests' own output
	$(GO) test -count=1 -v ./internal/integration/... ./internal/keeper/... ./switch/port/...

interop: build ## other programs: tshark, the kernel's own devices
	$(GO) test -count=1 -v -run Interop ./internal/integration/...

fuzz: ## every fuzz target for FUZZTIME (default 10s) each
	.ci/fuzz $(FUZZTIME)

bench: build ## the switch beside the kernel's bridge, in one run; ratios
	$(BIN) bench

bench-tunnel: build ## two hosts: tunnels beside the kernel's VXLAN device and bridge; the record layer and handshakes
	$(BIN) bench --tunnel
	$(GO) test -run '^$$' -bench 'PionWrite1400|LinkSealOpen1400|Handshake' -cpu 1 ./tunnel/dtls

bench-compare: ## micro-benchmarks of two commits: make bench-compare OLD=REV NEW=REV
	.ci/bench-compare $(OLD) $(NEW)

demo: setup build ## three containers on a switch, then two hosts: pings, floods, learning, TTLs, and why
	@docs/demo/one-host.sh $(BIN)
	@docs/demo/two-hosts.sh $(BIN)

cover: ## coverage of each package, and cover.html
	$(GO) test -coverprofile=cover.out ./... && $(GO) tool cover -html=cover.out -o cover.html
	$(GO) tool cover -func=cover.out | tail -1

generate: build ## prints docs/ from the tables in the code
	$(BIN) generate docs

clean: ## removes what was built
	rm -rf bin cover.out cover.html
