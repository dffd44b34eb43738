"""Every znode path, in one place. Relative to the chroot that the ZooKeeper address carries.

The layout, who writes what, and which nodes are ephemeral is the table in ``docs/protocol.md``.
"""

from __future__ import annotations

SERVICES = "/services"
ROSTER = "/roster"
#: Persistent markers of services that an operator removed: agents let go of a service only where there is one, so that
#: a ZooKeeper that lost its data stops nothing.
REMOVED = "/removed"
EDGES = "/edges"
CONTROLLERS = "/controllers"
#: Candidates for leadership: ephemeral, sequential; the lowest leads.
CANDIDATES = "/controllers/leader"
#: Persistent; its version is raised once by every new leader, and every write of a leader checks it.
FENCE = "/controllers/fence"
AUDIT = "/audit"
#: Markers of edges that are to be taken away: their health page is red and they do not join the roster.
LEAVING = "/leaving"
#: Calls of the API that were made with an Idempotency-Key, by its hash.
KEYS = "/keys"
#: What the barrier service lays out before anybody else can write.
TOP = (SERVICES, ROSTER, LEAVING, EDGES, CANDIDATES, AUDIT, KEYS, REMOVED)
#: Entries are sequential: this and ten digits.
AUDIT_PREFIX = "e-"


def service(s: str) -> str:
    return f"{SERVICES}/{s}"


def removed(s: str) -> str:
    return f"{REMOVED}/{s}"


def config(s: str) -> str:
    return f"{SERVICES}/{s}/config"


def plan(s: str) -> str:
    return f"{SERVICES}/{s}/plan"


def acks(s: str) -> str:
    return f"{SERVICES}/{s}/acks"


def ack(s: str, edge: str) -> str:
    return f"{SERVICES}/{s}/acks/{edge}"


def enabled(s: str, role: str = "default") -> str:
    base = f"{SERVICES}/{s}/enabled"
    return base if role == "default" else f"{base}/{role}"


def turns(s: str) -> str:
    return f"{SERVICES}/{s}/turns"


def turn(s: str, host: str) -> str:
    return f"{SERVICES}/{s}/turns/{host}"


def hosts(s: str) -> str:
    return f"{SERVICES}/{s}/hosts"


def host(s: str, name: str) -> str:
    return f"{SERVICES}/{s}/hosts/{name}"


def serversets(s: str) -> str:
    return f"{SERVICES}/{s}/serversets"


def serverset(s: str, version: str) -> str:
    return f"{SERVICES}/{s}/serversets/{version}"


def member(s: str, version: str, endpoint: str) -> str:
    """``endpoint`` is ``HOST:PORT``."""
    return f"{SERVICES}/{s}/serversets/{version}/{endpoint}"


def rollouts(s: str) -> str:
    return f"{SERVICES}/{s}/rollouts"


def rollout(s: str, number: int) -> str:
    return f"{SERVICES}/{s}/rollouts/{number}"


def active_rollout(s: str) -> str:
    """The active rollout's number; creating this node is the lock."""
    return f"{SERVICES}/{s}/rollout"


def audit(name: str) -> str:
    return f"{AUDIT}/{name}"


def key(hashed: str) -> str:
    return f"{KEYS}/{hashed}"


def rostered(edge: str) -> str:
    return f"{ROSTER}/{edge}"


def leaving(edge: str) -> str:
    return f"{LEAVING}/{edge}"


def edge(name: str) -> str:
    return f"{EDGES}/{name}"


def waiting_rollout(s: str) -> str:
    """The number of the rollout that begins when the active one is over; at most one waits."""
    return f"{SERVICES}/{s}/queued"
