"""The local fleet as the ground of the demo: S3, the barrier service's API, the sample service's tree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fleet.loop import Trouble
from fleet.model import Match, Rollout, ServiceConfig
from fleet.s3 import ObjectStore
from pinrail.demo.browser import Target
from pinrail.demo.check import Way
from pinrail.demo.sequence import Refused
from pinrail.local import config, sample
from pinrail.local.state import FleetState
from pipeline import publish
from pipeline.client import BarrierError, Client

SERVICES = {Way.ROLLING: "ngapp-rolling", Way.PINNED: "ngapp"}
ROLLING_HOST = "rolling.localhost"


@contextmanager
def _refusals() -> Iterator[None]:
    """The barrier service's no is a reason to be told, not a fault of ours."""
    try:
        yield
    except BarrierError as e:
        kind = Trouble if e.status >= 500 else Refused
        raise kind(f"the barrier service says no: {e}") from e


class LocalControl:
    """One service, through the API that any deploy job would call."""

    def __init__(self, client: Client, service: str) -> None:
        self._client = client
        self._service = service

    def default(self) -> str | None:
        with _refusals():
            return self._client.plan(self._service).default

    def start(self, build: str) -> int:
        with _refusals():
            # The key makes asking again harmless; each build is released once.
            return self._client.deploy(self._service, build, reason="demo", key=f"demo-{build}").number

    def rollback(self, number: int) -> int:
        with _refusals():
            return self._client.ask(self._service, number, "rollback", "demo").number

    def look(self, number: int) -> Rollout:
        with _refusals():
            return self._client.rollout(self._service, number)


class LocalGround:
    """A context: leaving it closes its connections."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._client = Client([b.url for b in fleet.barrier], fleet.token.admin)
        self._store = ObjectStore(config.s3_config(fleet))
        self._key = config.signing_key(fleet)

    def __enter__(self) -> LocalGround:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def metrics(self) -> Mapping[str, str]:
        return {edge.id: edge.metrics for edge in self._fleet.edges}

    def service(self, way: Way) -> str:
        return SERVICES[way]

    def target(self, way: Way) -> Target:
        edges = {edge.id: edge.url for edge in self._fleet.edges}
        return Target(way, edges, host=ROLLING_HOST if way is Way.ROLLING else None)

    def configure(self, way: Way) -> None:
        """The sample service as it is; for the rolling way the same but one slot, and known by a host name."""
        pinned = sample.service_config(self._fleet)
        with _refusals():
            if way is Way.ROLLING:
                self._client.configure(SERVICES[way], rolling(pinned, self._fleet).model_dump(mode="json"))
            elif SERVICES[way] not in [s["service"] for s in self._client.services()]:
                self._client.configure(SERVICES[way], pinned.model_dump(mode="json"))

    def publish(self, way: Way, build: str) -> None:
        with tempfile.TemporaryDirectory(prefix="pinrail-demo-") as directory:
            tree = Path(directory) / build
            sample.tree(tree, build)
            publish.publish(self._store, tree, SERVICES[way], build, key=self._key)

    def control(self, way: Way) -> LocalControl:
        return LocalControl(self._client, SERVICES[way])

    def done(self, way: Way) -> None:
        """The baseline's service is only there for the comparison; its hosts' processes end with it."""
        if way is Way.ROLLING:
            with _refusals():
                self._client.remove(SERVICES[way])


def rolling(pinned: ServiceConfig, fleet: FleetState) -> ServiceConfig:
    """What an ordinary rolling deploy of the same service would be configured as."""
    return ServiceConfig.model_validate(
        pinned.model_dump()
        | {"strategy": "inplace", "ports": (fleet.slots["second"][0],), "match": (Match(host=ROLLING_HOST),)}
    )
