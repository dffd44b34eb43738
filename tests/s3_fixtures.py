"""A real S3 for every test that wants one: one server a session, a fresh bucket a test."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.config import S3Config
from fleet.s3 import ObjectStore
from pinrail.local import s3server
from pinrail.local.ports import free_port
from tests.conftest import eventually

_buckets = itertools.count(1)

KEY, SECRET = "pinrailtest", "a-secret-of-the-tests"


class S3Server:
    """The server process: ``stop`` and ``start`` keep its data and its port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.log = directory / "log"
        self.credentials = write_credentials(directory / "credentials", KEY, SECRET)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                s3server.argv(self.directory / "data", "127.0.0.1", self.port),
                env=env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        eventually(f"S3 on {self.port}; see {self.log}", self._accepts, 30)

    def stop(self) -> int:
        """TERM; its exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def config(self, bucket: str) -> S3Config:
        return S3Config(endpoint=self.url, bucket=bucket, credentials=self.credentials)

    def _accepts(self) -> bool:
        assert self.process
        if (code := self.process.poll()) is not None:
            pytest.fail(f"the S3 server ended with {code}: {self.log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def write_credentials(path: Path, key: str, secret: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    return path


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3_config(s3: S3Server) -> S3Config:
    """A bucket that no other test uses."""
    config = s3.config(f"t{next(_buckets):04}")
    ObjectStore(config).make_bucket()
    return config


@pytest.fixture
def store(s3_config: S3Config) -> ObjectStore:
    return ObjectStore(s3_config)
