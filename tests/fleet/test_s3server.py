"""The local S3 server as a process: what it says when it cannot start, and who it lets in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from pinrail.local import s3server
from tests.s3_fixtures import SECRET, S3Server


def start(directory: Path, port: int, **changes: str) -> tuple[int, str]:
    """Run it to its end; the exit status and what it said."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env = {**kept, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", **changes}
    argv = s3server.argv(directory, "127.0.0.1", port)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


def test_a_taken_port_is_one_sentence(s3: S3Server, tmp_path: Path) -> None:
    said = f"pinrail s3: cannot listen on 127.0.0.1:{s3.port}: Address already in use\n"
    assert start(tmp_path / "d", s3.port) == (1, said)


def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = start(tmp_path / "file", 0)
    assert (code, said) == (1, f"pinrail s3: cannot use {tmp_path / 'file'}: Not a directory\n")


def test_a_file_system_without_extended_attributes_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which file system that is depends on the machine; so the kernel's answer is put in its mouth."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(s3server.CannotStart, match="keeps no user extended attributes"):
        s3server.prepare(tmp_path / "d")


def test_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    code, said = start(tmp_path / "d", 0, AWS_SECRET_ACCESS_KEY="")
    assert code == 1
    assert said.startswith("pinrail s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set")
    assert said.count("\n") == 1


@pytest.mark.parametrize("path", ["/", "/pinrail", "/pinrail/k", "/v1/AUTH_pinrail", "/v1/AUTH_pinrail/pinrail/k"])
@pytest.mark.parametrize("headers", [{}, {"x-auth-token": "x"}, {"authorization": "AWS k:signature"}])
def test_nobody_comes_in_without_a_signature(s3: S3Server, path: str, headers: dict[str, str]) -> None:
    with httpx.Client(trust_env=False) as http:
        for method in ("GET", "PUT", "DELETE"):
            assert http.request(method, s3.url + path, headers=headers).status_code == 403


def test_the_key_is_written_nowhere(s3: S3Server) -> None:
    files = [p for p in (s3.directory / "data").rglob("*") if p.is_file()]
    assert any(p.name == "proxy.conf" for p in files)
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]
    assert s3.process
    assert SECRET.encode() not in Path(f"/proc/{s3.process.pid}/cmdline").read_bytes()
