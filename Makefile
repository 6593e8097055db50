# Every target sets itself up in .venv first; what a target does is `trtbench`, pytest, ruff or mypy.
PYTHON ?= python3
VENV ?= .venv
SUITE ?= quickstart
OUT ?= runs
SHARED ?= ../shared
N ?= 1000
TIMES ?= 20
export SHARED

# The extra that fits the NVIDIA driver: empty, cu12 or cu13. EXTRAS= overrides it.
EXTRAS ?= $(shell $(PYTHON) -c "from trtbench.environment.gpus import extra_here; print(extra_here())")
CONSTRAINTS ?= $(if $(findstring cu12,$(EXTRAS)),docker/constraints-cu12.txt,constraints.txt)

empty :=
comma := ,
space := $(empty) $(empty)
ALL_EXTRAS := $(subst $(space),$(comma),$(strip dev $(EXTRAS)))
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(ALL_EXTRAS))
BIN := $(VENV)/bin
# A test that has not begun goes to whichever process is free; what is left at the end says where the time goes.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal --durations=10

.PHONY: setup engines bench report gpu-info test coverage test-all test-gpu test-tensorrt evidence kill-test fuzz bench-calibration bench-overhead bench-compare lint type check docs screenshot docker docker-check clean

engines: setup
	$(BIN)/trtbench build $(SUITE) --out $(OUT)

bench: setup
	$(BIN)/trtbench bench $(SUITE) --out $(OUT)

report: setup
	$(BIN)/trtbench report $(OUT)/latest

gpu-info: setup
	$(BIN)/trtbench gpu-info

test: setup
	$(BIN)/pytest -m "not slow" $(PARALLEL)

# Tracing costs two thirds of the time of the tests again, with branches or without.
coverage: setup
	$(BIN)/pytest -m "not slow" $(PARALLEL) --cov --cov-report=term:skip-covered

test-all: setup
	$(BIN)/pytest $(PARALLEL)

test-gpu: setup
	TRTBENCH_REQUIRE_GPU=1 $(BIN)/pytest -m gpu

test-tensorrt: setup
	TRTBENCH_REQUIRE_TENSORRT=1 $(BIN)/pytest -m tensorrt

evidence: setup
	$(BIN)/python -m tests.device.evidence --suite $(SUITE) --out $(OUT)

kill-test: setup
	$(BIN)/python tests/kill_and_resume.py --times $(TIMES)

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --cases $(N)

bench-overhead: setup
	$(BIN)/python -m tests.benchmarks.overhead --out $(OUT)

bench-compare: setup
	$(BIN)/python -m tests.benchmarks.compare --out $(OUT)

bench-calibration: setup
	$(BIN)/python -m tests.benchmarks.calibration --out $(OUT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck docker/check tests/device/check .ci/run

type: setup
	$(BIN)/mypy

check: lint type test

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[$(ALL_EXTRAS)]'
	touch $@

# The documentation, in site/; the command line and the keys of suites are read off the package.
docs:
	$(MAKE) setup EXTRAS="$(strip $(EXTRAS) docs)"
	$(BIN)/mkdocs build --strict

# The README's picture, of the committed report; needs chromium and chromedriver.
screenshot: setup
	$(BIN)/python -m tests.screenshot

docker:
	docker build -f docker/Dockerfile -t trtbench:cu12 .

docker-check:
	docker/check

clean:
	rm -rf $(VENV) build dist site *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
