"""Serve the sample service where $SOCKET (a unix socket's path) or $PORT (on 127.0.0.1) says. TERM ends it gracefully:
no new connections, what is under way is finished."""

from __future__ import annotations

import os
import sys

sys.dont_write_bytecode = True  # a release's directory stays as it was unpacked

import uvicorn  # noqa: E402


def main() -> None:
    path, port = os.environ.get("SOCKET"), os.environ.get("PORT", "")
    if not path and not (port.isascii() and port.isdigit()):
        sys.exit("ngapp: set SOCKET to a path, or PORT to a number")
    where = {"uds": path} if path else {"host": "127.0.0.1", "port": int(port)}
    uvicorn.run(
        "ngapp:app",
        **where,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
