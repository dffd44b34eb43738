"""The annotated service configuration names every key there is, and its defaults as they are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from fleet.model import Health, Match, Pin, Pool, ServiceConfig, Waves

TOP = Path(__file__).resolve().parents[2]
FILE = TOP / "docs" / "config" / "service.toml"
TEXT = FILE.read_text()


def test_it_is_the_sample_services_own() -> None:
    assert (TOP / "samples" / "ngapp" / "service.toml").samefile(FILE)


def test_it_is_valid_and_says_the_defaults() -> None:
    config = ServiceConfig.model_validate(tomllib.loads(TEXT), extra="forbid")
    # The one key that the comment says otherwise of.
    assert config == ServiceConfig(health=Health(warm=("/",)))


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ValidationError, match="proceses"):
        ServiceConfig.model_validate(tomllib.loads(TEXT.replace("processes =", "proceses =")), extra="forbid")


@pytest.mark.parametrize(
    ("table", "model"),
    [
        ("", ServiceConfig),
        ("[[match]]", Match),
        ("[pin]", Pin),
        ("[pool]", Pool),
        ("[health]", Health),
        ("[waves]", Waves),
    ],
)
def test_every_key_is_there(table: str, model: type[BaseModel]) -> None:
    start = TEXT.index(f"\n{table}\n") if table else 0
    after = TEXT[start + len(table) + 1 :]
    section = re.split(r"^\[", after, maxsplit=1, flags=re.M)[0]
    for key in model.model_fields:
        is_table = re.search(rf"^\[+({re.escape(table.strip('[]'))}\.)?{key}\]", TEXT, re.M)
        assert is_table or re.search(rf"^(# )?{key} = ", section, re.M), f"{key} is not explained"
