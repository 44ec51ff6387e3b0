"""What hears of a search's events, and how a search goes on where such a one fails."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from tuner.search.search import Event, Search
from tuner.text import brief

logger = logging.getLogger(__name__)


class Observer(ABC):
    """Hears of every event of a search while it is open as a context; it asks, and changes nothing.

    What it raises is told by :class:`Guarded`. An error in a thread of its own it keeps, and raises
    it at the next event or at its end.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - most have nothing to end
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; here there is nothing to do."""

    @abstractmethod
    def __call__(self, event: Event, search: Search) -> None:
        """Hear of an event, with the search as it then stands."""


class Guarded(Observer):
    """An observer whose failure the search survives: it is told once, and hears of nothing more.

    Args:
        observer: what may fail.
        warn: tells the user; the traceback goes to the log.

    """

    def __init__(self, observer: Observer, warn: Callable[[str], None]) -> None:
        self._observer, self._warn = observer, warn
        self._entered, self._failed = False, False

    def __enter__(self) -> Self:
        self._attempt(self._observer.__enter__)
        self._entered = not self._failed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Have it end, also where it has failed."""
        if self._entered:
            self._attempt(partial(self._observer.__exit__, kind, error, traceback))

    def __call__(self, event: Event, search: Search) -> None:
        """Pass an event on, unless it has failed."""
        if not self._failed:
            self._attempt(partial(self._observer, event, search))

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            if self._failed:  # what it leaves behind cannot be closed either
                return
            self._failed = True
            name = type(self._observer).__name__
            logger.exception("%s has failed", name)
            found = brief({"type": type(error).__name__, "message": error})
            self._warn(f"{name} has failed, and shows nothing more of this run: {found}")
