"""The secrets of a fleet in containers: made once, by the first to start, in a volume for each kind of part.

A part sees its own kind's volume only. The fleet's tools have the tokens and the signing key: their volume is laid out
as a local fleet's directory, so that all commands find what they need in it.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

from barrier.config import TokenEntry, TokensFile
from fleet import access
from fleet.config import BadConfig
from fleet.files import write_atomic
from pinrail.containers.given import Fleet
from pinrail.local import layout, state, toml
from pipeline import signatures

ROOT = Path("/secrets")
ZOOKEEPER, S3_KEYS, TOKENS, SIGNERS = "zookeeper.toml", "s3.ini", "tokens.toml", "signers"
_SECRET = 0o600


def make(given: Fleet, root: Path = ROOT) -> bool:
    """Whether they were made now. Tokens, keys and users stay what they are; who there is, is written anew each time.

    The tools' file is written last: where it is missing, an earlier run was cut off, and all is made again.
    """
    try:
        tools = root / "tools"
        known = state.load(tools)
        if known is None:
            _clear(root)
            tokens = state.Tokens(**{r: secrets.token_urlsafe(24) for r in ("read", "deploy", "admin")})
            _issue(root, tokens)
            known = _fleet(given, tools, tokens)
            known.save()
            return True
        _fleet(given, tools, known.token).save()
    except OSError as e:
        raise BadConfig(f"the secrets cannot be written below {root}: {e.strerror}") from e
    return False


def _clear(root: Path) -> None:
    """Volumes are there, and stay; what a cut off run left in them goes."""
    for kind in ("barrier", "edge", "host", "s3", "tools"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for left in (root / kind).iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _issue(root: Path, tokens: state.Tokens) -> None:
    for role, file in access.issue({r: secrets.token_urlsafe(24) for r in access.ROLES}).items():
        write_atomic(root / role / ZOOKEEPER, toml.of_model(file), _SECRET)
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    for kind in ("barrier", "host", "s3", "tools"):
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        write_atomic(root / kind / S3_KEYS, text, _SECRET)
    hashed = [
        TokenEntry(name=role, role=role, sha256=hashlib.sha256(token.encode()).hexdigest())
        for role, token in (("read", tokens.read), ("deploy", tokens.deploy), ("admin", tokens.admin))
    ]
    write_atomic(root / "barrier" / TOKENS, toml.of_model(TokensFile(token=tuple(hashed))), _SECRET)
    (root / "tools" / "config").mkdir(exist_ok=True)
    signer = signatures.new_key(root / "tools" / "config" / layout.SIGNING)
    write_atomic(root / "host" / SIGNERS, signer.public.text + "\n", _SECRET)


def _fleet(given: Fleet, tools: Path, tokens: state.Tokens) -> state.FleetState:
    """The same object that a local fleet keeps; processes are the engine's, so it names none."""
    hosts = dict(pair.split("=", 1) for pair in _words(given.hosts) if "=" in pair)
    if len(hosts) != len(_words(given.hosts)):
        raise BadConfig(f"PINRAIL_HOSTS: {given.hosts!r} should be NAME=ADDRESS, with commas between them")
    return state.FleetState(
        id="containers",
        directory=tools,
        run=tools,
        phase="running",
        supervisor=state.SupervisorState(socket=tools / "none"),
        edges=[
            state.EdgeState(
                id=name, url=f"http://{name}:8080", admin="127.0.0.1:6082", metrics=f"http://{name}:9101/metrics"
            )
            for name in _words(given.edges)
        ],
        hosts=[
            state.HostState(id=name, address=at, url=f"http://{at}:8000", metrics=f"http://{name}:9102/metrics")
            for name, at in hosts.items()
        ],
        barrier=[state.BarrierState(id=name, url=f"http://{name}:8300") for name in _words(given.barriers)],
        balancer=given.balancer,
        s3=given.s3,
        bucket=given.bucket,
        s3_credentials=tools / S3_KEYS,
        zookeeper=state.ZooKeeperState(connect=given.zookeeper),
        token=tokens,
        slots={"ngapp": (8000, 8001)},
    )


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]
