"""Does the pieces of work that ``hostagent.work`` names: one method each, idempotent, with a bound on its time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.download import Pace
from fleet.files import read_or_none, write_atomic
from fleet.loop import Trouble
from fleet.model import Manifest, ServiceConfig, decode
from fleet.s3 import ObjectStore
from hostagent import check, contents, environments, failpoint, machine, seals
from hostagent import work as w
from hostagent.archive import Verified
from hostagent.config import HostConfig
from hostagent.environments import Environments
from hostagent.fetch import Means, fetch, manifest
from hostagent.kept import Kept
from hostagent.layout import Group, Layout, index_of
from hostagent.metrics import Metrics
from hostagent.prepare import Prepare
from hostagent.slots import Slots, SlotTrouble
from hostagent.supervisor import Supervisor
from hostagent.trust import Trust
from hostagent.unpack import BadArchive, Earlier, Limits, discard, unpack
from hostagent.users import Users

#: Seconds that edges get to stop sending to a slot that was deregistered (inplace: they are not asked first).
LET_GO = 5.0


class StepFailed(Trouble):
    """The disk, or a build that is not what it should be. The sentence says which."""


class Steps:
    """The work of one service on this host."""

    def __init__(
        self,
        service: str,
        host: HostConfig,
        layout: Layout,
        supervisor: Supervisor,
        slots: Slots,
        environments: Environments,
        users: Users,
        store: ObjectStore,
        trust: Trust,
        pace: Pace | None,
        m: Metrics,
    ) -> None:
        self._service = service
        self._host = host
        self._environments = environments
        self._users = users
        self._layout = layout
        self._supervisor = supervisor
        self._slots = slots
        self._store = store
        self._trust = trust
        self._pace = pace
        self._kept = Kept(layout, service, host.keep_archives)
        self._metrics = m
        #: What was fetched last, as it was when it was read through. Not kept on disk: another agent reads it again.
        self._seen: Verified | None = None

    def do(self, work: w.Work, config: ServiceConfig, give_up: Callable[[], None]) -> None:
        """Raises Trouble, or what ``give_up`` raises; the work may then be half done, and is to be done again."""
        if not isinstance(work, w.Prune):
            failpoint.at(self._service, work.build, f"{w.step(work)}.before")
        try:
            match work:
                case w.Fetch(build, digest):
                    self._fetch(build, digest, config, give_up)
                case w.Unpack(build, digest):
                    self._unpack(build, digest, give_up)
                case w.Prepare(build, digest):
                    self._prepare(build, digest, config, give_up)
                case w.Stop(slot, build):
                    self._stop(slot, build, config, give_up)
                case w.Start(slot, build):
                    self._trust.require(self._unpacked(build), config.revoked_below, installed=True)
                    self._slots.start(self._service, slot, build, config)
                case w.Revive(slot, build):
                    self._slots.revive(self._service, slot, build)
                case w.Check(slot, build):
                    self._check(slot, build, config, give_up)
                case w.Prune(builds, downloads):
                    self._prune(builds, downloads)
        except OSError as e:
            raise StepFailed(f"{w.step(work)} of {self._service}: {self._layout.said(e)}") from e

    def _fetch(self, build: str, digest: str, config: ServiceConfig, give_up: Callable[[], None]) -> None:
        begun = time.monotonic()
        found = manifest(self._store, self._service, build, digest)
        self._trust.require(found, config.revoked_below)  # before 200 MB are fetched for nothing
        promise = self._layout.promise(self._service, build)
        promise.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(promise, found.encode())
        failpoint.at(self._service, build, "fetch.promised")

        def piece(_: int) -> None:
            give_up()
            failpoint.at(self._service, build, "fetch.piece")

        means = Means(self._kept, self._pace, self._host.disk_reserve)
        fetched = fetch(self._store, found, self._layout.archive(self._service, build), means, piece)
        self._seen = fetched.archive
        self._metrics.fetched(fetched.bytes, time.monotonic() - begun)

    def _unpack(self, build: str, digest: str, give_up: Callable[[], None]) -> None:
        archive = self._layout.archive(self._service, build)
        release = self._layout.release(self._service, build)
        complete = self._layout.manifest(self._service, build)
        held = self._layout.contents(self._service, build)
        found = decode(Manifest, read_or_none(self._layout.promise(self._service, build)))
        if release.exists():  # not complete, or of another digest: a build of that name was made anew
            complete.unlink(missing_ok=True)
            held.unlink(missing_ok=True)
            self._environments.forget(self._service, build)
            discard(release)
        try:
            if found is None or found.digest != digest:
                raise BadArchive("it was fetched for another digest")
            self._hide_from_others(release.parent)
            most = Limits()
            limits = Limits(min(most.bytes, found.unpacked), min(most.files, found.files))
            earlier = self._earlier(build)
            holds = unpack(
                archive, release, digest=digest, limits=limits, check=give_up, seen=self._seen, earlier=earlier
            )
        except BadArchive as e:
            archive.unlink(missing_ok=True)  # the next attempt fetches it again
            raise StepFailed(f"the archive of {self._service} {build} is not usable: {e}") from e
        failpoint.at(self._service, build, "unpack.named")
        complete.parent.mkdir(parents=True, exist_ok=True)
        if holds is not None:
            write_atomic(held, holds.encode())
        failpoint.at(self._service, build, "unpack.held")
        # Before the release is complete, as nobody would come back for it: a kill in between costs work, but no bytes.
        self._kept.keep(build, archive, read_or_none(index_of(archive)))
        failpoint.at(self._service, build, "unpack.kept")
        write_atomic(complete, found.encode())
        for leftover in self._layout.downloads(self._service, build):
            leftover.unlink(missing_ok=True)

    def _earlier(self, build: str) -> Earlier | None:
        """The newest other release, where nobody but us can write to it."""
        if self._users.of(self._service) is None:
            return None
        newest = next((b for b in machine.releases(self._layout, self._service) if b != build), None)
        if newest is None:
            return Earlier()
        held = read_or_none(self._layout.contents(self._service, newest))
        return Earlier(self._layout.release(self._service, newest), contents.decode(held))

    def _hide_from_others(self, releases: Path) -> None:
        """One service's user reads no other's releases."""
        releases.mkdir(parents=True, exist_ok=True)
        if (user := self._users.of(self._service)) is not None:
            os.chown(releases, -1, user)
            releases.chmod(0o750)

    def _unpacked(self, build: str) -> Manifest:
        found = decode(Manifest, read_or_none(self._layout.manifest(self._service, build)))
        if found is None:
            raise StepFailed(f"the release {self._service} {build} is not complete")
        return found

    def unvouched(self, builds: Iterable[str], config: ServiceConfig) -> frozenset[str]:
        """Those of the complete releases ``builds`` that may not be started for all that this host knows."""
        found = {b: decode(Manifest, read_or_none(self._layout.manifest(self._service, b))) for b in builds}
        return frozenset(b for b, m in found.items() if m is None or not self._trust.known(m, config.revoked_below))

    def _prepare(self, build: str, digest: str, config: ServiceConfig, give_up: Callable[[], None]) -> None:
        """Also where all is ready and only nobody vouches for it (any more)."""
        ready = environments.ready(self._layout, self._service, build, digest, config.pool)
        self._trust.require(self._unpacked(build), config.revoked_below, installed=ready)
        if not ready:
            user = self._users.of(self._service)
            prepare = Prepare(self._layout, self._host, self._service, build, config.pool, user)
            prepare.run(self._environments, digest, give_up)

    def _stop(self, slot: int, build: str, config: ServiceConfig, give_up: Callable[[], None]) -> None:
        spec = self._slots.spec(self._service, slot)
        if spec is not None and spec.build == build:
            # dual: the edges have drained it before we were asked. inplace: they learn of it only now; while they still
            # have it they probe it, so as long as probes come it is not quiet.
            inplace = config.strategy == "inplace"
            quiet = 2 * config.health.interval + 0.5 if inplace else 0.3
            self._slots.drain(spec, quiet=quiet, let_go=LET_GO + quiet, finish=config.response_seconds, check=give_up)
        give_up()
        self._slots.stop(self._service, slot, build)

    def _check(self, slot: int, build: str, config: ServiceConfig, give_up: Callable[[], None]) -> None:
        spec = self._slots.spec(self._service, slot)
        if spec is None or spec.build != build:
            raise SlotTrouble(f"slot {slot} of {self._service} runs {build}, and nothing on disk says how")
        group = str(Group(self._service, slot, build))
        try:
            check.Pool(spec, config, look=lambda: self._supervisor.group(group), check=give_up).wait()
            check.stamp(spec, config, self._host.name, give_up)
        except check.NotGood as e:
            raise check.NotGood(f"{e}{self._words(slot, e.program)}", e.program) from e

    def last_words(self, slot: int) -> str:
        """What a process of the pool in ``slot`` wrote last, to be put behind a sentence; "" where none wrote."""
        names = (log.suffixes[0].removeprefix(".") for log in self._layout.slot_logs(self._service, slot))
        return next((words for name in names if name != "nginx" and (words := self._words(slot, name))), "")

    def _words(self, slot: int, program: str) -> str:
        words = check.tail(self._layout.log(self._service, slot, program))
        return f" [its log: {words}]" if words else ""

    def _prune(self, builds: tuple[str, ...], downloads: tuple[str, ...]) -> None:
        for leftover in (f for b in downloads for f in self._layout.downloads(self._service, b)):
            leftover.unlink(missing_ok=True)
        with self._sealed_anew(builds):
            for build in builds:
                self._remove(build)
        self._environments.sweep()

    def _remove(self, build: str) -> None:
        self._layout.manifest(self._service, build).unlink(missing_ok=True)  # from here on it is no release
        self._layout.signatures(self._service, build).unlink(missing_ok=True)
        self._layout.contents(self._service, build).unlink(missing_ok=True)
        for leftover in self._layout.downloads(self._service, build):
            leftover.unlink(missing_ok=True)
        self._kept.forget(build)
        self._environments.forget(self._service, build)
        self._layout.install_log(self._service, build).unlink(missing_ok=True)
        release = self._layout.release(self._service, build)
        if release.exists():
            discard(release)

    @contextmanager
    def _sealed_anew(self, going: tuple[str, ...]) -> Iterator[None]:
        """What goes shares files with the release that the next will share with; losing a link breaks their seals.

        A kill in between costs the next unpacking some reading.
        """
        newest = next((b for b in machine.releases(self._layout, self._service) if b not in going), None)
        file = self._layout.contents(self._service, newest) if newest else None
        held = contents.decode(read_or_none(file)) if file else None
        if file is None or held is None or newest is None or not going:
            yield
            return
        root = self._layout.release(self._service, newest)
        names = seals.unbroken(root, held)
        yield
        write_atomic(file, seals.anew(root, held, names).encode())
