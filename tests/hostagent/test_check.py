"""What is quoted of a program's log."""

from __future__ import annotations

from pathlib import Path

from hostagent.check import tail


def test_the_last_lines_once_each_and_nothing_that_moves_a_cursor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes(b"long ago\nstarting\n\n\x1b[31mbind() failed\x1b[0m\nstill\x07 failed\n" + b"giving up\n" * 9)
    assert tail(log) == "[31mbind() failed [0m | still  failed | giving up"
    log.write_bytes(b"x" * 5000 + b"\nr\xe9sum\xe9\n")
    assert tail(log, lines=1) == "r\ufffdsum\ufffd"
