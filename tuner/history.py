"""A run as its folder tells it, whether it is over, under way or broken off."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.experiment import Experiment, load_experiment
from tuner.final import is_outstanding
from tuner.search.journal import JOURNAL, read_journal
from tuner.search.replay import has_ended, replay
from tuner.search.search import Search
from tuner.storage import fetched, is_held, split


class State(StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    """A process works on it."""
    INTERRUPTED = "interrupted"
    """No process has, and there is more to do."""
    FINISHED = "finished"
    ENDED_EARLY = "ended early"
    """By its target, its time budget, or something that had to be mended."""
    FAILED = "failed"
    """To its end, and no trial has a result."""


@dataclass(frozen=True)
class History:
    """What a run was to do, and what it has done so far."""

    experiment: Experiment
    search: Search
    state: State

    @property
    def folder(self) -> Path:
        """The run's folder on this machine."""
        return self.experiment.folder


def open_run(run: str | Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """The experiment of a run folder, with its storage where the folder now is.

    Of a run on object storage, what tells how it stands is fetched into its mirror.

    Raises:
        UserError: ``run`` is no run folder, or its storage cannot be read.

    """
    folder = fetched(run)
    if not (folder / JOURNAL).is_file():
        raise UserError(
            f"{run} is no run folder: it has no {JOURNAL}; give a folder such as runs/NAME"
        )
    storage, name = split(run)
    place = {"name": name, "storage": storage}
    return load_experiment(folder / "experiment.yaml", {**(overrides or {}), **place})


def read_history(run: str | Path) -> History:
    """Read a run folder; nothing in it is changed or locked, and no torch, Ray or space is loaded.

    Raises:
        UserError: as of :func:`open_run`, or a file in the folder is damaged.

    """
    experiment = open_run(run)
    journal = experiment.folder / JOURNAL
    running = is_held(experiment.location)  # asked first: what ends since shows as still running
    search = replay(read_journal(journal), experiment.search, str(journal))
    return History(experiment, search, _state(experiment, search, running=running))


def _state(experiment: Experiment, search: Search, *, running: bool) -> State:
    if running:
        return State.RUNNING
    if not has_ended(search) or is_outstanding(experiment, search):
        return State.INTERRUPTED
    return how_it_ended(search)


def how_it_ended(search: Search) -> State:
    """Of a search that is over."""
    if search.halted:
        return State.ENDED_EARLY
    return State.FINISHED if search.best or not search.trials else State.FAILED
