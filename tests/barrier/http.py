"""The API's other end: requests with a role's token."""

from __future__ import annotations

from pathlib import Path

import httpx

from barrier import auth
from fleet.model import Manifest

DIGEST = "sha256:" + "0" * 64
CONFIG = {"stall_seconds": 0.3, "waves": {"concurrency": 2}}
TOKENS = {"read": "r-token", "deploy": "d-token", "admin": "a-token"}


class Published:
    """Builds A to E of any service."""

    def manifest(self, service: str, build: str) -> Manifest | None:
        if build not in self.names(service):
            return None
        return Manifest(service=service, build=build, digest=DIGEST, size=1, unpacked=1, files=1)

    def names(self, service: str) -> list[str]:
        return list("ABCDE")


def write_tokens(path: Path, tokens: dict[str, str]) -> None:
    lines = []
    for role, token in tokens.items():
        lines += ["[[token]]", f'name = "{role}er"', f'role = "{role}"', f'sha256 = "{auth.digest(token)}"']
    path.write_text("\n".join(lines))


class Http:
    """Requests with a role's token; answers are checked to be problem documents where they are errors."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=20)

    def __call__(
        self,
        method: str,
        path: str,
        *,
        role: str = "deploy",
        token: str | None = None,
        headers: dict[str, str] | None = None,
        body: object = None,
        raw: bytes | None = None,
    ) -> httpx.Response:
        bearer = {"authorization": f"Bearer {token or TOKENS[role]}"}
        answer = self._client.request(method, path, headers=bearer | (headers or {}), json=body, content=raw)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            problem = answer.json()
            assert problem["status"] == answer.status_code
            assert problem["title"]
            assert problem["detail"]
        return answer

    def close(self) -> None:
        self._client.close()
