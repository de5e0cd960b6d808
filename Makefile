# One word a chore, the same on every machine. `make check` needs nothing but Python and make.

VENV ?= .venv
PYTHON ?= python3

bin := $(abspath $(VENV))/bin
# Tests at once, each of one thread; half of them wait for other processes most of the time.
JOBS ?= 4
packages := fasternas nas search_spaces predictors

# What the environment was made from, compared by content, since git does not keep file times.
made_from := $(abspath $(VENV))/.made-from
wanted := $(shell cat constraints.txt pyproject.toml | cksum)

.DEFAULT_GOAL := help
.NOTPARALLEL:  # tests that time must not share the cores with a type checker
.PHONY: help setup check format fix lint types imports tests docs fuzz test-board wheel clean

help:  ## say what each word does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An environment that serves another clone, or holds a copy of this one, does not count as made.
setup:  ## make $(VENV) with fasternas and its tools, unless it is there already
	@if [ "$$(cat '$(made_from)' 2>/dev/null)" != '$(wanted)' ] \
			|| ! cat '$(bin)'/../lib/*/site-packages/*fasternas.pth 2>/dev/null | grep -qxF '$(CURDIR)'; then \
		set -ex; \
		rm -f '$(made_from)'; \
		test -x '$(bin)/pip' || $(PYTHON) -m venv '$(VENV)'; \
		'$(bin)/pip' install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'; \
		echo '$(wanted)' > '$(made_from)'; \
	fi

check: format lint types imports docs tests wheel  ## everything that must pass before a commit lands

format: setup  ## is the code formatted? (`make fix` does it)
	'$(bin)/ruff' format --check .

fix: setup  ## format the code and mend what the linter can mend
	'$(bin)/ruff' check --fix --exit-zero .
	'$(bin)/ruff' format .

lint: setup  ## ruff
	'$(bin)/ruff' check .

types: setup  ## mypy, strict, over source, tests and benchmarks
	'$(bin)/mypy'

imports: setup  ## do packages import downwards only?
	'$(bin)/lint-imports' --no-logo

# Some hundred Pythons are started: each would compile all modules where no bytecode is kept.
tests: setup  ## pytest; more options by ARGS="-k pareto"
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 '$(bin)/pytest' -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Nothing is downloaded. The variable silences a notice of mkdocs-material about its successor.
docs: setup  ## build the pages of docs/ into site/
	NO_MKDOCS_2_WARNING=1 '$(bin)/mkdocs' build --strict --quiet --site-dir site

fuzz: setup  ## damaged files and answers, ten minutes of each kind; ARGS="-k onnx" for one
	FASTERNAS_FUZZ_SECONDS=600 OMP_NUM_THREADS=1 '$(bin)/pytest' tests/test_fuzz*.py $(ARGS)

BOARD ?= $(HOME)/.cache/fasternas-board
test-board: setup  ## time networks on an emulated ARM board behind sshd (root, Debian; minutes)
	PATH='$(bin)':"$$PATH" .ci/arm-board '$(BOARD)'
	FASTERNAS_ARM_BOARD='$(BOARD)' '$(bin)/pytest' tests/test_arm_board.py $(ARGS)

# The wheel is installed beside the environment and imported from a folder that is not this one.
wheel: setup  ## build the wheel, check its contents, import everything from it
	@set -e; \
	room=$$(mktemp -d); trap 'rm -rf "$$room"' EXIT; \
	'$(bin)/python' -m build --wheel --no-isolation --outdir "$$room" . > "$$room/log" 2>&1 \
		|| { cat "$$room/log"; exit 1; }; \
	'$(bin)/check-wheel-contents' "$$room"; \
	'$(bin)/pip' install --disable-pip-version-check -q --no-deps --target "$$room/site" "$$room"/*.whl; \
	for package in $(packages); do \
		(cd $$package && find . -type f -not -name '*.pyc' | sort) > "$$room/source"; \
		(cd "$$room/site/$$package" && find . -type f -not -name '*.pyc' | sort) > "$$room/packed"; \
		diff "$$room/source" "$$room/packed" \
			|| { echo "$$package: the wheel and the source hold different files."; exit 1; }; \
		found=$$(cd "$$room" && PYTHONPATH="$$room/site" '$(bin)/python' -c \
			"import $$package; print($$package.__file__)"); \
		test "$$found" = "$$room/site/$$package/__init__.py" \
			|| { echo "$$package came from $$found, not from the wheel."; exit 1; }; \
	done; \
	ls "$$room"/site/predictors/profiles/*/* > /dev/null; \
	(cd "$$room" && PYTHONPATH="$$room/site" site/bin/fasternas --help > /dev/null); \
	echo "The wheel holds $(packages) and their data, and works."

clean:  ## remove what the chores left behind; $(VENV) stays
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
