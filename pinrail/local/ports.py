"""Addresses and ports for one fleet, on loopback, really tried before they are given out.

Every host has an address of its own in 127.0.0.0/8, everything else listens on 127.0.0.1. Where the search begins is
derived from the fleet's directory, so that two fleets come out apart and one fleet finds its ports again. All ports
lie below the range that the kernel hands out for outgoing connections.
"""

from __future__ import annotations

import errno
import hashlib
import random
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 15000
#: No fleet searches there.
_ANY = range(10000, _LOWEST)
_BLOCK = 64


class NoPort(Exception):
    """A port that was asked for is taken, or none is left; the message is a sentence for a person."""

    def __init__(self, sentence: str, port: int | None = None) -> None:
        super().__init__(sentence)
        self.port = port


@dataclass(frozen=True)
class ZooKeeperPorts:
    client: int
    #: For the others of its ensemble; 0 where it is alone.
    quorum: int = 0
    election: int = 0


@dataclass(frozen=True)
class EdgePorts:
    listen: int
    admin: int
    metrics: int


@dataclass(frozen=True)
class HostPorts:
    address: str
    metrics: int


@dataclass(frozen=True)
class Ports:
    zookeepers: tuple[ZooKeeperPorts, ...]
    s3: int
    prometheus: int
    edges: tuple[EdgePorts, ...]
    hosts: tuple[HostPorts, ...]
    barriers: tuple[int, ...]
    #: Free on every host's address; the second pair is for one more service.
    slots: tuple[tuple[int, int], tuple[int, int]]


def is_free(address: str, port: int) -> bool:
    """Nobody listens there (a connection in TIME_WAIT does not count, as it does not for the servers)."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
            s.listen(1)  # with SO_REUSEADDR two may bind; only one may listen
        except OSError as e:
            if e.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def highest() -> int:
    """One above the last port that the kernel does not hand out by itself."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        low = 32768
    return low if low >= _LOWEST + 4 * _BLOCK else 32768


def free_port(address: str = LOOPBACK) -> int:
    """A port for one server that is started soon. Raises NoPort.

    It is drawn, and it is none that the kernel gives by itself (as to a ``bind`` to 0): an outgoing connection of any
    program could have that one before the server binds it.
    """
    for port in random.sample(_ANY, len(_ANY)):
        if is_free(address, port):
            return port
    raise NoPort(f"no port is free on {address} from {_ANY.start} to {_ANY.stop - 1}")


class _Search:
    """Hands out ports in order, skipping taken ones; or, with ``first``, exactly those from there on."""

    def __init__(self, seed: int, first: int | None) -> None:
        self._exact = first is not None
        top = highest()
        start = first if first is not None else _LOWEST + seed % ((top - _LOWEST) // _BLOCK) * _BLOCK
        self._candidates: Iterator[int] = (
            iter(range(start, 65536)) if self._exact else chain(range(start, top), range(_LOWEST, start))
        )

    def __call__(self, addresses: Sequence[str] = (LOOPBACK,)) -> int:
        for port in self._candidates:
            taken = [a for a in addresses if not is_free(a, port)]
            if not taken:
                return port
            if self._exact:
                raise NoPort(f"port {port} on {taken[0]} is taken", port)
        raise NoPort("no port is free on loopback below the range for outgoing connections")


def choose(
    directory: Path, *, edges: int, hosts: int, barriers: int, zookeepers: int = 1, first: int | None = None
) -> Ports:
    """Raises NoPort. ``first``: do not search, use the ports from there on or say which one is taken."""
    seed = hashlib.sha256(str(directory).encode()).digest()
    # 127.0.x.y and 127.255.x.y are left to what else lives on loopback (resolvers, Debian's 127.0.1.1).
    net = f"127.{1 + seed[0] % 254}.{seed[1]}"
    addresses = tuple(f"{net}.{10 + i}" for i in range(hosts))
    port = _Search(int.from_bytes(seed[2:6]), first)
    return Ports(
        edges=tuple(EdgePorts(port(), port(), port()) for _ in range(edges)),
        barriers=tuple(port() for _ in range(barriers)),
        zookeepers=tuple(
            ZooKeeperPorts(port(), port(), port()) if zookeepers > 1 else ZooKeeperPorts(port())
            for _ in range(zookeepers)
        ),
        s3=port(),
        prometheus=port(),
        hosts=tuple(HostPorts(a, port((a,))) for a in addresses),
        slots=((port(addresses), port(addresses)), (port(addresses), port(addresses))),
    )
