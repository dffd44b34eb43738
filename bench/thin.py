"""Thin edges and hosts: a ZooKeeper session each that does to ZooKeeper what an agent does during a rollout, no more.

``python -m bench.thin edge HOST:PORT/CHROOT FIRST COUNT`` runs some of one kind until its stdin ends; for each line
that it is sent it answers with one: what they have asked and moved so far.

An edge follows the plan and the lists of members, counts each list's names, and acks. It does not read what each member
says, as an edge does once for each new member. A host in its turn reports, leaves and joins the server sets, and is
done: it installs nothing, so what is left is the rollout's own time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from bench.wire import Session
from fleet import paths
from fleet.model import Ack, EdgeInfo, Enabled, Endpoint, HostStatus, Member, Plan, Slot, SlotState, Turn, decode

SERVICE = "bench"
#: Sessions that are opened at the same time.
_OPENING = 50


class Part:
    """A session, and a look at what changed, again and again; one look at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.session: Session | None = None
        self._changed: set[str] = set()
        self._news = asyncio.Event()

    @property
    def zk(self) -> Session:
        assert self.session is not None  # noqa: S101
        return self.session

    async def open(self, host: str, port: int, chroot: str) -> None:
        self.session = await Session.open(host, port, chroot, self._tell)
        await self.begin()

    def _tell(self, path: str) -> None:
        self._changed.add(path)
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            changed, self._changed = self._changed, set()
            await self.look(changed)

    async def begin(self) -> None:
        raise NotImplementedError

    async def look(self, changed: set[str]) -> None:
        raise NotImplementedError


class Edge(Part):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = f"edge-{number:04}"
        self._plan = Plan()
        self._sets: dict[str, int] = {}
        self._acked = b""

    async def begin(self) -> None:
        info = EdgeInfo(name=self.name).encode()
        await self.zk.create(paths.edge(self.name), info)
        await self.zk.create(paths.rostered(self.name), info, ephemeral=False)
        await self.look({paths.plan(SERVICE)})

    async def look(self, changed: set[str]) -> None:
        if paths.plan(SERVICE) in changed:
            self._plan = decode(Plan, await self.zk.follow(paths.plan(SERVICE))) or Plan()
        self._sets = {v: n for v, n in self._sets.items() if v in self._plan.serving}
        for version in self._plan.serving:
            if version not in self._sets or paths.serverset(SERVICE, version) in changed:
                self._sets[version] = await self.zk.count(paths.serverset(SERVICE, version))
        epoch = self._plan.epoch
        ack = Ack(
            incarnation=f"{self.name}/1/1",
            applied=epoch,
            staged=epoch,
            drained=epoch,
            healthy=self._sets,
            members=self._sets,
        ).encode()
        if ack != self._acked:
            self._acked = ack
            await self.zk.put(paths.ack(SERVICE, self.name), ack)


class Host(Part):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = f"host-{number:04}"
        self._address = f"10.1.{number // 250}.{number % 250 + 1}"
        self._enabled = Enabled()
        self._serial = 0
        self._slots: list[str | None] = [None, None]

    async def begin(self) -> None:
        await self._report(None)
        await self.look({paths.enabled(SERVICE)})

    async def look(self, changed: set[str]) -> None:
        if paths.enabled(SERVICE) in changed:
            self._enabled = decode(Enabled, await self.zk.follow(paths.enabled(SERVICE))) or Enabled()
        if self._enabled.serial <= self._serial:
            return
        if await self._has_turn():
            await self._install()

    async def _has_turn(self) -> bool:
        """One of this serial, which it also is told of later."""
        data = await self.zk.follow(paths.turn(SERVICE, self.name))
        return data is not None and Turn.model_validate_json(data).serial >= self._enabled.serial

    async def _install(self) -> None:
        wanted = [b.build for b in self._enabled.builds]
        await self._report("stop")
        for slot, build in enumerate(self._slots):
            if build is not None and build not in wanted:
                await self.zk.delete(self._member(slot, build))
                self._slots[slot] = None
        for build in wanted:
            if build not in self._slots:
                slot = self._slots.index(None)
                endpoint = Endpoint(host=self._address, port=8000 + slot)
                member = Member(serviceEndpoint=endpoint, weight=2, name=self.name)
                await self.zk.create(self._member(slot, build), member.encode())
                self._slots[slot] = build
        self._serial = self._enabled.serial
        await self._report(None)

    def _member(self, slot: int, build: str) -> str:
        return paths.member(SERVICE, build, f"{self._address}:{8000 + slot}")

    async def _report(self, step: str | None) -> None:
        slots = tuple(
            Slot(index=i, port=8000 + i, build=b, state=SlotState.SERVING, processes=2, live=2)
            if b
            else Slot(index=i, port=8000 + i)
            for i, b in enumerate(self._slots)
        )
        status = HostStatus(name=self.name, address=self._address, slots=slots, serial=self._serial, step=step)
        await self.zk.put(paths.host(SERVICE, self.name), status.encode())


async def _main(kind: str, address: str, first: int, count: int) -> None:
    servers, _, chroot = address.partition("/")
    host, _, port = servers.rpartition(":")
    parts: Sequence[Part] = [(Edge if kind == "edge" else Host)(first + n) for n in range(count)]
    room = asyncio.Semaphore(_OPENING)

    async def begin(part: Part) -> None:
        async with room:
            await part.open(host, int(port), f"/{chroot}" if chroot else "")

    await asyncio.gather(*(begin(p) for p in parts))
    running = [asyncio.ensure_future(p.run()) for p in parts]
    await _answer(parts, running)
    for task in running:
        task.cancel()


async def _answer(parts: Sequence[Part], running: Sequence[asyncio.Future[None]]) -> None:
    """A line of counts for each line that is sent, until there are no more. Raises what any of ``running`` raised."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _say({})
    while await lines.readline():
        for task in running:
            if task.done():
                task.result()
        sums = {key: sum(getattr(p.zk, key) for p in parts) for key in ("requests", "sent", "received")}
        _say(sums)


def _say(counts: dict[str, int]) -> None:
    sys.stdout.write(f"{json.dumps(counts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
