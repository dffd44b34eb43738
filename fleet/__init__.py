"""The vocabulary all parts share.

Pure modules (``names``, ``model``, ``paths``) hold no I/O, no clock and no randomness. The others touch one outside
thing each: ``zk`` ZooKeeper, ``files`` the disk, ``proc`` other programs, ``s3`` the object store. ``loop`` is the one
agent loop. Nothing here imports a part.
"""
