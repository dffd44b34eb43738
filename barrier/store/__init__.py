"""What the API does to ZooKeeper for an operator, a module per noun; ``Store`` reads, their functions write.

Every write is compare-and-set. Refusals are ``Refused`` with a sentence; the API turns them into its problems.
"""

from barrier.store.reading import Refused, Store

__all__ = ["Refused", "Store"]
