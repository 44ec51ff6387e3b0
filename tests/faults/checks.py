"""What must hold after a run, whatever befell it; each check returns what it found wrong."""

import csv
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from ray._private.state import actors
from ray.util import placement_group_table

from tests.faults.schedule import FINAL_EPOCHS, RAISED, TRIALS, Variant
from trainables.checkpoint import load_state
from tuner.final import FINAL
from tuner.history import State, read_history
from tuner.search.journal import read_journal

ERRORS = dict(zip(RAISED, ("OutOfMemoryError", "NotFinite"), strict=True))
GONE_SECONDS = 30.0
"""How long processes may take to end after the run that they belonged to."""


def check_run(run: Path, variant: Variant) -> Iterator[str]:
    """The trials, their results and the best one, added up anew from the journal's lines."""
    events = list(read_journal(run / "journal.jsonl"))
    started = [event["trial"] for event in events if event["event"] == "start"]
    count = len(started) if variant.ending == "target" else TRIALS
    if started != list(range(count)) or not 0 < count <= TRIALS:
        yield f"trials were started: {started}"
    yield from _check_counted(events)
    rows = list(csv.DictReader((run / "trials.csv").open(encoding="utf-8")))
    if [int(row["trial"]) for row in rows] != list(range(count)):
        yield f"trials.csv has trials {[row['trial'] for row in rows]}"
    yield from _check_end(run, variant, events)
    yield from _check_best(run, variant, _losses(events))


def happened(run: Path) -> Counter[str]:
    """What the Task has raised by itself, as the journal has it."""
    journal = run / "journal.jsonl"
    if not journal.exists():
        return Counter()
    kinds = {error: kind for kind, error in ERRORS.items()}
    errors = (e["error"]["type"] for e in read_journal(journal) if e["event"] == "fail")
    return Counter(kinds[error] for error in errors if error in kinds)


def traces(run: Path) -> dict[str, str]:
    """File -> its hash, of the journals and of ``best/``: all that a run that is over has found."""
    paths = [*run.rglob("journal.jsonl"), *filter(Path.is_file, (run / "best").rglob("*"))]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def _losses(events: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    return {
        (e["trial"], e["epoch"]): e["metrics"]["loss"] for e in events if e["event"] == "result"
    }


def _check_counted(events: list[dict[str, Any]]) -> Iterator[str]:
    counted = Counter((e["trial"], e["epoch"]) for e in events if e["event"] == "result")
    if twice := [place for place, count in counted.items() if count > 1]:
        yield f"(trial, epoch) counted twice: {twice}"
    for trial in sorted({event["trial"] for event in events if event["event"] == "start"}):
        epochs = sorted(epoch for number, epoch in counted if number == trial)
        if epochs != list(range(1, len(epochs) + 1)):
            yield f"trial {trial} has epochs {epochs}"


def _check_end(run: Path, variant: Variant, events: list[dict[str, Any]]) -> Iterator[str]:
    history = read_history(run)
    target = history.experiment.stop.target
    if history.state is not (State.FINISHED if target is None else State.ENDED_EARLY):
        yield f"the run is {history.state}"
    if target is not None:
        good = [n for n, e in enumerate(events) if e.get("metrics", {}).get("loss", 9) <= target]
        later = [e for e in events[good[0] :] if e["event"] == "start"] if good else []
        if not good or later:
            yield f"the target {target} was reached at the events {good}; started since: {later}"
    for trial in history.search.trials:
        fate = variant.fates.get(trial.number)
        found = (trial.error or {}).get("type") if trial.status == "failed" else None
        if found != (ERRORS[fate] if fate else None):
            yield f"trial {trial.number} is {trial.status}, with {trial.error}; its fate: {fate}"


def _check_best(run: Path, variant: Variant, losses: dict[tuple[int, int], float]) -> Iterator[str]:
    loss, trial, epoch = min((loss, *place) for place, loss in losses.items())
    written = json.loads((run / "best/metrics.json").read_text(encoding="utf-8"))
    if (written["trial"], written["epoch"]) != (trial, epoch):
        yield f"best/ has trial {written['trial']}, epoch {written['epoch']}, not {trial}, {epoch}"
    if variant.ending == "final":
        events = list(read_journal(run / FINAL / "journal.jsonl"))
        yield from (f"the final fit: {wrong}" for wrong in _check_counted(events))
        fitted = _losses(events)
        if sorted(fitted) != [(0, number + 1) for number in range(FINAL_EPOCHS)]:
            yield f"the final fit has (trial, epoch) {sorted(fitted)}"
        epoch = max(epoch for _, epoch in fitted)
        loss = fitted[0, epoch]
    saved = load_state(run / "best/checkpoint")
    again = (saved["task"]["total"].mean().item() - 1) ** 2 + 0.3 / epoch
    if saved["epoch"] != epoch or not math.isclose(again, loss, abs_tol=1e-12):
        yield f"best/checkpoint is of epoch {saved['epoch']} with loss {again}, not {epoch}, {loss}"


def check_nothing_left(pids: set[int]) -> Iterator[str]:
    """No actor, no placement group, no process of ``pids``, at the latest after a while."""
    deadline = time.monotonic() + GONE_SECONDS
    while (left := _left(pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield from left


def living_actors() -> list[dict[str, Any]]:
    """The actors of the cluster that are not over."""
    return [actor for actor in actors().values() if actor["State"] != "DEAD"]


def _left(pids: set[int]) -> list[str]:
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    left = [f"actor {a['ActorClassName']} is {a['State']}" for a in living_actors()]
    left += [f"placement group {g['placement_group_id']} is {g['state']}" for g in groups]
    return left + [f"process {pid} is there" for pid in pids if _is_there(pid)]


def _is_there(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
