# Everything is one line of `python -m tests ...`, which is also what to type where there is no make.
# The first use of a target makes a virtual environment (PINS=book: one with the versions printed in the book).

PYTHON ?= python3
PINS   ?= today
VENV   := $(if $(filter book,$(PINS)),.venv-book,.venv)
LEARN  := $(if $(filter book,$(PINS)),part_5_production/chapter_19_deployment/requirements.txt,requirements.txt)
SERVICE := part_5_production/chapter_19_deployment/production/requirements.txt
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: help run demo list check hint check-all exam types grade serve bench freeze containers
.DEFAULT_GOAL := help

help:
	@echo "Chapter 19, Deployment and Scaling: solutions that run, and checks for yours"
	@echo
	@echo "  make run EX=19.2.3             run one exercise (SERVE=1 keeps it up, LIVE=1 asks the real API)"
	@echo "  make serve                     all exercises in one service, with the stand-in model (EX=19.2.3: just that one)"
	@echo "  make demo                      run all that are ready, one after the other"
	@echo "  make list                      the 21 exercises, and which are ready"
	@echo "  make check EX=19.2.3           check our solution"
	@echo "  make check EX=19.2.3 MINE=my_app.py[:app]            check yours (REPLAY=1 shows the failing request, WATCH=1 checks on)"
	@echo "  make check EX=19.2.3 MINE=http://127.0.0.1:8000 KEY=my-key"
	@echo "  make hint EX=19.2.3            what to look at next (LEVEL=1, 2 or 3; CHECK=retry-after)"
	@echo "  make check-all                 everything: references, attempts, unit tests; one table (PINS=book)"
	@echo "  make exam [EX=19.2.3]          examine the checks: attempts three times over (ROUNDS=1), and mutants (ONLY=attempts)"
	@echo "  make types                     check the types of our own code (mypy)"
	@echo "  make grade SUBMISSIONS=class    grade a class: one folder or zip per student (EX=19.2.2,19.2.3: only these; tests/README.md)"
	@echo "  make bench EX=19.2.3           measure, side by side in one run (EX=startup, EX=production; WRITE=1 into the README)"
	@echo "  make containers                build the images of section 19.1, run and measure them (needs Docker)"
	@echo "  make freeze                    write anew which packages those images install"
	@echo
	@echo "No API key and no Docker needed. EX is 19.2.3, 3_19_2 or a file's name."

run: $(VENV)/ready
	@$(PY) -m tests run $(call needs,EX) $(if $(SERVE),--serve) $(if $(LIVE),--live)

serve: $(if $(EX),$(VENV)/ready,$(VENV)/ready-to-serve)
	@$(PY) -m tests $(if $(EX),run $(EX) --serve,serve)

demo: $(VENV)/ready
	@$(PY) -m tests demo

list: $(VENV)/ready
	@$(PY) -m tests list

check: $(VENV)/ready
	@$(PY) -m tests check $(call needs,EX) $(if $(MINE),--mine "$(MINE)") $(if $(KEY),--key "$(KEY)") $(if $(REPLAY),--replay) $(if $(WATCH),--watch) $(if $(LIVE),--live)

hint: $(VENV)/ready
	@$(PY) -m tests hint $(call needs,EX) $(if $(LEVEL),--level $(LEVEL)) $(if $(CHECK),--check $(CHECK))

check-all: $(VENV)/ready-for-tests
	@$(PY) -m tests check-all

exam: $(VENV)/ready-for-tests
	@$(PY) -m tests exam $(EX) $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

types: $(VENV)/ready-for-tests
	@$(PY) -m mypy

grade: $(VENV)/ready
	@$(PY) -m tests grade "$(or $(SUBMISSIONS),$(error say where they are: make grade SUBMISSIONS=my-class))" $(if $(EX),--exercises $(EX)) $(if $(JOBS),--jobs $(JOBS))

bench: $(VENV)/ready-for-tests
	@$(PY) -m tests bench $(call needs,EX) $(if $(WRITE),--write)

freeze: $(VENV)/ready
	@$(PY) -m tests freeze

containers: $(VENV)/ready-for-tests
	@$(PY) -m tests containers $(if $(WRITE),--write)

needs = $(or $($(1)),$(error say which exercise: make $(MAKECMDGOALS) $(1)=19.2.3))

$(VENV)/ready: $(LEARN)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 ...' % sys.version_info[:2])"
	@echo "installing $(LEARN) into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r $(LEARN) $(if $(filter book,$(PINS)),$(shell grep '^pytest==' requirements.txt))
	@touch $@

$(VENV)/ready-for-tests: $(VENV)/ready $(if $(filter today,$(PINS)),$(VENV)/ready-to-serve) tests/requirements.txt
	@echo "installing tests/requirements.txt into $(VENV) (once) ..."
	@$(PIP) -r tests/requirements.txt
	@touch $@

$(VENV)/ready-to-serve: $(VENV)/ready $(SERVICE)
	@echo "installing $(SERVICE) into $(VENV) (once) ..."
	@$(PIP) -r $(SERVICE)
	@touch $@
