"""Middleware of the local S3: who may come in, and conditional writes that have exactly one winner.

Loaded by Swift's pipeline inside the server process (see ``s3server``), nowhere else. The one access key and its
secret come from that process's environment, and are never written down.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from eventlet.semaphore import Semaphore
from swift.common.middleware.s3api.s3response import InvalidAccessKeyId, SignatureDoesNotMatch
from swift.common.swob import Response

#: Swift's account that holds the buckets.
ACCOUNT = "AUTH_pinrail"

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)


class SignedOnly:
    """Before s3api, which would pass on what it does not take for S3: a request without a signature ends here."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, env: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        header = str(env.get("HTTP_AUTHORIZATION", "")).startswith("AWS4-HMAC-SHA256 ")
        if header or "X-Amz-Credential=" in str(env.get("QUERY_STRING", "")):
            return self._app(env, start)
        start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))])
        return [b"" if env["REQUEST_METHOD"] == "HEAD" else _DENIED]


class OneWinner:
    """Conditional writes of one key, one after the other: Swift looks first and writes then, with a gap between."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._waiting: dict[str, tuple[Semaphore, int]] = {}

    def __call__(self, env: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        if not env.get("HTTP_IF_NONE_MATCH") or env["REQUEST_METHOD"] not in ("PUT", "POST"):
            return self._app(env, start)
        key = str(env["PATH_INFO"])
        semaphore, users = self._waiting.get(key, (Semaphore(1), 0))
        self._waiting[key] = (semaphore, users + 1)
        try:
            with semaphore:
                return self._app(env, start)
        finally:
            semaphore, users = self._waiting.pop(key)
            if users > 1:
                self._waiting[key] = (semaphore, users - 1)


class KeyAuth:
    """After s3api: checks the signature it found against the one key, and owns everything then."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = os.environ["AWS_ACCESS_KEY_ID"]
        self._secret = os.environ["AWS_SECRET_ACCESS_KEY"]

    def __call__(self, env: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        details = env.get("s3api.auth_details")
        if details is None:
            env["swift.authorize"] = lambda req: Response(status=403, request=req)
            return self._app(env, start)
        if details["access_key"] != self._key:
            raise InvalidAccessKeyId(details["access_key"])
        if not details["check_signature"](self._secret):
            raise SignatureDoesNotMatch()
        env["PATH_INFO"] = env["PATH_INFO"].replace(self._key, ACCOUNT, 1)
        env["REMOTE_USER"] = ACCOUNT
        env["swift_owner"] = True
        env["swift.authorize"] = lambda _: None
        return self._app(env, start)


def signed_only(_: dict[str, str], **__: str) -> type[SignedOnly]:
    return SignedOnly


def one_winner(_: dict[str, str], **__: str) -> type[OneWinner]:
    return OneWinner


def keyauth(_: dict[str, str], **__: str) -> type[KeyAuth]:
    return KeyAuth


def log_to_stderr(*args: Any) -> None:
    """Swift's hook for loggers: stderr alone, instead of the machine's syslog."""
    logger: logging.Logger = args[5]
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
