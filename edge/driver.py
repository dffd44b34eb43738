"""What Varnish is made to do, and what was observed of it in its present life. Decides nothing: ``edge.plan`` does.

All that is remembered here dies with the child or the manager that it was seen in, but for what a compiler refused.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edge import plan, render, sockets
from edge.look import Look, Observed
from edge.plan import Action, Cut, Discard, Label, Load, Use, Want
from edge.varnish import Refused, Varnish, VarnishTrouble
from fleet import log
from vcl.own import located

_log = log.get()

#: A VCL that did not compile is tried again after so many seconds (a compiler may have been killed).
AGAIN = 30.0


class Driver:
    def __init__(
        self,
        varnish: Varnish,
        took: Callable[[str, float], None] = lambda _phase, _seconds: None,
        ended: Callable[[str, int, int], None] = lambda _service, _cut, _left: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``took`` is told the seconds of each phase of a load: compile, probe, switch, drain; ``ended`` how many of
        a service's overdue requests were cut and how many left alone."""
        self._varnish = varnish
        self._took = took
        self._ended = ended
        self._clock = clock
        self._start_id = secrets.token_hex(4)
        #: The life of this agent, its manager and its child: acks of another one are void.
        self._incarnation = self.nothing
        self._processes: tuple[int, int | None] = (0, None)
        self._refused: dict[str, tuple[str, float]] = {}
        self._ready: set[str] = set()
        self._since: dict[str, float] = {}
        self._health: dict[str, dict[str, str]] = {}
        #: Service -> (version, endpoint) -> is it healthy, as what is ready has seen it last.
        self._hosts: dict[str, dict[tuple[str, str], bool]] = {}
        #: VCL -> its backends that are marked sick; of those VCLs of which that is known.
        self._marked: dict[str, set[str]] = {}
        #: Discarded VCLs: since when; and those that were overdue and have been seen to.
        self._drains: dict[str, float] = {}
        self._cut: set[str] = set()

    @property
    def nothing(self) -> str:
        """The incarnation of an ack while nothing can be said of Varnish."""
        return f"{self._start_id}/none"

    # -- observe --

    def observe(self, wants: Sequence[Want]) -> Observed:
        look = self._varnish.look()
        if (look.manager, look.child) != self._processes:
            self._new_processes(look)
        if look.child is None:
            raise VarnishTrouble("varnishd runs, but its child does not")
        now = self._clock()
        self._refused = {n: (text, at) for n, (text, at) in self._refused.items() if now < at + AGAIN}
        self._probe(wants, look, now)
        self._marked = {vcl: marked for vcl, marked in self._marked.items() if vcl in self._since}
        overdue = self._drain(wants, look, now)
        refused = {n: text for n, (text, _) in self._refused.items()}
        return Observed(
            look, self._incarnation, frozenset(self._ready), dict(self._health), refused, overdue, frozenset(self._cut)
        )

    def _drain(self, wants: Sequence[Want], look: Look, now: float) -> frozenset[str]:
        """What has drained since the last look is told; what is overdue is returned."""
        discarded = {v.name for v in look.vcls if v.status == "discarded"}
        for name in [n for n in self._drains if n not in discarded]:
            self._took("drain", now - self._drains.pop(name))
        self._drains |= {n: now for n in discarded if n not in self._drains}
        self._cut &= discarded
        return frozenset(
            n
            for n, since in self._drains.items()
            for w in wants
            if w.draining and n.startswith(render.prefix(w.service)) and now - since >= w.draining
        )

    def _probe(self, wants: Sequence[Want], look: Look, now: float) -> None:
        """Health by each VCL that matters. What a label points to counts as ready: it has been, or was adopted. What
        was just loaded is, once its new hosts have answered: of the others it was told (``render.knowing``)."""
        points = set(plan.targets(look).values())
        have = plan.loaded(look)
        self._hosts = {w.service: self._hosts.get(w.service, {}) for w in wants}
        self._since = {n: self._since.get(n, now) for n in have}
        self._ready &= set(have)
        self._ready |= points & set(have)
        self._health = {}
        for w in wants:
            known = self._hosts[w.service]
            found: dict[tuple[str, str], bool] = {}
            former = (r for r in w.former if r.name in points)
            for r in dict.fromkeys((*w.current, *w.staged, *former)):
                if r.name not in have:
                    continue
                health = self._health[r.name] = self._varnish.health(r.name)
                well = {at: health.get(b) == "healthy" for b, at in r.backends.items()}
                good = all(well[at] or known.get(at) is False for at in well)
                if r.name not in self._ready and (good or now - self._since[r.name] >= w.probing):
                    self._ready.add(r.name)
                    self._took("probe", now - self._since[r.name])
                if r.name in self._ready:
                    found = {**found, **well} if r.name in points else {**well, **found}
            self._hosts[w.service] = found or known

    def _new_processes(self, look: Look) -> None:
        """Another manager or child: nothing that was known of health holds any more, and earlier acks are void."""
        self._ready, self._since, self._drains, self._marked, self._cut = set(), {}, {}, {}, set()
        self._hosts = {}
        self._incarnation = f"{self._start_id}/{look.manager}@{self._varnish.started(look.manager)}/{look.child}"
        panic = self._varnish.panic()
        self._processes = (look.manager, look.child)
        _log.info("Varnish", manager=look.manager, child=look.child, **({"panic": panic} if panic else {}))

    # -- apply --

    def commit(self, wants: Sequence[Want]) -> tuple[Action, ...]:
        """Use what is ready, before anything else is looked at; what was done. Nothing while Varnish is not in the life
        in which it was observed."""
        look = self._varnish.look()
        if (look.manager, look.child) != self._processes or look.child is None:
            return ()
        actions = plan.commits(wants, look, frozenset(self._ready))
        self.apply(actions, look)
        return actions

    def mark(self, wants: Sequence[Want], left: Mapping[str, frozenset[tuple[str, str]]]) -> None:
        """A member that ``left`` gets no new request from now on; the compile without it follows in its time. What an
        earlier agent marked in a VCL that it left behind is known from Varnish."""
        for w in wants:
            for r in (*w.current, *w.staged):
                if r.name not in self._health:
                    continue
                if r.name not in self._marked:
                    self._marked[r.name] = set(self._varnish.held_sick(r.name))
                marked = self._marked[r.name]
                gone = {backend for backend, at in r.backends.items() if at in left[w.service]}
                for backend in sorted(marked ^ gone):
                    _told(partial(self._varnish.mark, r.name, backend, "sick" if backend in gone else "auto"))
                    marked ^= {backend}

    def apply(self, actions: Sequence[Action], look: Look) -> None:
        """In order. VarnishTrouble where Varnish is not as it looked; what it refused to compile is remembered."""
        for action in actions:
            began = self._clock()
            match action:
                case Load(vcl, _):
                    self._load(vcl, began)
                case Label(label, name):
                    _told(partial(self._varnish.label, label, name))
                    self._took("switch", self._clock() - began)
                    _log.info("committed", service=render.service_of(name), label=label, vcl=name)
                case Use(name):
                    if name not in self._refused:
                        _told(partial(self._varnish.use, name))
                case Discard(name):
                    _told(partial(self._varnish.discard, name))
                case Cut(name, endpoints):
                    self._end(name, endpoints, look)

    def _end(self, name: str, endpoints: frozenset[str], look: Look) -> None:
        """Idle connections to the same endpoints are ended with the busy ones, and are not counted."""
        # A piped request holds two references to its VCL: as request and as fetch.
        left = next((v.busy for v in look.vcls if v.name == name), 0) // 2
        cut = 0
        if endpoints and look.child:
            try:
                cut = min(left, sockets.cut(look.child, endpoints))
            except OSError as e:
                words = "overdue requests cannot be ended from here; their hosts will"
                _log.warning(words, service=render.service_of(name), vcl=name, why=e.strerror)
        self._cut.add(name)
        service = render.service_of(name)
        self._ended(service, cut, left - cut)
        words = "a discarded VCL is overdue: not waited for any more"
        _log.warning(words, service=service, vcl=name, cut=cut, left=left - cut)

    def _load(self, vcl: render.Rendered, began: float) -> None:
        hosts = self._hosts.get(render.service_of(vcl.name), {})
        healthy = frozenset(b for b, at in vcl.backends.items() if hosts.get(at))
        text = render.knowing(vcl, healthy)
        try:
            self._varnish.load(vcl.name, text)
        except Refused as e:
            said = located(e.text, text)
            self._refused[vcl.name] = (said, self._clock())
            words = "Varnish refused a VCL; the last good one serves on"
            _log.error(words, service=_service(vcl.name), vcl=vcl.name, error=said)
            return
        self._marked.setdefault(vcl.name, set())  # it is new: nobody can have marked anything in it
        seconds = self._clock() - began
        self._took("compile", seconds)
        _log.info("loaded", service=_service(vcl.name), vcl=vcl.name, seconds=f"{seconds:.3f}")


def _service(vcl: str) -> str | None:
    """For the log: a root is of no service."""
    return None if render.is_root(vcl) else render.service_of(vcl)


def _told(order: Callable[[], None]) -> None:
    """A refusal here means that Varnish is not as it looked a moment ago: look again."""
    try:
        order()
    except Refused as e:
        raise VarnishTrouble(f"varnishd refused {e}") from e
