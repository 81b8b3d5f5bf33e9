# Every target makes the environment first (.venv, from uv.lock) if it isn't there or is out of date.
# Needs python3 >= 3.11, make and git; .ci/environment gets the rest.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
STAMP := .venv/.synced
PYTHON_IN := .venv/bin/python
FAST := not slow and not flowers and not browser and not cluster

.PHONY: help demo test check format bench docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' Makefile

demo: $(STAMP) ## The main job, end to end: data, two models, gates, release, report (minutes)
	@.venv/bin/dual demo

test: $(STAMP) ## The tests that need nothing but this machine
	@OPENBLAS_NUM_THREADS=1 $(PYTHON_IN) -m pytest -m "$(FAST)"

check: $(STAMP) ## Lint, format and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright

format: $(STAMP) ## Sort imports and format
	@.venv/bin/ruff check --fix --select I .
	@.venv/bin/ruff format .

bench: $(STAMP) ## Run the benchmarks; DATA=folder and WEIGHTS=file.h5 add training and int8, CLUSTER=kubeconfig names an API server
	@failed=0; run() { printf '\n== %s ==\n' "$$1"; $(PYTHON_IN) -m benchmarks."$$@" || failed=1; }; \
	run overhead; run ingest; run serving; \
	if [ -n "$(CLUSTER)" ]; then run rollout_scale --kubeconfig "$(CLUSTER)"; \
	elif [ -x "$${DUAL_SHARED:-../shared}/rig/rig" ]; then run rollout_scale; \
	else echo "rollout_scale left out: it needs the rig in ../shared (or DUAL_SHARED), or make bench CLUSTER=kubeconfig"; fi; \
	if [ -n "$(DATA)" ] && [ -n "$(WEIGHTS)" ]; then \
	  run training --data "$(DATA)" --weights "$(WEIGHTS)"; run int8 --data "$(DATA)" --weights "$(WEIGHTS)"; \
	else echo "training and int8 left out: they need make bench DATA=folder WEIGHTS=file.h5"; fi; exit $$failed

docs: $(STAMP) ## Write what is generated: parts of docs/, and the compiled pipelines
	@$(PYTHON_IN) -m pipelines.docs
	@.venv/bin/dual compile --golden

clean: ## Remove caches and build outputs; the environment, stores and downloads stay
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml uv.lock .ci/environment
	@.ci/environment
	@touch $@
