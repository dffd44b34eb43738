"""Lock a ZooKeeper that was open: every node below the chroot gets the list that belongs to its path.

What is made from now on has its list anyway; this is for what was made before. Changes no data, and may be run again.
"""

from __future__ import annotations

from fleet.zk import ZooKeeper


def secure(zk: ZooKeeper) -> tuple[int, int]:
    """Nodes that there are, and how many of them had another list. From the top, so that a cut-off run locks most."""
    looked = changed = 0
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        looked += 1
        if not zk.protected(path):
            zk.protect(path)
            changed += 1
        base = "" if path == "/" else path
        waiting += [f"{base}/{name}" for name in zk.children(path, watch=False)]
    return looked, changed
