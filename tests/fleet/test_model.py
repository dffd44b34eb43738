"""Names and payloads: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.config import BadConfig, S3Config, load, sentence
from fleet.model import Ack, Plan, Ramp, ServiceConfig, Staged, decode
from fleet.names import BadName, build_name, header_name, node_name, service_name


@pytest.mark.parametrize("good", ["a", "A1", "0f3c9d2", "v1.2.3-rc_1", "x" * 63])
def test_build_names_that_are_allowed(good: str) -> None:
    assert build_name(good) == good


@pytest.mark.parametrize("bad", ["", ".", "..", "-a", "a/b", "a b", "a\n", "é", "x" * 64, "a;b", "../../etc"])
def test_build_names_that_are_refused_say_what_is_allowed(bad: str) -> None:
    with pytest.raises(BadName, match="is not a build name: a letter or digit, then"):
        build_name(bad)


@given(st.text(max_size=80))
def test_no_accepted_name_can_leave_a_path_a_header_or_a_vcl_string(text: str) -> None:
    for check in (build_name, service_name, node_name, header_name):
        try:
            check(text)
        except BadName:
            continue
        assert text.isascii()
        assert not set(text) & set('/\\"{} \n\r\t:;,()<>@')
        assert text not in (".", "..") or check is header_name


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"match": [{"host": "a b"}]}, 'match.0.host: must be a host name, "*.example.org" for its subdomains, or "*"'),
        ({"match": [{"path": "shop"}]}, "match.0.path: must be the beginning of a path, such as /shop"),
        ({"immutable": ["/"]}, "immutable.0: must be the beginning of a path, such as /assets/"),
        ({"immutable": ["/a\n"]}, "immutable.0: must be the beginning of a path, such as /assets/"),
        (
            {"health": {"path": "http://a/b"}},
            "health.path: must be a path on the process that is asked, such as /healthz",
        ),
        ({"health": {"warm": [""]}}, "health.warm.0: must be a path on the process that is asked, such as /warm?x=1"),
        ({"pool": {"command": ["x", "a\0"]}}, "pool.command.1: cannot have a zero byte"),
        (
            {"pool": {"environment": {"1A": "x"}}},
            "pool.environment.1A: is no variable's name: letters, digits and '_', no digit first",
        ),
        ({"pool": {"command": []}}, "pool.command: must have at least 1 in it"),
        ({"pool": {"command": ["x", 7]}}, "pool.command.1: must be text in quotes"),
    ],
)
def test_a_text_of_another_form_is_refused_with_what_it_must_be(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceConfig.model_validate(fields)
    assert sentence(caught.value) == said


def test_forms_allow_what_they_should_and_are_in_the_schema() -> None:
    config = ServiceConfig.model_validate(
        {
            "match": [{"host": "*.Example.org", "path": "/~a/"}, {"host": "*"}],
            "pool": {"command": ["/bin/x", "", "a b\n"], "environment": {"_A1": "two\nlines\n"}},
            "health": {"warm": ["/a?b=%20&c"]},
        }
    )
    assert decode(ServiceConfig, config.encode()) == config
    schema = ServiceConfig.model_json_schema()["$defs"]
    assert schema["Health"]["properties"]["path"]["pattern"] == "^/[A-Za-z0-9._~/?=&-]*$"
    assert schema["Pool"]["properties"]["command"]["items"]["pattern"] == r"^[^\x00]*$"


def test_a_plan_whose_default_is_not_served_is_refused() -> None:
    with pytest.raises(ValidationError, match="default 'C' is not in serving"):
        Plan(default="C", serving=("B", "A"))
    with pytest.raises(ValidationError, match="ramp version 'C'"):
        Plan(default="B", serving=("B",), ramp=Ramp(version="C", percent=1))
    with pytest.raises(ValidationError, match="twice"):
        Plan(serving=("B", "B"))
    with pytest.raises(ValidationError, match="must be newer"):
        Plan(generation=3, default="B", serving=("B",), staged=Staged(generation=3, default="B"))


def test_committing_moves_what_was_staged_and_nothing_else() -> None:
    plan = Plan(
        epoch=7, generation=3, default="B", serving=("C", "B"), retired=("A",), staged=Staged(generation=4, default="C")
    )
    after = plan.committed()
    assert (after.generation, after.default, after.ramp) == (4, "C", None)
    assert (after.serving, after.retired, after.epoch) == (plan.serving, plan.retired, plan.epoch)
    with pytest.raises(ValueError, match="nothing is staged"):
        Plan().committed()


def test_payloads_survive_the_wire_and_ignore_a_newer_writers_fields() -> None:
    ack = Ack(incarnation="1.2.3", applied=4, healthy={"A": 3})
    assert decode(Ack, ack.encode()) == ack
    assert decode(Ack, b'{"incarnation":"x","some_day":1}') == Ack(incarnation="x")
    assert decode(Ack, None) is None
    assert decode(Ack, b"") is None


def test_a_service_needs_a_port_for_each_slot() -> None:
    with pytest.raises(ValidationError, match="needs 2 different ports"):
        ServiceConfig(ports=(8000,))
    with pytest.raises(ValidationError, match="needs 2 different ports"):
        ServiceConfig(ports=(8000, 8000))
    assert ServiceConfig(ports=(8000,), strategy="inplace").slots == 1


def test_a_parts_file_with_an_unknown_key_says_which(tmp_path: Path) -> None:
    file = tmp_path / "s3.toml"
    file.write_text('buckte = "x"\nregion = 7\n')
    with pytest.raises(BadConfig, match=r"region: must be text in quotes; buckte: is not a known key") as e:
        load(file, S3Config)
    assert "\n" not in str(e.value)
    file.write_text("= nonsense")
    with pytest.raises(BadConfig, match="is not TOML"):
        load(file, S3Config)
    with pytest.raises(BadConfig, match="cannot read"):
        load(tmp_path / "absent.toml", S3Config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"waves": {"concurrency": 0}}, "waves.concurrency: must be at least 1"),
        ({"waves": 3}, "waves: must be an object, like {...}"),
        ({"ports": "8000"}, "ports: must be a list, like [...]"),
        ({"keep": "many"}, "keep: must be a whole number"),
        ({"strategy": "blue"}, "strategy: must be 'dual' or 'inplace'"),
    ],
)
def test_what_is_wrong_is_said_as_what_to_change(config: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as found:
        ServiceConfig.model_validate(config)
    assert sentence(found.value) == said
