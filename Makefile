# One environment, .venv, made from requirements.lock; everything else runs inside it.

PYTHON ?= python3
# The environment's folder: `make test VENV=.venv312 PYTHON=python3.12` keeps a second one. The folder
# is removed when it is made anew, so a shell's variable of this name does not count.
VENV := .venv
ARGS ?=
# Test workers: each is a process of its own with its own compiled programs and threads.
WORKERS ?= 2
# Which tests: a pytest marker expression. `make test MARKS=` runs the slow ones too.
MARKS ?= not slow
PYTEST_ARGS ?=

UV_VERSION := 0.13.8
BIN = $(VENV)/bin
READY := $(VENV)/.ready

# A shell that is set up for other projects must not reach into this one. What Python compiles is kept:
# tests start hundreds of processes, and each would compile the libraries again.
unexport PYTHONHOME PYTHONPATH PYTHONOPTIMIZE PYTHONWARNINGS PYTHONDONTWRITEBYTECODE
unexport PIP_USER PIP_TARGET PIP_PREFIX
# Like pip, uv then trusts the machine's certificates (some networks have one of their own); a bare
# machine that keeps none is left with those that uv brings.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/cert.pem /etc/ssl/certs/* /etc/pki/tls/certs/*),true,false)
# uv does not read pip's settings.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.PHONY: help setup setup-tpu setup-gpu setup-tpu-plan setup-puzzles setup-pretrained setup-parity
.PHONY: setup-trl train test notebooks docs lock clean
.DELETE_ON_ERROR:

help:
	@echo "make train      set up, and train the default: a small Gemma 2 on arithmetic (ARGS=...)"
	@echo "make test       set up, then lint, doctests and tests (WORKERS=2, MARKS=, PYTEST_ARGS=...)"
	@echo "make setup      make .venv from requirements.lock; setup-tpu, setup-gpu: for an accelerator;"
	@echo "                setup-puzzles: with reasoning-gym, which needs a C compiler;"
	@echo "                setup-tpu-plan: with the compiler for TPUs, to plan runs without one;"
	@echo "                setup-pretrained: with what reads the real weights of passk_jax.pretrained;"
	@echo "                setup-parity: with PyTorch, for the tests that compare with transformers;"
	@echo "                setup-trl: with TRL too, for the tests of its integration"
	@echo "make notebooks  run the notebooks from top to bottom, and keep their figures"
	@echo "make lock       compile requirements.lock from setup.py anew (LOCK_ARGS=--upgrade)"
	@echo "make docs       build the site of docs/ and of the API reference, in site/"
	@echo "make clean      remove .venv and what the tools leave behind; runs/ stays"

# Says in one line why $(PYTHON) cannot make the environment, or nothing. The code is the same in
# every Python, so that an old one can read it; the upper end is where TensorFlow's wheels end.
INSTEAD = another interpreter: PYTHON=python3.12 make $(MAKECMDGOALS)
define PYTHON_PROBLEM
$(shell \
if ! $(PYTHON) -E -c "" 2>/dev/null; then \
  echo "there is no working '$(PYTHON)' here. Install Python 3.11, 3.12 or 3.13, or name $(INSTEAD)"; \
elif ! $(PYTHON) -E -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"; then \
  echo "passk_jax needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is" \
    "$$($(PYTHON) -E -c "import sys; sys.stdout.write(sys.version.split()[0])"). Name $(INSTEAD)"; \
elif ! $(PYTHON) -E -c "import venv, ensurepip" 2>/dev/null; then \
  echo "'$(PYTHON)' lacks its modules venv and ensurepip. Install them" \
    "(Debian, Ubuntu: apt install python3-venv), or name $(INSTEAD)"; \
elif ! $(PYTHON) -E -c "import os, shutil, sys, sysconfig; sys.exit(sys.version_info >= (3, 13) \
  and not (shutil.which('c++') and os.path.exists(sysconfig.get_path('include') + '/Python.h')))"; then \
  echo "on Python 3.13 one dependency, editdistance, is built from source. Install a C++ compiler and" \
    "Python's headers (Debian, Ubuntu: apt install g++ python3-dev), or name $(INSTEAD)"; \
fi)
endef
need_python = $(if $1,$(error $1))

# .ready is written last and removed first: an environment without it is half made, and made again.
# So is one whose interpreter is gone, or is not the PYTHON that was asked for by name.
ifneq ($(shell test -e $(READY) && test -x $(BIN)/python && echo ok),ok)
ANEW := yes
else ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) -E -V 2>&1),$(shell $(BIN)/python -E -V 2>&1))
ANEW := yes
endif
endif
ifdef ANEW
.PHONY: $(READY)
endif

# Into $(VENV) whatever environment is active, with the locked tools where a package must be built;
# a progress bar for who watches, silence in a log.
UV_FLAGS = --python $(BIN)/python -b requirements.lock $(if $(MAKE_TERMERR),,--quiet)

setup: $(READY)
	@:

$(READY): setup.py pyproject.toml requirements.lock
	$(if $(ANEW),$(call need_python,$(PYTHON_PROBLEM)))
	$(if $(ANEW),rm -rf $(VENV) && $(PYTHON) -m venv $(VENV),rm -f $@)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "Installing requirements.lock: the first time on a machine, about a gigabyte to download."
	$(BIN)/uv pip install $(UV_FLAGS) -r requirements.lock
	$(BIN)/uv pip install $(UV_FLAGS) --no-deps -e .
	@touch $@

setup-tpu setup-gpu setup-tpu-plan setup-puzzles setup-pretrained setup-parity: setup-%: setup
	$(BIN)/uv pip install $(UV_FLAGS) -c requirements.lock -e '.[$*]'

# TRL takes the small PyTorch of `parity` where that is there.
setup-trl: setup-parity
	$(BIN)/uv pip install $(UV_FLAGS) -c requirements.lock -e '.[trl]'

train: setup
	$(BIN)/python -m passk_jax.train --config configs/arithmetic.py --workdir runs/arithmetic $(ARGS)

# The tests choose their own devices and precision: the shell's settings of JAX stay outside.
test: setup
	@$(BIN)/python -c "import sys; from importlib.metadata import version; \
	  print('Python', sys.version.split()[0], *(f'{p} {version(p)}' for p in ('jax', 'flax', 'gemma')))"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	env $(patsubst %,-u %,$(filter JAX_% XLA_%,$(.VARIABLES))) JAX_PLATFORMS=cpu \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "$(MARKS)" $(PYTEST_ARGS)

# In their own folder, from which they find experiments/.
notebooks: setup
	cd notebooks && $(abspath $(BIN))/jupyter-execute --inplace *.ipynb

# Strict: a link that leads nowhere is an error.
docs: setup
	$(BIN)/mkdocs build --strict

# In an environment of its own: the one above cannot be made while the lock is wrong.
lock:
	$(call need_python,$(PYTHON_PROBLEM))
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(PYTHON) -m venv "$$dir" && \
	"$$dir/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) && \
	UV_CUSTOM_COMPILE_COMMAND="make lock" "$$dir/bin/uv" pip compile --quiet --universal \
	  --fork-strategy requires-python --python-version 3.11 --no-annotate setup.py --extra all \
	  --extra dev --extra docs -o requirements.lock $(LOCK_ARGS)

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
