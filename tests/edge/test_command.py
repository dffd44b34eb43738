"""``pinrail edge render`` and ``check``: files in, files or a verdict out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge import server
from edge.config import EdgeConfig
from fleet import config as files
from fleet import paths
from fleet.model import Plan, Staged
from pinrail.cli import app
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.edge.bed import World, ask

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
    one, two = (
        {p.name: p.read_text().replace(str(given / n), "") for p in (given / n).iterdir()} for n in ("one", "two")
    )
    assert one == two and set(one) == {"service.current.vcl", "service.staged.vcl", "root.vcl", "load.cli"}
    assert run(given, "render", "--to", str(given / "one"), "--service", "other")[0] == 0
    assert {p.name for p in (given / "one").glob("*.vcl")} == {"other.current.vcl", "other.staged.vcl", "root.vcl"}


def test_what_is_rendered_compiles(given: Path) -> None:
    code, said = run(given, "check")
    assert code == 0, said
    assert said.count("compiles") == 2


def test_a_compiler_that_fails_is_exit_1_with_its_words(given: Path) -> None:
    code, said = run(given, "check", "--varnishd", "false")
    assert code == 1 and "service.current.vcl: exit 1" in said and "service.staged.vcl: exit 1" in said


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("plan.json", "{", "neither JSON nor TOML"),
        ("plan.json", '{"default": "Z"}', "not in serving"),
        ("members.json", '{"A": ["nowhere"]}', "ADDRESS:PORT"),
        ("members.json", '{"A": ["host-1.example:80"]}', "ADDRESS:PORT"),
        ("members.json", '{"a/b": []}', "build name"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "render"])
def test_invalid_input_is_exit_1_and_one_sentence(given: Path, verb: str, file: str, content: str, says: str) -> None:
    (given / file).write_text(content)
    code, said = run(given, verb, *(["--to", str(given / "out")] if verb == "render" else []))
    assert code == 1 and says in said and "Traceback" not in said
    assert not (given / "out").exists()


def test_what_cannot_be_read_or_was_not_given_is_exit_2(given: Path) -> None:
    assert CliRunner().invoke(app, ["edge", "check"]).exit_code == 2
    assert CliRunner().invoke(app, ["edge", "check", "--no-such-option"]).exit_code == 2
    (given / "plan.json").unlink()
    code, said = run(given, "check")
    assert code == 2 and "cannot read" in said


def test_an_own_vcl_is_rendered_and_checked_too(given: Path) -> None:
    (given / "service.vcl").write_text("sub vcl_deliver { set resp.http.x-own = nonsense; }")
    code, said = run(given, "check", "--own", str(given))
    assert code == 1 and "nonsense" in said
    (given / "service.vcl").write_text('sub vcl_deliver { set resp.http.x-own = "mine"; }')
    assert run(given, "check", "--own", str(given))[0] == 0
    assert run(given, "check", "--own", str(given / "nowhere"))[0] == 1


def test_a_plain_varnishd_loads_what_zookeeper_holds_and_reloads_it(
    world: World, zk_address: str, tmp_path: Path
) -> None:
    """As an existing ExecReload would: render, then hand load.cli to varnishadm."""
    world.configure()
    backend = world.host("A")
    world.host("B")
    plan = Plan(epoch=1, generation=1, default="A", serving=("B", "A"), staged=Staged(generation=2, default="B"))
    world.plan(plan)
    to = tmp_path / "vcl"

    def render() -> None:
        result = CliRunner().invoke(app, ["edge", "render", "--zookeeper", zk_address, "--to", str(to)])
        assert result.exit_code == 0, result.output

    render()
    assert CliRunner().invoke(app, ["edge", "check", "--zookeeper", zk_address]).exit_code == 0
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    work = ["-n", str(tmp_path / "work")]
    (tmp_path / "secret").write_text("x\n")
    reach = ["-T", admin, "-S", str(tmp_path / "secret")]
    line = ["varnishd", "-F", "-j", "none", "-a", listen, *reach, *work, "-f", "", "-I", str(to / "load.cli")]
    if server.tcc_is_here():
        line += ["-p", f"cc_command={server.TCC}"]

    def version() -> str | None:
        try:
            answer = ask(listen, "/")
            return answer.version if answer.status == 200 else None  # until a host was seen to be well it is 503
        except OSError:
            return None

    with (tmp_path / "log").open("wb") as log, subprocess.Popen(line, stdout=log, stderr=log) as varnishd:
        try:
            eventually("it answers", lambda: version() == "A")
            world.plan(plan.committed().model_copy(update={"epoch": 2, "staged": None}))
            render()
            load = (to / "load.cli").read_text()
            subprocess.run(["varnishadm", *reach], input=load.encode(), check=True, capture_output=True, timeout=60)
            eventually("it has the new default", lambda: version() == "B")
        finally:
            varnishd.terminate()
    assert backend.asked

    world.zk.create(paths.plan("odd"), b"{")
    result = CliRunner().invoke(app, ["edge", "check", "--zookeeper", zk_address])
    assert result.exit_code == 1 and "plan of odd is malformed" in result.output


def test_the_annotated_config_is_a_config() -> None:
    config = files.load(Path(__file__).parents[2] / "docs/config/edge.toml", EdgeConfig)
    assert config.name == "edge-1"
    assert config.varnish == type(config.varnish)(**config.varnish.model_dump())
    assert config.nginx == type(config.nginx)(), "the defaults, as the page says"


def test_an_unknown_key_of_the_services_config_is_not_passed_over(given: Path) -> None:
    (given / "service.toml").write_text("imutable = ['/static/']\n")
    code, said = run(given, "check", "--service-config", str(given / "service.toml"))
    assert code == 1 and "imutable: is not a known key" in said
