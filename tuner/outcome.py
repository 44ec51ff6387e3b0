"""What a run came to, in words: for the terminal and the report."""

from trainables.event_log import EPOCH_SECONDS, LOGGING_SECONDS
from tuner.final import FinalFit
from tuner.scoring import Score
from tuner.search.search import Search
from tuner.search.trial import Status
from tuner.text import brief, figure


def against_default(search: Search) -> str:
    """How far ahead of the default configuration the best one is."""
    baseline = next((trial for trial in search.trials if trial.origin == "default"), None)
    if baseline is None:
        return "was not tried"
    if not baseline.best_epoch or search.best is None:
        return "has no result"
    reached = f"{figure(search.value(baseline.best_loss))} (epoch {baseline.best_epoch})"
    if baseline.epoch < search.max_epochs and baseline.status is not Status.COMPLETED:
        reached += f", {baseline.status} after {baseline.epoch} of {search.max_epochs} epochs"
    if search.best is baseline:
        return f"{reached}; nothing was better"
    return (
        f"{reached}; the best is {figure(baseline.best_loss - search.best.best_loss)} ahead of it"
    )


def describe_final(final: FinalFit) -> str:
    """What became of the fit that followed the search."""
    fit, search = final.fit, final.search
    text = f"trial {fit.trial}, {fit.epochs} epochs on {fit.data}"
    if error := final.error:
        return f"{text}: failed with {brief(error)}; the best model is the search's own"
    if final.result is None:
        return f"{text}: {search.epochs_done} epochs done"
    reached = f"{text}: {search.metric} {figure(search.value(final.result.loss))}"
    if fit.data != "train":
        reached += ", no estimate: it trained on that data"
    if final.result.loss > final.of.best_loss:
        reached += f"; behind the search's own best, {figure(search.value(final.of.best_loss))}"
    return reached


def describe_score(score: Score) -> str:
    """What the best model's score on test data is, or why there is none."""
    if score.error:
        return f"failed with {brief(score.error)}"
    return ", ".join(f"{name} {value:.4g}" for name, value in score.metrics.items())


def logging_share(search: Search) -> float | None:
    """The part of the trials' time that their first ranks spent on logging; None: they say none."""
    results = [found for trial in search.trials for found in trial.results.values()]
    spent, seconds = (
        sum(found.get(name, 0.0) for found in results) for name in (LOGGING_SECONDS, EPOCH_SECONDS)
    )
    return spent / seconds if seconds else None
