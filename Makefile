# Everything that is installed lies in .venv, everything that is made in out/.
# Needs Python 3.11 or newer and make. `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
# As the command lietoolkit has it: threads that wait for others do not spin long.
export GOMP_SPINCOUNT ?= 1000

# --- make report: a plan, its proof and its report -------------------------------------------
MODEL ?= course
OBJECTIVE ?= sft
SOURCES ?=
TARGET ?=
OPTIMIZER ?= sgd
STEPS ?= 1
LR ?=
# Orders trained for real. A larger model is planned only, unless VERIFY says otherwise.
VERIFY ?= $(if $(filter course,$(MODEL)),24,0)
OUT ?= out
# Anything else that `lietoolkit plan --help` lists, e.g. ARGS='--batches 2 --constraint "a last"'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install report course pages docs test lint types contract unit planted wheel slow \
  notebooks test-gpu oldest sbom format pins clean

help:
	@echo 'make report      plan, prove and report; MODEL= SOURCES=folder TARGET=file OBJECTIVE=lm|sft|dpo'
	@echo '                 OPTIMIZER= STEPS= LR= VERIFY= OUT= ARGS= as in lietoolkit plan --help'
	@echo 'make course      open the course in JupyterLab'
	@echo 'make pages       write the course as HTML pages that need no network, into out/pages'
	@echo 'make docs        write the documentation site, which needs no network, into out/docs'
	@echo 'make test        all that continuous integration runs'
	@echo '  lint types contract unit planted wheel slow notebooks: its parts'
	@echo 'make test-gpu    the tests that need a CUDA device'
	@echo 'make wheel       wheel and source distribution, into out/dist'
	@echo 'make oldest      the fast tests on the oldest versions that are supported (slow to install)'
	@echo 'make sbom        what is in .venv as a CycloneDX file, out/sbom.json'
	@echo 'make format      format the code'
	@echo 'make install     install everything into .venv'
	@echo 'make pins        write constraints.txt and environment.yml from what is in .venv'
	@echo 'make clean       remove out/'

report: .venv/installed-course
	$(BIN)/lietoolkit plan --model "$(MODEL)" --objective "$(OBJECTIVE)" \
	  $(if $(SOURCES),--sources "$(SOURCES)") $(foreach file,$(TARGET),--target "$(file)") \
	  --optimizer "$(OPTIMIZER)" --steps "$(STEPS)" $(if $(LR),--lr "$(LR)") \
	  --verify "$(VERIFY)" --out "$(OUT)" $(ARGS)

# --- the course ------------------------------------------------------------------------------
course: .venv/installed-course
	$(BIN)/jupyter lab notebooks/index.ipynb

pages: .venv/installed-course
	$(BIN)/lietoolkit course pages

# --- the documentation site ------------------------------------------------------------------
docs: .venv/installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -d out/doctrees docs out/docs
	$(BIN)/python scripts/check_site.py out/docs

# --- installing ------------------------------------------------------------------------------
install: .venv/installed-dev

.venv/installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name it with PYTHON=python3.x'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'Installing into .venv (once, some minutes)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[$*]'
	@touch $@

# --- make test: one part a line, in order of cost --------------------------------------------
test: lint types contract unit planted wheel slow notebooks
	@echo 'All tests passed.'

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

contract: .venv/installed-dev
	$(BIN)/lint-imports

# Two processes of one thread each: the models are too small to share a matrix product.
unit: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --doctest-modules lietoolkit tests

# Two processes, each with its half.
planted: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python scripts/plant_errors.py --part 2/2 & other=$$!; \
	  OMP_NUM_THREADS=1 $(BIN)/python scripts/plant_errors.py --part 1/2; mine=$$?; \
	  wait $$other && exit $$mine

# The source distribution first, and the wheel from it: what a packager gets is what we give.
wheel: .venv/installed-dev
	rm -rf out/dist
	$(BIN)/python -m build --outdir out/dist .

# Two processes, as above; whoever is free takes over waiting tests, which differ much in length.
slow: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n 2 --dist worksteal --durations 10

# Where there is a GPU, and a build of torch for it in .venv; elsewhere these tests are left out.
test-gpu: .venv/installed-dev
	$(BIN)/pytest -m gpu -rs

# Course notebooks carry their outputs; claims marked nbval-check-output must come out again.
# report.ipynb is a template without outputs: tests/test_report.py runs it through papermill.
COURSE := $(filter-out notebooks/report.ipynb,$(wildcard notebooks/*.ipynb))
notebooks: .venv/installed-dev
	$(if $(COURSE),OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --nbval-lax -W default $(COURSE),@echo 'no course notebooks yet')

# --- the other end of the supported range, and what a release consists of --------------------
# The fast tests, from the wheel, in an environment of its own. Old versions warn about much that
# newer ones have settled, so warnings are no errors here. ARGS goes to pytest.
OLD := .venv/oldest
oldest: wheel constraints-oldest.txt
	@test -x $(OLD)/bin/python || $(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-oldest.txt "$$(ls out/dist/*.whl)[dev]"
	LIETOOLKIT_NOTEBOOKS=$(CURDIR)/notebooks OMP_NUM_THREADS=1 $(OLD)/bin/pytest -n 2 -W default $(ARGS) tests

sbom: .venv/installed-dev
	@mkdir -p out
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file out/sbom.json $(BIN)/python

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pins: .venv/installed-dev
	$(BIN)/python scripts/pins.py

clean:
	rm -rf out
