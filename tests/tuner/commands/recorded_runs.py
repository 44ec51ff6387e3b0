"""Run folders for the tests of commands: a real journal, written by a simulated search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search_spaces import load_space
from tuner.experiment import Experiment, make_experiment
from tuner.results import write_experiment
from tuner.search import build_search
from tuner.search.journal import JOURNAL, Journal
from tuner.search.search import Search
from tuner.search.simulation import simulate

SPACE = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}}}


def quality(config: dict[str, Any], epoch: int) -> float:
    """Better with x, up to 0.9, and with every epoch; above 0.9 the configuration fails."""
    if config["x"] > 0.9:
        raise ValueError(f"x is {config['x']}: it must be at most 0.9")
    return float(config["x"]) + epoch / 100


def describe_run(storage: Path, name: str, **search: Any) -> Experiment:
    """The experiment of a run, its folder written but for the journal."""
    settings = {"algorithm": "asha", "num_trials": 12, "max_epochs": 9, **search}
    experiment = make_experiment(
        {
            "name": name,
            "trainable": "task:Task",
            "search_space": SPACE,
            "search": settings,
            "storage": str(storage),
        },
        {},
    )
    experiment.folder.mkdir(parents=True)
    write_experiment(experiment, load_space(SPACE))
    return experiment


def open_search(experiment: Experiment, journal: Any) -> Search:
    """The search that a run of the experiment would have."""
    return build_search(experiment.search, load_space(experiment.search_space), journal)


def record_run(
    storage: Path,
    name: str,
    evaluate: Callable[[dict[str, Any], int], float] = quality,
    **search: Any,
) -> Search:
    """A run folder as a finished run leaves it, without checkpoints and best model."""
    experiment = describe_run(storage, name, **search)
    with Journal(experiment.folder / JOURNAL) as journal:
        recorded = open_search(experiment, journal)
        recorded.open_session(slots=2)
        simulate(recorded, evaluate, slots=2)
    return recorded


def cut_journal(folder: Path, events: int) -> None:
    """Leave what a process that was killed after so many events would have left."""
    journal = folder / JOURNAL
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:events]))
