# Targets set up everything they need in .venv, from a bare Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
BROKER := .venv/mosquitto/mosquitto

# On a CPU torch can spend half its time in page faults, because glibc hands large buffers back to
# the system after every step. Keeping them made training 2-4 times faster.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 68719476736

# Where to find torch, for a machine on which the default index would bring gigabytes of CUDA:
# make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
ifdef TORCH_INDEX
export PIP_EXTRA_INDEX_URL := $(TORCH_INDEX)
endif

.PHONY: test lint docs demo setup wheel-demo

test: lint docs $(BROKER)
	$(BIN)/pytest --numprocesses auto --dist loadfile

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

# Every link inside the pages is checked; a warning is an error.
docs: setup
	$(BIN)/python -m sphinx --quiet --fail-on-warning -b html docs docs/_build

demo: setup
	$(BIN)/axonal demo

# make bench-engine OPTIONS="--rounds 3"; python -m benchmarks lists them.
bench-%: setup
	$(BIN)/python -m benchmarks $* $(OPTIONS)

# What a user gets: the wheel alone, in a bare environment, outside of the clone; takes minutes.
wheel-demo:
	PYTHON=$(PYTHON) tests/wheel_demo.sh

setup: $(STAMP)

# The stamp comes last: a set-up that was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --build-constraint constraints.txt \
		--editable '.[torch,nir,onnx,events,watch,video]' --group dev --group docs
	touch $@

# Tests of MQTT talk to a real broker.
$(BROKER): | setup
	tests/mosquitto.sh $(@D)
