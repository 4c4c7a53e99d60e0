"""Python's collector of garbage, while thousands of small objects are made that all are needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """Keep the cyclic collector, if it is on, from running meanwhile.

    It is set off by the number of new objects, finds nothing among those that a page needs, and
    looks at the application's own ones, too, however many these are: a sixth of the time in which
    a page is applied. (Mercurial's `nogc` is there for the same reason.) It is the interpreter's,
    so other threads do without as well, for as long as a page takes; what they leave is collected
    afterwards.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
