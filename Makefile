# Two commands on a fresh machine: `make train` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
MODEL ?= lenet5
# Flags for the command behind a target: make train ARGS="--epochs 5"
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("311" if sys.version_info < (3, 12) else "312")')
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints/python$(VERSION).txt --editable

.PHONY: train test test-newest test-onnx gpu test-gpu tune-gpu compare-operators compare-models guide-gpu lint format clean

# Large arrays in huge pages, where glibc knows how: a training step on a CPU then takes less time.
train: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
train: $(VENV)/.train
	$(BIN)/python -m experiments.train $(MODEL) $(ARGS)

# The whole suite; the peers it compares with (torch, torchvision) are installed too.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu and not onnx" $(ARGS)

# The fast part, without the peers: what is run on the newest versions.
test-newest: $(VENV)/.test-newest
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu and not onnx and not slow" --ignore-glob='*_torch.py' $(ARGS)

# ONNX files, in an environment of their own: jax2onnx asks for an older orbax-checkpoint than training does.
test-onnx: $(VENV)-onnx/.test
	$(VENV)-onnx/bin/python -m pytest -m onnx tests/zoo/test_onnx.py $(ARGS)

# On a machine with a GPU, with the Python it is given and nothing installed: make gpu PYTHON=python3. Each part can be run alone
# and writes its results as it goes. All but the tests stop within ten minutes and leave out what their result file holds of the
# same sources, so the same command goes on where the last one stopped.
GPU_COMPARE := $(PYTHON) -m experiments.compare --minutes 9 --peers torch,torch.compile

gpu:
	$(MAKE) test-gpu
	$(MAKE) tune-gpu
	$(MAKE) compare-operators
	$(MAKE) compare-models
	$(MAKE) guide-gpu

test-gpu:
	$(PYTHON) -m pytest -o addopts= -W ignore::pytest.PytestConfigWarning -m gpu tests/kernels $(ARGS)

tune-gpu:
	JAX_KERNEL_ZOO_CACHE=kernels/tuned $(PYTHON) -m kernels tune --minutes 9 $(ARGS)

compare-operators:
	$(GPU_COMPARE),flax operators $(ARGS)

compare-models:
	$(GPU_COMPARE) models $(ARGS)

guide-gpu:
	$(PYTHON) -m experiments.guide all --minutes 9 $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; give one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints/python$(VERSION).txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (once)"
	$(INSTALL) '.[train]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints/python$(VERSION).txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (once)"
	$(INSTALL) '.[train,test,peers]'
	@touch $@ $(VENV)/.train

$(VENV)/.test-newest: pyproject.toml constraints/python$(VERSION).txt | $(VENV)/bin/python
	$(INSTALL) '.[train,test]'
	@touch $@ $(VENV)/.train

$(VENV)-onnx/.test: pyproject.toml constraints/onnx311.txt
	$(PYTHON) -m venv $(VENV)-onnx
	$(VENV)-onnx/bin/pip install --quiet --disable-pip-version-check --constraint constraints/onnx311.txt --editable '.[onnx]' pytest pytest-timeout
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-onnx build *.egg-info
