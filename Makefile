# Every command builds the environment in .venv first, if it is not there yet.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo demo-det test nightly fuzz lint format docs gpu clean

help:
	@echo "make demo [DATA=folder] [GPUS=n]  train CAFormer-S18 + UperNet on a small data set and evaluate it"
	@echo "make demo-det [the same]          the same with Mask R-CNN, on data in COCO's layout"
	@echo "make test [ARGS=...]              run the tests (ARGS goes to pytest)"
	@echo "make nightly [ARGS=...]           run the sweeps that are too long for the tests"
	@echo "make fuzz [ARGS=...]              use all commands wrongly for ten minutes"
	@echo "make lint                         check style and format"
	@echo "make format                       format the code"
	@echo "make docs                         build the pages into docs/_build/html"
	@echo "make gpu [WHEELS=folder]          prove and measure everything on a GPU, into docs/gpu, with the PyTorch"
	@echo "                                  that is there; what else is needed is installed from the folder"
	@echo "make setup                        only build the environment"
	@echo "make clean                        remove the environment and what was built"

setup:
	@$(PYTHON) tools/setup_env.py

demo: setup
	@$(BIN)/python tools/demo.py $(if $(DATA),--data "$(DATA)") $(if $(GPUS),--processes "$(GPUS)")

demo-det: setup
	@$(BIN)/python tools/demo.py --task detection $(if $(DATA),--data "$(DATA)") $(if $(GPUS),--processes "$(GPUS)")

test: setup
	@$(BIN)/python -m pytest $(ARGS)

nightly: setup
	@$(BIN)/python -m pytest --nightly $(ARGS)

fuzz: setup
	@$(BIN)/python tests/hostile/cli.py --minutes 10 $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# With the PyTorch of the machine and its CUDA: nothing is built or fetched.
gpu: SITE := $(CURDIR)/work_dirs/gpu/site
gpu: RUN := $(or $(wildcard $(BIN)/python),$(PYTHON))
gpu:
	@$(if $(WHEELS),$(RUN) -m pip install -q --no-index --no-deps --upgrade --target "$(SITE)" "$(WHEELS)"/*.whl)
	@PYTHONPATH="$(CURDIR):$(SITE):$$PYTHONPATH" $(RUN) tools/gpu_report.py

clean:
	rm -rf .venv .cache build docs/_build dist *.egg-info .pytest_cache .ruff_cache
