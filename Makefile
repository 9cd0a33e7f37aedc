# Every target builds what it needs first; nothing asks questions or needs a terminal.
# COMFYUI_DIR=/path/to/ComfyUI uses that one instead (see docs/development.md).

PYTHON ?= python3
PORT ?= 8188
TESTS ?= tests
ARGS ?=
SEED ?=
CHECKPOINT ?=
# Whole files go to one worker: a running server and all that is made once for a module stay with their tests.
WORKERS = -n 2 --dist loadfile

COMFYUI = $(PYTHON) dev/comfyui.py
# The pack's own code beside ComfyUI, on these; PYTHONS= for none.
PYTHONS ?= 3.10 3.12 3.13
# With the one that COMFYUI_DIR names there are no others.
OLDER_VERSIONS = $(if $(COMFYUI_DIR),,0.27.0 0.24.0 0.18.2)
export MODEL PROMPT PORT

.PHONY: help demo test test-shuffled test-full test-newest test-oldest lint bench soak serve verify-released train-mini thumbnails help-pictures prompts host pins clean-host
.DEFAULT_GOAL := help

help:
	@echo "make demo        transparent pictures from a real ComfyUI (MODEL=..., PROMPT=...)"
	@echo "make serve       ComfyUI with this pack, to click in: http://127.0.0.1:$(PORT) (PORT=...)"
	@echo "make test        all tests but the slow ones (TESTS=tests/unit, ARGS='-k name')"
	@echo "make test-shuffled  the same in another order each time (SEED=... for one that was printed)"
	@echo "make test-full   all tests, the live ones on older ComfyUIs, and some on other Pythons"
	@echo "make test-on-0.24.0  the live tests on that ComfyUI (TESTS=tests/live/...)"
	@echo "make test-on-python-3.12  the tests of what needs torch alone, on that Python"
	@echo "make lint        ruff and the type checker"
	@echo "make bench       times beside the textbook way"
	@echo "make soak        many prompts on one server: is anything left of them? (ARGS=--help)"
	@echo "make verify-released  the authors' recipes on the released files (CHECKPOINT=..., or ARGS=--dry-run)"
	@echo "make train-mini  train the mini family from nothing (ARGS=--help)"
	@echo "make thumbnails  pictures for the template browser, painted by the mini models"
	@echo "make help-pictures  pictures of the nodes for their help pages"
	@echo "make prompts     the workflows in API format (tests/prompts), after they or their nodes have changed"
	@echo "make host        build ComfyUI under .comfyui/ or bring it up to date"
	@echo "make pins        compile the locks in dev/pins (UPGRADE=1 takes newer versions)"
	@echo "make clean-host  remove what was built under .comfyui/; models and pictures stay"

host:
	$(COMFYUI)

demo:
	$(COMFYUI) run dev/demo.py $(ARGS)

bench:
	$(COMFYUI) run -m dev.bench $(ARGS)

soak:
	$(COMFYUI) run -m dev.soak $(ARGS)

serve:
	$(COMFYUI) run dev/serve.py $(ARGS)

verify-released:
	$(COMFYUI) run -m dev.verify_released $(if $(CHECKPOINT),"$(CHECKPOINT)") $(ARGS)

thumbnails:
	$(COMFYUI) run -m dev.thumbnails $(ARGS)

help-pictures:
	$(COMFYUI) run -m dev.help_pictures $(ARGS)

prompts:
	$(COMFYUI) run -m dev.export_prompts

test:
	$(COMFYUI) run -m pytest $(TESTS) -m "not full" $(WORKERS) $(ARGS)

test-shuffled:
	$(COMFYUI) run -m pytest $(TESTS) -m "not full" $(WORKERS) -p randomly $(SEED:%=--randomly-seed=%) $(ARGS)

test-full: test-newest $(OLDER_VERSIONS:%=test-on-%) $(PYTHONS:%=test-on-python-%)

test-newest:
	$(COMFYUI) run -m pytest $(TESTS) $(WORKERS) $(ARGS)

test-on-%: TESTS = tests/live
test-on-%:
	$(COMFYUI) --version $* run -m pytest $(TESTS) -m "not full" $(WORKERS) $(ARGS)

test-on-python-%: TESTS = tests/unit tests/golden
test-on-python-%:
	$(COMFYUI) run -m dev.pythons $* $(TESTS) $(WORKERS) $(ARGS)

# Every node in some workflow, every text, every route that the pack relies on.
test-oldest:
	$(MAKE) test-on-0.18.2 TESTS="tests/live/test_server.py tests/live/test_node_texts.py tests/live/test_workflows.py"

lint:
	$(COMFYUI) run -m ruff check .
	$(COMFYUI) run -m ruff format --check .
	$(COMFYUI) run -m basedpyright

train-mini:
	$(COMFYUI) run -m training.mini $(ARGS)

pins:
	$(COMFYUI) run -m dev.pins $(if $(UPGRADE),--upgrade)
	$(COMFYUI)

clean-host:
	$(COMFYUI) clean
