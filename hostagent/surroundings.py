"""Which of the host's own environment variables what a build brings along gets to see. Pure.

Few: the agent's and the server's may hold credentials, of S3 for one. A service's own come from ``pool.environment``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

#: Patterns of names. Language, time, and where things are.
SAFE = ("PATH", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR")
#: How this host reaches others, and whom it believes. For pip, which fetches what requirements name.
NETWORK = ("PIP_*", "*_proxy", "*_PROXY", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def seen(environment: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if any(fnmatchcase(k, p) for p in patterns)}
