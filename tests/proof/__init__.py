"""The protocol, proven: the real agents and controllers in a world of models that can go wrong at every step.

Real: the controller, its election, its table and all it decides with; what the API does to ZooKeeper; the edge's whole
agent; the host's plan, report and membership. Models: ZooKeeper (``zookeeper``, itself compared with the real one),
varnishd (``varnish``), a host's machine (``hosts``), browsers (``clients``). ``promises`` watches over all of them.
"""
