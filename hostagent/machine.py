"""What this machine really has of one service: releases on disk, groups in supervisord. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from fleet.files import read_or_none
from fleet.model import Manifest, ServiceConfig, decode
from hostagent import environments
from hostagent.layout import Group, Layout
from hostagent.slots import Slots
from hostagent.supervisor import Process
from hostagent.view import Reached, SlotView

#: Which nginx, of which group, a pool's good answers were seen behind; by slot.
Checked = Mapping[int, tuple[str, int]]
#: Of what lies beside a release.
_BESIDE = (".json", ".sig", ".contents")
_SUFFIXES = (".tar.zst.part.ranges", ".tar.zst.part", ".tar.zst", ".json")


def releases(layout: Layout, service: str) -> dict[str, str]:
    """Complete releases by digest, newest first."""
    found: list[tuple[float, str, str]] = []
    for file in layout.manifest(service, "x").parent.glob("*.json"):
        build = file.name.removesuffix(".json")
        try:
            manifest = decode(Manifest, read_or_none(file))
        except ValidationError:
            continue  # as good as none: it is fetched again
        if manifest and manifest.build == build and layout.release(service, build).is_dir():
            found.append((file.stat().st_mtime, build, manifest.digest))
    return {build: digest for _, build, digest in sorted(found, reverse=True)}


def unprepared(layout: Layout, service: str, releases: Mapping[str, str], config: ServiceConfig) -> frozenset[str]:
    """Those of ``releases`` whose post-install is still to be done."""
    return frozenset(
        build
        for build, digest in releases.items()
        if not environments.ready(layout, service, build, digest, config.pool)
    )


def archives(layout: Layout, service: str) -> tuple[frozenset[str], frozenset[str]]:
    """Builds whose archive is complete, and builds of which there is anything at all."""
    complete, anything = set(), set()
    directory = layout.archives(service)
    names = {f.name for f in directory.iterdir()} if directory.is_dir() else set()
    for name in names:
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        if suffix is None:
            continue
        build = name.removesuffix(suffix)
        anything.add(build)
        if suffix == ".tar.zst" and f"{build}.json" in names:
            complete.add(build)
    return frozenset(complete), frozenset(anything)


def leftovers(layout: Layout, service: str, releases: Mapping[str, str]) -> frozenset[str]:
    """Builds that are no release, and of which there is something where releases are: a kill in the middle of removing
    or of unpacking one, or a signature of what was never unpacked."""
    beside = layout.manifest(service, "x").parent
    found = {f.name.removesuffix(suffix) for suffix in _BESIDE for f in beside.glob(f"[!.]*{suffix}")}
    found |= {d.name for d in layout.releases(service).glob("[!.]*") if d.is_dir()}
    return frozenset(found - releases.keys())


def groups(processes: Iterable[Process]) -> dict[str, dict[int, list[Process]]]:
    """By service and slot. Where a slot has two groups (nobody does that), the first is seen, and then the other."""
    found: dict[str, dict[int, list[Process]]] = {}
    for p in processes:
        if (group := Group.parse(p.group)) is None:
            continue
        slot = found.setdefault(group.service, {}).setdefault(group.slot, [])
        if not slot or slot[0].group == p.group:
            slot.append(p)
    return found


def slot_views(
    service: str, config: ServiceConfig, running: Mapping[int, list[Process]], slots: Slots, checked: Checked
) -> tuple[SlotView, ...]:
    """Every slot of the config and every other one that runs something."""
    views = []
    for index in sorted({*range(config.slots), *running}):
        processes = running.get(index, [])
        port = config.ports[index] if index < len(config.ports) else 0
        group = Group.parse(processes[0].group) if processes else None
        if group is None:
            views.append(SlotView(index, port))
            continue
        spec = slots.spec(service, index)
        nginx = nginx_of(processes)
        pool = [p for p in processes if p is not nginx]
        views.append(
            SlotView(
                index=index,
                port=spec.port if spec and spec.build == group.build else port,
                build=group.build,
                processes=len(pool),
                live=sum(p.state == "RUNNING" for p in pool),
                nginx=nginx is not None and nginx.state == "RUNNING",
                checked=nginx is not None and checked.get(index) == (nginx.group, nginx.pid),
                dead=any(p.dead for p in processes),
            )
        )
    return tuple(views)


def nginx_of(processes: Iterable[Process]) -> Process | None:
    return next((p for p in processes if p.name.endswith(".nginx")), None)


def reached(layout: Layout, service: str) -> Reached:
    """What was reached last, as kept on disk; nothing where that cannot be read."""
    raw = read_or_none(layout.reached(service))
    try:
        return Reached.model_validate_json(raw) if raw else Reached()
    except ValidationError:
        return Reached()
