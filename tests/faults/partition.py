"""Packets between a part and ZooKeeper that vanish, as in a network that was cut: nothing closes, nobody is told.

Each part runs under a group id of its own, so that the kernel can tell whose packet it is. The rules live in one nft
table of their own, which a guardian removes when this process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence


class Partition:
    """``cut`` and ``heal`` parts by name. ``why_not`` says why that cannot be had here; None where it can."""

    def __init__(self, groups: Mapping[str, int], ports: Sequence[int]) -> None:
        self._table = f"inet pinrail_faults_{os.getpid()}"
        self._ports = "{ " + ", ".join(map(str, ports)) + " }"
        self._groups = groups
        self._cut: set[str] = set()
        self._guardian: subprocess.Popen[bytes] | None = None
        self.why_not = self._try()

    def _try(self) -> str | None:
        if os.geteuid() != 0:
            return "only root can drop packets"
        if shutil.which("nft") is None or shutil.which("setpriv") is None:
            return "nft and setpriv are not both installed"
        said = self._nft(self._rules())
        if said is None:
            self._guardian = subprocess.Popen(
                ("sh", "-c", f"cat; nft delete table {self._table}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return said

    @staticmethod
    def _nft(rules: str) -> str | None:
        """What it has to complain of."""
        done = subprocess.run(("nft", "-f", "-"), input=rules, capture_output=True, text=True, timeout=30, check=False)
        return (done.stderr.strip() or f"nft ended with {done.returncode}") if done.returncode else None

    def _rules(self) -> str:
        """``note`` learns the ports from which each part talks to ZooKeeper; ``cut`` drops what passes there."""
        sets = "".join(
            f"set {_name(p)} {{ type inet_service; flags dynamic, timeout; timeout 1m; }}\n" for p in self._groups
        )
        note = "".join(
            f'oifname "lo" meta skgid {gid} tcp dport {self._ports} update @{_name(p)} {{ tcp sport }}\n'
            for p, gid in self._groups.items()
        )
        return (
            f"table {self._table} {{\n{sets}"
            f"chain note {{ type filter hook output priority -10; policy accept;\n{note}}}\n"
            "chain cut { type filter hook output priority 0; policy accept;\n}\n}\n"
        )

    def cut(self, part: str) -> None:
        self._cut.add(part)
        self._write()

    def heal(self, part: str) -> None:
        if part in self._cut:
            self._cut.discard(part)
            self._write()

    def _write(self) -> None:
        rules = [f"flush chain {self._table} cut"]
        for part in sorted(self._cut):
            rules += [
                f'add rule {self._table} cut oifname "lo" tcp dport {self._ports} tcp sport @{_name(part)} drop',
                f'add rule {self._table} cut oifname "lo" tcp sport {self._ports} tcp dport @{_name(part)} drop',
            ]
        said = self._nft("\n".join(rules) + "\n")
        assert said is None, said

    def close(self) -> None:
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            self._guardian.stdin.close()
            assert self._guardian.wait(30) == 0, "the table of the partitions was not removed"
            self._guardian = None


def _name(part: str) -> str:
    return part.replace("-", "_")
