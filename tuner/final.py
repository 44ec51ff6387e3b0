"""The final fit: a search's best configuration, trained afresh. It is a search of one trial."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.search.journal import JOURNAL, Event, Journal, MemoryJournal, read_journal
from tuner.search.rules.run_all import RunAll
from tuner.search.samplers.blank import BlankSampler
from tuner.search.search import EventLog, Search
from tuner.search.trial import Status, Trial
from tuner.storage import Kept, placed, uri_of

FINAL = "final"
"""The fit's folder, in the run's."""
_REMEDY = "it was damaged from outside: remove that folder, and the fit is made anew"


@dataclass(frozen=True)
class Fit:
    """What is fitted. Its journal begins with it, so that another one is not taken for it."""

    trial: int
    """Number of the search's trial that gives the configuration and the seed."""
    epochs: int
    data: str
    """``train``, or ``train+val``: then no metric on the validation data can be trusted."""


class LastCounts(Search):
    """A search whose trials are what they are at last, not at their best.

    The metric may be of data that is trained on, and a schedule is over at its end alone.
    """

    def _on_result(self, trial: Trial, event: Event) -> None:
        super()._on_result(trial, event)
        trial.best_loss, trial.best_epoch = trial.loss, trial.epoch


@dataclass(frozen=True)
class FinalFit:
    """A final fit, and how far it has come."""

    fit: Fit
    of: Trial
    """The search's trial."""
    search: LastCounts
    folder: Path

    @property
    def over(self) -> bool:
        """It has been fitted, or has failed; neither is done again."""
        return bool(self.search.trials) and self.search.finished

    @property
    def result(self) -> Trial | None:
        """The fitted trial; None where it has failed, is not over, or has lost its model."""
        if not self.over:
            return None
        (trial,) = self.search.trials
        saved = trial.epoch in trial.checkpoints or not self.of.checkpoints
        ended = trial.status is Status.COMPLETED and trial.results
        return trial if ended and saved else None

    @property
    def error(self) -> dict[str, Any] | None:
        """Why there is no result, once it is over: type, message and perhaps more."""
        if not self.over or self.result:
            return None
        unsaved = {"type": "NotSaved", "message": "its checkpoint was not saved"}
        return self.search.trials[0].error or unsaved

    @property
    def spec(self) -> dict[str, Any]:
        """What its trial is told other than the search's was."""
        return {
            "max_epochs": self.fit.epochs,
            "final": self.fit.data == "train+val",
            "log_dir": str(self.folder / "trial_0000"),
        }


def wanted_fit(experiment: Experiment, search: Search) -> Fit | None:
    """What the experiment has fitted after ``search``; None: nothing, or there is no best trial."""
    if experiment.final is None or search.best is None:
        return None
    epochs = experiment.final.epochs or search.best.best_epoch
    return Fit(search.best.number, epochs, experiment.final.data)


def is_outstanding(experiment: Experiment, search: Search) -> bool:
    """Whether a final fit is wanted that is not over yet."""
    wanted = wanted_fit(experiment, search)
    final = read_final(experiment.folder, search) if wanted else None
    return wanted is not None and not (final and final.fit == wanted and final.over)


def read_final(run: Path, search: Search) -> FinalFit | None:
    """The final fit that the run folder holds; nothing in it is changed. None: there is none.

    Raises:
        UserError: its journal is damaged.

    """
    events = _events(run)
    if not events:
        return None
    journal = MemoryJournal(placed(events, _location(run)), str(run / FINAL / JOURNAL))
    return _replay(run, search, Fit(**events[0]["fit"]), journal)


@contextmanager
def open_final(run: Kept, search: Search, fit: Fit) -> Iterator[FinalFit]:
    """The final fit, to be gone on with; another one, that lies in its place, is removed."""
    drop_other(run, fit)
    folder = run.folder / FINAL
    folder.mkdir(exist_ok=True)
    with Journal(folder / JOURNAL, run.check) as journal:
        journal.events = placed(journal.events, _location(run.folder))
        yield _replay(run.folder, search, fit, journal)


def drop_other(run: Kept, fit: Fit | None) -> None:
    """Remove a final fit that is not ``fit``: it was of a search that has gone on since."""
    events = _events(run.folder)
    if events and (fit is None or events[0]["fit"] != asdict(fit)):
        run.remove(FINAL)


def _location(run: Path) -> str:
    """Where the final fit of the run is kept."""
    return uri_of(run / FINAL) or str(run / FINAL)


def _events(run: Path) -> list[Event]:
    """Of the final fit's journal, which begins with what is fitted.

    Raises:
        UserError: it does not.

    """
    path = run / FINAL / JOURNAL
    events = list(read_journal(path)) if path.exists() else []
    if events and "fit" not in events[0]:
        raise UserError(f"{path}: line 1 does not say what is fitted; {_REMEDY}")
    return events


def _replay(run: Path, search: Search, fit: Fit, journal: EventLog) -> FinalFit:
    path = run / FINAL / JOURNAL
    if fit.trial >= len(search.trials) or not search.trials[fit.trial].results:
        raise UserError(f"{path}: line 1 names trial {fit.trial}, which has no result; {_REMEDY}")
    of = search.trials[fit.trial]
    fitted = LastCounts(
        BlankSampler(),
        RunAll(fit.epochs),
        journal,
        num_trials=1,
        max_epochs=fit.epochs,
        metric=search.metric,
        mode="min" if search.sign > 0 else "max",
        initial=[(of.config, FINAL)],
        max_faults=search.max_faults,
    )
    if len(fitted.trials) > 1:
        raise UserError(f"{path} tells of {len(fitted.trials)} trials, and a fit is one; {_REMEDY}")
    return FinalFit(fit, of, fitted, run / FINAL)
