"""One call to a supervisord: XML-RPC over its unix socket. Knows nothing of what it runs.

supervisord has one thread for everybody, so nobody may ask it to wait; whoever calls looks again instead.
"""

from __future__ import annotations

import http.client
import xmlrpc.client
from pathlib import Path
from typing import Any

from fleet.local_http import connection

#: Seconds that one call may take.
DEADLINE = 5.0


class Unanswered(Exception):
    """It did not answer in time, or not sensibly; the sentence says which. It may well be fine."""


class Gone(Unanswered):
    """Nothing listens on its socket."""


class Refused(Exception):
    """It answered with a fault: ``code`` (``supervisor.xmlrpc.Faults``) and its own words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class _Transport(xmlrpc.client.Transport):
    def __init__(self, socket: Path, deadline: float) -> None:
        super().__init__()
        self._socket = socket
        self._deadline = deadline

    def make_connection(self, _: Any) -> http.client.HTTPConnection:
        self._connection = ("localhost", connection(f"unix:{self._socket}", self._deadline))  # what close() closes
        return self._connection[1]


def call(socket: Path, method: str, *arguments: object, deadline: float = DEADLINE) -> Any:
    """``supervisor.<method>(*arguments)`` on a connection of its own; what it returned. Safe from several threads."""
    transport = _Transport(socket, deadline)
    proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport)
    try:
        return getattr(proxy.supervisor, method)(*arguments)
    except xmlrpc.client.Fault as e:
        raise Refused(e.faultCode, e.faultString) from e
    except (ConnectionRefusedError, FileNotFoundError) as e:
        raise Gone(f"nothing listens on {socket}") from e
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as e:
        raise Unanswered(f"{method} on {socket}: {e!r}") from e
    finally:
        transport.close()
