# On a machine with python3, its venv, make and a C compiler each command does all the set-up that it needs.
# "make help" lists them: the text after ## of each target.
PYTHON ?= python3
BIN := .venv/bin
CORE := setup.py pyproject.toml $(wildcard csrc/*)

# Tests start some hundred processes, each of which would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick test-adverse lint check format docs coverage bench packages stress mutants guest-test clean help
.DELETE_ON_ERROR:

demo: .venv/installed ## publish a recorded machine and watch it, for about 15 seconds
	$(BIN)/vmclock-async demo

test: .venv/compiled-tests ## run all tests, for three minutes on two processors
	@echo "Three minutes on two idle processors; a line of dots says how far it is."
	$(BIN)/python -m pytest -n auto --dist worksteal

# Without the tests that start processes or chronyds or take half a second, and on one kind of event loop: "make test"
# has the others. The rest are 3,000 in three workers, because a worker takes 3 s to collect them.
quick: .venv/compiled-tests ## run the tests that take milliseconds, on asyncio, in half a minute
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m "not rig and not process and not long" -k "not uvloop and not trio"

ROUNDS ?= 5
test-adverse: .venv/installed-test ## run all tests on busy processors, in random order, as root and as a user; ROUNDS=5
	$(BIN)/python tools/adverse.py $(ROUNDS)

lint: .venv/installed-lint ## check style, spelling, types, imports and deploy/
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror csrc/*
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Containerfile
	$(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

check: lint test ## lint and test

format: .venv/installed-lint ## format Python and C, and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i csrc/*

# The manual, as a site: site/index.html. Every link and every name in it has to be there.
docs: .venv/installed-docs ## build the manual in site/; a broken link or name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A report, not a gate: a line that ran is not yet a promise kept. The formulas have "make mutants".
coverage: .venv/installed-coverage ## run all tests, and report the branches that none of them took
	$(BIN)/coverage erase
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=
	$(BIN)/coverage report

# The wheel is built from the sdist, in build/; auditwheel finds the oldest C library that it runs with.
# cibuildwheel, which needs containers for the wheels of a release, only reads its settings here.
packages: .venv/installed-packages ## build the sdist and this machine's wheel in dist/, and check both
	rm -rf build dist
	CFLAGS="$$(.ci/python-headers $(BIN)/python .headers)" $(BIN)/python -m build --no-isolation --outdir build/packages
	PATH="$(BIN):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist build/packages/*.whl
	mv build/packages/*.tar.gz dist
	$(BIN)/abi3audit --strict --verbose dist/*.whl
	$(BIN)/twine check --strict dist/*
	$(BIN)/cibuildwheel --platform linux --print-build-identifiers . >/dev/null
	ls -l dist

# Longer proofs: the seqlock under four readers at full speed for 10 seconds, 100,000 random histories of a machine.
stress: .venv/installed-test ## run the longer proofs of the seqlock, of random histories and of random time servers
	VMCLOCK_ASYNC_STRESS_SECONDS=10 VMCLOCK_ASYNC_HISTORIES=100000 VMCLOCK_ASYNC_NTP_WORLDS=1000 \
	    $(BIN)/python -m pytest tests/test_seqlock_stress.py tests/test_histories.py tests/test_ntp_knowledge.py --timeout 1800

# Virtual machines with a real /dev/vmclock0, and without its driver: see tests/guest/README.md.
KERNEL ?= 7 6.1
guest-test: .venv/installed-test ## test in virtual machines with a real /dev/vmclock0 and without; KERNEL=6.16 for an older driver
	for kernel in $(KERNEL); do PYTHONPATH=tests $(BIN)/python -m guest.run --kernel $$kernel || exit; done

# Each sign and each term of the formulas once otherwise: a test is to notice.
mutants: .venv/installed-test ## change each sign and term of the formulas, and see a test fail
	CFLAGS="$$(.ci/python-headers $(BIN)/python .headers)" $(BIN)/python tools/mutate_formulas.py

bench: .venv/installed-bench ## run the benchmarks
	$(BIN)/python benchmarks/bench_core.py --fast --quiet
	$(BIN)/python benchmarks/bench_clock.py --fast --quiet
	$(BIN)/python benchmarks/bench_now.py
	$(BIN)/python benchmarks/bench_events.py
	$(BIN)/python benchmarks/bench_pipeline.py
	$(BIN)/python benchmarks/bench_wakeup.py
	PYTHONPATH=tests $(BIN)/python benchmarks/bench_publisher.py
	PYTHONPATH=tests $(BIN)/python benchmarks/bench_bound.py

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: .venv/bin/python $(CORE)
	PYTHONWARNINGS=ignore CFLAGS="$$(.ci/python-headers $(BIN)/python .headers) $(CORE_CFLAGS)" $(BIN)/python -m pip install --quiet --editable '.[chrony,cli]'
	touch $@

.venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --group $*
	touch $@

# ntpsec's ntpd is a server that tests ask. Its package excludes chrony's, so it is unpacked and not installed. Where
# that fails those tests are skipped.
.venv/ntpsec: .venv/bin/python
	-.ci/unpacked ntpsec $@ && touch $@

# pytest rewrites the assertions of each module once, and keeps the result. Without this, each of the workers that begin
# at the same time would do it for itself: 6 s of processor time, for each worker, in the first run of a checkout.
.venv/compiled-tests: .venv/installed-test
	-$(BIN)/python -m pytest -qq --collect-only >/dev/null
	touch $@

clean: ## remove everything that was built or installed here
	rm -rf .venv .headers .coverage* build dist src/*.egg-info src/vmclock_async/*.so
	find src/vmclock_async plugins tests -name __pycache__ -prune -exec rm -rf {} +

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
