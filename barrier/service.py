"""One process: the controller's loop in the main thread, the API beside it, each with a ZooKeeper session of its own.

TERM and INT stop both. A bug in either ends the process with a traceback: whoever supervises it starts it anew.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import threading

import uvicorn

from barrier import api
from barrier.auth import Tokens
from barrier.builds import StoredBuilds
from barrier.config import BarrierConfig
from barrier.context import Api
from barrier.controller import Controller
from barrier.hub import Hub
from barrier.metrics import Metrics
from barrier.rates import Rates
from barrier.store import Store
from fleet import log, loop
from fleet.config import BadConfig
from fleet.loop import Trouble, Wake
from fleet.s3 import ObjectStore
from fleet.zk import ZooKeeper, read_access

_log = log.get()

#: Seconds that open requests (long polls, event streams) get to end when the process stops.
GRACE_SECONDS = 2
#: Seconds, at most, that the controller gathers news between two looks: with thousands of hosts each look takes time.
REST_SECONDS = 0.25
#: Objects that are made before Python looks for rings among them, which are few here; what is known of a large fleet is
#: many objects, and looking through all of them at Python's own pace takes a third of the controller's time.
RINGS_EVERY = 50_000


class CannotListen(Trouble):
    """The address of the API is taken or not ours."""


class ServerEnded(RuntimeError):
    """The API's server came back although nobody had asked it to."""


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadConfig(f"listen: {address!r} is not HOST:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host.strip("[]"), int(port)))
        sock.listen(512)
    except OSError as e:
        sock.close()
        raise CannotListen(f"cannot listen on {address}: {e.strerror}") from e
    return sock


class _Server:
    """uvicorn in a thread of its own, so that signals stay with the main thread."""

    def __init__(self, app: object, sock: socket.socket, ended: Wake) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._sock = sock
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._sock])
        finally:
            self._ended.stop()

    def stop(self) -> bool:
        """True when it was still running until now."""
        running = self._thread.is_alive()
        self._server.should_exit = True
        self._thread.join(GRACE_SECONDS + 5)
        return running


def run(config: BarrierConfig, wake: Wake) -> None:
    """Until ``wake.stop()``. ZooKeeper may be away at any time, at the start too: the API then says so with 503."""
    gc.set_threshold(RINGS_EVERY)
    sock = _listen(config.listen)
    hub, metrics = Hub(), Metrics()
    access = read_access(config.zookeeper_access, "barrier")
    driver = ZooKeeper(config.zookeeper, wake=wake, session_seconds=config.session_seconds, access=access)
    reader = ZooKeeper(config.zookeeper, wake=hub, session_seconds=config.session_seconds, access=access)
    context = Api(
        Store(reader),
        Tokens(config.tokens),
        StoredBuilds(ObjectStore(config.s3)),
        metrics,
        hub,
        Rates.of(config.requests_per_second),
    )
    server = _Server(api.create(context), sock, wake)
    for zk in (driver, reader):
        try:
            zk.start()
        except Trouble as e:
            _log.warning(f"{e}; still trying")  # it connects in the background, and the loop says so again
    server.start()
    _log.info(f"the API listens on http://{config.listen}")
    try:
        loop.run(Controller(driver, config.name, metrics, wake), wake, every=config.every, rest=REST_SECONDS)
    finally:
        hub.close()
        served = server.stop()
        for zk in (driver, reader):
            zk.close()
        with contextlib.suppress(OSError):
            sock.close()
    if not served:
        raise ServerEnded("the API's server ended by itself")
