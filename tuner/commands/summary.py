"""What a run came to, for the terminal."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from tuner.callbacks.console import describe, duration, growth_warning
from tuner.final import FinalFit, read_final
from tuner.results import choose_best
from tuner.run import Summary
from tuner.scoring import Score, read_score
from tuner.search.search import Search
from tuner.search.trial import Status


def print_summary(summary: Summary) -> None:
    """Print the best configuration, the counts, and where things lie."""
    console = Console(highlight=False, soft_wrap=True)
    search = summary.search
    states = Counter(str(trial.status) for trial in search.trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    console.print(
        f"{len(search.trials)} trials ({counts}), {search.epochs_done} epochs, "
        f"{search.promotions} promotions in {duration(search.seconds)}"
    )
    if search.halted:
        console.print(f"ended early: {escape(search.halted)}")
    if search.replacements:
        console.print(f"processes replaced because memory had not come back: {search.replacements}")
    for warning in filter(None, map(growth_warning, search.trials)):
        console.print(escape(warning))
    if summary.slots:
        console.print(f"trial actors started: {summary.actors}, slots: {summary.slots}")
    _print_model(console, summary)
    _print_warm_start(console, summary)
    _print_failures(console, summary)
    if best := search.best:
        console.print(
            f"best {search.metric}: {search.value(best.best_loss):.4f}, trial {best.number} "
            f"epoch {best.best_epoch}: {escape(describe(best.config))}"
        )
        console.print(f"default configuration: {escape(against_default(search))}")
    final = read_final(summary.folder, search)
    if final:
        console.print(escape(_of_final(final)))
    best_model = choose_best(search, final)
    score = read_score(summary.folder, best_model) if best_model else None
    if score and (score.metrics or score.error):
        console.print(escape(_of_score(score)))
    if summary.best:
        console.print(f"best model: {escape(str(summary.best))}")


def against_default(search: Search) -> str:
    """How far ahead of the default configuration the best one is."""
    baseline = next((trial for trial in search.trials if trial.origin == "default"), None)
    if baseline is None:
        return "was not tried"
    if not baseline.best_epoch or search.best is None:
        return "has no result"
    reached = f"{search.value(baseline.best_loss):.4f} (epoch {baseline.best_epoch})"
    if baseline.epoch < search.max_epochs and baseline.status is not Status.COMPLETED:
        reached += f", {baseline.status} after {baseline.epoch} of {search.max_epochs} epochs"
    if search.best is baseline:
        return f"{reached}; nothing was better"
    return f"{reached}; the best is {baseline.best_loss - search.best.best_loss:.4f} ahead of it"


def _of_final(final: FinalFit) -> str:
    """What became of the fit that followed the search."""
    fit, search = final.fit, final.search
    text = f"final fit: trial {fit.trial}, {fit.epochs} epochs on {fit.data}"
    if error := final.error:
        return f"{text}: failed with {_brief(error)}; the best model is the search's own"
    if final.result is None:
        return f"{text}: {search.epochs_done} epochs done"
    reached = f"{text}: {search.metric} {search.value(final.result.loss):.4f}"
    if fit.data != "train":
        reached += ", no estimate: it trained on that data"
    if final.result.loss > final.of.best_loss:
        reached += f"; behind the search's own best, {search.value(final.of.best_loss):.4f}"
    return reached


def _of_score(score: Score) -> str:
    """What the best model's score on test data is, or why there is none."""
    if score.error:
        return f"test: failed with {_brief(score.error)}"
    return "test: " + ", ".join(f"{name} {value:.4g}" for name, value in score.metrics.items())


def _brief(error: Mapping[str, Any]) -> str:
    return f"{error['type']}: {str(error['message']).splitlines()[0]}"


def _print_warm_start(console: Console, summary: Summary) -> None:
    """What was taken over from earlier runs, and what was not."""
    event = summary.search.warm_start
    if event is None:
        return
    line = f"warm start: {len(event['results'])} results of {', '.join(event['runs'])}"
    if event["dropped"]:
        line += f"; not in this space, so dropped: {', '.join(event['dropped'])}"
    if event["outside"]:
        line += f"; {event['outside']} configurations outside of it, so left out"
    console.print(escape(line))


def _print_model(console: Console, summary: Summary) -> None:
    """What the model did and was told, where the search has one."""
    search = summary.search
    if not getattr(search.sampler, "learns", False):
        return
    picks = sum(trial.origin == "model" for trial in search.trials)
    swallowed = getattr(search.sampler, "swallowed", 0)
    told = ", ".join(
        f"{search.sampler.told[budget]} of {count} at epoch {budget}"
        for budget, count in sorted(search.reached.items())
    )
    console.print(f"model: {picks} picks; told {told}; {swallowed} exceptions swallowed")


def _print_failures(console: Console, summary: Summary) -> None:
    failed = [t for t in summary.search.trials if t.status is Status.FAILED and t.error]
    if failed:
        first = failed[0].error
        assert first is not None
        console.print(
            f"{len(failed)} failed, the first (trial {failed[0].number}) with "
            f"{escape(_brief(first))}"
        )
