"""The demo's result in words and a table, for a person. Owns the wording; decides nothing."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pinrail.demo.check import Counts, Promise, Release
from pinrail.demo.result import Result, Way

#: What the rollout's own states are called here.
STEPS = {
    "queued": "queue",
    "withdrawing": "withdraw",
    "installing": "install",
    "offering": "offer",
    "ramping": "ramp",
    "switched": "switch",
    "rolling_back": "switch back",
}
_LEGEND = (
    "flip-flops: answers from another version than the page's own, unasked\n"
    "moved: pages told, once, to reload because their version is gone\n"
    "back: pages older than what the client had; failed: errors, missing or wrong"
)


def show(result: Result, console: Console) -> None:
    console.print(report(result))


def report(result: Result) -> RenderableType:
    parts: list[RenderableType] = [Text(), _table(result), Text(_LEGEND, style="dim"), Text(), _steps(result), Text()]
    parts += [_promise(p) for p in result.promises]
    for title, way in (("ordinary rolling deploy", result.rolling), ("Pinrail", result.pinned)):
        if way.failures:
            why = ", ".join(f"{n} {what}" for what, n in way.failures.items())
            parts += [Text(), Text(f"what failed, {title}: {why}")]
    if result.picture:
        parts += [Text(), Text(f"flip-flops over time, both ways: {result.picture}")]
    parts += [Text(), _verdict(result), Text()]
    return Group(*parts)


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("requests", "pages", "flip-flops", "moved", "back", "failed", "seconds"):
        table.add_column(column, justify="right")
    for title, way in (("ordinary rolling deploy", result.rolling), ("Pinrail", result.pinned)):
        table.add_row(Text(title, style="bold"))
        for release, counts in zip(way.releases, way.judged.counts, strict=True):
            table.add_row(*_row(f"  {_name(release)}", counts, release))
        table.add_row(*_row("  in all", way.total, None), style="bold", end_section=True)
    return table


def _name(release: Release) -> str:
    return f"back to {release.build}" if release.rollback else f"{release.name}  {release.build}"


def _label(release: Release) -> str:
    return "rollback" if release.rollback else release.name


def _row(title: str, counts: Counts, release: Release | None) -> list[str | Text]:
    seconds = ""
    if release is not None:
        seconds = "never" if release.ended is None else f"{release.ended - release.began:.1f}"
    return [
        title,
        str(counts.requests),
        str(counts.documents),
        _bad(counts.fault),
        str(counts.forced),
        _bad(counts.back),
        _bad(counts.failed),
        seconds,
    ]


def _bad(number: int) -> Text:
    return Text(str(number), style="red" if number else "green")


def _steps(result: Result) -> Group:
    lines = [Text("what Pinrail's seconds went into:")]
    for release in result.pinned.releases:
        steps = [f"{STEPS.get(name, name)} {seconds:.2f} s" for name, seconds in release.steps.items()]
        lines.append(Text(f"  {_label(release)}: {', '.join(steps) or 'nothing'}"))
    return Group(*lines)


def _promise(promise: Promise) -> Text:
    if promise.broken is None:
        return Text.assemble(("✓ ", "green"), promise.sentence)
    return Text.assemble(("✗ ", "bold red"), f"{promise.sentence}: ", (promise.broken, "bold red"))


def _verdict(result: Result) -> Text:
    words = (
        f"Ordinary rolling deploy: {_say(result.rolling)}.\nPinrail: {_say(result.pinned)}.\n"
        f"{'Every promise held.' if result.ok else 'Broken: ' + ', '.join(p.name for p in result.broken) + '.'}"
    )
    return Text(words, style="bold green" if result.ok else "bold red")


def _say(way: Way) -> str:
    total = way.total
    return f"{_number(total.fault, 'flip-flop')}, {_number(total.failed, 'failed request')}"


def _number(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"
