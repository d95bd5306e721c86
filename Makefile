# `make demo` needs only python3 (3.11 or newer), make and a way to install packages.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo

# One thread for each process: runs are parallel to each other, and numbers do not depend on a thread count.
export OMP_NUM_THREADS ?= 1

BIN := $(VENV)/bin
STAMP := $(VENV)/.sailctl-installed

# An environment that was given and was not made here is used as it is.
ifneq ($(origin VENV),file)
ifneq ($(wildcard $(BIN)/python),)
ifeq ($(wildcard $(STAMP)),)
STAMP :=
endif
endif
endif

.PHONY: help venv demo test mutation learning slurm regress evidence tables results bench references baselines peers theory check format constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  VENV=/path uses (or makes) another environment; PYTHON=/path/python3 makes it with another Python"

venv: $(STAMP) ## make .venv with the tested versions of every package

$(VENV)/.sailctl-installed: pyproject.toml hatch_build.py hydra_plugins/sailctl_launchers.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv ## train SAIL and SAIL-RevKL on Hopper (ten minutes), draw their curves, film the result
	@finished=$$(grep -ls '"state": "finished"' $(DEMO)/hopper-v5/*/*/status.json || true); \
	unfinished=$$(grep -Ls '"state": "finished"' $(DEMO)/hopper-v5/*/*/status.json || true); \
	if [ -n "$$unfinished" ]; then \
		echo "demo: not finished (interrupted, failed or still running):"; \
		echo "$$unfinished" | sed 's|^|  |; s|/status.json$$||'; \
		echo "demo: remove $(DEMO)/ and run 'make demo' again"; \
		exit 1; \
	elif [ -n "$$finished" ]; then \
		echo "demo: $(DEMO)/ holds finished runs, nothing is trained; remove it to start anew"; \
	else \
		echo "$(BIN)/sailctl train -m experiment=demo algo=sail,sail_revkl seed=0,1,2 out=$(DEMO)"; \
		$(BIN)/sailctl train -m experiment=demo algo=sail,sail_revkl seed=0,1,2 out=$(DEMO); \
	fi
	$(BIN)/sailctl plot $(DEMO) --out $(DEMO)/learning_curves.png
	@set -e; run=$$(ls -d $(DEMO)/hopper-v5/sail_revkl/*/ | head -n 1); run=$${run%/}; \
	echo "$(BIN)/sailctl eval $$run --video $(DEMO)/hopper.mp4"; \
	$(BIN)/sailctl eval $$run --video $(DEMO)/hopper.mp4 || [ $$? -eq 1 ]; \
	echo; \
	echo "runs      $$(echo $(DEMO)/hopper-v5/*/*/)"; \
	echo "figure    $(DEMO)/learning_curves.png"; \
	if [ -f $(DEMO)/hopper.mp4 ]; then echo "video     $(DEMO)/hopper.mp4"; \
	else echo "video     none: see the line above that says why"; fi; \
	echo "next      $(BIN)/sailctl train --help"

test: venv ## tests that need no long training, one process for each core
	$(BIN)/python -m pytest -n auto --dist loadfile

mutation: venv ## break the objectives and the teacher one piece at a time: a test must notice (minutes)
	$(BIN)/python -m tests.mutation sailctl/objectives sailctl/preferences/oracle.py

learning: venv ## the tests that `make test` leaves out: training until a return is reached (minutes each)
	$(BIN)/python -m pytest -m 'slow or learning'

slurm: venv ## sweeps on a real SLURM: starts one on this machine (root, Debian), tests, and stops it (minutes)
	tests/slurm/local-slurm start
	@trap 'tests/slurm/local-slurm stop' EXIT; \
	eval "$$(tests/slurm/local-slurm env)"; \
	$(BIN)/python -m pytest -m slurm tests/slurm

regress: venv ## the gate: is learning worse than the baselines in results/baselines? (minutes)
	$(BIN)/sailctl regress

evidence: venv ## SAIL, SAIL-RevKL and online DPO on three tasks, eight seeds, and their report (an hour; results/)
	$(BIN)/sailctl train -m experiment=evidence algo=sail_segments,sail_revkl_segments,dpo_online_segments \
		env=halfcheetah-v5,hopper-v5,swimmer-v5 'seed=range(0,8)' out=runs/evidence
	rm -f results/evidence/runs.csv
	$(BIN)/sailctl compare runs/evidence --save results/evidence/runs.csv
	$(BIN)/sailctl report results/evidence/runs.csv --out results/evidence/report.html --wandb disabled

TABLES := results/protocols
REPORT := $(BIN)/sailctl report --wandb disabled

tables: venv ## the committed reports anew, from the committed curves (minutes; trains nothing)
	$(REPORT) results/evidence/runs.csv --out results/evidence/report.html
	$(REPORT) $(TABLES)/alignment/runs.csv --baseline sail --out $(TABLES)/alignment/report.html
	$(REPORT) $(TABLES)/alignment_kept/runs.csv --baseline sail --out $(TABLES)/alignment_kept/report.html
	$(REPORT) $(TABLES)/labels/runs.csv --by 'algo.*' --by oracle.budget --baseline labels_10000 --out $(TABLES)/labels/report.html
	$(REPORT) $(TABLES)/teachers_mistaken/runs.csv --by 'algo.*' --by oracle.mistake --baseline 'sail oracle.mistake=0.0' \
		--out $(TABLES)/teachers_mistaken/report.html
	$(REPORT) $(TABLES)/scratch/runs.csv --baseline ppo --force --out $(TABLES)/scratch/report.html
	$(BIN)/python -m benchmarks.protocols scratch --equal-cost

SEEDS ?= 10

results: venv ## the protocols in results/protocols, beside what is there already (SEEDS=10: a day and a night on two cores)
	$(BIN)/python -m benchmarks.protocols scratch --env-steps 150000 --seeds $(SEEDS)
	$(BIN)/python -m benchmarks.protocols alignment --algorithms sail_segments sail_revkl_segments --env-steps 400000 --seeds $(SEEDS)
	$(BIN)/python -m benchmarks.protocols alignment_kept --algorithms sail_segments sail_revkl_segments --env-steps 400000 --seeds $(SEEDS)
	$(BIN)/python -m benchmarks.protocols labels --tasks cheetah_run walker_walk --env-steps 150000 --seeds $(SEEDS)
	$(BIN)/python -m benchmarks.protocols teachers_mistaken --tasks walker_stand --algorithms sail_segments sail_robust_segments \
		--env-steps 200000 --seeds $(SEEDS)

bench: venv theory ## measure speed, memory, learning, sweeps and crashes (four hours; writes into results/)
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.tasks
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.updates
	$(BIN)/python -m benchmarks.learning
	$(BIN)/python -m benchmarks.learning designs
	$(BIN)/python -m benchmarks.learning teachers
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.verdicts
	$(BIN)/python -m benchmarks.sequential
	$(BIN)/python -m benchmarks.comparing
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.crashes
	$(BIN)/python -m benchmarks.fuzz

references: venv ## train the reference policies of the core tasks (hours; what is there is left alone)
	$(BIN)/python -m benchmarks.references

baselines: venv ## learning curves of the baselines, and PEBBLE by its protocol (two hours; writes into results/)
	$(BIN)/python -m benchmarks.baselines
	$(BIN)/python -m benchmarks.pebble

peers: venv ## measure other tools side by side (half an hour, and 5 GB of environments in .peers)
	$(BIN)/python -m benchmarks.peers

theory: venv ## check the theorems of the papers, with figures (minutes; writes into results/)
	$(BIN)/python -m benchmarks.theory

check: venv ## formatting, lint, strict types and the order of folders
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: ## resolve the newest allowed versions into constraints.txt (downloads everything)
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh/venv"; \
	"$$fresh/venv/bin/python" -m pip install --quiet -e '.[dev]'; \
	{ sed -n '/^#/p' constraints.txt; \
	  "$$fresh/venv/bin/python" -m pip freeze --exclude-editable --exclude cwevals \
	    | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; } > "$$fresh/constraints.txt"; \
	cp "$$fresh/constraints.txt" constraints.txt

clean: ## remove the environment, caches and builds; runs are kept
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find sailctl envs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
