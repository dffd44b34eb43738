"""A user of its own for each service, so that one's processes can neither read nor signal another's, nor the agent's.

Only where the agent is root and its file does not say otherwise. The users are numbers without names, from a range of
the host's file; a service keeps its number for good, as files of its may outlive it.
"""

from __future__ import annotations

import os
import threading

from pydantic import Field, ValidationError

from fleet.files import read_or_none, write_atomic
from fleet.loop import Trouble
from fleet.model import Wire
from hostagent.config import HostConfig
from hostagent.layout import Layout


class NoUser(Trouble):
    """The service cannot have one; the sentence says what to change."""


class _Given(Wire):
    uids: dict[str, int] = Field(default_factory=dict)


class Users:
    def __init__(self, config: HostConfig, layout: Layout) -> None:
        self._range = range(config.service_uids[0], config.service_uids[1] + 1)
        self._file = layout.users
        self._on = config.service_users and os.geteuid() == 0
        self._mutex = threading.Lock()

    def of(self, service: str) -> int | None:
        """The number of its user and of that user's group; None: the agent's own. Raises NoUser, OSError."""
        if not self._on:
            return None
        with self._mutex:
            given = self._given()
            if service not in given:
                taken = set(given.values())
                free = next((uid for uid in self._range if uid not in taken), None)
                if free is None:
                    raise NoUser(f"no user is left for {service}: make `service_uids` in the host's file longer")
                given = {**given, service: free}
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._file, _Given(uids=given).encode())
            return given[service]

    def _given(self) -> dict[str, int]:
        raw = read_or_none(self._file)
        try:
            return _Given.model_validate_json(raw).uids if raw else {}
        except ValidationError as e:
            raise NoUser(f"{self._file} should say which service has which user, and does not: {e}") from e
