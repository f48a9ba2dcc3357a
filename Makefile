# make demo   analyse the sample study and serve it
# make test   every check and every test
# make quick  the tests that take no time
# make fuzz   ten thousand malformed inputs at every door
# make lint   ruff and mypy
# make audit  known faults of what is installed, by PyPI's list of them
# make screenshots   the pictures of docs/, drawn anew by the tests
# make constraints   the newest versions of everything that is installed, to be tested
#
# Options: PYTHON=python3.11   the interpreter for .venv (3.10 to 3.12)
#          TORCH_INDEX=URL     where to take torch from, for its CPU build (see README)
#          PORT=8000           where `make demo` serves
#          SEED=1              of what `make fuzz` sends

PORT ?= 8000
SEED ?= 1
TORCH_INDEX ?=
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)

BIN := .venv/bin
MANIFESTS := .cache/manifests
OHIF_VERSION := 3.13.2
OHIF := .cache/ohif-$(OHIF_VERSION)
AXE_VERSION := 4.14.1
AXE := .cache/axe-core-$(AXE_VERSION)

.PHONY: demo test quick fuzz lint system audit screenshots constraints clean

demo: .venv/installed
	$(BIN)/endolens demo --port $(PORT)

# In the order of tests/conftest.py, which begins with the long ones.
test: lint system
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: .venv/tested
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow and not e2e"

# Each input that finds a fault is kept in .cache/fuzz, and named with its seed and number.
fuzz: .venv/tested
	$(BIN)/pytest -q -n 2 --dist loadfile --hypothesis-profile=fuzz --seed $(SEED) \
		tests/fuzz tests/monai_label_app/test_damage.py tests/monai_label_app/test_uploads.py

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Fails where PyPI does not know a package, too: what could not be looked up is not known to be sound.
audit: .venv/tested
	$(BIN)/pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/pip-audit --local --skip-editable --strict

screenshots: system
	$(BIN)/pytest -q tests/e2e/test_demo.py --screenshots docs

.venv/installed: setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "EndoLens needs Python 3.10, 3.11 or 3.12; name one by PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	@echo "Installing; this takes some minutes."
	$(if $(TORCH_INDEX),$(BIN)/pip install --progress-bar off torch torchvision --index-url $(TORCH_INDEX))
	$(BIN)/pip install --progress-bar off --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --progress-bar off --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

# The real servers, viewers and validators of the tests: Orthanc, PostgreSQL, nginx, Chromium, dcmtk, poppler and PixelMed
# from Debian; a current OHIF, and axe-core, which finds faults of accessibility, from npm; what checks the files of deploy/,
# whose dependencies do not go with ours, in an environment of its own. What cannot be installed is named
# here; its tests then skip, or fail where CI is set.
system: .venv/tested
	@missing=""; \
	command -v Orthanc >/dev/null || missing="$$missing orthanc"; \
	test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || missing="$$missing orthanc-dicomweb"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v dsrdump >/dev/null || missing="$$missing dcmtk"; \
	command -v pdftotext >/dev/null || missing="$$missing poppler-utils"; \
	command -v java >/dev/null || missing="$$missing default-jre-headless"; \
	test -e /usr/share/java/pixelmed.jar || missing="$$missing libpixelmed-java"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v nginx >/dev/null || test -x /usr/sbin/nginx || missing="$$missing nginx-light"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing \
				>/dev/null || echo "could not install:$$missing"; \
		else echo "not installed (needs root and apt):$$missing"; fi; \
	fi
	@test -d $(OHIF) || { mkdir -p .cache && cd .cache && npm pack --silent @ohif/app@$(OHIF_VERSION) >/dev/null && \
		tar xzf ohif-app-$(OHIF_VERSION).tgz && mv package/dist ohif-$(OHIF_VERSION) && \
		rm -rf package ohif-app-$(OHIF_VERSION).tgz; } || echo "could not fetch @ohif/app $(OHIF_VERSION)"
	@test -e $(AXE)/axe.min.js || { mkdir -p $(AXE) && cd .cache && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null && \
		tar xzf axe-core-$(AXE_VERSION).tgz -C axe-core-$(AXE_VERSION) --strip-components 1 package/axe.min.js && \
		rm axe-core-$(AXE_VERSION).tgz; } || echo "could not fetch axe-core $(AXE_VERSION)"
	@test -e $(MANIFESTS)/bin/kubernetes-validate || { $(PYTHON) -m venv $(MANIFESTS) && \
		$(MANIFESTS)/bin/pip install --quiet check-jsonschema kubernetes-validate; } || echo "could not install what checks deploy/"

# For every Python at once.
constraints: .venv/tested
	$(BIN)/pip install --quiet uv
	head -1 constraints.txt >constraints.new
	$(BIN)/uv pip compile --quiet --all-extras --universal --python-version 3.10 --no-header --no-annotate setup.py | \
		grep -vE '^(torch|torchvision|triton|nvidia|cuda)' >>constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf .venv .cache demo
