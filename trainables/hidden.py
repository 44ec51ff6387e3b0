"""Packages that a library imports if they are there, at seconds a process, and nobody needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Have imports of ``packages`` fail for a while, but those that are imported already.

    It is for what a library imports in a ``try``, such as an experiment logger that is not used.
    """
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
