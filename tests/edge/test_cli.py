"""varnishd's command line, where it has no good word to say."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing

import pytest

from edge import server
from edge.varnish import Varnish, VarnishTrouble
from tests.conftest import eventually
from tests.edge.bed import Edge


@pytest.mark.parametrize("what", ["list", "load"])
def test_a_child_that_goes_in_the_middle_of_a_command_has_refused_nothing(edge: Edge, what: str) -> None:
    """Least of all a VCL: one that is taken for bad is not tried again."""
    edge.start("server")
    eventually("its child runs", lambda: edge.health() == 503)
    child = edge.look().child
    assert child
    os.kill(child, signal.SIGSTOP)
    secret, found = server.secret_file(edge.config), []

    def ask() -> None:
        with closing(Varnish(edge.config.varnish.admin, secret, deadline=60)) as varnish:
            try:
                if what == "list":
                    varnish.health("boot")
                else:
                    varnish.load("v_app_0", "vcl 4.1; backend default none;")
            except Exception as e:  # noqa: BLE001  # whatever it is, it is looked at
                found.append(e)

    def busy() -> bool:
        """The manager does one thing at a time, and waits for its child now; what is asked here needs no child."""
        with closing(Varnish(edge.config.varnish.admin, secret, deadline=0.3)) as other:
            try:
                other.panic()
            except VarnishTrouble:
                return True
        return False

    asking = threading.Thread(target=ask)
    asking.start()
    eventually("it is asked", busy)
    os.kill(child, signal.SIGKILL)
    asking.join(90)
    assert [type(e) for e in found] == [VarnishTrouble], found
