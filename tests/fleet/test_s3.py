"""The object store against a real S3 that checks signatures."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet import s3 as s3_module
from fleet.config import BadConfig, S3Config
from fleet.ranges import PiecewiseFile
from fleet.s3 import AlreadyThere, ObjectStore, S3Refused, S3Trouble, archive_key, manifest_key
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.s3_fixtures import KEY, SECRET, S3Server, write_credentials

PIECE = 64 * 1024


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PIECE", PIECE)


def test_where_a_build_lies() -> None:
    assert archive_key("web", "a1") == "builds/web/a1/build.tar.zst"
    assert manifest_key("web", "a1") == "builds/web/a1/manifest.json"


def test_what_was_written_is_read_listed_and_measured(store: ObjectStore, tmp_path: Path) -> None:
    assert store.get("a/1") is None
    assert store.size("a/1") is None
    assert store.keys("a/") == []
    (tmp_path / "f").write_bytes(b"from a file")
    store.put_new("a/1", b"bytes", "text/plain")
    store.put_new("a/2 ü+~", tmp_path / "f", "application/octet-stream")
    store.put_new("b/1", b"", "text/plain")
    assert store.get("a/1") == b"bytes"
    assert store.get("a/2 ü+~") == b"from a file"
    assert (store.size("a/1"), store.size("b/1")) == (5, 0)
    assert store.keys("a/") == ["a/1", "a/2 ü+~"]


def test_a_key_is_written_once(store: ObjectStore) -> None:
    store.put_new("k", b"first", "text/plain")
    with pytest.raises(AlreadyThere, match="k"):
        store.put_new("k", b"second", "text/plain")
    assert store.get("k") == b"first"


def test_of_many_writers_at_once_one_wins(store: ObjectStore) -> None:
    start = threading.Barrier(8)

    def write(n: int) -> bool:
        start.wait(10)
        try:
            store.put_new("race", str(n).encode(), "text/plain")
        except AlreadyThere:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert store.get("race") == str(won.index(True)).encode()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, 9 * PIECE + 17])
def test_a_download_is_the_same_bytes(store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    store.put_new("big", data, "application/octet-stream")
    seen: list[int] = []
    store.download("big", tmp_path / "part", size=size, progress=seen.append)
    assert (tmp_path / "part").read_bytes() == data
    assert seen == sorted(seen)
    assert seen[-1] == size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part"]


def test_a_download_that_was_cut_off_goes_on_where_it_was(store: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(20 * PIECE)
    store.put_new("big", data, "application/octet-stream")
    to = tmp_path / "part"

    class Cut(Exception):
        pass

    def cut(so_far: int) -> None:
        if so_far >= 10 * PIECE:
            raise Cut

    with pytest.raises(Cut):
        store.download("big", to, size=len(data), progress=cut)
    seen: list[int] = []
    store.download("big", to, size=len(data), progress=seen.append)
    assert seen[0] >= 4 * PIECE  # at most the pieces in flight were lost
    assert to.read_bytes() == data


def test_pieces_of_another_object_are_not_kept(store: ObjectStore, tmp_path: Path) -> None:
    to = tmp_path / "part"
    with PiecewiseFile(to, size=3 * PIECE, identity="another", piece=PIECE) as file:
        file.write(0, b"x" * PIECE)
        file.complete(0)
    data = os.urandom(3 * PIECE)
    store.put_new("big", data, "application/octet-stream")
    store.download("big", to, size=len(data))
    assert to.read_bytes() == data


def test_a_torn_journal_counts_for_nothing(tmp_path: Path) -> None:
    def open_it() -> PiecewiseFile:
        return PiecewiseFile(tmp_path / "f", size=40 * PIECE, identity="i", piece=PIECE)

    with open_it() as file:
        file.complete(0)
        file.complete(12 * PIECE)
    journal = tmp_path / "f.ranges"
    journal.write_text(journal.read_text()[:-2])  # "12\n" became "1"
    with open_it() as file:
        assert [start // PIECE for start, _ in file.missing()] == list(range(1, 40))


def test_another_length_or_no_object_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.put_new("k", b"12345", "text/plain")
    with pytest.raises(S3Refused, match="5 bytes, not the 6"):
        store.download("k", tmp_path / "f", size=6)
    with pytest.raises(S3Refused, match="has no other"):
        store.download("other", tmp_path / "f", size=6)
    assert not (tmp_path / "f").exists()


def test_a_missing_bucket_is_named(s3: S3Server, tmp_path: Path) -> None:
    lost = ObjectStore(s3.config("no-such-bucket"))
    for call in (
        lambda: lost.get("k"),
        lambda: lost.size("k"),
        lambda: lost.keys("k"),
        lambda: lost.put_new("k", b"", "text/plain"),
        lambda: lost.download("k", tmp_path / "f", size=1),
    ):
        with pytest.raises(S3Refused, match="no bucket 'no-such-bucket'"):
            call()


@pytest.mark.parametrize(
    ("key", "secret", "why"), [(KEY, "wrong", "secret key is not the right one"), ("nobody", SECRET, "access key")]
)
def test_wrong_credentials_are_said(s3_config: S3Config, tmp_path: Path, key: str, secret: str, why: str) -> None:
    file = write_credentials(tmp_path / "c", key, secret)
    with pytest.raises(S3Refused, match=why) as caught:
        ObjectStore(s3_config.model_copy(update={"credentials": file})).get("k")
    assert secret not in str(caught.value)


def test_rotated_credentials_are_taken_up_after_a_refusal(s3_config: S3Config, tmp_path: Path) -> None:
    file = write_credentials(tmp_path / "c", KEY, "old")
    store = ObjectStore(s3_config.model_copy(update={"credentials": file}))
    with pytest.raises(S3Refused):
        store.size("k")
    write_credentials(file, KEY, SECRET)
    assert store.size("k") is None


def test_the_file_named_wins_over_the_environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert store.keys("") == []


def test_without_a_file_the_environment_counts(s3_config: S3Config, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = s3_config.model_copy(update={"credentials": None})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert ObjectStore(bare).keys("") == []


def test_no_credentials_at_all_is_one_sentence(
    s3_config: S3Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(S3Refused, match="no credentials for S3 at http"):
        ObjectStore(s3_config.model_copy(update={"credentials": None})).get("k")


@pytest.mark.parametrize(
    ("text", "why"), [("[other]\n", "no .default. section"), ("[default]\naws_access_key_id = x\n", "cannot be used")]
)
def test_a_useless_credentials_file_is_named(s3_config: S3Config, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(S3Refused, match=why):
        ObjectStore(s3_config.model_copy(update={"credentials": file})).get("k")
    with pytest.raises(S3Refused, match=r"cannot read the S3 credentials in .*: No such file"):
        ObjectStore(s3_config.model_copy(update={"credentials": tmp_path / "none"})).get("k")


def test_no_proxy_comes_between_programs_on_one_machine(s3_config: S3Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ObjectStore(s3_config).keys("") == []


def test_an_endpoint_that_is_no_url_is_the_operators(s3_config: S3Config) -> None:
    with pytest.raises(BadConfig, match="'localhost' is not a URL"):
        ObjectStore(s3_config.model_copy(update={"endpoint": "localhost"})).get("k")


def test_nobody_listening_is_trouble_that_names_the_endpoint(s3_config: S3Config) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(S3Trouble, match=f"S3 at {url} does not answer"):
        ObjectStore(s3_config.model_copy(update={"endpoint": url})).get("k")


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_mute_server_is_trouble_within_the_deadline(s3_config: S3Config, mute: int) -> None:
    changed = {"endpoint": f"http://127.0.0.1:{mute}", "stall_seconds": 0.2}
    store = ObjectStore(s3_config.model_copy(update=changed))
    with pytest.raises(S3Trouble, match="does not answer"):
        store.get("k")


def test_what_is_in_it_survives_a_kill(tmp_path: Path) -> None:
    server = S3Server(tmp_path)
    try:
        store = ObjectStore(server.config("pinrail"))
        store.put_new("k", b"kept", "text/plain")
        server.kill()
        with pytest.raises(S3Trouble):
            store.get("k")
        server.port = free_port()
        server.url = f"http://127.0.0.1:{server.port}"
        server.start()
        eventually("the object under the new port", lambda: ObjectStore(server.config("pinrail")).get("k") == b"kept")
    finally:
        assert server.stop() == 0
