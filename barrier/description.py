"""What ``/openapi.json`` says beyond what FastAPI finds by itself: tokens, problems, configurations, examples. Pure."""

from __future__ import annotations

from typing import Any

from barrier import kinds

_PROBLEM = "application/problem+json"
_METHODS = ("get", "put", "post", "delete")
#: Of what callers send and get, by the model's name.
EXAMPLES: dict[str, dict[str, Any]] = {
    "NewRollout": {"build": "4f2c9e1", "ramp": [1, 10, 100], "hold": 120, "reason": "release 42"},
    "Why": {"reason": "latency has doubled"},
    "NewVerdict": {"verdict": "pass", "reason": "errors 0.11 % against 0.12 %", "percent": 10},
    "Eviction": {"reason": "sold; out of the load balancer since noon"},
    "Version": {"version": "4f2c9e1", "reason": "by hand", "expected_epoch": 17},
    "NewPreview": {"build": "4f2c9e1", "seconds": 28800, "reason": "for the designers"},
    "ServiceConfig": {
        "match": [{"host": "shop.example.org", "path": "/"}],
        "ports": [8000, 8001],
        "pool": {"command": ["{python}", "serve.py"], "processes": 4},
        "waves": {"percent": 10, "max_failures": 1},
        "when_stalled": "wait",
    },
    "BarrierView": {
        "id": "drained-18",
        "epoch": 18,
        "met": False,
        "missing": [{"edge": "edge-3", "why": "no ack (its agent is away)"}],
    },
    "Plan": {
        "epoch": 19,
        "generation": 4,
        "default": "a90be12",
        "serving": ["4f2c9e1", "a90be12"],
        "ramp": {"version": "4f2c9e1", "percent": 10},
        "staged": {"generation": 5, "default": "4f2c9e1"},
        "retired": ["77ab310"],
        "updated_by": "barrier-1",
        "rollout": 7,
    },
    "RolloutView": {
        "number": 7,
        "service": "shop",
        "build": "4f2c9e1",
        "digest": "sha256:" + "0" * 64,
        "by": "ci",
        "reason": "release 42",
        "ramp": [1, 10, 100],
        "state": "withdrawing",
        "previous": "a90be12",
        "withdrawn": ["77ab310"],
        "stalled": ["edge-3: no ack (its agent is away)"],
        "history": [
            {
                "at": 1795873045.2,
                "state": "withdrawing",
                "text": "withdraw 77ab310; wait until every edge has drained",
                "epoch": 18,
            }
        ],
        "missing": [{"who": "edge-3", "why": "no ack (its agent is away)"}],
    },
    "Entry": {
        "number": 41,
        "at": 1795873045.1,
        "by": "ci",
        "role": "deploy",
        "action": "deploy",
        "what": "begins rollout 7 of shop to 4f2c9e1",
        "why": "release 42",
        "service": "shop",
        "rollout": 7,
        "version": "4f2c9e1",
        "epoch_before": 17,
        "epoch_after": 20,
    },
    "Problem": {
        "type": "/problems/conflict",
        "title": "Conflict with what is going on",
        "status": 409,
        "detail": "rollout 7 of shop is active; wait for it or abort it",
    },
}


def complete(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` as FastAPI made it, completed in place."""
    components = schema["components"]
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`pinrail token create`"}
    }
    for name, example in EXAMPLES.items():
        if name in components["schemas"]:
            components["schemas"][name]["examples"] = [example]
    for path, item in schema["paths"].items():
        for method in _METHODS:
            if (operation := item.get(method)) is not None:
                _operation(path, operation)
    body = schema["paths"]["/v1/services/{service}/config"]["put"]["requestBody"]
    body["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ServiceConfig"}}}
    return schema


def _operation(path: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    for status in ("4XX", "503"):
        if status in answers:
            answers[status]["content"] = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            answers[status]["description"] = "A problem: " + ", ".join(
                f"`{k.name}` {k.status}" for k in kinds.KINDS if str(k.status)[0] == status[0]
            )
    if path.startswith("/v1/"):
        operation["security"] = [{"token": []}]
        operation["parameters"] = [p for p in operation.get("parameters", []) if p["name"] != "authorization"]
