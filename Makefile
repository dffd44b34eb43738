.PHONY: setup demo test check fix bench docs lock
setup:  ; script/setup
demo:   ; script/demo
test:   ; script/test
check: setup  ; .venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy
fix: setup    ; .venv/bin/ruff check --fix && .venv/bin/ruff format
bench: setup  ; .venv/bin/python -m bench
docs: setup   ; .venv/bin/python compose/grafana/build.py && PINRAIL_WRITE_DOCS=1 .venv/bin/python -m pytest -k docs
LOCK = .venv/bin/uv pip compile pyproject.toml --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --quiet
lock: setup   ; .venv/bin/python -m pip install --quiet uv && $(LOCK) --all-extras -o requirements.lock && $(LOCK) --extra local -c requirements.lock -o compose/requirements.lock
