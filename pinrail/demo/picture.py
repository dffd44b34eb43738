"""Flip-flops over time, both ways on one axis, as an SVG. Computes every coordinate; the template only writes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pinrail.demo.check import Mark, Release
from pinrail.demo.result import Way

WIDTH, HEIGHT = 960, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 936, 104, 300
LANES = (344, 384)
LANE_HEIGHT = 26


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A release, or one step of it, in a lane."""

    x: float
    width: float
    kind: str
    label: str
    tip: str


@dataclass(frozen=True)
class Lane:
    y: int
    name: str
    way: str
    bars: tuple[Bar, ...]
    #: Where each release ended: the label, and the line through the plot.
    ends: tuple[Tick, ...]


@dataclass(frozen=True)
class Scale:
    seconds: float
    most: float

    def x(self, seconds: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * seconds / self.seconds, 1)

    def y(self, number: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * number / self.most, 1)


def draw(rolling: Way, pinned: Way) -> str:
    """The SVG's text."""
    seen = {"rolling": rolling.per_second(Mark.FAULT), "pinned": pinned.per_second(Mark.FAULT)}
    scale = Scale(
        seconds=max(10.0, rolling.seconds, pinned.seconds),
        most=_round_up(max(4, *seen["rolling"], *seen["pinned"])),
    )
    return _template().render(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
        lane_height=LANE_HEIGHT,
        totals={"rolling": rolling.total, "pinned": pinned.total},
        area=_area(seen["rolling"], scale),
        lines={way: _line(numbers, scale) for way, numbers in seen.items()},
        ticks_x=[Tick(scale.x(s), f"{s} s") for s in range(0, int(scale.seconds) + 1, 10)],
        ticks_y=[Tick(scale.y(scale.most * n / 4), f"{scale.most * n / 4:g}") for n in range(5)],
        lanes=[
            _lane(LANES[0], "rolling deploy", "rolling", rolling.releases, scale),
            _lane(LANES[1], "Pinrail", "pinned", pinned.releases, scale),
        ],
    )


def _round_up(number: int) -> int:
    """To a number whose quarters are round."""
    quarter = next(n * ten for ten in (1, 10, 100, 1000, 10000) for n in (1, 2, 3, 5) if 4 * n * ten >= number)
    return 4 * quarter


def _steps(numbers: list[int], scale: Scale) -> list[tuple[float, float]]:
    """A staircase: each second is as wide as it lasted."""
    points = []
    for second, number in enumerate(numbers):
        points += [(scale.x(second), scale.y(number)), (scale.x(min(second + 1, scale.seconds)), scale.y(number))]
    return points


def _line(numbers: list[int], scale: Scale) -> str:
    return " ".join(f"{x},{y}" for x, y in _steps(numbers, scale))


def _area(numbers: list[int], scale: Scale) -> str:
    points = _steps(numbers, scale)
    return " ".join(f"{x},{y}" for x, y in [(LEFT, BOTTOM), *points, (points[-1][0], BOTTOM)])


def _lane(y: int, name: str, way: str, releases: tuple[Release, ...], scale: Scale) -> Lane:
    bars: list[Bar] = []
    for release in releases:
        bars += _bars(release, scale)
    ends = [Tick(scale.x(r.ended), _label(r)) for r in releases if r.ended is not None]
    return Lane(y, name, way, tuple(bars), tuple(ends))


def _label(release: Release) -> str:
    return "back" if release.rollback else release.name


def _bars(release: Release, scale: Scale) -> list[Bar]:
    """The release as a whole, then its steps over it, as long as each took."""
    end = release.ended if release.ended is not None else scale.seconds
    took = end - release.began
    whole = Bar(
        scale.x(release.began),
        max(2.0, round(scale.x(end) - scale.x(release.began), 1)),
        "rollback" if release.rollback else "release",
        _label(release),
        f"{_label(release)} ({release.build}): {took:.1f} s",
    )
    steps, at = [], release.began
    for name, seconds in release.steps.items():
        until = min(at + seconds, end)
        wide = round(scale.x(until) - scale.x(at), 1)
        if wide >= 1:
            steps.append(Bar(scale.x(at), wide, name, "", f"{_label(release)}: {name} {seconds:.2f} s"))
        at = until
    return [whole, *steps]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("pinrail.demo", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("flips.svg.j2")
