"""Post-install: virtualenvs from a build's own wheels, and what becomes of one that fails or is cut off."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest

from fleet.loop import Trouble
from fleet.model import Pool
from hostagent import environments
from hostagent.config import HostConfig
from hostagent.environments import Environments, Note
from hostagent.layout import Layout
from hostagent.prepare import Prepare, PrepareFailed
from hostagent.worker import Cancelled
from tests.conftest import eventually
from tests.hostagent.fleet import SERVE, Host, Load, alive

WHEEL = "tiny-1.0-py3-none-any.whl"
#: The service shows which word it imported, and from where its python is.
USES_TINY = f'import os, sys, tiny\nos.environ["GREETING"] = tiny.WORD + " " + sys.prefix\n{SERVE}'


def wheel(word: str) -> bytes:
    files = {
        "tiny.py": f"WORD = {word!r}\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    files["tiny-1.0.dist-info/RECORD"] = f"{record}tiny-1.0.dist-info/RECORD,,\n"
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as z:
        for name, text in files.items():
            z.writestr(zipfile.ZipInfo(name), text)  # without a date: the same bytes every time
    return raw.getvalue()


def with_tiny(word: str) -> dict[str, str | bytes]:
    """What a build holds that needs ``tiny``."""
    made = wheel(word)
    return {
        "serve.py": USES_TINY,
        "requirements.txt": f"tiny==1.0 --hash=sha256:{hashlib.sha256(made).hexdigest()}\n",
        f"wheelhouse/{WHEEL}": made,
    }


# -- on a host ------------------------------------------------------------------------------------------------------


def test_a_virtualenv_is_made_from_the_builds_wheels_shared_and_removed_with_its_last_user(host: Host) -> None:
    host.configure(host.config.model_copy(update={"keep": 1}))
    others = set(host.venvs())

    def mine() -> list[Path]:
        return [p for p in host.venvs() if p not in others]

    host.publish("a1", extra=with_tiny(host.service))
    host.publish("b1", extra={**with_tiny(host.service), "more": "another build of the same requirements"})
    host.publish("c1")
    host.publish("d1")
    host.enable(1, "a1")
    host.reached(1, 60)
    (venv,) = mine()
    assert json.loads(host.ask(0)[2])["env"] == f"{host.service} {venv}"
    made = venv.stat().st_mtime_ns

    host.enable(2, "b1", "a1")
    host.reached(2)
    assert json.loads(host.ask(1)[2])["env"] == f"{host.service} {venv}"
    assert mine() == [venv] and venv.stat().st_mtime_ns == made, "made once, used by both"

    host.enable(3, "c1")
    host.reached(3)
    assert json.loads(host.ask(0)[2])["env"] is None, "the host's own python: it asks for nothing"
    host.enable(4, "d1")
    host.reached(4)
    eventually("nobody that is kept uses it", lambda: mine() == [])


def test_a_post_install_that_fails_is_said_and_the_other_slot_notices_nothing(host: Host) -> None:
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    before, venvs = host.pids("a1"), host.venvs()
    host.publish("b1", extra={**with_tiny("x"), f"wheelhouse/{WHEEL}": wheel("somebody else's")})
    with Load(host.endpoint(0)) as load:
        host.enable(2, "b1", "a1")
        status = host.failed(2, "DO NOT MATCH THE HASHES", 60)
    assert status.error and status.error.startswith(f"post-install of {host.service} b1 failed (1): ")
    assert load.failures == [] and host.pids("a1") == before and host.member("a1")
    assert not host.pids("b1") and host.venvs() == venvs
    log = host.machine.directory / "log" / f"{host.service}.install-b1.log"
    assert "DO NOT MATCH THE HASHES" in log.read_text()
    host.enable(3, "a1")
    host.reached(3)


#: Fills its directory half, leaves a child that would go on filling, and waits to be let through.
GATED = """
import os, pathlib, subprocess, sys, time
into = pathlib.Path(os.environ["PINRAIL_INSTALL"])
assert list(into.iterdir()) == [], "fresh"
gate = pathlib.Path(os.environ["GATE"])
if not gate.exists():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (into / "half").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(300)
(into / "whole").write_text(os.environ["PINRAIL_VERSION"])
"""


def test_a_post_install_cut_off_by_a_kill_is_done_again_from_the_start(host: Host, short_tmp: Path) -> None:
    gate = short_tmp / "gate"  # where the service's user can look
    pool = host.config.pool.model_copy(
        update={"install": ("{python}", "install.py"), "environment": {"GATE": str(gate)}}
    )
    host.configure(host.config.model_copy(update={"pool": pool}))
    others = set(host.venvs())

    def half() -> list[Path]:
        return [p / "half" for p in host.venvs() if p not in others and (p / "half").exists()]

    host.publish("a1", extra={"install.py": GATED})
    host.enable(1, "a1")
    eventually("it is at it", lambda: half() and half()[0].read_text())
    pids = [int(p) for p in half()[0].read_text().split()]
    host.machine.kill_agent()
    gate.touch()
    host.machine.start_agent()
    host.reached(1)
    assert not any(map(alive, pids)), "what the killed agent had begun is ended"
    (venv,) = (p for p in host.venvs() if p not in others)
    assert (venv / "whole").read_text() == "a1" and not (venv / "half").exists()
    process = host.pids("a1")["p0"]
    environ = Path(f"/proc/{process}/environ").read_text().split("\0")
    assert f"PINRAIL_INSTALL={venv}" in environ


# -- the step by itself ---------------------------------------------------------------------------------------------


class Bench:
    """A release on a host's disk."""

    def __init__(self, directory: Path) -> None:
        self._host = HostConfig(name="h", address="127.0.0.1", zookeeper="z:1", directory=directory)
        self.layout = Layout.of(self._host)
        self.all = Environments(self.layout)

    def release(self, build: str, files: dict[str, str | bytes], service: str = "app") -> None:
        for name, content in files.items():
            path = self.layout.release(service, build) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def step(self, service: str, build: str, pool: Pool) -> Prepare:
        return Prepare(self.layout, self._host, service, build, pool, None)

    def prepare(self, build: str, pool: Pool | None = None, service: str = "app") -> None:
        pool = pool or Pool()
        self.step(service, build, pool).run(self.all, build, lambda: None)
        assert environments.ready(self.layout, service, build, build, pool)

    def venvs(self) -> list[str]:
        return [p.name for p in self.layout.venvs.glob("*")] if self.layout.venvs.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        (f"tiny==2.0 --hash=sha256:{'0' * 64}\n", "No matching distribution found for tiny==2.0"),
        ("tiny==1.0\n", "Hashes are required in --require-hashes mode"),
    ],
)
def test_what_the_wheelhouse_lacks_and_what_has_no_hash(bench: Bench, requirements: str, words: str) -> None:
    bench.release("b1", {**with_tiny("x"), "requirements.txt": requirements})
    with pytest.raises(PrepareFailed, match=words):
        bench.prepare("b1")
    assert bench.venvs() == []
    assert not environments.ready(bench.layout, "app", "b1", "b1", Pool())


def test_a_command_sees_nothing_of_the_hosts_own_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "PINRAIL_TOKEN", "LD_PRELOAD_OF_SOMEBODY", "https_proxy"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    bench.release("b1", {"f": "x"})
    bench.prepare("b1", Pool(install=("sh", "-c", 'env > "$PINRAIL_INSTALL/seen"'), environment={"OWN": "1"}))
    (seen,) = bench.layout.venvs.glob("*/seen")
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "a secret" not in seen.read_text()
    # PWD, SHLVL and _ are the shell's own.
    assert {"PATH", "HOME", "LANG", "OWN", "PINRAIL_VERSION", "PINRAIL_INSTALL"} <= names
    allowed = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "OWN", "PINRAIL_VERSION", "PINRAIL_INSTALL"}
    assert {n for n in names - allowed if not n.startswith("LC_")} <= {"PWD", "OLDPWD", "SHLVL", "_"}


def test_a_command_that_takes_too_long_is_ended_with_its_children(bench: Bench, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    bench.release("b1", {"x": ""})
    pool = Pool(install=("sh", "-c", f"sleep 300 & echo $! > {pid}; wait"), install_seconds=1.5)
    with pytest.raises(PrepareFailed, match=r"sh was not done in time \(pool.install_seconds = 1.5\)"):
        bench.prepare("b1", pool)
    eventually("its child is ended", lambda: not alive(int(pid.read_text())))
    assert bench.venvs() == []


def test_a_step_that_is_given_up_ends_its_command(bench: Bench, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    bench.release("b1", {"x": ""})

    def give_up() -> None:
        if pid.exists():
            raise Cancelled

    pool = Pool(install=("sh", "-c", f"echo $$ > {pid}; sleep 300"))
    with pytest.raises(Cancelled):
        bench.step("app", "b1", pool).run(bench.all, "b1", give_up)
    assert not alive(int(pid.read_text())) and bench.venvs() == []


def test_a_command_that_is_not_there(bench: Bench) -> None:
    bench.release("b1", {"x": ""})
    with pytest.raises(PrepareFailed, match="cannot run no-such-program: No such file or directory"):
        bench.prepare("b1", Pool(install=("no-such-program",)))


def test_another_command_or_another_build_is_another_environment(bench: Bench) -> None:
    pool = Pool(install=("sh", "-c", 'pwd > "$PINRAIL_INSTALL/where"'))
    for build in ("a1", "b1"):
        bench.release(build, {"x": ""})
        bench.step("app", build, pool).run(bench.all, "the same content", lambda: None)
    assert len(bench.venvs()) == 2
    bench.prepare("b1", pool)
    other = Pool(install=("sh", "-c", 'echo other > "$PINRAIL_INSTALL/where"'))
    assert not environments.ready(bench.layout, "app", "b1", "b1", other)
    assert environments.ready(bench.layout, "app", "b1", "b1", pool.model_copy(update={"command": ("x",)}))
    assert not environments.ready(bench.layout, "app", "b1", "another digest", pool)
    assert environments.ready(bench.layout, "app", "b1", "b1", Pool()), "a build that asks for nothing needs nothing"
    where = bench.layout.venv(environments.of(bench.layout, "app", "b1", pool)) / "where"
    assert where.read_text().strip() == str(bench.layout.release("app", "b1"))


def recipe(bench: Bench, build: str) -> bytes:
    step = bench.step("app", build, Pool())
    return b"\0".join(step._recipe(build))


def test_what_may_be_shared(bench: Bench) -> None:
    hashes = "    --hash=sha256:00 \\\n    --hash=sha256:11\n"
    plain = f"# locked\ntiny[extra]==1.0 ; python_version > '3' \\\n{hashes}    # via x\n"
    for build, requirements in (("a1", plain), ("b1", plain), ("c1", "-r more.txt\n"), ("d1", "-r more.txt\n")):
        bench.release(build, {"requirements.txt": requirements})
    assert recipe(bench, "a1") == recipe(bench, "b1")
    assert recipe(bench, "c1") != recipe(bench, "d1"), "what more.txt holds may differ"
    bench.release("b1", {"wheelhouse/x.whl": "x"})
    assert recipe(bench, "a1") != recipe(bench, "b1")


def test_two_that_want_the_same_at_once_make_it_once(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[Path] = []

    def fill(venv: Path) -> None:
        made.append(venv)
        begun.set()
        assert go_on.wait(10)

    def make(service: str) -> None:
        bench.all.make(service, "a1", Note(venv="same", asked="x"), fill, lambda: None)

    threads = [threading.Thread(target=make, args=(s,)) for s in ("app", "other")]
    for t in threads:
        t.start()
    assert begun.wait(10)
    bench.all.sweep()
    assert bench.venvs() == ["same"], "what is being made is nobody's to remove"
    go_on.set()
    for t in threads:
        t.join(10)
    assert len(made) == 1
    bench.all.forget("app", "a1")
    bench.all.sweep()
    assert environments.complete(bench.layout, "same"), "the other service uses it"
    bench.all.forget("other", "a1")
    bench.all.sweep()
    assert bench.venvs() == []


def test_what_was_left_half_made_goes_and_one_without_its_python_is_none(bench: Bench) -> None:
    bench.layout.venv("half").mkdir(parents=True)
    bench.all.make("app", "a1", Note(venv="whole", asked="x"), lambda v: (v / "bin").mkdir(), lambda: None)
    bench.all.sweep()
    assert bench.venvs() == ["whole"]
    python = bench.layout.venv("whole") / "bin/python"
    python.symlink_to("/usr/bin/env")
    assert environments.complete(bench.layout, "whole")
    python.unlink()
    python.symlink_to("/no/such/python")
    assert not environments.complete(bench.layout, "whole")


def test_a_host_without_python_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    bench.release("b1", with_tiny("x"))
    with pytest.raises(Trouble, match="no python3 on the host's `path` or PATH"):
        bench.prepare("b1")


def test_the_layout_is_a_hosts() -> None:
    config = HostConfig.model_validate(
        {"name": "h", "address": "127.0.0.1", "zookeeper": "z:1/c", "directory": "/var/lib/h"}
    )
    assert Layout.of(config).venvs == Path("/var/lib/h/venvs")
