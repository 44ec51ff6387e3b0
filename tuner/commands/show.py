import json
from typing import Any

from tuner.commands.summary import print_summary
from tuner.commands.table import print_table
from tuner.history import History, read_history
from tuner.run import Summary
from tuner.search.search import Search
from tuner.search.trial import Status, Trial
from tuner.text import brief, describe, each_line, one_line


def show(run: str, *, failures: bool, as_json: bool) -> None:
    """Print a run's summary and its trials, the best first.

    ``failures``: the failed trials and the first traceback instead. ``as_json``: for programs, all
    that the table has.
    """
    history = read_history(run)
    if as_json:
        print(json.dumps(_record(history), indent=2))
    elif failures:
        _print_failures(history.search)
    else:
        _print_run(history)


def _print_run(history: History) -> None:
    experiment, search = history.experiment, history.search
    print(f"{experiment.name}: {history.state} ({experiment.search.algorithm})")
    best = history.folder / "best"
    print_summary(
        Summary(history.folder, search, slots=0, actors=0, best=best if best.exists() else None)
    )
    print()
    print_table(
        ["trial", "state", "epochs", search.metric, "at epoch", "hyperparameters"],
        [_row(trial, search) for trial in _ranked(search)],
    )


def _ranked(search: Search) -> list[Trial]:
    return sorted(search.trials, key=lambda trial: (trial.best_loss, trial.number))


def _row(trial: Trial, search: Search) -> tuple[object, ...]:
    best: tuple[object, object] = ("", "")
    if trial.results:
        best = f"{search.value(trial.best_loss):.4f}", trial.best_epoch
    return trial.number, trial.status, trial.epoch, *best, describe(trial.config)


def _print_failures(search: Search) -> None:
    failed = [t for t in search.trials if t.status is Status.FAILED and t.error]
    if not failed:
        print("no trial failed")
        return
    print_table(
        ["trial", "after epoch", "error", "hyperparameters"],
        [(t.number, t.epoch, brief(t.error or {}), describe(t.config)) for t in failed],
    )
    first = next((t for t in failed if t.error and t.error.get("traceback")), None)
    if first and first.error:
        rank = f", rank {first.error['rank']}" if "rank" in first.error else ""
        print(f"\ntrial {first.number}{one_line(rank)}:")
        print(each_line(first.error["traceback"].rstrip()))


def _record(history: History) -> dict[str, Any]:
    search = history.search
    keys = ("number", "status", "origin", "config", "epoch", "best_epoch", "results", "error")
    return {
        "name": history.experiment.name,
        "folder": str(history.folder),
        "state": history.state,
        "halted": search.halted,
        "metric": search.metric,
        "mode": history.experiment.search.mode,
        "best_trial": search.best.number if search.best else None,
        "trials": [{key: getattr(trial, key) for key in keys} for trial in search.trials],
    }
