# Everything a checkout needs: `make help` lists it. Linux, GNU make, Python 3.11 or newer.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first that really runs: a pyenv shim may stand for a Python that is not installed.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(call works,$(name)),$(name))))
works = $(shell "$(1)" -c 'import sys; print("yes" * (sys.version_info >= (3, 11)))' 2>/dev/null)

VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install -qq --progress-bar off

# The stamp names the folder it was made in: an environment that was moved, copied or lost its Python is built anew.
ifneq ($(shell $(VENV)/bin/python -c 'print(open("$(READY)").read().strip())' 2>/dev/null),$(CURDIR))
$(READY): FORCE
endif

.PHONY: help setup demo test lint bench bench-peers lock clean FORCE

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY) ## build .venv from requirements.lock (done by the others when needed)

demo: setup ## the whole circle on the twin of an arm: learn, distil, be loaded, learn anew
	@$(VENV)/bin/reflexarc demo

test: setup ## run the tests
	@$(VENV)/bin/python -m pytest

lint: setup ## check the style
	@$(VENV)/bin/python -m ruff check .

bench: setup ## run the benchmarks (minutes)
	@missed=0
	for name in learn-cartpole memory render ranking; do $(VENV)/bin/reflexarc bench $$name || missed=1; done
	exit $$missed

# Other people's software, each in an environment of its own: never a dependency of ours. What cannot be had is skipped. mbrl-lib pins a
# gym, a hydra and a notebook server of years ago; what its models and planners import is installed instead. judo would bring a robot
# middleware, and fetches meshes for its other scenes where their folder is missing.
PEERS := .peers

bench-peers: setup ## install the peers that benchmarks compare with, and run those benchmarks (minutes)
	@mbrl() {
	  $$pip torch==2.13.0 && $$pip gymnasium hydra-core matplotlib numpy omegaconf tensorboard termcolor tqdm \
	    && $$pip --no-deps mbrl==0.2.0 && "$$there/bin/python" experiments/bench/peers/mbrl_lib.py --help >/dev/null
	}
	judo() {
	  $$pip "mujoco>=3.6,<3.7" h5py hydra-core numpy omegaconf pillow requests rich robot-descriptions scipy tyro "viser>=1" \
	    && $$pip --no-deps judo-rai==0.1.0 && mkdir -p "$$(echo "$$there"/lib/python3*/site-packages/judo/models)/meshes" \
	    && "$$there/bin/python" experiments/bench/peers/judo_mpc.py --help >/dev/null
	}
	crocoddyl() {
	  $$pip crocoddyl==3.1.0 pin==3.8.0 "cmeel-urdfdom<5" "cmeel-tinyxml2<11" \
	    && "$$there/bin/python" experiments/bench/peers/crocoddyl_problems.py --help >/dev/null
	}
	mjbatch() {
	  $$pip mjbatch==0.1.4 && git clone -q https://github.com/kevinzakka/mjbatch "$$there/source" \
	    && git -C "$$there/source" checkout -q 64a3469493e8b23c33f079289599c1ab5dda7910 \
	    && "$$there/bin/python" experiments/bench/peers/mjbatch_swingup.py --help >/dev/null
	}
	install() {
	  local there=$(PEERS)/$$1 pip="$(PEERS)/$$1/bin/python -m pip --disable-pip-version-check install -q --progress-bar off"
	  [ -e "$$there/.ready" ] && return
	  rm -rf "$$there"
	  $(VENV)/bin/python -m venv "$$there" && $$1 && touch "$$there/.ready"
	}
	for peer in mbrl judo crocoddyl mjbatch; do
	  echo "bench-peers: installing $$peer in $(PEERS)/$$peer"
	  if ! output=$$(install $$peer 2>&1); then
	    rm -rf $(PEERS)/$$peer
	    echo "bench-peers: $$peer could not be installed, nothing is compared with it: $$(tail -n 1 <<<"$$output")"
	  fi
	done
	missed=0
	for name in plan-ensemble fit-ensemble plan-sim ilqr; do $(VENV)/bin/reflexarc bench $$name || missed=1; done
	exit $$missed

# Builds of torch for one kind of machine (+cpu, +cu128) and what they bring are left to torch itself.
lock: setup ## pin what .venv holds now in requirements.lock (after pip install of something newer)
	@{ sed '/^[^#]/,$$d' requirements.lock; $(VENV)/bin/python -m pip freeze --all --exclude-editable \
	  | grep -Eiv '^(pip|reflexarc|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)[ =]' | sed -E 's/^(torch==[^+]*)\+.*/\1/'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## remove what was built: .venv, .peers and caches; runs/ stays
	@rm -rf $(PEERS)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

FORCE:

$(READY): requirements.lock pyproject.toml
	@say() { echo "setup: $$*"; }
	packages() {  # with apt, as root or through sudo without a password; fails where neither works
	  command -v apt-get >/dev/null || return 1
	  local as=""
	  if [ "$$(id -u)" != 0 ]; then sudo -n true 2>/dev/null || return 1; as="sudo -n"; fi
	  export DEBIAN_FRONTEND=noninteractive
	  say "installing $$* with apt-get"
	  $$as apt-get update -qq >/dev/null && $$as apt-get install -y -qq "$$@" >/dev/null
	}
	python="$(PYTHON)"
	if [ -z "$$python" ] || ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  say "needs Python 3.11 or newer, got '$$python'. Install one (Debian: apt-get install python3 python3-venv) or name it:" \
	      "make setup PYTHON=/path/to/python3.12" >&2
	  exit 1
	fi
	if [ "$$(cat $(READY) 2>/dev/null)" != "$(CURDIR)" ] || ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then
	  # Without its stamp an environment is half built: it is never repaired, always built anew.
	  say "creating $(VENV) with $$("$$python" -V) ($$python)"
	  rm -f $(READY)
	  if ! output=$$("$$python" -m venv --clear $(VENV) 2>&1); then
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	    packages python3-venv "python$$version-venv" || packages python3-venv || true
	    if ! output=$$("$$python" -m venv --clear $(VENV) 2>&1); then
	      printf '%s\n' "$$output" >&2
	      say "could not create $(VENV). Run this, then make setup again: sudo apt-get install -y python3-venv python$$version-venv" >&2
	      exit 1
	    fi
	  fi
	fi
	rm -f $(READY)
	# Rendering without a display needs EGL and OpenGL from the system.
	if ! $(VENV)/bin/python -c 'import ctypes; [ctypes.CDLL(n) for n in ("libEGL.so.1", "libGL.so.1", "libOpenGL.so.0")]' 2>/dev/null; then
	  packages libegl1 libgl1 libopengl0 libgl1-mesa-dri || say "warning: no EGL or OpenGL, so nothing is rendered and those tests skip." \
	    "To have them: sudo apt-get install -y libegl1 libgl1 libopengl0 libgl1-mesa-dri" >&2
	fi
	say "installing torch, the largest part (minutes on a slow line)"
	$(PIP) "$$(grep '^torch==' requirements.lock)"
	say "installing the other packages of requirements.lock"
	$(PIP) -r requirements.lock
	if ! output=$$($(PIP) --no-deps --no-build-isolation --editable . 2>&1); then printf '%s\n' "$$output" >&2; exit 1; fi
	echo "$(CURDIR)" > $(READY)
	say "done; the command is $(VENV)/bin/reflexarc"
