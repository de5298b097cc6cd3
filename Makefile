# expblip: two commands.   make paper   runs the whole paper;   make test   shows that everything here works.
# Needs Python 3.11 or newer and make; the first call builds .venv from requirements.lock, later calls find it there.

SCALE ?= tiny
SEEDS ?= 1
DATA  ?=
# DATA=fixtures: drawn faces in the formats of the paper's eight data sets, read as delivered data are
FIXTURES := data/user/fixtures
ifeq ($(DATA),fixtures)
override DATA := $(FIXTURES)
endif
# a table of your own gets a run folder of its own name, in ASCII
RUN   ?= $(if $(DATA),$(or $(shell basename "$(DATA)" | sed 's/\.[^.]*$$//; s/[^A-Za-z0-9_.-]/-/g; s/^[.-]*//'),photos),$(SCALE))
P     ?=
DEVICE ?=
JOBS  ?=

# looked up once, before .venv is put in front of PATH
ifndef PYTHON
PYTHON := $(shell command -v python3.11 || command -v python3)
endif
VENV   ?= .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
KEY    := $(shell $(PYTHON) -c "import hashlib; print(hashlib.sha256(open('requirements.lock', 'rb').read()).hexdigest()[:16])" 2>/dev/null)
STAMP  := $(VENV)/.installed-$(KEY)

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
export TOKENIZERS_PARALLELISM := false
export OMP_WAIT_POLICY := passive
export PYTHONWARNINGS := ignore::DeprecationWarning,ignore:IProgress not found

# the two small scales need nothing from outside once installed, and are kept from looking
ifneq ($(filter $(SCALE),smoke tiny),)
export HF_HUB_OFFLINE ?= 1
endif

.DEFAULT_GOAL := help
.PHONY: help env paper tables compare test nbtest pytest test-browser soak lint types export clean-nbs readme site drawn-blip2 drawn-expblip rate page replies parity \
	scaling bench bench-gpu hooks

help:
	@echo "make paper [SCALE=tiny|smoke|base|full] [SEEDS=1] [RUN=name] [DATA=photos.csv|folder|fixtures] [P='stage.knob=value ...'] [DEVICE=auto] [JOBS=2]"
	@echo "  the real models:        make paper SCALE=full DATA=... P='start.weights=blip2_pretrained.pth start.lm=folder/of/opt-6.7b start.text=folder/of/bert-base-uncased'"
	@echo "make tables RUN=name      every table and figure of the paper, of that run: outputs/<run>/tables"
	@echo "make compare A=outputs/a B=outputs/b        two runs beside each other: outputs/compare/a-b"
	@echo "make rate [RUN=tiny] [SEED=0] [PORT=7860]   the page on which people rate captions (Table 5); make paper once before and once after"
	@echo "make page [MODEL=drawn] [PORT=7860]   a page in the browser: drop a photo, or draw a face with sliders, and see it captioned"
	@echo "make scaling [SCALE=mid]  two image encoders by two language models: AU-BLIP and Exp-BLIP on each (paper 4.3)"
	@echo "make site [RUN=reference] the documentation, in _build/html"
	@echo
	@echo "make env                  the environment, in .venv; every other target does so first"
	@echo "make test                 everything below up to test-browser, with a smoke run of every stage"
	@echo "make lint                 ruff on notebooks, package, tests and tools"
	@echo "make types                mypy on the package"
	@echo "make nbtest               nbdev's test: every cell of the notebooks that are no stages"
	@echo "make pytest               the tests in tests/"
	@echo "make test-browser         those of them that drive Chromium: JupyterLab, the pages and the site"
	@echo "make soak [KILLS=50]      trainings of both steps, killed at so many random moments each"
	@echo "make bench                the measurements of benchmarks/"
	@echo "make bench-gpu            those at full size, on a machine with an NVIDIA GPU"
	@echo "make parity               LAVIS's own modules make the reference numbers of tests/test_lavis.py again"
	@echo
	@echo "make export               the package from the notebooks"
	@echo "make clean-nbs            notebooks as they are committed; stages and tables lose their outputs"
	@echo "make readme               README.md from nbs/index.ipynb"
	@echo "make hooks                git checks these before each commit, and merges notebooks cell by cell"
	@echo "make drawn-blip2          rebuild data/drawn-blip2 from nothing"
	@echo "make drawn-expblip [RUN=] the Exp-BLIP of a finished run becomes expblip/drawn"
	@echo "make replies              train the small chat model, serve it, record its replies anew in data/replies"

env: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; say which with PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing the pinned packages into $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

paper: env
	@[ "$(DATA)" != $(FIXTURES) ] || [ -e $(FIXTURES) ] || $(PY) -c "from expblip.datasets import write_fixtures; write_fixtures('$(FIXTURES)')"
	@$(PY) -m expblip.pipeline run --run $(RUN) --scale $(SCALE) --seeds $(SEEDS) \
		$(if $(JOBS),-n $(JOBS)) $(if $(DEVICE),--device $(DEVICE)) $(if $(DATA),--data "$(DATA)") $(foreach p,$(P),-p "$(p)")

tables: env
	@$(PY) -m expblip.tables outputs/$(RUN)

compare: env
	@$(PY) -m expblip.comparison "$(A)" "$(B)"

# pytest (export drift, cleanliness and the smoke run of the whole graph among its tests) comes last, so that its summary is the last line printed
test: env lint types nbtest pytest

nbtest: env
	@echo "== notebooks"
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=agg $(BIN)/nbdev_test --n_workers 2

pytest: env
	@echo "== pytest"
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=agg $(PY) -m pytest

# JupyterLab and the pages in real Chromium (Debian: apt-get install chromium); make test runs them too
test-browser: env
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=agg $(PY) -m pytest -m browser

# exact resume at length: the same test that `make test` does with 5 kills
soak: env
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 EXPBLIP_KILLS=$(or $(KILLS),50) $(PY) -m pytest tests/test_resume.py -k killed

lint: env
	@echo "== ruff"
	@$(BIN)/ruff check nbs expblip tests tools benchmarks docs

types: env
	@echo "== mypy"
	@$(BIN)/mypy

export: env
	$(BIN)/nbdev_export

clean-nbs: env
	$(PY) tools/clean.py

readme: env
	$(PY) tools/readme.py

# the stage and table pages show the run named by RUN where it exists, else the committed reference run
site: env
	$(PY) tools/stage_docs.py _build/sphinx_src $(firstword $(wildcard outputs/$(RUN)) outputs/reference)
	$(PY) -m sphinx -q -W --keep-going -j 2 -b html _build/sphinx_src _build/html
	@echo "the site is at _build/html/index.html"

# its own stages (encoder, language model, both steps on appearance captions), then the folder that ships is replaced by what they made
drawn-blip2: env
	$(PY) -m expblip.pipeline run --run drawn-blip2 --scale $(SCALE) --only blip2 $(if $(DEVICE),--device $(DEVICE)) $(foreach p,$(P),-p "$(p)")
	$(PY) tools/ship_blip2.py outputs/drawn-blip2/shared/blip2 data/drawn-blip2

# people rate captions in the browser: RUN's sample of SEED; what they say goes to data/user/ratings
SEED ?= 0
rate: env
	$(PY) -m expblip.rating_page outputs/$(RUN)/seed$(SEED)/rating $(if $(PORT),--port $(PORT))

# caption a photo, or a face drawn with sliders, in the browser: nothing is asked of the internet
page: env
	$(PY) -m expblip.demo_page $(if $(MODEL),--model "$(MODEL)") $(if $(PORT),--port $(PORT))

# what ships as Captioner.from_pretrained("drawn"): Exp-BLIP of seed 0 of a finished run (make paper first)
drawn-expblip: env
	$(PY) tools/ship_expblip.py outputs/$(RUN) expblip/drawn

replies: env
	@[ "$(SCALE)" != smoke ] || { echo "the shipped replies are those of a trained model: make replies SCALE=tiny"; exit 1; }
	$(PY) -m expblip.pipeline run --run small-chat --scale $(SCALE) --only chat $(if $(DEVICE),--device $(DEVICE))
	rm -rf outputs/small-chat/replies
	$(PY) tools/record_replies.py outputs/small-chat/shared/chat outputs/small-chat/replies
	rm -rf data/replies && mv outputs/small-chat/replies data/replies

# in an environment of its own, outside this folder: LAVIS's pins cannot live beside ours (requirements-lavis.txt says why)
LAVIS_PYTHON ?= python3.11
LAVIS_VENV   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/expblip/lavis
parity: env
	@$(LAVIS_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || { echo "LAVIS needs Python 3.11; say which with LAVIS_PYTHON=/path/to/python3.11"; exit 1; }
	[ -x $(LAVIS_VENV)/bin/python ] || $(LAVIS_PYTHON) -m venv $(LAVIS_VENV)
	$(LAVIS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-lavis.txt
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(LAVIS_VENV)/bin/python -W ignore tools/lavis_parity.py tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) -m pytest -q tests/test_lavis.py

# two image encoders by two language models and the eight captioners on them: mid is tiny with fewer updates: 46 core-minutes once, and about as many a seed
scaling: env
	$(PY) tools/scaling.py --scale $(if $(filter file default,$(origin SCALE)),mid,$(SCALE)) --seeds $(SEEDS) $(if $(JOBS),-n $(JOBS)) $(foreach p,$(P),-p "$(p)")

bench: env
	$(PY) benchmarks/import_time.py
	$(PY) benchmarks/drawing.py
	$(PY) benchmarks/records.py
	$(PY) benchmarks/precision.py
	$(PY) benchmarks/probes.py
	$(PY) benchmarks/generation.py
	$(PY) benchmarks/lavis_cpu.py $(if $(wildcard $(LAVIS_VENV)/bin/python),--lavis $(LAVIS_VENV)/bin/python)

# on a machine with an NVIDIA GPU and a torch built for it; what it writes is to be committed
bench-gpu: env
	PYTHON=$(PY) bash benchmarks/gpu_session.sh

# for whoever changes this repository: .pre-commit-config.yaml before each commit, nbdev's driver for merges.
# nbdev would also write into ~/.jupyter what settings.ini switches off (jupyter_hooks): it is given another home
hooks: env
	@home=$$(mktemp -d) && GIT_CONFIG_GLOBAL=$${GIT_CONFIG_GLOBAL:-$$HOME/.gitconfig} HOME=$$home $(BIN)/nbdev_install_hooks; rm -rf "$$home"
	$(BIN)/pre-commit install
