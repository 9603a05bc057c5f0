# From a fresh clone every target sets up what it needs: `make demo` is enough.

PYTHON ?= python3
# of several Pythons kept by pyenv only one is on the path
PYTHON310 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10) python3.10)
# PyTorch. PyPI's for Linux brings CUDA, some gigabytes: where there is no NVIDIA GPU its CPU build is taken, from
# PyTorch's own index, and PyPI's if that cannot be had; what torch needs comes from PyPI. Another, for example one for
# CUDA 12.8:
#   make demo SCIART_TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu128"
TORCH := torch==2.13.0
KIND := $(shell if [ "$$(uname -s)" != Linux ]; then echo plain; elif command -v nvidia-smi >/dev/null; then echo cuda; \
	else echo cpu; fi)
TORCH_cpu := $(TORCH)+cpu --no-deps --extra-index-url https://download.pytorch.org/whl/cpu
SCIART_TORCH ?= $(or $(TORCH_$(KIND)),$(TORCH))
DOWNLOAD_cpu := 320 MB to download, 1.2 GB on disk
DOWNLOAD_plain := some 250 MB to download, 1.2 GB on disk
DOWNLOAD_cuda := with CUDA some gigabytes to download
install_torch = $(1) $(SCIART_TORCH)$(if $(filter $(TORCH_cpu),$(SCIART_TORCH)), || { echo \
	"The CPU build cannot be had: PyPI's is taken. It has CUDA and is some gigabytes."; $(1) $(TORCH); })

VENV := .venv
BIN := $(VENV)/bin
STAMPDEMO := $(VENV)/.demo
STAMP := $(VENV)/.installed
VENV310 := .venv310
STAMP310 := $(VENV310)/.installed
VENVPAGE := .venv-page
STAMPPAGE := $(VENVPAGE)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-host test-310 lint bench bench-gpu clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /\1|/' | awk -F'|' '{printf "%-10s %s\n", $$1, $$2}'

# torch first and alone, so that nothing after it chooses another build; modules are compiled when they are imported
PIP_INSTALL := $(BIN)/pip install --disable-pip-version-check --no-compile
$(STAMPDEMO): pyproject.toml
	@echo "PyTorch, diffusers and what they need are installed into $(VENV), once: $(DOWNLOAD_$(KIND))."
	@echo "On a fast connection this takes one to three minutes."
	$(PYTHON) -m venv $(VENV)
	@$(call install_torch,$(PIP_INSTALL))
	$(PIP_INSTALL) -e ".[standalone]"
	touch $@

# and what tests need
$(STAMP): $(STAMPDEMO)
	$(PIP_INSTALL) --quiet -e ".[standalone,dev]"
	touch $@

# what the WebUI v1.10.1 installs on Python 3.10, and the newest libraries that still run on it
$(STAMP310): pyproject.toml
	$(PYTHON310) -m venv $(VENV310)
	$(VENV310)/bin/pip install --quiet --disable-pip-version-check torch==2.1.2 numpy==1.26.4 pydantic==1.10.15
	$(VENV310)/bin/pip install --quiet --disable-pip-version-check -e ".[standalone,dev]" torch==2.1.2 \
		numpy==1.26.4 pydantic==1.10.15 fastapi==0.94.0 httpx==0.24.1 diffusers==0.32.2 transformers==4.46.3 peft==0.13.2 \
		accelerate==1.4.0 huggingface-hub==0.29.3 lycoris-lora==3.4.0
	touch $@

# the page that the browser tests open, with the WebUI's gradio
$(STAMPPAGE): tests/browser/requirements.txt
	$(PYTHON) -m venv $(VENVPAGE)
	$(call install_torch,$(VENVPAGE)/bin/pip install --quiet --disable-pip-version-check)
	$(VENVPAGE)/bin/pip install --quiet --disable-pip-version-check torch -r tests/browser/requirements.txt
	touch $@

# a browser to open it: the system's, or Playwright's own; without one those tests are skipped, and say so
$(VENV)/.browser: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[browser]"
	$(BIN)/python tests/chromium.py || $(BIN)/playwright install chromium || echo "The browser tests will not run."
	touch $@

# a client of the WebUI's API, for the host suite
$(VENV)/.host: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[host]"
	touch $@

# tests are shared out between processes, each with one thread; one that is done takes half of what another has left;
# one more than there are cores, for some wait for a browser
WORKERS := $(shell $(PYTHON) -c "import os; print(min((os.cpu_count() or 1) + 1, 5))")
# what is imported is kept compiled, whatever the environment says: many tests start a Python, which would compile all of
# torch and diffusers each time
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
PYTEST := $(TESTING) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

demo: $(STAMPDEMO) ## a page of pictures of the tiny model, mixed, steered and explained: out/demo/index.html
	$(BIN)/python -m sciart_ext.standalone.demo --out out/demo

test: $(STAMP) $(STAMPPAGE) $(VENV)/.browser ## all tests that need no WebUI
	SCIART_GRADIO_PYTHON=$(VENVPAGE)/bin/python $(PYTEST) --ignore tests/host

test-310: $(STAMP310) ## the same on Python 3.10, torch 2.1.2 and pydantic 1.10, what the WebUI runs on
	$(TESTING) $(VENV310)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile \
		--ignore tests/host --ignore tests/browser

test-host: $(VENV)/.browser $(VENV)/.host ## tests in a real WebUI v1.10.1: SCIART_WEBUI=its folder
	@test -n "$(SCIART_WEBUI)" || { echo "set SCIART_WEBUI to the folder of a WebUI v1.10.1"; exit 2; }
	SCIART_WEBUI="$(SCIART_WEBUI)" $(TESTING) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/host

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .

BENCHMARKS := world mix steer explain breadth
bench: $(STAMP) ## the benchmarks, into benchmarks/results; BENCH=--quick for a short look
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(BENCH) || exit 1; done

bench-gpu: $(STAMP) ## on a GPU: right, quick, within memory; BENCH=--pretend counts without one
	$(BIN)/python -m benchmarks.gpu $(BENCH)

clean: ## removes environments, caches and outputs
	rm -rf $(VENV) $(VENV310) $(VENVPAGE) out build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
