"""Runs written offline by W&B itself, read back from its files; and what becomes of failures."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.callbacks.searches import Stepwise, fails, search_of, settings_of
from tuner.callbacks import wandb as callback
from tuner.callbacks.wandb import WeightsAndBiases, check_installed
from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.search.journal import MemoryJournal
from tuner.search.search import Search

wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")

TRIALS = 5


@dataclass
class Fragment:
    """A .wandb file: what one stay of a trial in its slot has written."""

    run: Any
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_fragment(path: Path) -> Fragment:
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(path))
    fragment = Fragment(None)
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                fragment.run = record.run
            case "history":
                items = record.history.item
                fragment.history.append({_name(i): json.loads(i.value_json) for i in items})
            case "summary":
                for item in record.summary.update:
                    fragment.summary[_name(item)] = json.loads(item.value_json)
            case "exit":
                fragment.exit_code = record.exit.exit_code
    return fragment


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def read_runs(folder: Path) -> dict[str, list[Fragment]]:
    """W&B's run id -> its fragments, in the order of their steps."""
    runs: dict[str, list[Fragment]] = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        fragment = read_fragment(path)
        runs.setdefault(fragment.run.run_id, []).append(fragment)
    for fragments in runs.values():
        fragments.sort(key=lambda f: int(f.history[0]["_step"]))
    return dict(sorted(runs.items()))


Written = tuple[Search, dict[str, list[Fragment]], list[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment whose folder is there."""
    values = {
        "name": "toy",
        "settings": {"data": "digits"},
        "search": settings_of(num_trials=TRIALS).model_dump(),
        "logging": {"wandb_project": "flowers"},
        "storage": str(tmp_path_factory.mktemp("runs")),
    }
    experiment = Experiment.model_validate(values)
    experiment.folder.mkdir()
    return experiment


@pytest.fixture(scope="module")
def written(place: Experiment) -> Written:
    """A search of five trials, interrupted after 8 epochs and gone on with by another process."""
    warnings: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        first = search_of(place.search)
        run_watched(first, place, warnings.append, lambda search: search.epochs_done == 8)
        journal = MemoryJournal(first._journal.written)  # type: ignore[attr-defined]
        second = search_of(place.search, journal=journal)
        second.open_session()
        run_watched(second, place, warnings.append, lambda _: False)
    return second, read_runs(place.folder), warnings


def run_watched(
    search: Search,
    place: Experiment,
    warn: Callable[[str], None],
    until: Callable[[Search], bool],
) -> None:
    with WeightsAndBiases(place, "toy", warn) as observer:
        search.subscribe(observer)
        Stepwise(search, slots=2).run(until)


def test_each_trial_is_one_run_of_the_group(written: Written) -> None:
    search, runs, warnings = written

    assert warnings == []
    assert len(runs) == TRIALS - sum(map(fails, range(TRIALS)))
    token = next(iter(runs)).partition("-")[0]
    for run_id, fragments in runs.items():
        trial = search.trials[int(run_id.removeprefix(f"{token}-"))]
        for fragment in fragments:
            run = fragment.run
            assert (run.project, run.run_group, run.job_type) == ("flowers", "toy", "trial")
            assert run.display_name == f"toy/trial_{trial.number:04d}"
            config = {i.key: json.loads(i.value_json) for i in run.config.update}
            config.pop("_wandb")
            assert config == {"data": "digits", **trial.config}


def test_a_run_goes_on_where_its_trial_does(written: Written) -> None:
    search, runs, _ = written

    stays = []
    for run_id, fragments in runs.items():
        trial = search.trials[int(run_id[-4:])]
        rows = [row for fragment in fragments for row in fragment.history]
        assert [row["_step"] for row in rows] == sorted(trial.results)
        assert [row["loss"] for row in rows] == [
            trial.results[epoch]["loss"] for epoch in sorted(trial.results)
        ]
        summary = {k: v for fragment in fragments for k, v in fragment.summary.items()}
        assert summary["best/epoch"] == trial.best_epoch
        assert summary["best/loss"] == trial.best_loss
        stays.append(len(fragments))
    assert sum(stays) > len(stays) + 1, "none has paused and gone on"


def test_runs_end_as_their_trials_do(written: Written) -> None:
    _, runs, _ = written

    last = [fragments[-1].exit_code for fragments in runs.values()]
    assert set(last) == {0}
    earlier = [f.exit_code for fragments in runs.values() for f in fragments[:-1]]
    assert 1 in earlier, "those that ran when the first process was interrupted"
    assert None not in earlier


def test_no_process_of_wandb_is_left(written: Written) -> None:
    del written
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "wandb" in name]


def test_a_server_out_of_reach_is_said_once_and_the_runs_are_kept(
    place: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = place.model_copy(update={"storage": str(tmp_path)})
    elsewhere.folder.mkdir()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setattr(callback, "INIT_SECONDS", 0.5)
    warnings: list[str] = []

    run_watched(search_of(place.search), elsewhere, warnings.append, lambda s: s.epochs_done == 3)

    (warning,) = warnings
    assert warning.startswith("W&B cannot be reached (CommError: ")
    assert warning.endswith(f"wandb sync {elsewhere.folder / 'wandb'}")
    assert len(read_runs(elsewhere.folder)) == 3


def test_a_failure_of_wandb_is_said_once_and_the_search_goes_on(
    place: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")

    def fail(**_: Any) -> None:
        raise RuntimeError("no space left\nat all")

    monkeypatch.setattr(wandb, "init", fail)
    warnings: list[str] = []
    search = search_of(place.search)

    run_watched(search, place, warnings.append, lambda _: False)

    assert search.finished
    (warning,) = warnings
    assert warning.startswith("W&B has failed, and gets nothing more: RuntimeError: no space left;")


def test_without_the_extra_the_project_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_installed("flowers")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(callback, "find_spec", lambda _: None)
    check_installed(None)

    with pytest.raises(
        UserError, match=r"wandb_project is 'flowers'.*pip install 'tuner\[wandb\]'"
    ):
        check_installed("flowers")
