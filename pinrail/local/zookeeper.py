"""ZooKeeper servers for the local fleet and the tests: Debian's jars, its data in the directory it is given.

One alone, or one of an ensemble. Writes their files and says how to run them; starts nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL = "ZooKeeper is not installed: apt-get install libzookeeper-java libslf4j-java default-jre-headless"
JAR = Path("/usr/share/java/zookeeper.jar")
#: Debian's jar names most of what it needs in its manifest; these two it leaves to the caller.
_BESIDE = ("/usr/share/java/zookeeper-jute.jar", "/usr/share/java/slf4j-simple.jar")


@dataclass(frozen=True)
class Peer:
    """How the servers of an ensemble reach one of theirs: for what the leader says, and to elect it."""

    address: str
    quorum: int
    election: int


class Missing(Exception):
    """Java or the jar is not installed; says what to install."""


def jars() -> tuple[Path, ...]:
    """What must be there for the server to start; the rest comes with the packages of these."""
    return (JAR, *map(Path, _BESIDE))


def prepare(directory: Path, host: str, port: int, ensemble: Sequence[Peer] = (), number: int = 1) -> list[str]:
    """Write ``zoo.cfg`` and the data directory below ``directory``; the argv that runs the server in the foreground.

    ``ensemble`` lists all of its servers, itself as the ``number``-th; empty for one alone.
    """
    java = shutil.which("java")
    if java is None or not all(j.exists() for j in jars()):
        raise Missing(INSTALL)
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    config = directory / "zoo.cfg"
    config.write_text(
        f"dataDir={data}\n"
        f"clientPortAddress={host}\n"
        f"clientPort={port}\n"
        "tickTime=500\n"
        "minSessionTimeout=1000\n"
        "maxSessionTimeout=30000\n"
        "maxClientCnxns=0\n"
        "admin.enableServer=false\n"
        "4lw.commands.whitelist=srvr,ruok,mntr\n"
        "autopurge.purgeInterval=1\n"
        "autopurge.snapRetainCount=3\n"
        "snapshot.trust.empty=true\n" + _together(ensemble)
    )
    if ensemble:
        (data / "myid").write_text(f"{number}\n")
    return [
        java,
        "-Xms32m",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Djava.net.preferIPv4Stack=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-cp",
        ":".join(map(str, jars())),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(config),
    ]


def _together(ensemble: Sequence[Peer]) -> str:
    """Limits in ticks: a server that stands still for longer than that is left behind by the others."""
    lines = [f"server.{n}={p.address}:{p.quorum}:{p.election}" for n, p in enumerate(ensemble, 1)]
    return "\n".join(["initLimit=40", "syncLimit=8", *lines, ""]) if lines else ""
