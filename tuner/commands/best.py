import shlex
from pathlib import Path

from tuner.commands.table import print_table
from tuner.errors import UserError
from tuner.fields import read_metrics
from tuner.history import History, State, read_history
from tuner.results import best_checkpoint
from tuner.storage import BEST, fetched
from tuner.text import shown

LABELS = "labels.json"
"""In ``best/`` where the model tells classes apart, so that ``predict`` can name them."""
ALWAYS = {"checkpoint", "config.yaml", "metrics.json", "source"}
"""What ``best/`` holds whatever the trainable; anything more, the trainable wrote to be loaded."""


def best(run: str) -> None:
    """Print the best trial: its metrics, its hyperparameters, its model and how to use that.

    Raises:
        UserError: there is no result yet.

    """
    history = read_history(run)
    fetched(run, BEST)
    found = best_checkpoint(history.search)
    if found is None:
        raise UserError(
            f"{run} has no result yet ({history.state}); see python -m tuner show {run}"
        )
    trial, epoch = found
    print(f"{history.experiment.name}: trial {trial.number}, epoch {epoch} ({history.state})\n")
    print_table(["metrics", ""], [(k, f"{v:.6g}") for k, v in trial.results[epoch].items()])
    print()
    print_table(["hyperparameters", ""], trial.config.items())
    print()
    _print_model(history, (trial.number, epoch))


def _print_model(history: History, current: tuple[int, int]) -> None:
    folder = history.folder / "best"
    if not folder.exists():
        print(f"no model yet: {_when(history)}")
        return
    try:
        holds = read_metrics(folder)
    except UserError as error:
        raise UserError(f"{shown(folder)} is damaged: {error}; {_when(history)}") from error
    held = holds["trial"], holds["epoch"]
    if holds.get("final"):
        epochs, data = holds.get("epochs"), holds.get("data")
        print(f"{shown(folder)} holds the final fit: {epochs} epochs on {data}")
    if holds.get("test"):
        print_table(["test", ""], [(k, f"{v:.6g}") for k, v in holds["test"].items()])
        print()
    if held != current:
        print(f"{shown(folder)} still holds trial {held[0]}, epoch {held[1]}: {_when(history)}")
    _print_use(folder)


def _print_use(folder: Path) -> None:
    written = {path.name for path in folder.iterdir()}
    place = shown(folder)
    if LABELS in written:
        print(f"model: {place}\nuse it: python -m tuner predict {shlex.quote(place)} INPUT...")
    elif written - ALWAYS:
        print(f'model: {place}\nuse it, in Python: tuner.load_model("{place}")')
    elif "checkpoint" in written:
        print(f"checkpoint: {shown(folder / 'checkpoint')} (the trainable exports no model)")


def _when(history: History) -> str:
    if history.state is State.RUNNING:
        return "it is written when the run ends"
    return f"write it with python -m tuner resume {shlex.quote(shown(history.folder))}"
