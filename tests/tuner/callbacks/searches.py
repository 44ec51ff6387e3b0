"""Searches as far as they have come, for the tests of what shows them."""

from collections.abc import Callable
from typing import Any

from search_spaces import load_space
from tuner.search import SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.search import Event, Search

SPACE = {
    "hyperparameters": {
        "learning_rate": {"type": "float", "lower": 1e-4, "upper": 1.0, "log": True},
        "learning_rate_of_the_backbone": {"type": "float", "lower": 0.001, "upper": 1.0},
        "weight_decay": {"type": "float", "lower": 1e-5, "upper": 0.1},
        "label_smoothing": {"type": "float", "lower": 0.0, "upper": 0.3},
        "augmentation": {"type": "categorical", "choices": ["randaugment", "trivialaugment"]},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
        "head": {"type": "constant", "value": "linear"},
    }
}


def settings_of(algorithm: str = "asha", **values: Any) -> SearchSettings:
    given = {"metric": "loss", "mode": "min", "num_trials": 50, "max_epochs": 9, **values}
    return SearchSettings.model_validate({"algorithm": algorithm, **given})


def search_of(settings: SearchSettings, journal: Any = None, **options: Any) -> Search:
    return build_search(settings, load_space(SPACE), journal or MemoryJournal(), **options)


def fails(number: int) -> bool:
    return number % 7 == 3


class Stepwise:
    """Runs a search, a result at a time, on so many slots; every seventh trial fails."""

    def __init__(self, search: Search, slots: int = 4, message: str = "it does not fit") -> None:
        self.search, self.slots, self.message = search, slots, message
        self._turn = 0

    def step(self) -> bool:
        """One result, or failure, of the trial whose turn it is; whether there was one."""
        search = self.search
        while len(search.active) < self.slots and search.next_job() is not None:
            pass
        if not search.active:
            return False
        self._turn += 1
        trial = search.active[self._turn % len(search.active)]
        if fails(trial.number):
            error = {"type": "ValueError", "message": self.message, "traceback": "Traceback"}
            search.fail(trial.number, error)
            return True
        epoch = trial.epoch + 1
        loss = trial.config["learning_rate"] + 1 / epoch
        search.report(trial.number, epoch, {"loss": loss, "seconds": 0.5})
        search.checkpointed(trial.number, epoch, f"trial_{trial.number}/{epoch}")
        if str(trial.status) != "running":
            search.close(trial.number)
        return True

    def run(self, until: Callable[[Search], bool] = lambda _: False) -> None:
        """Step until that is so, or to the end."""
        while not until(self.search) and self.step():
            pass
        if self.search.finished:
            self.search.finish()


def kinds(search: Search) -> list[Event]:
    """Hears of every event of the search from now on."""
    heard: list[Event] = []
    search.subscribe(lambda event, _: heard.append(event))
    return heard
