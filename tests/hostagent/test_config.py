"""The annotated file, and what it may not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.config import BadConfig, S3Config, load
from hostagent.config import HostConfig
from hostagent.layout import Group, Layout

FILE = Path(__file__).parents[2] / "docs/config/host.toml"


def test_the_annotated_file_is_valid_and_names_every_key() -> None:
    load(FILE, HostConfig)
    shown = set(re.findall(r"^([a-z0-9_]+) =", FILE.read_text(), re.MULTILINE))
    assert shown == (HostConfig.model_fields.keys() | S3Config.model_fields.keys()) - {"s3"}


def test_the_annotated_file_shows_the_defaults() -> None:
    config = load(FILE, HostConfig)
    for name, field in HostConfig.model_fields.items():
        if not field.is_required() and name not in ("run", "s3", "zookeeper_access"):
            assert getattr(config, name) == field.default, name


def config(**changed: object) -> HostConfig:
    required = {"name": "h", "address": "127.0.0.1", "zookeeper": "z:1/c", "directory": "/var/lib/h"}
    return HostConfig.model_validate({**required, **changed})


@pytest.mark.parametrize("path", ["relative", "/a b", "/a;b", "/a%b", "/a'b", "/a$b", "/a\nb", "/a{b}", "/ü"])
def test_paths_that_need_quoting_are_refused(path: str) -> None:
    for key in ("directory", "run"):
        with pytest.raises(BadConfig, match=f"{key} = "):
            Layout.of(config(**{key: path}))


def test_too_long_for_sockets() -> None:
    with pytest.raises(BadConfig, match="set `run` to a shorter directory"):
        Layout.of(config(directory="/" + "d" * 100))
    fine = Layout.of(config(directory="/" + "d" * 100, run="/run/h"))
    assert fine.too_long("a" * 32, 0) is None
    assert Layout.of(config(run="/" + "r" * 75)).too_long("a" * 32, 0)


@pytest.mark.parametrize(
    "group", [Group("app", 0, "a1"), Group("a-0", 1, "x@y".replace("@", "-0.")), Group("a", 9, "B")]
)
def test_a_group_is_known_by_its_name(group: Group) -> None:
    assert Group.parse(str(group)) == group


@pytest.mark.parametrize("name", ["app", "app-0", "app@a1", "app-0@", "-0@a", "edge-1:server", "app-x@a1"])
def test_other_groups_are_nobodys(name: str) -> None:
    assert Group.parse(name) is None
