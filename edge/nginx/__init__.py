"""The nginx engine: the same plans, acknowledgements and request table for edges without Varnish.

``render`` and ``plan`` decide, ``control`` talks to nginx, ``probes`` asks the hosts, ``requests`` counts, ``agent``
joins. What is the same for both engines lies one level up.
"""
