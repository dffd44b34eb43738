"""One small HTTP request, over TCP or a unix socket, under a deadline. Follows nothing, keeps nothing open."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from fleet.local_http import connection

#: Nobody here needs to read more of an answer.
BODY_MAX = 256 * 1024


class NoAnswer(Exception):
    """Refused, reset, timed out or not HTTP; the sentence says which."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def get(endpoint: str, path: str, timeout: float) -> Answer:
    """Raises NoAnswer. ``timeout`` bounds each wait for the other side. Names of headers in lower case."""
    c = connection(endpoint, timeout)
    try:
        c.request("GET", path, headers={"Connection": "close", "User-Agent": "pinrail-host"})
        r = c.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read(BODY_MAX))
    except TimeoutError as e:
        raise NoAnswer(f"no answer within {timeout:g} s") from e
    except (FileNotFoundError, ConnectionRefusedError) as e:
        raise NoAnswer(f"nothing listens on {endpoint}") from e
    except OSError as e:
        raise NoAnswer(e.strerror or str(e)) from e
    except http.client.HTTPException as e:
        raise NoAnswer(f"not an HTTP answer ({type(e).__name__})") from e
    finally:
        c.close()
