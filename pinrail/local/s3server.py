"""The local fleet's S3: OpenStack Swift with its S3 interface, all in this one process. Owns one directory.

    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... python -m pinrail.local.s3server --directory D --host H --port P

A real S3 as far as clients can tell: signatures are checked, conditional writes have one winner, data survives
``kill -9`` and is there at the next start (under another port as well, but with the directory's own ring and hash
suffix). Always a process of its own, because eventlet patches the interpreter it runs in. It listens once the bucket
is there. TERM ends it with 0; what is wrong at the start is one sentence, and 1.
"""

from __future__ import annotations

import argparse
import array
import errno
import getpass
import os
import secrets
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_KINDS = ("account", "container", "object")
#: Partitions are 2 ** this. Never changes once there is data.
_PART_POWER = 8
_DEVICE = "d1"
_AUTH = "pinrail.local.s3auth"

_BACKEND = """\
[DEFAULT]
{common}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
replication_server = false
"""

#: What clients talk to, and what we make the bucket with.
_PIPELINES = {
    "proxy": "catch_errors gatekeeper signed_only one_winner s3api keyauth bulk copy slo versioned_writes symlink"
    " proxy-server",
    "inside": "proxy-server",
}

_PROXY = """\
[DEFAULT]
{common}
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = false
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:signed_only]
paste.filter_factory = {auth}:signed_only
[filter:one_winner]
paste.filter_factory = {auth}:one_winner
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
max_upload_part_num = 10000
min_segment_size = 5242880
[filter:keyauth]
paste.filter_factory = {auth}:keyauth
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
rate_limit_after_segment = 10000
allow_async_delete = false
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


class CannotStart(Exception):
    """One sentence for whoever starts the server."""


def argv(directory: Path, host: str, port: int, bucket: str = "pinrail") -> list[str]:
    """What to run; the key goes into its environment."""
    where = ["--directory", str(directory), "--host", host, "--port", str(port), "--bucket", bucket]
    return [sys.executable, "-m", "pinrail.local.s3server", *where]


def prepare(directory: Path) -> Path:
    """The directories and the hash suffix, which is drawn once; returns the configuration's directory."""
    etc = directory / "etc"
    device = directory / "srv" / _DEVICE
    try:
        etc.mkdir(parents=True, exist_ok=True)
        device.mkdir(parents=True, exist_ok=True)
        os.setxattr(device, "user.pinrail", b"1")
    except OSError as e:
        if e.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            raise CannotStart(
                f"the file system of {directory} keeps no user extended attributes, which the local S3 needs: "
                "choose a directory on ext4, xfs or btrfs"
            ) from e
        raise CannotStart(f"cannot use {directory}: {e.strerror}") from e
    conf = etc / "swift.conf"
    if not conf.exists():
        draft = etc / "swift.conf.new"
        draft.write_text(
            "[swift-hash]\n"
            f"swift_hash_path_suffix = {secrets.token_hex(16)}\n"
            f"swift_hash_path_prefix = {secrets.token_hex(16)}\n"
            "[storage-policy:0]\nname = default\ndefault = yes\n"
        )
        draft.replace(conf)
    return etc


def listen(host: str, port: int) -> Any:
    import eventlet

    try:
        return eventlet.listen(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512, reuse_port=False
        )
    except OSError as e:
        raise CannotStart(f"cannot listen on {host}:{port}: {os.strerror(e.errno) if e.errno else e}") from e


def write_rings(etc: Path, ports: dict[str, int]) -> None:
    """One device holds every partition once; only the ports of the inner servers change between starts."""
    from swift.common.ring import RingData

    for kind, port in ports.items():
        device = {
            "id": 0,
            "region": 1,
            "zone": 1,
            "device": _DEVICE,
            "ip": "127.0.0.1",
            "port": port,
            "replication_ip": "127.0.0.1",
            "replication_port": port,
            "weight": 1.0,
            "meta": "",
        }
        partitions = [array.array("H", [0] * (1 << _PART_POWER))]
        RingData(partitions, [device], 32 - _PART_POWER).save(str(etc / f"{kind}.ring.gz"))


def write_configs(etc: Path) -> None:
    common = "\n".join(
        (
            f"swift_dir = {etc}",
            f"devices = {etc.parent / 'srv'}",
            "mount_check = false",
            "fallocate_reserve = 0",
            f"user = {getpass.getuser() if _has_name() else 'root'}",
            "log_level = WARNING",
            f"log_custom_handlers = {_AUTH}.log_to_stderr",
        )
    )
    for kind in _KINDS:
        (etc / f"{kind}.conf").write_text(_BACKEND.format(common=common, kind=kind))
    for name, pipeline in _PIPELINES.items():
        (etc / f"{name}.conf").write_text(_PROXY.format(common=common, pipeline=pipeline, auth=_AUTH))


def _has_name() -> bool:
    """Swift wants a user's name in its files, and uses it only to drop privileges, which we do not."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        return False
    return True


def make_bucket(app: Any, bucket: str) -> None:
    from swift.common.swob import Request

    from pinrail.local.s3auth import ACCOUNT

    request = Request.blank(
        f"/v1/{ACCOUNT}/{bucket}", environ={"REQUEST_METHOD": "PUT", "swift.authorize": lambda _: None}
    )
    answer = request.get_response(app)
    if not answer.is_success:
        raise CannotStart(f"the local S3 could not make its bucket {bucket!r}: {answer.status}")


class _Silent:
    def write(self, _: str) -> None:
        """Swift's own log has what is worth a line."""

    def flush(self) -> None:
        """Nothing is kept."""


def _end(*_: object) -> None:
    """At once, from wherever the interpreter is: nothing is buffered here, and a PUT that is cut leaves nothing."""
    os._exit(0)


def serve(directory: Path, host: str, port: int, bucket: str) -> None:
    """Until TERM or INT; never returns."""
    import eventlet
    from eventlet import wsgi
    from swift.common import constraints
    from swift.common import wsgi as swift_wsgi
    from swift.common.storage_policy import reload_storage_policies
    from swift.common.utils import set_swift_dir

    eventlet.hubs.use_hub(swift_wsgi.get_hub())
    eventlet.patcher.monkey_patch(all=False, socket=True, select=True, thread=True, time=True)
    os.environ["TZ"] = "UTC+0"  # Swift formats times as if they were GMT
    time.tzset()

    public = listen(host, port)
    etc = prepare(directory)
    inner = {kind: listen("127.0.0.1", 0) for kind in _KINDS}
    write_rings(etc, {kind: s.getsockname()[1] for kind, s in inner.items()})
    write_configs(etc)
    set_swift_dir(str(etc))
    reload_storage_policies()

    def load(name: str) -> Any:
        return swift_wsgi.loadapp(str(etc / f"{name}.conf"), global_conf={"log_name": name})

    def run(sock: Any, app: Any) -> None:
        wsgi.server(
            sock,
            app,
            _Silent(),
            custom_pool=eventlet.GreenPool(1024),
            protocol=swift_wsgi.SwiftHttpProtocol,
            socket_timeout=60,
            capitalize_response_headers=False,
            url_length_limit=constraints.MAX_REQUEST_LINE if hasattr(constraints, "MAX_REQUEST_LINE") else 65536,
            debug=False,
        )

    for kind, sock in inner.items():
        eventlet.spawn(run, sock, load(kind))
    make_bucket(load("inside"), bucket)
    run(public, load("proxy"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="pinrail.local.s3server", description="An S3 for the local fleet.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bucket", default="pinrail")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    warnings.simplefilter("ignore")  # eventlet's and Swift's own, about each other
    try:
        if not os.environ.get("AWS_ACCESS_KEY_ID") or not os.environ.get("AWS_SECRET_ACCESS_KEY"):
            raise CannotStart("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set: the key that clients will use")
        serve(args.directory.resolve(), args.host, args.port, args.bucket)
    except CannotStart as e:
        sys.stderr.write(f"pinrail s3: {e}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
