# make demo   the article's scenario, for real        make test   the whole test suite
# make check  linters, types, layers                  make bench  speeds, side by side
# make fuzz   bent input, MINUTES=5                   make clean  remove what these brought (packages stay)
# make chaos  kills and stops, what they cost         make soak   faults by chance, MINUTES=10
# make test-cluster  two Kubernetes nodes, in namespaces
# make test-stock-kernel  what this kernel lacks, on the distribution's own, in qemu

.PHONY: help demo test test-cluster test-stock-kernel check bench fuzz chaos soak clean run-setup dev-setup
BIN := .venv/bin
SITUATIONS := $(addprefix --situation ,idle ping stream request)

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run-setup:
	@tools/setup.sh run

dev-setup:
	@tools/setup.sh dev

demo: run-setup
	@$(BIN)/nsm demo

# what the API server's tests need is built meanwhile; those tests come last and wait for it
test: dev-setup
	@if command -v go >/dev/null; then nice -n 15 tests/kubernetes/lab/build.sh api >/dev/null 2>&1 & fi; \
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

test-cluster: dev-setup
	@apt-get install -y -q --no-install-recommends containerd runc containernetworking-plugins iptables nftables \
	    busybox-static dash iproute2 util-linux procps curl openssl >/dev/null
	@NSMESH_LAB=$${NSMESH_LAB:-$$HOME/.cache/nsmesh-lab} tests/kubernetes/lab/build.sh cluster helm
	@NSMESH_TEST_CLUSTER=1 $(BIN)/pytest tests/kubernetes/cluster $(ARGS)

test-stock-kernel: dev-setup
	@NSMESH_TEST_STOCK_KERNEL=1 $(BIN)/pytest tests/stock_kernel $(ARGS)

check: dev-setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: dev-setup
	@$(BIN)/python bench/run.py $(ARGS)

chaos: run-setup
	@$(BIN)/nsm chaos run --json chaos.json $(if $(findstring --situation,$(ARGS)),,$(SITUATIONS)) $(ARGS)

soak: run-setup
	@$(BIN)/nsm chaos soak --minutes $(or $(MINUTES),10) $(ARGS)

clean:
	@if [ -x $(BIN)/nsm ]; then $(BIN)/nsm -q --mesh demo down --purge 2>/dev/null || true; fi
	@rm -rf chaos.json .venv .make .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find src -name '*.egg-info' -prune -exec rm -rf {} +

fuzz: dev-setup
	@$(BIN)/python tests/fuzz/fuzzing.py $(or $(MINUTES),5) $(TARGETS)
