"""Runs written out event by event, whose figures can be checked by hand."""

import json
from pathlib import Path
from typing import Any

from search_spaces import load_space
from tuner.experiment import make_experiment
from tuner.history import History, State
from tuner.report.record import Record
from tuner.results import write_experiment
from tuner.search.journal import JOURNAL, Event
from tuner.search.replay import replay

SPACE = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}}}
BEGAN = 1_700_000_000.0
"""Seconds since 1970 at which each of the runs begins."""


def event(seconds: float, kind: str, trial: int | None = None, **fields: Any) -> Event:
    of = {} if trial is None else {"trial": trial}
    return {"event": kind, "time": BEGAN + seconds, **of, **fields}


def start(seconds: float, trial: int, slot: int, x: float, **fields: Any) -> Event:
    about = {"config": {"x": x}, "origin": "random", "bracket": 0, "target": 1, **fields}
    return event(seconds, "start", trial, slot=slot, **about)


def result(
    seconds: float, trial: int, epoch: int, loss: float, verdict: str | None = None, **fields: Any
) -> Event:
    metrics = {"loss": loss, **fields.pop("metrics", {})}
    fields |= {"epoch": epoch, "metrics": metrics, "verdict": verdict}
    return event(seconds, "result", trial, **fields)


def two_slots() -> list[Event]:
    """40 s: the default runs through, trial 1 is paused and promoted, and trial 2 fails."""
    error = {"type": "ValueError", "message": "x is 0.9", "traceback": "Traceback of trial 2\n"}
    return [
        event(0, "session", num_trials=3, slots=2),
        start(0, 0, 0, 0.25, origin="default", bracket=-1),
        start(0, 1, 1, 0.5),
        result(10, 1, 1, 0.9, "pause"),
        start(10, 2, 1, 0.9),
        result(12, 0, 1, 0.8, "advance", target=3),
        event(20, "fail", 2, error=error),
        event(20, "resume", 1, target=3, slot=1),
        result(22, 0, 2, 0.5),
        result(30, 1, 2, 0.4),
        result(32, 0, 3, 0.6, "complete"),
        event(33, "close", 0),
        result(40, 1, 3, 0.3, "complete"),
        event(40, "close", 1),
    ]


def two_sessions() -> list[Event]:
    """10 s, a process that dies, 100 s of nothing, and 10 s more in which it goes on after 2 s."""
    return [
        event(0, "session", num_trials=1, slots=1),
        start(0, 0, 0, 0.25),
        result(10, 0, 1, 0.8),
        event(110, "session", num_trials=1, slots=1),
        event(112, "restart", 0, slot=0),
        result(120, 0, 2, 0.6, "complete"),
        event(120, "close", 0),
    ]


def record_of(
    events: list[Event],
    storage: str | Path = "runs",
    *,
    space: Any = None,
    state: State = State.FINISHED,
    name: str = "run",
    **search: Any,
) -> Record:
    """The record that the events make; nothing is written."""
    settings = {"algorithm": "asha", "num_trials": 3, "max_epochs": 3, "metric": "loss"}
    experiment = make_experiment(
        {
            "name": name,
            "trainable": "task:Task",
            "search_space": space or SPACE,
            "search": {**settings, "mode": "min", **search},
            "storage": str(storage),
        },
        {},
    )
    return Record(History(experiment, replay(events, experiment.search), state), events)


def write_run(storage: Path, events: list[Event], **options: Any) -> Path:
    """The folder of a run with these events."""
    record = record_of(events, storage, **options)
    experiment = record.history.experiment
    experiment.folder.mkdir(parents=True)
    write_experiment(experiment, load_space(experiment.search_space))
    lines = "".join(json.dumps(e) + "\n" for e in events)
    (experiment.folder / JOURNAL).write_text(lines)
    return experiment.folder
