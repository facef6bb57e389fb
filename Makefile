# Most commands build the environment in .venv first, if it is not there yet. What needs no MMCV uses a small one
# in .cache instead, unless .venv is there.
PYTHON ?= python3
BIN := .venv/bin
LINT := $(if $(and $(wildcard $(BIN)/ruff),$(wildcard $(BIN)/mypy)),$(BIN),.cache/lint/bin)
DOCS := $(if $(wildcard $(BIN)/sphinx-build),$(BIN),.cache/docs/bin)/python
UNIT := $(if $(wildcard $(BIN)/pytest),$(BIN),.cache/unit/bin)/python
# What neither needs compiled operators nor starts a training.
FAST := tests/models tests/weights tests/datasets tests/engine tests/utils tests/runtime \
	tests/test_layering.py tests/test_project.py tests/test_setup_env.py tests/test_stack.py
BUILD := $(if $(TORCH),--torch "$(TORCH)") $(if $(CUDA),--cuda "$(CUDA)") $(if $(ARCHS),--archs "$(ARCHS)")
INSTALL := -m pip --disable-pip-version-check install -q $(patsubst %,-c %,$(wildcard requirements/*.txt))

.PHONY: help setup wheel-mmcv demo demo-det test test-fast test-avx2 test-frameworks nightly fuzz lint format docs gpu cluster clean

help:
	@echo "make demo [DATA=folder] [GPUS=n]  train CAFormer-S18 + UperNet on a small data set and evaluate it"
	@echo "make demo-det [the same]          the same with Mask R-CNN, on data in COCO's layout"
	@echo "make test [ARGS=...]              run the tests (ARGS goes to pytest)"
	@echo "make test-fast [ARGS=...]         run the unit tests that need PyTorch and MMEngine alone, in 4 minutes"
	@echo "make test-avx2 [ARGS=...]         test models and weights as on a processor without AVX-512"
	@echo "make test-frameworks [ARGS=...]   test the networks with PEFT, torchao, Quanto and THOP, in an environment"
	@echo "                                  of their own"
	@echo "make nightly [ARGS=...]           run the sweeps that are too long for the tests"
	@echo "make fuzz [ARGS=...]              use all commands wrongly for ten minutes"
	@echo "make lint                         check style, format and types"
	@echo "make format                       format the code"
	@echo "make docs                         build the pages into docs/_build/html"
	@echo "make gpu [WHEELS=folder]          prove and measure everything on a GPU, into docs/gpu, with the PyTorch"
	@echo "                                  that is there; what else is needed is installed from the folder"
	@echo "make cluster [ARGS=...]           try two hosts and a Slurm cluster of network namespaces, as root, with"
	@echo "                                  iproute2, slurm-wlm and munge; into docs/reliability.md"
	@echo "make setup                        only build the environment; TORCH=keep takes the PyTorch that is there,"
	@echo "                                  STACK=onedl the maintained fork, CUDA=0 no CUDA operators"
	@echo "make wheel-mmcv CUDA=1 ARCHS=9.0 [PYTHON=python3.12] [TORCH=2.11.0]"
	@echo "                                  compile MMCV for another machine"
	@echo "make clean                        remove the environment and what was built"

setup:
	@$(PYTHON) tools/setup_env.py $(if $(STACK),--stack "$(STACK)") $(BUILD)

wheel-mmcv:
	@$(PYTHON) tools/mmcv_wheel.py $(BUILD)

demo: setup
	@$(BIN)/python tools/demo.py $(if $(DATA),--data "$(DATA)") $(if $(GPUS),--processes "$(GPUS)")

demo-det: setup
	@$(BIN)/python tools/demo.py --task detection $(if $(DATA),--data "$(DATA)") $(if $(GPUS),--processes "$(GPUS)")

test: setup
	@$(BIN)/python -m pytest $(ARGS)

test-fast: $(if $(filter .cache/%,$(UNIT)),.cache/unit/ready)
	@$(UNIT) -m pytest $(FAST) $(ARGS)

# PyTorch, oneDNN and MKL are held to AVX2, whatever the processor has.
test-avx2: export ATEN_CPU_CAPABILITY = avx2
test-avx2: export ONEDNN_MAX_CPU_ISA = AVX2
test-avx2: export MKL_ENABLE_INSTRUCTIONS = AVX2
test-avx2: setup
	@$(BIN)/python -m pytest tests/models tests/weights $(ARGS)

# Without MMPretrain, which cannot be imported beside their transformers.
test-frameworks: .cache/frameworks/ready
	@.cache/frameworks/bin/python -m pytest -n 0 tests/models/frameworks.py $(ARGS)

nightly: setup
	@$(BIN)/python -m pytest --nightly $(ARGS)

fuzz: setup
	@$(BIN)/python tests/hostile/cli.py --minutes 10 $(ARGS)

lint: $(if $(filter .cache/%,$(LINT)),.cache/lint/ready)
	@$(LINT)/ruff check .
	@$(LINT)/ruff format --check .
	@$(LINT)/mypy

format: $(if $(filter .cache/%,$(LINT)),.cache/lint/ready)
	@$(LINT)/ruff check --fix .
	@$(LINT)/ruff format .

.cache/lint/ready: requirements/tests.txt
	@$(PYTHON) -m venv .cache/lint
	@.cache/lint/bin/python $(INSTALL) ruff mypy
	@touch $@

.cache/docs/ready: pyproject.toml $(wildcard requirements/*.txt)
	@$(PYTHON) -m venv .cache/docs
	@.cache/docs/bin/python $(INSTALL) -e . mmengine torchvision sphinx myst-parser furo
	@touch $@

.cache/unit/ready: pyproject.toml $(wildcard requirements/*.txt)
	@$(PYTHON) -m venv .cache/unit
	@.cache/unit/bin/python $(INSTALL) -e . mmengine pytest pytest-xdist
	@touch $@

.cache/frameworks/ready: pyproject.toml $(wildcard requirements/*.txt)
	@$(PYTHON) -m venv .cache/frameworks
	@.cache/frameworks/bin/python $(INSTALL) -e . mmengine timm peft torchao optimum-quanto thop pytest pytest-xdist
	@touch $@

docs: $(if $(filter .cache/%,$(DOCS)),.cache/docs/ready)
	@$(DOCS) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# With the PyTorch of the machine and its CUDA: nothing is built or fetched.
gpu: SITE := $(CURDIR)/work_dirs/gpu/site
gpu: RUN := $(or $(wildcard $(BIN)/python),$(PYTHON))
gpu:
	@$(if $(WHEELS),$(RUN) -m pip install -q --no-index --no-deps --upgrade --target "$(SITE)" "$(WHEELS)"/*.whl)
	@PYTHONPATH="$(CURDIR):$(SITE):$$PYTHONPATH" $(RUN) tools/gpu_report.py

cluster: setup
	@$(BIN)/python benchmarks/cluster/run.py $(ARGS)

clean:
	rm -rf .venv .cache build docs/_build dist *.egg-info .pytest_cache .ruff_cache
