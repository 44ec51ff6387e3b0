"""The page of one run."""

import shlex
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.fields import CONFIG, TEXT, list_of, or_null, read_metrics, read_object
from tuner.final import FinalFit, read_final
from tuner.history import State
from tuner.outcome import against_default, describe_final, describe_score
from tuner.report import optuna_figures, own_figures
from tuner.report.failures import FailureGroup, group_failures
from tuner.report.page import (
    Section,
    commands,
    drawn,
    facts,
    fold,
    grid,
    paragraph,
    plot,
    table,
    write_page,
)
from tuner.report.record import Record
from tuner.results import Best, choose_best
from tuner.scoring import read_score
from tuner.search.trial import Status, Trial
from tuner.text import duration

REPORT = "report.html"
"""The file's name, in the run's folder."""
_MOST_NUMBERS = 20
"""Trials that a line names."""
_ENVIRONMENT = {
    "command": list_of(TEXT),
    "git_commit": or_null(TEXT),
    "python": TEXT,
    "platform": TEXT,
    "packages": CONFIG,
}
"""Of environment.json: key -> what it must be."""


def write_report(record: Record, path: Path) -> None:
    """Write the page of a run.

    Raises:
        UserError: the file cannot be written.

    """
    experiment = record.history.experiment
    search = experiment.search
    subtitle = f"{record.history.state} · {search.algorithm} · {search.metric} ({search.mode})"
    write_page(path, experiment.name, subtitle, list(_sections(record)))


def _sections(record: Record) -> Iterator[Section]:
    final = read_final(record.history.folder, record.history.search)
    yield Section("Summary", _under_way(record) + facts(_summary(record, final)))
    yield Section("Best configuration", _best(record, final))
    yield Section("Learning curves", drawn(lambda: _curves(record)))
    yield Section("Optimisation history", drawn(lambda: _history(record)))
    yield Section("Parallel coordinates", drawn(lambda: _parallel(record)))
    yield Section("Slices", drawn(lambda: _slices(record)))
    yield Section("Importances", drawn(lambda: _importances(record)))
    yield Section("Slots", drawn(lambda: _slots(record)))
    yield Section("Failures", _failures(record))
    yield Section("Environment", _environment(record.history.folder))
    yield Section("How to go on", _how_to_go_on(record))


# -- text -----------------------------------------------------------------------------------------


def _under_way(record: Record) -> str:
    if record.history.state is not State.RUNNING:
        return ""
    return paragraph("The run was under way: this is what there was when it was written.")


def _summary(record: Record, final: FinalFit | None) -> Iterator[tuple[str, str]]:
    history, search = record.history, record.history.search
    settings = history.experiment.search
    states = Counter(trial.status for trial in search.trials)
    counts = ", ".join(f"{states[status]} {status}" for status in Status if states[status])
    yield "state", f"{history.state}{f': {search.halted}' if search.halted else ''}"
    yield "search", f"{settings.algorithm}, configurations by {settings.picks_by}"
    yield "metric", f"{search.metric} ({'less' if settings.mode == 'min' else 'more'} is better)"
    of = f"{len(search.trials)} of {search.num_trials}"
    yield "trials", f"{of}: {counts}" if counts else of
    yield "epochs", f"{search.epochs_done}, at most {search.max_epochs} a trial"
    yield "promotions", str(search.promotions)
    if record.sessions:
        yield "time", _time(record)
        busy = "" if record.busy is None else f", busy {record.busy:.0%} of the time"
        yield "slots", f"{record.sessions[-1].slots}{busy}"
    if best := search.best:
        value = f"{search.value(best.best_loss):.5g}"
        yield "best", f"{value}, trial {best.number} after epoch {best.best_epoch}"
        yield "default configuration", against_default(search)
    if search.warm_start:
        runs = ", ".join(search.warm_start["runs"])
        yield "warm start", f"{len(search.warm_start['results'])} results of {runs}"
    yield from _after_the_search(record, final)
    if record.faults:
        lost = ", ".join(f"{count} {kind}" for kind, count in record.faults.most_common())
        yield "processes lost", f"{lost}; their trials were taken up again as far as allowed"
    if search.replacements:
        yield "processes replaced", f"{search.replacements}, as memory had not come back"
    if oom := sum(m.get("oom_recoveries", 0) for t in search.trials for m in t.results.values()):
        yield "out of memory", f"{oom:g} times, recovered with a smaller micro-batch"


def _time(record: Record) -> str:
    sessions = record.sessions
    began = f"{datetime.fromtimestamp(sessions[0].began).astimezone():%Y-%m-%d %H:%M}"
    several = f", in {len(sessions)} sessions" if len(sessions) > 1 else ""
    return f"{duration(record.history.search.seconds)}{several}, from {began} on"


def _after_the_search(record: Record, final: FinalFit | None) -> Iterator[tuple[str, str]]:
    if final:
        yield "final fit", describe_final(final)
    best = choose_best(record.history.search, final)
    score = read_score(record.history.folder, best) if best else None
    if score and (score.metrics or score.error):
        yield "test", describe_score(score)


def _best(record: Record, final: FinalFit | None) -> str:
    best = choose_best(record.history.search, final)
    if best is None:
        return paragraph("No trial has a result yet.")
    by = f"Trial {best.trial.number}, proposed by: {best.trial.origin}."
    return paragraph(f"{by} {_model(record, best)}") + facts(
        (name, _short(value)) for name, value in best.trial.config.items()
    )


def _model(record: Record, best: Best) -> str:
    folder = record.history.folder / "best"
    if not folder.exists():
        under_way = record.history.state is State.RUNNING
        when = "when the run ends" if under_way else "by python -m tuner resume"
        return f"Its model is written to best/ {when}."
    try:
        held = read_metrics(folder)
    except UserError as error:
        return f"{folder} is damaged: {error}."
    if best.is_told_by(held):
        return f"Its model lies in {folder}."
    return f"{folder} still holds an earlier model."


def _failures(record: Record) -> str:
    groups = group_failures(record.history.search.trials)
    if not groups:
        return paragraph("No trial failed.")
    overview = table(
        ["trials", "error", "message", "which"],
        [(len(g.trials), g.type, g.pattern, _numbers(g.trials)) for g in groups],
    )
    return overview + "".join(_traceback(group) for group in groups)


def _traceback(group: FailureGroup) -> str:
    first = group.trials[0].error or {}
    text = group.traceback or f"{first['message']}\n\n(there is no traceback)"
    return fold(f"{group.type}: {group.pattern}", text.rstrip())


def _numbers(trials: list[Trial]) -> str:
    named = ", ".join(str(trial.number) for trial in trials[:_MOST_NUMBERS])
    left = len(trials) - _MOST_NUMBERS
    return f"{named} and {left} more" if left > 0 else named


def _environment(folder: Path) -> str:
    try:
        known = read_object(folder / "environment.json", _ENVIRONMENT)
    except UserError as error:
        return paragraph(f"There is nothing to tell: {error}.")
    commit = known.get("git_commit") or "none: it was not run from a git repository"
    if (folder / "git.diff").exists():
        commit += ", with changes, which are in git.diff"
    pairs = [
        ("command", _typed(known.get("command", []))),
        ("git commit", commit),
        ("python", known.get("python")),
        ("platform", known.get("platform")),
        *known.get("packages", {}).items(),
    ]
    return facts((name, value) for name, value in pairs if value)


def _typed(arguments: list[str]) -> str:
    """A command as it was typed, or would have been."""
    if arguments and Path(arguments[0]).name == "__main__.py":
        arguments = ["python", "-m", "tuner", *arguments[1:]]
    return shlex.join(arguments)


def _how_to_go_on(record: Record) -> str:
    folder = record.history.folder
    lines = [["show", str(folder)], ["tensorboard", str(folder)], ["ui", str(folder)]]
    if record.history.state in (State.INTERRUPTED, State.ENDED_EARLY):
        lines.insert(0, ["resume", str(folder)])
    if (folder / "best" / "labels.json").exists():
        lines.append(["predict", str(folder), "INPUT"])
    if (folder / "best").exists():
        lines.append(["best", str(folder)])
    return commands(["python", "-m", "tuner", *line] for line in lines)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# -- figures --------------------------------------------------------------------------------------


def _curves(record: Record) -> str:
    trials = record.history.search.trials
    early = sum(t.status is Status.FAILED and not t.results for t in trials)
    with_results = [trial for trial in trials if trial.results]
    shown = len(own_figures.spread(trials, own_figures.MOST_CURVES))
    caption = (
        "A trial that a rung paused stands at a bar; one that was promoted from there goes on "
        "from a triangle. A click on the legend hides a group, a double click all others."
    )
    if early:
        caption += f" {early} failed before their first result and have no curve."
    caption += _sampled(shown, len(with_results), "curves")
    return plot(own_figures.learning_curves(record), caption, height=520)


def _history(record: Record) -> str:
    caption = (
        "Each point is an epoch of a trial, coloured by who proposed its configuration. Epochs "
        "are what a search spends: a stopped trial has cost few of them."
    )
    if own_figures.telling_range(record):
        caption += " A few results are far worse and lie outside; a double click shows them."
    return plot(own_figures.history(record), caption)


def _parallel(record: Record) -> str:
    trials = record.history.search.trials
    shown = own_figures.spread(trials, optuna_figures.MOST_LINES)
    caption = "A line is a trial with its best value, after however many epochs that was."
    caption += _sampled(len(shown), sum(bool(t.results) for t in trials), "lines")
    if any(t.config.keys() != shown[0].config.keys() for t in shown):
        caption += " None: it has no such hyperparameter."
    width = 130 * (1 + len(optuna_figures.varied(shown)))
    return plot(optuna_figures.parallel_coordinates(record), caption, height=460, least_width=width)


def _slices(record: Record) -> str:
    trials = record.history.search.trials
    caption = "Each trial's best value, after however many epochs that was; the bluer, the later."
    shown = len(own_figures.spread(trials, optuna_figures.MOST_POINTS))
    caption += _sampled(shown, sum(bool(t.results) for t in trials), "points")
    return grid((plot(figure, height=280) for figure in optuna_figures.slices(record)), caption)


def _importances(record: Record) -> str:
    figure, epoch, count = optuna_figures.importances(record)
    caption = (
        f"What sets good trials apart from the others (PED-ANOVA), from {count} trials, all at "
        f"epoch {epoch}, so that none is behind for having been stopped. With few trials it is a "
        "hint at most."
    )
    return plot(figure, caption, height=120 + 34 * len(figure.data[0].y))


def _slots(record: Record) -> str:
    figure = own_figures.slots(record)
    busy = "" if record.busy is None else f"Trials held a slot {record.busy:.1%} of the time. "
    caption = (
        f"{busy}A bar is a trial on its slot, with its number where there is room; gaps are "
        "checkpoints being saved, and slots without work."
    )
    if len(record.sessions) > 1:
        pauses = ", ".join(
            f"{duration(after.began - before.began - (before.end - before.start))}"
            for before, after in zip(record.sessions, record.sessions[1:], strict=False)
        )
        caption += f" Dotted: another session began; the time between is left out ({pauses})."
    slots = len(figure.layout.yaxis.categoryarray)
    return plot(figure, caption, height=min(140 + 44 * slots, 900))


def _sampled(shown: int, there: int, what: str) -> str:
    """That not all are shown, if so."""
    if shown == there:
        return ""
    return f" Of {there} trials, {shown} {what} are shown: the best, and evenly down to the worst."
