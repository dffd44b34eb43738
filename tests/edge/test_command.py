"""``pinrail edge render`` and ``check``: files in, files or a verdict out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.config import EdgeConfig
from fleet import config as files
from pinrail.cli import app

PLAN = {"epoch": 3, "generation": 1, "default": "A", "serving": ["B", "A"], "staged": {"generation": 2, "default": "B"}}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    (tmp_path / "members.json").write_text(json.dumps({"A": ["10.0.0.1:8000"], "B": ["10.0.0.1:8001"]}))
    return tmp_path


def run(directory: Path, *words: str) -> tuple[int, str]:
    inputs = ["--plan", str(directory / "plan.json"), "--members", str(directory / "members.json")]
    result = CliRunner().invoke(app, ["edge", words[0], *inputs, *words[1:]])
    return result.exit_code, result.output


def test_rendering_twice_gives_the_same_files(given: Path) -> None:
    for name in ("one", "two"):
        assert run(given, "render", "--to", str(given / name))[0] == 0
    one, two = ({p.name: p.read_text() for p in (given / n).iterdir()} for n in ("one", "two"))
    assert one == two and set(one) == {"current.vcl", "staged.vcl", "root.vcl"}


def test_what_is_rendered_compiles(given: Path) -> None:
    code, said = run(given, "check")
    assert code == 0, said
    assert said.count("compiles") == 2


def test_a_compiler_that_fails_is_exit_1_with_its_words(given: Path) -> None:
    assert run(given, "check", "--varnishd", "false") == (1, "current.vcl: exit 1\n")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("plan.json", "{", "neither JSON nor TOML"),
        ("plan.json", '{"default": "Z"}', "not in serving"),
        ("members.json", '{"A": ["nowhere"]}', "HOST:PORT"),
        ("members.json", '{"a/b": []}', "build name"),
    ],
)
def test_bad_input_is_exit_2_and_one_sentence(given: Path, file: str, content: str, says: str) -> None:
    (given / file).write_text(content)
    code, said = run(given, "render", "--to", str(given / "out"))
    assert code == 2 and says in said and "Traceback" not in said
    assert not (given / "out").exists()


def test_the_annotated_config_is_a_config() -> None:
    config = files.load(Path(__file__).parents[2] / "docs/config/edge.toml", EdgeConfig)
    assert config.name == "edge-1"
    assert config.varnish == type(config.varnish)(**config.varnish.model_dump())


def test_an_unknown_key_of_the_services_config_is_not_passed_over(given: Path) -> None:
    (given / "service.toml").write_text("imutable = ['/static/']\n")
    code, said = run(given, "check", "--service-config", str(given / "service.toml"))
    assert code == 2 and "imutable: is not a known key" in said
