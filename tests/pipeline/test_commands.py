"""``pinrail build``, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.config import S3Config
from pinrail.local.ports import free_port
from tests.s3_fixtures import S3Server

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def environment(s3_config: S3Config, tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PINRAIL_"))}
    return kept | {
        "PINRAIL_S3_ENDPOINT": s3_config.endpoint or "",
        "PINRAIL_S3_BUCKET": s3_config.bucket,
        "AWS_SHARED_CREDENTIALS_FILE": str(s3_config.credentials),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PINRAIL_DIR": str(tmp_path / "no-fleet"),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def pinrail(environment: dict[str, str]) -> Run:
    def run(*args: object, **changes: str | None) -> Result:
        env = {k: v for k, v in {**environment, **changes}.items() if v is not None}
        argv = [sys.executable, "-c", "from pinrail.cli import main; main()", *map(str, args)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("content")
    return tree


def refused(result: Result, code: int, *words: str) -> None:
    """One line on stderr that says so, nothing else."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("pinrail: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_publish_list_show_and_verify(pinrail: Run, tree: Path) -> None:
    done = pinrail("build", "publish", tree, "--service", "web", "--build", "b1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("published web b1: 1 files, ")
    again = pinrail("build", "publish", tree, "--service", "web", "--build", "b1", "--json")
    assert again.returncode == 0
    said = json.loads(again.stdout)
    assert (said["build"], said["new"], said["files"]) == ("b1", False, 1)
    listed = pinrail("build", "list", "web")
    assert listed.stdout.split("\t")[0] == "b1"
    assert [m["digest"] for m in json.loads(pinrail("build", "list", "web", "--json").stdout)] == [said["digest"]]
    assert f"digest  {said['digest']}" in pinrail("build", "show", "web", "b1").stdout
    assert json.loads(pinrail("build", "show", "web", "b1", "--json").stdout)["unpacked"] == 7
    assert "b1 is whole" in pinrail("build", "verify", "web", "b1").stdout


def test_what_the_operator_can_mend_is_one_line_and_2(pinrail: Run, tree: Path, tmp_path: Path) -> None:
    publish = ("build", "publish")
    web = ("--service", "web")
    refused(pinrail(*publish, tree, *web, "--build", "no/name"), 2, "'no/name' is not a build name")
    refused(pinrail(*publish, tree, "--service", "No_Service"), 2, "is not a service name")
    refused(pinrail(*publish, tmp_path / "none", *web), 2, "none is not there")
    refused(pinrail(*publish, tree / "f", *web), 2, "not a directory")
    (tmp_path / "empty").mkdir()
    refused(pinrail(*publish, tmp_path / "empty", *web), 2, "holds no files")
    (tree / "odd").symlink_to("/etc")
    refused(pinrail(*publish, tree, *web), 2, "odd: a symlink to the absolute path")


def test_other_bytes_and_missing_builds_are_one_line_and_1(pinrail: Run, tree: Path) -> None:
    assert pinrail("build", "publish", tree, "--service", "web", "-b", "b1").returncode == 0
    (tree / "f").write_text("other")
    refused(pinrail("build", "publish", tree, "--service", "web", "-b", "b1"), 1, "other bytes", "another name")
    refused(pinrail("build", "show", "web", "b2"), 1, "no build b2 of web")
    refused(pinrail("build", "verify", "web", "b2"), 1, "no build b2 of web")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(pinrail: Run, tree: Path) -> None:
    (tree / "f").chmod(0)
    refused(pinrail("build", "publish", tree, "--service", "web"), 2, "f: cannot be read: Permission denied")


def test_s3_that_is_away_or_says_no_is_one_line_and_1(pinrail: Run, tree: Path, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    refused(pinrail("build", "list", "web", PINRAIL_S3_ENDPOINT=away), 1, away, "does not answer")
    refused(pinrail("build", "list", "web", PINRAIL_S3_BUCKET="another"), 1, "no bucket 'another'")
    refused(pinrail("build", "list", "web", AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "x")), 1, "no credentials")
    refused(pinrail("build", "list", "web", PINRAIL_S3_ENDPOINT="nonsense"), 2, "is not a URL")
    refused(pinrail("build", "list", "web", PINRAIL_S3_BUCKET="not a bucket"), 2, "bucket")


def test_without_s3_it_says_what_to_set(pinrail: Run, tree: Path) -> None:
    result = pinrail("build", "list", "web", PINRAIL_S3_ENDPOINT=None, PINRAIL_S3_BUCKET=None)
    refused(result, 2, "PINRAIL_S3_BUCKET", "pinrail up")


def test_a_bar_is_drawn_on_a_terminal_only(environment: dict[str, str], tree: Path, s3: S3Server) -> None:
    """With a pseudo-terminal as stderr."""
    import pty

    master, slave = pty.openpty()
    argv = [sys.executable, "-c", "from pinrail.cli import main; main()", "build", "publish", str(tree), "-s", "web"]
    with subprocess.Popen(argv, env={**environment, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        drawn = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            drawn += piece
        out = process.communicate(timeout=30)[0]
    os.close(master)
    assert process.returncode == 0, drawn
    assert b"uploading" in drawn
    assert out.startswith(b"published web ")
