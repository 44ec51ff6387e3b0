"""What a run came to: for people, in a terminal or not, and for programs."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.callbacks.console import Display
from tuner.callbacks.growth import describe_growth
from tuner.callbacks.json_lines import write_object
from tuner.errors import UserError
from tuner.final import read_final
from tuner.history import how_it_ended
from tuner.outcome import against_default, describe_final, describe_score, logging_share
from tuner.results import choose_best
from tuner.run import Summary
from tuner.scoring import read_score
from tuner.search.search import Search
from tuner.search.trial import Status, Trial
from tuner.text import brief, describe, duration, figure, one_line, shown

Fact = tuple[str, str]
"""A label, and what there is to say."""


@contextmanager
def errors_told(display: Display) -> Iterator[None]:
    """Have programs hear of an error that ends the command, beside the line for people."""
    try:
        yield
    except UserError as error:
        if display is Display.JSON:
            record = {"event": "error", "message": str(error), "exit_code": error.exit_code}
            write_object(record, sys.stdout)
        raise


def print_summary(summary: Summary, display: Display = Display.TABLE) -> None:
    """Print the best configuration, the counts, and where things lie."""
    if display is Display.JSON:
        write_object(summary_record(summary), sys.stdout)
        return
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    counts = _counts(summary.search)
    facts = [(one_line(label), one_line(text)) for label, text in _facts(summary)]
    if console.is_terminal:
        console.print(_columns([("run", counts), *facts]))
        return
    for text in (counts, *map(": ".join, facts)):
        console.print(Text(text))


def summary_record(summary: Summary) -> dict[str, Any]:
    """The last object of a run's JSON lines."""
    search, best = summary.search, summary.search.best
    final = read_final(summary.folder, search)
    model = choose_best(search, final)
    score = read_score(summary.folder, model) if model else None
    default = next((trial for trial in search.trials if trial.origin == "default"), None)
    return {
        "event": "summary",
        "state": str(how_it_ended(search)),
        "halted": search.halted,
        "folder": str(summary.folder),
        "model": str(summary.best) if summary.best else None,
        "metric": search.metric,
        "best": _result(best, search),
        "default": _result(default, search),
        "final": _result(final.result, search) if final else None,
        "test": dict(score.metrics) if score and not score.error else None,
        "trials": Counter(str(trial.status) for trial in search.trials),
        "epochs": search.epochs_done,
        "promotions": search.promotions,
        "seconds": round(search.seconds, 3),
        "failures": [
            {"trial": trial.number, "type": trial.error["type"], "message": trial.error["message"]}
            for trial in search.trials
            if trial.status is Status.FAILED and trial.error
        ],
    }


def _result(trial: Trial | None, search: Search) -> dict[str, Any] | None:
    """A trial at its best; None: there is none, or it has no result."""
    if trial is None or not trial.best_epoch:
        return None
    return {
        "trial": trial.number,
        "epoch": trial.best_epoch,
        "value": search.value(trial.best_loss),
        "config": trial.config,
    }


def _columns(facts: list[Fact]) -> Table:
    """Labels beside what they label, which goes on below itself where it is long."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(Text(label), Text(text))
    return table


def _counts(search: Search) -> str:
    states = Counter(str(trial.status) for trial in search.trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return (
        f"{len(search.trials)} trials ({counts}), {search.epochs_done} epochs, "
        f"promotions: {search.promotions}, in {duration(search.seconds)}"
    )


def _facts(summary: Summary) -> Iterator[Fact]:
    """What there is to say, in the order of it: how it went, what was found, where it lies."""
    search = summary.search
    if search.halted:
        yield "ended early", search.halted
    if search.replacements:
        replaced = f"{search.replacements} processes replaced: that of earlier trials was not freed"
        yield "memory", replaced
    if growing := describe_growth(search.trials):
        yield "warning", growing
    if summary.slots:
        yield "trial actors started", f"{summary.actors}, slots: {summary.slots}"
    if (share := logging_share(search)) is not None:
        yield "logging", f"{100 * share:.1f} % of the trials' time"
    yield from _of_sampler(search)
    yield from _of_warm_start(search)
    yield from _of_results(summary)
    yield from _of_places(summary)


def _of_results(summary: Summary) -> Iterator[Fact]:
    search, best = summary.search, summary.search.best
    if best:
        where = f"trial {best.number} epoch {best.best_epoch}"
        value = figure(search.value(best.best_loss))
        yield f"best {search.metric}", f"{value}, {where}: {describe(best.config)}"
        yield "default configuration", against_default(search)
    final = read_final(summary.folder, search)
    if final:
        yield "final fit", describe_final(final)
    model = choose_best(search, final)
    score = read_score(summary.folder, model) if model else None
    if score and (score.metrics or score.error):
        yield "test", describe_score(score)


def _of_places(summary: Summary) -> Iterator[Fact]:
    """Where things lie, and how to see more."""
    folder = summary.folder
    run = shlex.quote(shown(folder))
    failed = [t for t in summary.search.trials if t.status is Status.FAILED and t.error]
    if failed and failed[0].error:
        first = f"the first (trial {failed[0].number}) with {brief(failed[0].error)}"
        yield "failed", f"{len(failed)}, {first}; more: python -m tuner show {run} --failures"
    if summary.best:
        yield "best model", shown(summary.best)
    tables = [folder / name for name in ("trials.csv", "report.html")]
    if found := [shown(path) for path in tables if path.exists()]:
        yield "all trials", ", ".join(found)
    yield "curves", f"python -m tuner tensorboard {run}"


def _of_warm_start(search: Search) -> Iterator[Fact]:
    """What was taken over from earlier runs, and what was not."""
    event = search.warm_start
    if event is None:
        return
    line = f"{len(event['results'])} results of {', '.join(event['runs'])}"
    if event["dropped"]:
        line += f"; not in this space, so dropped: {', '.join(event['dropped'])}"
    if event["outside"]:
        line += f"; {event['outside']} configurations outside of it, so left out"
    yield "warm start", line


def _of_sampler(search: Search) -> Iterator[Fact]:
    """What the model did and was told, where the search has one."""
    if not getattr(search.sampler, "learns", False):
        return
    picks = sum(trial.origin == "model" for trial in search.trials)
    swallowed = getattr(search.sampler, "swallowed", 0)
    told = ", ".join(
        f"{search.sampler.told[budget]} of {count} results at epoch {budget}"
        for budget, count in sorted(search.reached.items())
    )
    chose = f"chose {picks} of {len(search.trials)} configurations"
    yield "model", f"{chose}, was told {told}; {swallowed} exceptions swallowed"
