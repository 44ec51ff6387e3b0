"""Figures of a run for Ray's dashboard, Prometheus and Grafana, through ray.util.metrics."""

from types import TracebackType
from typing import Self

from tuner.search.search import Event, Search


class RayMetrics:
    """Gauges and counters tagged with the run. Use it as a context, subscribe it to the search."""

    def __init__(self, run: str, search: Search, slots: int) -> None:
        self._run, self._search, self._slots = run, search, slots

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __call__(self, event: Event, search: Search) -> None:
        """Pass on what changed."""
