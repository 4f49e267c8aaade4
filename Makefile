# make demo    a language model writes, steered by a regular expression
# make test    the linter, the formatter's check and the tests
# make test-all   the same, with all cases of each family
# make bench   the benchmarks there are
#
# Each sets up what it needs in .venv first. Another interpreter, more tests at a time:
#
#     make test PYTHON=python3.12 WORKERS=8

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# Named after the interpreter, so that another one starts a fresh environment (and clears the stamps in it).
CREATED := $(VENV)/created-with-$(subst /,-,$(PYTHON))

.PHONY: demo test test-all bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed-lm
	$(BIN)/borelax steer "The Federal Reserve said on Tuesday that" --regex "( [A-Za-z]{1,5}[,.]?)+" \
		--particles 32 --max-tokens 32 --seed 0

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-all:
	@$(MAKE) test TESTS='-m ""'

bench: $(VENV)/installed-dev
	@$(BIN)/python -c 'import ast, pathlib; \
	[print(f"$(BIN)/python {path}\n    {doc.splitlines()[0]}") for path in sorted(pathlib.Path("benchmarks").glob("*.py")) \
	if "__main__" in path.read_text() and (doc := ast.get_docstring(ast.parse(path.read_text())))]'

clean:
	rm -rf $(VENV) build dist *.egg-info .jax_cache .pytest_cache .ruff_cache .hypothesis

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "borelax needs Python 3.11 or later, and \
	$(PYTHON) is older; name another with make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# One pattern for both: .venv/installed-lm holds borelax with its extra `lm`, and so on.
$(VENV)/installed-%: pyproject.toml $(CREATED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
