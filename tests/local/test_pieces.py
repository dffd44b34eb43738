"""The local fleet's smaller pieces: files, ports, locks, processes, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import BadConfig
from pinrail.errors import CommandError
from pinrail.local import layout, lock, ports, processes, state, toml
from pinrail.local.signals import Interrupted, interruptible
from tests.conftest import eventually

PLAIN = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.text(st.characters(exclude_categories=["Cs"])))
TABLES = st.recursive(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN | st.lists(PLAIN)),
    lambda inner: st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), inner | st.lists(inner, min_size=1)),
    max_leaves=6,
)


@given(TABLES)
def test_what_is_written_as_toml_is_read_as_the_same(table: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(table)) == table


def test_a_value_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError):
        toml.dumps({"a": None})


# --- ports ---


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        assert ports.is_free("127.77.1.1", port)
    assert ports.is_free("127.0.0.1", port)


def test_a_port_that_is_taken_on_all_addresses_is_not_free_on_one() -> None:
    with socket.create_server(("0.0.0.0", 0)) as s:  # noqa: S104
        assert not ports.is_free("127.77.1.1", s.getsockname()[1])


def flat(p: ports.Ports) -> list[int]:
    peers = [x for z in p.zookeepers for x in (z.client, z.quorum, z.election) if x]
    singles = [*peers, p.s3, p.prometheus, *p.barriers, *(h.metrics for h in p.hosts)]
    return singles + [x for e in p.edges for x in (e.listen, e.admin, e.metrics)] + [x for s in p.slots for x in s]


def test_no_port_is_given_twice_and_none_is_the_kernels(tmp_path: Path) -> None:
    chosen = flat(ports.choose(tmp_path, edges=3, hosts=4, barriers=2, zookeepers=3))
    assert len(chosen) == 9 + 9 + 2 + 2 + 4 + 4
    assert len(set(chosen)) == len(chosen)
    assert all(1024 < p < ports.highest() for p in chosen)


def test_the_same_directory_finds_its_ports_again_and_another_finds_others(tmp_path: Path) -> None:
    one, again, other = (ports.choose(tmp_path / d, edges=2, hosts=2, barriers=2) for d in ("a", "a", "b"))
    assert one == again
    assert {h.address for h in one.hosts}.isdisjoint(h.address for h in other.hosts)


def test_a_taken_port_is_passed_over_or_named_where_it_was_asked_for(tmp_path: Path) -> None:
    wanted = ports.choose(tmp_path, edges=1, hosts=1, barriers=1)
    with socket.create_server(("127.0.0.1", wanted.edges[0].listen)):
        assert wanted.edges[0].listen not in flat(ports.choose(tmp_path, edges=1, hosts=1, barriers=1))
        with pytest.raises(ports.NoPort, match=f"port {wanted.edges[0].listen} on 127.0.0.1 is taken"):
            ports.choose(tmp_path, edges=1, hosts=1, barriers=1, first=wanted.edges[0].listen)


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        holder = processes.listener(s.getsockname()[1])
    assert holder is not None
    assert holder.pid == os.getpid()


# --- the directory ---


def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all I have")
    with pytest.raises(CommandError, match="is not empty and holds no fleet"):
        layout.claim(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_directory_that_configuration_files_cannot_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot hold a fleet: use letters, digits and"):
        layout.claim(tmp_path / "my fleet")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(CommandError, match="is a file"):
        layout.claim(tmp_path / "f")


def test_removal_takes_what_is_ours_and_leaves_the_rest(tmp_path: Path) -> None:
    layout.claim(tmp_path)
    for name in ("config", "data", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "picture.svg").touch()
    layout.remove(tmp_path, None, keep=False)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.svg"]
    (tmp_path / "picture.svg").unlink()
    layout.remove(tmp_path, None, keep=False)
    assert not tmp_path.exists()


def test_kept_logs_are_no_hindrance_for_the_next_fleet(tmp_path: Path) -> None:
    layout.claim(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "data" / "host-1").mkdir(parents=True)
    (tmp_path / "data" / "host-1" / "pool.log").write_text("what the pool said")
    layout.remove(tmp_path, None, keep=True)
    assert (tmp_path / "logs" / "host-1-pool.log").read_text() == "what the pool said"
    assert not (tmp_path / "data").exists()
    layout.claim(tmp_path)


@pytest.mark.parametrize("depth", [1, 12])
def test_sockets_have_room_however_deep_the_directory_is(tmp_path: Path, depth: int) -> None:
    directory = Path("/").joinpath(*(["0123456789"] * depth))
    fleet = layout.plan(directory, edges=1, hosts=1, barriers=1, first_port=None)
    assert len(str(fleet.run / "host-16" / "a-service-with-a-long-name-of-32--0-slot.sock")) < 107
    assert fleet.run.is_relative_to(directory) == (depth == 1)


def test_the_record_holds_tokens_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    fleet = layout.plan(tmp_path, edges=1, hosts=1, barriers=1, first_port=None)
    fleet.save()
    assert (tmp_path / state.FILE).stat().st_mode & 0o777 == 0o600
    assert state.load(tmp_path) == fleet


def test_a_record_that_cannot_be_understood_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / state.FILE).write_text("{}")
    with pytest.raises(BadConfig, match="written by another version"):
        state.load(tmp_path)


def test_the_directory_is_the_one_given_then_the_environments_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PINRAIL_DIR", "/somewhere/else")
    assert state.directory(Path("given")) == tmp_path / "given"
    assert state.directory(None) == Path("/somewhere/else")
    monkeypatch.delenv("PINRAIL_DIR")
    assert state.directory(None) == tmp_path / ".pinrail"


# --- one at a time ---


def test_the_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    hold = f"from pinrail.local import lock; from pathlib import Path\nwith lock.held(Path({str(tmp_path)!r})): input()"
    with subprocess.Popen((sys.executable, "-c", hold), stdin=subprocess.PIPE) as other:

        def locked_by() -> int | None:
            try:
                with lock.held(tmp_path):
                    return None
            except lock.Locked as e:
                return e.pid

        eventually("the other process holds the lock", lambda: locked_by() == other.pid)
        other.kill()
        other.wait(5)
    assert locked_by() is None


def test_the_first_signal_interrupts_and_further_ones_do_not() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(10)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # while cleaning up
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- processes ---


def stubborn(fleet_id: str) -> subprocess.Popen[bytes]:
    """In a session of its own, with a child in another one; both ignore TERM."""
    code = (
        "import signal, subprocess, sys; signal.signal(15, signal.SIG_IGN)\n"
        "c = 'import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)'\n"
        "subprocess.Popen([sys.executable, '-c', c], start_new_session=True).wait()"
    )
    return subprocess.Popen(
        (sys.executable, "-c", code),
        env={**os.environ, processes.MARK: fleet_id},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )


def test_processes_of_a_fleet_are_found_wherever_they_hide_and_end(tmp_path: Path) -> None:
    with stubborn("ours") as ours, stubborn("others") as others:
        try:
            for p in (ours, others):
                assert p.stdout is not None
                p.stdout.readline()  # both have set their signals
            assert len(processes.of_fleet("ours", None, None)) == 2
            assert processes.end("ours", None, None, grace=0.2) == []
            assert ours.wait(5) == -signal.SIGKILL
            assert len(processes.of_fleet("others", None, None)) == 2
        finally:
            processes.end("others", None, None, grace=0)
            processes.end("ours", None, None, grace=0)


def test_a_process_that_hides_its_environment_is_found_by_its_session() -> None:
    """As nginx does, whose title overwrites it."""
    with subprocess.Popen(("sleep", "60"), env={}, start_new_session=True) as p:
        try:
            seen = processes.look(p.pid)
            assert seen is not None
            assert processes.of_fleet("none", p.pid, seen.started) == [p.pid]
            assert processes.of_fleet("none", p.pid, seen.started + 1) == []  # an older one is somebody else's
        finally:
            p.kill()


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(("true",)) as p:
        eventually("it has ended", lambda: processes.look(p.pid) is None)
