# Tidemark. `make` alone lists what there is.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO ?= go
tools := $(CURDIR)/.tools
out := $(CURDIR)/.local

golangci_version := v2.15.0
golangci := $(tools)/golangci-lint-$(golangci_version)

# The test module links Google's SQL analyzer, whose one package takes minutes
# and 6.5 GB to compile the first time: two packages at a time fit in 24 GB.
googlesql := -p 2 -tags googlesql

.PHONY: help
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps ## Start everything locally, sync a sample application both ways, and check that both sides agree
	cd test && $(GO) build -buildvcs=false -o $(out)/bin/ ./demo github.com/tidemark-data/tidemark/functions/local
	$(out)/bin/demo -functions $(out)/bin/local -folder $(out)/demo

# Most tests wait for servers more than they compute: -parallel 4 whatever the cores.
# The test module reads files outside of it (terraform/, schemas/), which go's cache
# of test results does not look at: -count=1.
.PHONY: test
test: deps ## Run every test: unit, property, and end to end against real Postgres and the emulators
	$(GO) test -race -timeout 10m ./...
	cd test && $(GO) test -race -timeout 10m ./cloudsql/...
	cd test && $(GO) test $(googlesql) -count=1 -parallel 4 -timeout 40m ./...

.PHONY: lint
lint: $(golangci) ## Check formatting, vet, lint, import directions and go.mod, in both modules
	$(GO) vet ./...
	cd test && $(GO) vet $(googlesql) ./...
	$(golangci) run ./...
	cd test && $(golangci) run --build-tags googlesql ./...
	$(GO) mod tidy -diff
	cd test && $(GO) mod tidy -diff

.PHONY: bench
bench: deps ## Measure extraction and reverse ETL against psql, pgbench with and without our triggers and beside a sync, and cold starts
	cd test && $(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./bench/...
	cd test && $(GO) test -run '^$$' -bench . -benchtime 5x -timeout 10m ./deployment

.PHONY: local
local: deps ## Start the emulators and every function, and leave them running for you to use
	cd test && $(GO) build -buildvcs=false -o $(out)/bin/ ./stack/cmd/local-stack github.com/tidemark-data/tidemark/functions/local
	$(out)/bin/local-stack -functions $(out)/bin/local

.PHONY: package
package: ## Write the functions' archives as Terraform would upload them, to .local/package
	cd test && $(GO) run ./deployment/cmd/package -out $(out)/package

.PHONY: terraform-test
terraform-test: ## Check, validate and test the Terraform files; needs terraform and its providers, but no cloud
	@.ci/terraform

.PHONY: terraform-docs
terraform-docs: ## The same, and write the table of privileges in terraform/README.md from the plan
	@.ci/terraform write

.PHONY: terraform-mutations
terraform-mutations: ## Break the Terraform files in every way of terraform/tests/mutations.txt; fails if a test misses one
	@.ci/mutations

.PHONY: deps
deps: ## Install what is missing here: a C++ compiler and Postgres, from the system's packages
	@.ci/deps

# Built from the Go module proxy, so that nothing but Go is needed to lint.
$(golangci):
	@mkdir -p $(tools)
	GOBIN=$(tools) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(golangci_version)
	mv $(tools)/golangci-lint $@
