"""Killed before any touch of the disk on the way from one build to the next, the next agent ends in the same place."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.s3 import ObjectStore
from pipeline.publish import publish
from tests.hostagent.touches import SERVICE
from tests.s3_fixtures import S3Server

FILES, BYTES = 12, 40_000


@pytest.mark.timeout(600)
def test_killed_before_any_touch_of_the_disk_it_ends_in_the_same_place(s3: S3Server, tmp_path: Path) -> None:
    config = s3.config("touches")
    store = ObjectStore(config)
    store.make_bucket()
    tree = tmp_path / "tree"
    (tree / "static").mkdir(parents=True)
    (tree / "now").symlink_to("static")
    for n in range(FILES):
        (tree / f"static/f{n}").write_bytes(random.Random(n).randbytes(BYTES))
    digests = {}
    for n in range(3):
        (tree / f"static/f{n + 4}").write_bytes(random.Random(f"new {n}").randbytes(BYTES))
        digests[f"b{n}"] = publish(store, tree, SERVICE, f"b{n}").manifest.digest
    argv = (sys.executable, "-m", "tests.hostagent.touches", tmp_path, config.endpoint, config.bucket)
    run = subprocess.run(
        (*map(str, argv), str(config.credentials), json.dumps(digests)), stdout=subprocess.PIPE, check=True, timeout=590
    )
    walked = [json.loads(line) for line in run.stdout.splitlines()]
    *killed, (_, first, _, whole, unsealed) = walked
    assert first == 0 and len(killed) > 20
    assert {k.split("/")[2] for k in whole if k.startswith(f"releases/{SERVICE}/")} == {"b1", "b2"}
    assert whole[f"releases/{SERVICE}/b2/now"] == "-> static"
    if os.geteuid() == 0:  # only then are services users of their own, and releases share files
        assert unsealed == [], "pruning made the seals of what it shared anew"
    for count, died, again, looks, _ in killed:
        assert (died, again) == (-signal.SIGKILL, 0), f"killed before touch {count}"
        assert looks == whole, f"killed before touch {count}"
