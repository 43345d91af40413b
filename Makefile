# Every target is explained by `make help`.
SHELL   := bash -o pipefail
BIN     := bin/repromill
PKG     := github.com/repromill/repromill
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X $(PKG)/cmd/repromill/internal/cli.releaseVersion=$(VERSION) -X $(PKG)/cmd/repromill/internal/cli.releaseCommit=$(COMMIT)
export CGO_ENABLED ?= 0

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/repromill
	@go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/repromill

.PHONY: demo
demo: build ## a paper's URL to a committed verdict, offline, from nothing
	@$(BIN) run --mirror examples/mirror https://autoarxiv.org/abs/2604.08075 --yes

.PHONY: demo-quant
demo-quant: build ## BF16, FP8, NVFP4 W4A16 and W4A4 of a small model: accuracy and throughput measured, on the CPU
	@$(BIN) run ./examples/models/tiny/weights --quantize fp8,nvfp4,nvfp4-w4a4 \
	  --suites synthetic-choice,throughput --margin 2pt --questions 4000 \
	  --load-isl 512 --load-osl 64 --load-concurrency 48 --load-requests 96 --load-rounds 4 --load-floor 10 \
	  --html bin/demo-quant.html --card bin/demo-quant.png --executor local --max-wall 8m --yes

.PHONY: test
test: lint ## static checks and all tests, with the race detector where there is a C compiler
	@race=; if command -v $${CC:-cc} >/dev/null; then race=-race; export CGO_ENABLED=1; else echo 'no C compiler: the race detector is left out'; fi; \
	  go test $$race -timeout 30m -json ./... | go run ./cmd/testreport

.PHONY: test-fast
test-fast: ## all tests without the race detector
	@go test -json -short ./... | go run ./cmd/testreport

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, go.mod
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not gofmt-clean:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go tool staticcheck ./...
	@go mod verify >/dev/null

.PHONY: e2e
e2e: build ## kill the command and the runner at every durable step and resume
	@go test -count=1 -json -tags e2e -run Kill -timeout 40m ./cmd/repromill ./runner | go run ./cmd/testreport

.PHONY: e2e-docker
e2e-docker: build ## papers, hostile programs and faults in Docker, which is installed and started where it lacks
	@vars=$$(.ci/docker.sh up) || { code=$$?; [ $$code = 75 ] && exit 0; exit $$code; }; eval "$$vars"; \
	  trap '.ci/docker.sh down' EXIT; \
	  export REPROMILL_BINARY=$(CURDIR)/$(BIN); \
	  { go test -count=1 -json -timeout 20m ./runner/docker/... ./runner/image/...; \
	    go test -count=1 -json -timeout 10m -run Container ./runner/server; \
	    go test -count=1 -json -tags e2e -timeout 20m -run '^TestDocker' ./cmd/repromill; } | go run ./cmd/testreport

.PHONY: e2e-web
e2e-web: ## a browser from a pasted URL to the verdict; Chromium is installed where it lacks (pictures in $REPROMILL_SHOTS)
	@.ci/browser.sh || { code=$$?; [ $$code = 75 ] && exit 0; exit $$code; }; \
	  go test -count=1 -json -tags e2e -timeout 10m -run '^TestBrowser' ./cmd/repromill | go run ./cmd/testreport

.PHONY: e2e-notebooks
e2e-notebooks: build ## every notebook on the committed data; installs Python packages into a folder of their own
	@.ci/notebooks.sh || { code=$$?; [ $$code = 75 ] && exit 0; exit $$code; }

.PHONY: e2e-cluster
e2e-cluster: build ## runs on a real Kubernetes with Kueue, which is built and started for it (Linux, root)
	@go build -o bin/devcluster ./cmd/devcluster
	@bin/devcluster up && trap 'bin/devcluster down' EXIT && bin/devcluster image && eval "$$(bin/devcluster env)" && export CGO_ENABLED=0 REPROMILL_BINARY=$(CURDIR)/$(BIN) && \
	  { go test -count=1 -json -tags cluster -timeout 30m -skip 'Scale|Simulated' ./runner/kueue && \
	    go test -count=1 -json -tags cluster -timeout 30m -parallel 8 -run 'Cluster|DemoPaper|TestSubmit' ./cmd/repromill && bin/devcluster kwok --nodes 20 >&2 && bin/devcluster worker --nodes 2 >&2 && eval "$$(bin/devcluster env)" && \
	    go test -count=1 -json -tags cluster -timeout 10m -run 'Scale|Simulated' ./runner/kueue; } | go run ./cmd/testreport

.PHONY: bench-cluster
bench-cluster: ## submits and watches 5,000 Jobs on simulated nodes of a real control plane (Linux, root)
	@go build -o bin/devcluster ./cmd/devcluster
	@bin/devcluster up && trap 'bin/devcluster down' EXIT && bin/devcluster kwok --nodes 50 && eval "$$(bin/devcluster env)" && export CGO_ENABLED=0 && \
	  REPROMILL_SCALE_JOBS=5000 go test -count=1 -v -tags cluster -timeout 15m -run TestScale ./runner/kueue

.PHONY: bench
bench: ## benchmarks of the hot paths
	@go test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## every fuzz test for ten seconds
	@for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime 10s $$pkg || exit 1; done; done

.PHONY: golden
golden: ## rewrite the golden files
	@go test $$(grep -rl --include=*_test.go 'flag.Bool("update"' . | xargs -n1 dirname | sort -u) -update

.PHONY: release
release: ## static binaries for linux and darwin, amd64 and arm64, with checksums, in dist/
	@rm -rf dist && mkdir -p dist
	@for os in linux darwin; do for arch in amd64 arm64; do \
	  echo "dist/repromill-$(VERSION)-$$os-$$arch"; \
	  GOOS=$$os GOARCH=$$arch go build -trimpath -ldflags '$(LDFLAGS)' -o dist/repromill-$(VERSION)-$$os-$$arch ./cmd/repromill || exit 1; done; done
	@cd dist && sha256sum repromill-* > SHA256SUMS && cat SHA256SUMS

.PHONY: clean
clean: ## remove what make built
	@rm -rf bin dist
