"""``python -m tests.edge.launch run|server CONFIG.json``: what ``pinrail edge run|server`` does."""

from __future__ import annotations

import sys
from pathlib import Path

from edge import main
from edge.config import EdgeConfig

if __name__ == "__main__":
    config = EdgeConfig.model_validate_json(Path(sys.argv[2]).read_text())
    if sys.argv[1] == "run":
        main.run(config)
    else:
        main.serve(config)
