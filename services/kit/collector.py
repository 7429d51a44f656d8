"""Python's garbage collector, set for a service that makes many objects at a time and hardly any cycle."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 100_000, 20, 100
"""Objects between collections of the youngest generation, and collections of one generation between those of the next."""


def collect_rarely() -> None:
    """Call once, when everything is set up.

    By default the collector walks through the youngest objects after each 700 new ones. A batch of rows makes many thousands,
    all in use until it is done and freed by their reference counts afterwards: in posts of 100 rows the walks took a fifth of
    the publisher's CPU. What exists at the call lives as long as the process and is not walked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
