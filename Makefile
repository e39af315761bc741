# The two commands: `make demo` and `make test`. Each sets up everything it needs in .venv, from the package registry alone.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test test-heavy test-servers sanitize servers servers-fetch servers-stop check clean \
  bench-enroll bench-vision bench-search bench-stores bench-robustness operating-points

help:
	@echo "make demo              enroll sample photos, search, draw demo/candidates.png and demo/index.html"
	@echo "make test              format, lint, types, tests, docs: what CI runs"
	@echo "make test-heavy        the long suites: more kill -9 rounds, longer random histories"
	@echo "make servers           start real database servers to develop against, print their URLs (make servers-stop)"
	@echo "make servers-fetch     get Neo4j's jars and build Weaviate (5 to 30 minutes, once)"
	@echo "make test-servers      the suites of the servers that take long to start"
	@echo "make sanitize          the C kernels under sanitizers and a fuzzer, those of other machines emulated"
	@echo "make bench-enroll      photos per second beside a plain OpenCV loop"
	@echo "make bench-vision      photos per second beside DeepFace, and where the time goes"
	@echo "make bench-search      exact search beside its peers, about ten minutes"
	@echo "make bench-stores      the stores on real servers, beside DeepFace's own search"
	@echo "make bench-robustness  what blur, distance, darkness, covering and turning cost"
	@echo "make operating-points  measure the shipped thresholds again"
	@echo "make clean             remove .venv and demo/; the weights' cache stays (facedex models list shows where)"

.venv/base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Facedex needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say which with make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

demo: .venv/base
	@mkdir -p demo
	$(BIN)/facedex models pull
	$(BIN)/python samples/fetch.py demo/photos
	$(BIN)/facedex enroll samples/enroll demo/photos/enroll --label folder --gallery demo/faces.db
	$(BIN)/facedex search samples/probes demo/photos/probes -k 3 --gallery demo/faces.db --picture demo/candidates.png --page demo/index.html
	@echo "Open demo/index.html"

check: .venv/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

test: check
	$(BIN)/facedex models pull --all
	$(BIN)/pytest -n auto -m "not heavy and not servers"

test-heavy: .venv/dev
	$(BIN)/facedex models pull --all
	$(BIN)/pytest -n auto -m heavy

servers-fetch: .venv/dev
	$(BIN)/python -m servers fetch

test-servers: .venv/dev
	$(BIN)/pytest -n auto -m "servers and not heavy"

servers: .venv/dev
	$(BIN)/python -m servers start

servers-stop:
	$(BIN)/python -m servers stop

sanitize: .venv/dev
	$(BIN)/pytest tests/search/test_border.py -k "sanitizers or emulated"

bench-enroll: .venv/dev
	$(BIN)/python -m benchmarks.enrollment

bench-search: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	env -u OPENBLAS_CORETYPE $(BIN)/python -m benchmarks.search.run --mode table

bench-stores: .venv/dev
	env -u OPENBLAS_CORETYPE $(BIN)/python -m benchmarks.stores.run --mode table
	$(BIN)/python -m benchmarks.report

bench-robustness: .venv/dev
	$(BIN)/python -m benchmarks.robustness

bench-vision: .venv/dev
	env -u OPENBLAS_CORETYPE $(BIN)/python -m benchmarks.vision.run

operating-points: .venv/dev
	$(BIN)/python -m benchmarks.operating_points

clean:
	rm -rf .venv demo
