"""What must hold after a run, whatever befell it; each check returns what it found wrong."""

import csv
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

from tests.faults.schedule import RAISED, TRIALS, Variant
from trainables.checkpoint import load_state
from tuner.history import State, read_history
from tuner.search.journal import read_journal

ERRORS = dict(zip(RAISED, ("OutOfMemoryError", "NotFinite"), strict=True))
GONE_SECONDS = 30.0
"""How long processes may take to end after the run that they belonged to."""


def check_run(run: Path, variant: Variant) -> Iterator[str]:
    """The trials, their results and the best one, added up anew from the journal's lines."""
    events = list(read_journal(run / "journal.jsonl"))
    started = [event["trial"] for event in events if event["event"] == "start"]
    if started != list(range(TRIALS)):
        yield f"trials were started: {started}"
    results = {(e["trial"], e["epoch"]): e["metrics"] for e in events if e["event"] == "result"}
    counted = Counter((e["trial"], e["epoch"]) for e in events if e["event"] == "result")
    if twice := [place for place, count in counted.items() if count > 1]:
        yield f"(trial, epoch) counted twice: {twice}"
    for trial in range(TRIALS):
        epochs = sorted(epoch for number, epoch in results if number == trial)
        if epochs != list(range(1, len(epochs) + 1)):
            yield f"trial {trial} has epochs {epochs}"
    rows = list(csv.DictReader((run / "trials.csv").open(encoding="utf-8")))
    if [int(row["trial"]) for row in rows] != list(range(TRIALS)):
        yield f"trials.csv has trials {[row['trial'] for row in rows]}"
    yield from _check_failures(run, variant)
    yield from _check_best(run, results)


def _check_failures(run: Path, variant: Variant) -> Iterator[str]:
    history = read_history(run)
    if history.state is not State.FINISHED:
        yield f"the run is {history.state}"
    for trial in history.search.trials:
        fate = variant.fates.get(trial.number)
        found = (trial.error or {}).get("type") if trial.status == "failed" else None
        if found != (ERRORS[fate] if fate else None):
            yield f"trial {trial.number} is {trial.status}, with {trial.error}; its fate: {fate}"


def _check_best(run: Path, results: dict[tuple[int, int], dict[str, Any]]) -> Iterator[str]:
    loss, trial, epoch = min((m["loss"], *place) for place, m in results.items())
    written = json.loads((run / "best/metrics.json").read_text(encoding="utf-8"))
    if (written["trial"], written["epoch"]) != (trial, epoch):
        yield f"best/ has trial {written['trial']}, epoch {written['epoch']}, not {trial}, {epoch}"
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
