# Everything here makes its own environment (.venv) first. Nothing is installed outside this folder.

RUN = .venv/bin/python
# Two workers: the tests wait for programs and disks as much as they compute.
WORKERS = 2
SECONDS = 60
POWER_SECONDS = 600
ARGS =

.PHONY: help test test-here test-others test-zfs demo bench check format docs soak fuzz programs clean

help:
	@echo 'make demo    a tree of this machine goes in, becomes an image and a container, and comes back byte for byte'
	@echo 'make test    all tests; ARGS="-k name" for some; the unit tests on every Python found'
	@echo 'make test-zfs  the zfs driver on real OpenZFS, in a second kernel; compiles that the first time (4 minutes)'
	@echo 'make check   format, lint and types only'
	@echo 'make docs    the guide and the reference, in .work/docs'
	@echo 'make bench   the Go programs and ours, in turn, as ratios'
	@echo 'make soak    the crash tests at every system call (long), then losses of power for POWER_SECONDS=600'
	@echo 'make fuzz    the property tests with fresh random input for SECONDS=60 each'

.venv/.made: pyproject.toml tests/environment.sh
	@sh tests/environment.sh make .venv any

.venv-docs/.made: pyproject.toml tests/environment.sh
	@sh tests/environment.sh make .venv-docs any docs

# The distribution's interpreter, as the Go programs are the distribution's: one that was compiled without profiles (as
# pyenv does, if not told otherwise) is up to a fifth slower.
.venv-bench/.made: pyproject.toml tests/environment.sh
	@sh tests/environment.sh make .venv-bench system

.venv-%/.made: pyproject.toml tests/environment.sh
	@sh tests/environment.sh make .venv-$* $*

# The full run comes last, so that what it left out stands at the end.
test: .venv/.made test-others test-here

test-here: .venv/.made
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-others: .venv/.made
	@ours=$$($(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $$(sh tests/environment.sh pythons | cut -d' ' -f1); do \
	  [ $$version = $$ours ] && continue; \
	  $(MAKE) --no-print-directory .venv-$$version/.made || exit 1; \
	  echo "Python $$version: unit and property tests"; \
	  .venv-$$version/bin/python -m pytest -q -n $(WORKERS) tests/unit tests/properties $(ARGS) || exit 1; \
	done

# All that has to do with zfs, on OpenZFS and not on the script that stands for it elsewhere.
test-zfs: .venv/.made
	CI=true $(RUN) -m pytest -n $(WORKERS) tests/vm/zfs_real.py $(ARGS)

# Where no environment can be made (no venv, no network) the demo runs all the same, with the slower ways of the standard
# library in the place of the wheels.
demo:
	@if $(MAKE) -s --no-print-directory .venv/.made; then exec $(RUN) demo/demo.py; fi; \
	echo 'No environment: running without the wheels that make it fast.'; \
	PYTHONPATH=src exec python3 demo/demo.py

bench: .venv-bench/.made
	.venv-bench/bin/python -m benchmarks $(ARGS)

check: .venv/.made
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: .venv/.made
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# What Sphinx warns of is an error: a name or a link that leads nowhere, for example.
docs: .venv-docs/.made
	.venv-docs/bin/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet docs .work/docs
	@echo 'The pages start at .work/docs/index.html'

soak: .venv/.made
	$(RUN) -m tests.crash.sweep --all
	unshare --mount $(RUN) -m tests.crash.power --seconds $(POWER_SECONDS)

fuzz: .venv/.made
	FUZZ_SECONDS=$(SECONDS) $(RUN) -m pytest -n $(WORKERS) tests/properties $(ARGS)

programs: .venv/.made
	$(RUN) -m tests.programs

clean:
	rm -rf .venv .venv-* .work .mypy_cache .ruff_cache .pytest_cache .hypothesis
