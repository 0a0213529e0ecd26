# Luminate: what a developer runs. Every target works on a fresh clone with Go,
# make and git; ClickHouse tests also need npm (see README).
GO       ?= go
BIN      := bin
PKGS     ?= ./...
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TESTFLAGS?= -timeout 20m
# The race detector needs a C compiler; without one the tests run without it.
RACE     := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
# golangci-lint is built from its module once, into bin/.
LINT_VERSION := v2.15.0

.PHONY: all build run test short check fmt vet lint e2e e2e-long bench bench-compare fuzz chaos load parts soak e2e-cluster e2e-image e2e-kubernetes cover cover-report dist vuln actionlint tidy clean prometheus promtool victoria

all: build

build: ## Build the binaries into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

run: ## Run a server on 127.0.0.1:8080 with its data in ./data
	$(GO) run -ldflags '$(LDFLAGS)' ./cmd/luminate serve

# Runs go test and tells how long each package and the slowest tests took, and what was skipped.
GATES    := $(GO) run ./internal/gates
COVER    := -coverpkg=./... -coverprofile=coverage.out

test: prometheus promtool ## All tests, with the race detector where a C compiler is found
	$(GATES) test $(RACE) $(TESTFLAGS) $(PKGS)

short: ## The quick tests, without the race detector
	$(GATES) test -short $(TESTFLAGS) $(PKGS)

e2e: prometheus promtool victoria ## The long tests: real Prometheus, vmagent, vmalert, upstream PromQL scripts on ClickHouse, rollouts; leaves coverage.out
	$(GATES) test -tags e2e -timeout 60m $(COVER) $(PKGS)

e2e-long: prometheus promtool victoria ## The e2e tests, and those that take many minutes each
	$(GATES) test -tags e2e,long -timeout 120m $(PKGS)

# Replicated tables, Keeper, two shards with two replicas each: needs Docker with compose, which CI has not.
CLUSTER := docker compose -f deploy/cluster/compose.yaml
e2e-cluster: ## The conformance suite against a real ClickHouse cluster in containers, and Luminate's readiness on it
	$(CLUSTER) up --build --detach --wait
	@ok=0; $(GO) test -tags cluster -count=1 -timeout 60m -run 'TestCluster$$' ./storage/clickhouse && \
	  curl -fsS --retry 30 --retry-all-errors --retry-delay 2 http://127.0.0.1:8081/readyz || ok=1; \
	  $(CLUSTER) down --volumes; exit $$ok

# No Docker and no registry: the Dockerfile's bases are made of this machine's Go and a static busybox.
# Debian: apt-get install podman runc netavark iptables busybox-static
e2e-image: ## The Dockerfile built and its image run in containers as the manifests do; needs root, podman, runc, busybox
	$(GO) test -tags image -count=1 -timeout 20m -run '^TestImage$$' -v ./deploy

# A Kubernetes of this machine's own, its programs built from their modules (ten minutes, then cached).
# Debian: what e2e-image needs, and apt-get install containerd containernetworking-plugins iproute2 openssl npm (for ClickHouse)
KUBERNETES_VERSION := v1.37.2
KUBERNETES_LDFLAGS := -s -w $(foreach p,component-base/version client-go/pkg/version,-X k8s.io/$(p).gitVersion=$(KUBERNETES_VERSION) -X k8s.io/$(p).gitMajor=1 -X k8s.io/$(p).gitMinor=37)
$(BIN)/kubernetes/kubelet: internal/kubernetes/go.mod
	CGO_ENABLED=0 $(GO) build -C internal/kubernetes -trimpath -ldflags '$(KUBERNETES_LDFLAGS)' -o $(CURDIR)/$(BIN)/kubernetes/etcd go.etcd.io/etcd/server/v3
	CGO_ENABLED=0 $(GO) build -C internal/kubernetes -trimpath -ldflags '$(KUBERNETES_LDFLAGS)' -o $(CURDIR)/$(BIN)/kubernetes/ \
	  $(addprefix k8s.io/kubernetes/cmd/,kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet)
e2e-kubernetes: $(BIN)/kubernetes/kubelet ## The overlays on a real API server, their pods by real controllers, and those of overlays/badger in a kubelet; needs root and containerd
	LUMINATE_TEST_REQUIRE_CLICKHOUSE=1 $(GO) test -tags kubernetes -count=1 -timeout 20m -run '^TestKubernetes$$' -v ./deploy

check: fmt vet lint test ## What every commit passes

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt'ed:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e ./...
	$(GO) vet -tags cluster ./storage/clickhouse
	$(GO) vet -tags image ./deploy
	$(GO) vet -tags kubernetes ./deploy

lint: $(BIN)/golangci-lint
	$(BIN)/golangci-lint run ./...

$(BIN)/golangci-lint:
	GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

# A real Prometheus for the tests, from its module, built once into GOBIN (about three minutes, then cached).
PROM_VERSION := v0.316.0
GOBIN_DIR := $(or $(shell $(GO) env GOBIN),$(shell $(GO) env GOPATH)/bin)
prometheus: $(GOBIN_DIR)/prometheus
$(GOBIN_DIR)/prometheus:
	$(GO) install -tags remove_all_sd,netgo github.com/prometheus/prometheus/cmd/prometheus@$(PROM_VERSION)
promtool: $(GOBIN_DIR)/promtool
$(GOBIN_DIR)/promtool:
	$(GO) install -tags remove_all_sd,netgo github.com/prometheus/prometheus/cmd/promtool@$(PROM_VERSION)

# The newest VictoriaMetrics that Go 1.26 builds; about a minute and a half, once. victoria-metrics is for
# bench-compare: BENCHFLAGS='--peers luminate,victoriametrics'.
VICTORIA_VERSION := v1.151.0
victoria: $(GOBIN_DIR)/vmagent $(GOBIN_DIR)/vmalert
$(GOBIN_DIR)/vmagent $(GOBIN_DIR)/vmalert $(GOBIN_DIR)/victoria-metrics:
	$(GO) install github.com/VictoriaMetrics/VictoriaMetrics/app/$(@F)@$(VICTORIA_VERSION)

bench: ## Go benchmarks, fit for benchstat
	$(GO) test -run '^$$' -bench . -benchmem $(PKGS)

bench-compare: build prometheus ## Luminate beside Prometheus on the same bytes; BENCHFLAGS for luminate-bench
	$(BIN)/luminate-bench compare $(BENCHFLAGS)

# Kills, power cuts, full disks, flipped bits, overload and hostile clients against the real binary; root for
# the parts that mount a disk. The report is JSON: CHAOSFLAGS='--rounds 20 --only kill,disk --out chaos.json'.
chaos: build ## Make trouble for the real binary and check every promise
	$(BIN)/luminate-bench chaos $(CHAOSFLAGS)

# k6 is built from its module once, into GOBIN (some minutes, then cached).
K6_VERSION := v1.8.1
$(GOBIN_DIR)/k6:
	$(GO) install go.k6.io/k6@$(K6_VERSION)

load: build $(GOBIN_DIR)/k6 ## Load tests with k6: throughput, latencies, and PASS or FAIL of each floor; BACKEND=clickhouse, DURATION, VUS, LUMINATE_URL
	deploy/load/run.sh $(GOBIN_DIR)/k6 $(BIN)/luminate $(LOADSCRIPTS)

# The hour that ClickHouse's merges must keep up with: PARTSFLAGS='--duration 10m --processes 10'.
parts: build ## Ten processes write small blocks into one ClickHouse for an hour: parts stay few, nothing is refused or lost
	$(BIN)/luminate-bench parts $(PARTSFLAGS)

soak: build ## Write a known function of time to a running server and check every read; SOAKFLAGS
	$(BIN)/luminate-bench soak $(SOAKFLAGS)

FUZZTIME ?= 30s
fuzz: ## Every fuzz target for FUZZTIME, two at a time; FUZZFLAGS='-only RE'
	$(GATES) fuzz -time $(FUZZTIME) $(FUZZFLAGS) $(PKGS)

cover: ## Coverage of statements by the quick tests, by package; fails under COVERFLOOR percent
	$(GATES) test -short $(TESTFLAGS) $(COVER) $(PKGS)
	$(MAKE) cover-report

# The test engine of ClickHouse runs as a process of its own, and the gates judge: neither is the product.
COVERFLOOR := 80
cover-report: ## The same of the coverage.out that the last `make cover` or `make e2e` left
	$(GATES) cover -floor $(COVERFLOOR) -skip internal/gates,chtest,chtest/chserver,chtest/internal/engine,chtest/internal/wire coverage.out

# Binaries for both architectures, the version stamped in, with the bill of materials and the checksums.
CYCLONEDX_VERSION := v1.10.0
dist: ## Release files into dist/
	@rm -rf dist && mkdir -p dist
	@set -e; for arch in amd64 arm64; do for cmd in luminate luminate-bench; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/$$cmd-linux-$$arch ./cmd/$$cmd; done; done
	@for cmd in luminate luminate-bench; do GOOS=linux $(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION) \
	  app -json -licenses=false -main cmd/$$cmd -output dist/$$cmd.cdx.json . || exit 1; done
	@if [ "$$(uname -s)/$$($(GO) env GOARCH)" = Linux/amd64 ]; then dist/luminate-linux-amd64 version | grep -F '$(VERSION)'; fi
	@cd dist && sha256sum luminate* > SHA256SUMS && cat SHA256SUMS

# govulncheck asks vuln.go.dev; actionlint reads .github/workflows.
VULN_VERSION := v1.9.0
vuln: ## Known vulnerabilities in what the binaries call
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION) ./...
ACTIONLINT_VERSION := v1.7.12
actionlint: ## Check the workflows of GitHub
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
tidy: ## go.mod and go.sum are as go mod tidy leaves them; asks the module proxy
	$(GO) mod tidy -diff

clean:
	rm -rf $(BIN) dist coverage.out
