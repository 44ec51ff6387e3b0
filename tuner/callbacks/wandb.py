"""Weights & Biases: each trial as a run of a group."""

from types import TracebackType
from typing import Self

from tuner.experiment import Experiment
from tuner.search.search import Event, Search


class WeightsAndBiases:
    """One W&B run a trial, grouped by run. Use it as a context, subscribe it to the search."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

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
