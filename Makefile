# Two commands on a fresh machine: `make train` and `make test`. Everything is installed into .venv.
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= lenet5
# Flags for the command behind a target: make train ARGS="--epochs 5"
ARGS ?=
# The Python to use; one given once stays the one of .venv.
ifndef PYTHON
PYTHON := $(or $(shell $(BIN)/python -c 'import sys; print(sys._base_executable)' 2>/dev/null),python3)
endif
TESTED := 3.11 3.12 3.13 3.14
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# The versions to install, a file in constraints/: gpu-image is what images for GPUs carry, and torch does not install beside it.
PINS ?= $(if $(filter 3.11,$(VERSION)),python311,python312)
# 0: no torch and torchvision, which are gigabytes, and no test that compares with them.
PEERS ?= $(if $(filter gpu-image,$(PINS)),0,1)
# torch asks for one Triton; without torch it is the newest.
TRITON ?= $(if $(filter gpu-image,$(PINS)),3.6.0,$(if $(filter 0,$(PEERS)),3.9.0,3.7.1))

# CUDA JAX where nvidia-smi lists a GPU. GPU=0 and GPU=1 say so without a look.
ifdef GPU
WHY := GPU=$(GPU) was given
else
SMI := $(shell if command -v nvidia-smi >/dev/null; then nvidia-smi -L 2>&1 | sed -n '1s/ .UUID.*//;1p'; else echo absent; fi)
GPU := $(if $(filter GPU,$(firstword $(SMI))),$(if $(filter %:,$(word 2,$(SMI))),1,0),0)
WHY := $(if $(filter absent,$(SMI)),nvidia-smi not found,nvidia-smi -L: $(or $(SMI),nothing printed))
endif
ifeq ($(GPU),0)
JAX := cpu
CHOICE := no GPU ($(WHY)): JAX for the CPU
else
JAX := cuda
CHOICE := GPU ($(WHY)): JAX for CUDA; GPU=0 is for the CPU
endif

# What each environment holds.
comma := ,
EXTRAS := $(if $(filter 0,$(PEERS)),,$(comma)peers)
CUDA := $(if $(filter cuda,$(JAX)),$(comma)gpu)
TRAIN := '.[train$(CUDA)]' $(if $(CUDA),triton==$(TRITON))
TEST := '.[train,test$(EXTRAS)$(CUDA)]' triton==$(TRITON)
LINT := '.[lint]'
ONNX := '.[onnx]' pytest pytest-timeout
# Neither JAX nor this project: pages are made of text, and a browser is driven.
DOCS := mkdocs-material mkdocstrings-python selenium pytest pytest-timeout
PIP := pip install --quiet --disable-pip-version-check --constraint
# Files that say what was installed. Another Python, other versions or another JAX: .venv is made anew.
MADE := $(VENV)/.python$(VERSION)-$(PINS)-$(JAX)
TRAIN_READY := $(VENV)/.train
TEST_READY := $(VENV)/.test-triton$(TRITON)$(subst $(comma),-,$(EXTRAS))
LINT_READY := $(VENV)/.lint
ONNX_READY := $(VENV)-onnx/.python$(VERSION)
DOCS_READY := $(VENV)-docs/.python$(VERSION)
PINNED := pyproject.toml constraints/common.txt

GPU_PARTS := check test tune compare-operators compare-models guide
.PHONY: choice train test test-long test-fast test-versions test-onnx test-pages docs installed installed-onnx installed-docs gpu gpu-found $(GPU_PARTS:%=gpu-%)
.PHONY: lint dist format resolve resolve-test resolve-lint resolve-onnx resolve-docs clean

# Large arrays in huge pages, where glibc knows how: a training step on a CPU then takes less time.
train: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
train: export JAX_PLATFORMS := $(or $(JAX_PLATFORMS),$(if $(CUDA),,cpu))
train: choice $(TRAIN_READY)
	$(if $(CUDA),@$(BIN)/python -c '$(FINDS_GPU)')
	$(BIN)/python -m experiments.train $(MODEL) $(ARGS)

# JAX goes on with the CPU where CUDA does not start; who was promised the GPU is told so.
FINDS_GPU := import jax, sys; sys.exit(jax.default_backend() != "gpu" and "JAX finds no GPU here; GPU=0 is for the CPU")

choice:
	@:$(info $(CHOICE))

# The whole suite; the peers it compares with (torch, torchvision) are installed too. It runs on the CPU.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal $(if $(filter 0,$(PEERS)),--ignore-glob='*_torch.py')
test: $(TEST_READY)
	$(PYTEST) -m "not gpu and not onnx and not browser and not long" --durations=40 --durations-min=5 $(ARGS)

# Two tests of minutes: training runs that are killed, stopped and damaged (python -m experiments.soak does that for an hour), and
# ResNet-20 on a mesh in float64.
test-long: $(TEST_READY)
	$(BIN)/python -m pytest -m long tests/experiments/test_soak.py tests/experiments/test_mesh.py $(ARGS)

# A part of it for while one works: each operator's compiled code on two architectures, derivatives, models as plain functions, a
# training run, what is imported.
FAST := tests/kernels/test_derivatives.py tests/kernels/test_dispatch.py tests/kernels/test_ptx_operators.py \
  tests/zoo/test_functional.py tests/zoo/test_lenet.py tests/zoo/test_registry.py \
  tests/experiments/test_training.py::test_it_learns tests/test_architecture.py
test-fast: $(TEST_READY)
	$(PYTEST) -m "not gpu and not onnx and not browser and not long and not slow" $(FAST) $(ARGS)

# What can differ between versions of Python, JAX and Triton: that part, what each compiler makes of the kernels, and how they stand
# in JAX. The numbers at drawn shapes and the executor of PTX are ours alone. Of the GPU image the hand-written kernels only.
COMPILED := $(patsubst %,tests/kernels/test_%.py,apart compiled cooperative devices interpret launch linear_act_pallas meshes precision \
  recurrent_compiled recurrent_cudnn recurrent_gpu traffic transformations triton_math)
OF_KERNELS := -k "not xla and not conv" tests/kernels/test_ptx_operators.py tests/kernels/test_derivatives.py tests/kernels/test_dispatch.py
test-versions: $(TEST_READY)
	$(PYTEST) -m "not gpu and not onnx and not browser and not long and not slow" $(COMPILED) $(if $(filter gpu-image,$(PINS)),$(OF_KERNELS),$(FAST)) $(ARGS)

# The environments of these two targets and of the next, installed and not used yet.
installed: $(TEST_READY)
installed-onnx: $(ONNX_READY)
installed-docs: $(DOCS_READY)

# ONNX files, and the operators in ONNX' own tests, in an environment of their own: jax2onnx asks for an older orbax-checkpoint
# than training does.
test-onnx: $(ONNX_READY)
	$(VENV)-onnx/bin/python -m pytest -m onnx tests/zoo/test_onnx.py tests/kernels/test_onnx_nodes.py $(ARGS)

# The documentation site, build/site/index.html; any broken link fails. It is read without a network.
docs: $(DOCS_READY)
	$(VENV)-docs/bin/python -m experiments.pages.site build/pages
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --quiet

# The site and the page of python -m experiments.report --html in a real browser, which must be there: Debian's packages are
# chromium and chromium-driver. Screenshots are in build/screenshots/.
test-pages: $(TEST_READY) docs
	$(BIN)/python -m experiments.report --html build/report.html
	$(VENV)-docs/bin/python -m pytest --noconftest -m browser tests/pages $(ARGS)

# On a machine with a GPU. INSTALL=0 installs nothing and takes PYTHON as it is: make gpu INSTALL=0 PYTHON=python3. Each part can be
# run alone and writes its results as it goes. All but the tests stop within ten minutes and leave out what their result file holds
# of the same sources, so the same command goes on where the last one stopped.
INSTALL ?= 1
RUN := $(if $(filter 0,$(INSTALL)),$(PYTHON),$(BIN)/python)
GPU_READY := $(if $(filter 0,$(INSTALL)),,gpu-found $(TEST_READY))
GPU_PEERS := $(if $(EXTRAS),torch$(comma)torch.compile)

# All parts in order, whatever becomes of each; experiments/results/KIND/gpu.md says what was found.
gpu: $(GPU_READY)
	$(RUN) -m experiments.gpu --peers "$(GPU_PEERS)" $(ARGS)

gpu-found: choice
	@$(if $(CUDA),:,echo "no GPU to run on; GPU=1 installs for one all the same, INSTALL=0 uses PYTHON as it is" >&2; exit 1)

# One part: make gpu-check, gpu-test, gpu-tune, gpu-compare-operators, gpu-compare-models, gpu-guide.
$(GPU_PARTS:%=gpu-%): gpu-%: $(GPU_READY)
	$(RUN) -m experiments.gpu $* --peers "$(GPU_PEERS)" $(ARGS)

lint: $(TEST_READY) $(LINT_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --level error

# The source distribution and the wheel, into dist/. On an index page pictures show where ADDRESS says where the files are served:
# make dist ADDRESS=https://host/owner/name/raw/main
dist: $(TEST_READY)
	rm -rf dist build/dist
	mkdir -p build/dist
	git ls-files -z | xargs -0 cp --parents -t build/dist
	$(if $(ADDRESS),cd build/dist && $(abspath $(BIN))/python -m experiments.pages.links $(ADDRESS))
	$(BIN)/python -m build --no-isolation --outdir dist build/dist
	rm -rf build/dist

format: $(TEST_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or later is needed, $(PYTHON) is $(or $(VERSION),not found); give one with make PYTHON=..." >&2; exit 1; }
	@$(if $(filter $(VERSION),$(TESTED)),:,echo "Python $(VERSION) is not tested; these are: $(TESTED)" >&2)
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(TRAIN_READY): $(PINNED) constraints/$(PINS).txt $(MADE)
	@echo "installing into $(VENV) (once)"
	$(BIN)/$(PIP) constraints/$(PINS).txt --editable $(TRAIN)
	@touch $@

# Without the peers, those installed earlier go: they hold another Triton fast.
$(TEST_READY): $(PINNED) constraints/$(PINS).txt $(MADE)
	@echo "installing into $(VENV) (once)"
	@rm -f $(VENV)/.test-*
	$(if $(EXTRAS),,$(BIN)/pip uninstall -qq --yes torch torchvision)
	$(BIN)/$(PIP) constraints/$(PINS).txt --editable $(TEST)
	@touch $@ $(TRAIN_READY)

$(LINT_READY): $(PINNED) $(TEST_READY)
	$(BIN)/$(PIP) constraints/$(PINS).txt --editable $(LINT)
	@touch $@

$(DOCS_READY): constraints/common.txt constraints/docs.txt
	rm -rf $(VENV)-docs
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/$(PIP) constraints/docs.txt $(DOCS)
	@touch $@

$(ONNX_READY): $(PINNED) constraints/onnx.txt
	rm -rf $(VENV)-onnx
	$(PYTHON) -m venv $(VENV)-onnx
	$(VENV)-onnx/bin/$(PIP) constraints/onnx.txt --editable $(ONNX)
	@touch $@

# That each of these environments can be had from the package registry alone, whatever this machine's pip is told besides: pip's
# resolver says so, and installs nothing. An environment that holds another's requirements, at the same pins, stands for it: what is
# tested with a GPU's packages for what is tested or trained without. pip's own version is given, since older ones fetch whole
# files to read what they need.
RESOLVER := $(VENV)-resolve/.python$(VERSION)
RESOLVE := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_CONSTRAINT PIP_CONFIG_FILE=/dev/null \
  $(VENV)-resolve/bin/pip install -qq --dry-run --ignore-installed --use-feature=fast-deps --constraint
RESOLVED = @echo "resolved on Python $(VERSION) with $(1):" $(2)

resolve: $(RESOLVER)
	$(MAKE) --no-print-directory resolve-test resolve-lint resolve-onnx resolve-docs GPU=1 PEERS=1
	$(MAKE) --no-print-directory resolve-test GPU=1 PEERS=0
	$(if $(filter 3.11,$(VERSION)),,$(MAKE) --no-print-directory resolve-test GPU=0 PEERS=0 PINS=gpu-image)

resolve-test: $(RESOLVER)
	@$(RESOLVE) constraints/$(PINS).txt $(TEST)
	$(call RESOLVED,$(PINS),$(TEST))

resolve-lint: $(RESOLVER)
	@$(RESOLVE) constraints/$(PINS).txt $(LINT)
	$(call RESOLVED,$(PINS),$(LINT))

resolve-onnx: $(RESOLVER)
	@$(RESOLVE) constraints/onnx.txt $(ONNX)
	$(call RESOLVED,onnx,$(ONNX))

resolve-docs: $(RESOLVER)
	@$(RESOLVE) constraints/docs.txt $(DOCS)
	$(call RESOLVED,docs,$(DOCS))

$(RESOLVER):
	rm -rf $(VENV)-resolve
	$(PYTHON) -m venv $(VENV)-resolve
	$(VENV)-resolve/bin/pip install --quiet --disable-pip-version-check pip==26.3
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-onnx $(VENV)-docs $(VENV)-resolve build *.egg-info
