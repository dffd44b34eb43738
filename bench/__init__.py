"""Measurements against the real servers, as ratios within one run. ``make bench``; not packaged, asserts nothing."""
