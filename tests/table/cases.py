"""Plans by kind of moment in a rollout, each a service of its own behind one root: ``<name>.example``."""

from __future__ import annotations

from edge.members import Host, Sets, wanted
from fleet.model import Health, Match, Pin, Plan, Preview, Ramp, ServiceConfig
from tests.table.reference import Service

TOKEN, OTHER_TOKEN = "preview-token-0123456789", "Other_Token-9876543210"
#: Everything that may be served: each has a host, and its name is also a part or a neighbour of another's.
VERSIONS = ("A", "B", "C", "P", "Q", "a1.b-2_c")
PREVIEWS = (Preview(version="P", token=TOKEN, expires=0), Preview(version="Q", token=OTHER_TOKEN, expires=0))


def _service(
    name: str, plan: dict[str, object], config: dict[str, object] | None = None, sick: tuple[str, ...] = ()
) -> Service:
    said = {"match": (Match(host=f"{name}.example"),), "health": Health(interval=30), **(config or {})}
    full = Plan.model_validate({"epoch": 9, "generation": 7, "default": "B", "serving": ("B", "A"), **plan})
    here = frozenset(wanted(full)) - frozenset(sick)
    return Service(name, ServiceConfig.model_validate(said), full, here)


SERVICES: tuple[Service, ...] = (
    _service("pinned", {"retired": ("old", "older.1")}),
    _service("ramp", {"serving": ("C", "B"), "ramp": Ramp(version="C", percent=10), "retired": ("A",)}),
    _service("half", {"serving": ("C", "B", "A"), "ramp": Ramp(version="C", percent=50)}),
    _service("preview", {"previews": PREVIEWS, "retired": ("old",)}),
    _service("promoted", {"serving": ("P", "B"), "previews": PREVIEWS, "retired": ("old",)}),
    _service("conflict", {"retired": ("old",), "previews": PREVIEWS}, {"pin": Pin(retired="conflict")}),
    _service("one", {"serving": ("B",), "retired": ("A",)}),
    _service("dotted", {"default": "a1.b-2_c", "serving": ("a1.b-2_c", "A"), "generation": 123456789}),
    _service("nothing", {"default": None, "serving": ()}),
    _service("offered", {"default": None, "serving": ("A",)}),
    _service("mixed", {"mode": "mixed", "retired": ("old",)}),
    _service(
        "named",
        {"serving": ("C", "B"), "ramp": Ramp(version="C", percent=25), "retired": ("A",), "previews": PREVIEWS},
        {"pin": Pin(header="x.Ver|sion", query="d.p-l", cookie="c^k.$"), "immutable": ("/static/", "/a.b/")},
    ),
    _service("sick", {"retired": ("old",)}, sick=("A",)),
    _service("sickramp", {"serving": ("C", "B"), "ramp": Ramp(version="C", percent=50)}, sick=("C",)),
    _service("sickpreview", {"previews": PREVIEWS}, sick=("P",)),
    _service("sickdefault", {}, sick=("B",)),
    _service("sickall", {"serving": ("C", "B"), "ramp": Ramp(version="C", percent=50)}, sick=("B", "C")),
    _service("bare", {}, {"immutable": ()}),
    _service("shop", {"retired": ("old",)}, {"body_bytes": 2048}),
    _service(
        "cart",
        {"default": "A", "generation": 3, "serving": ("C", "A"), "retired": ("B",)},
        {"match": (Match(host="shop.example", path="/cart"),), "pin": Pin(cookie="__cart")},
    ),
    _service("wild", {}, {"match": (Match(host="*.wild.example", path="/w/"), Match(host="Wild.Example"))}),
)


def members(service: Service, ports: dict[str, int]) -> Sets:
    """Hosts of the versions that are well; where nobody listens for those that are not."""
    return {
        v: (Host("127.0.0.1", ports[v] if v in service.healthy else 1),) for v in wanted(service.plan) if v in ports
    }
