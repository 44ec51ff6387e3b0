from pathlib import Path

from search_spaces import SPACES
from search_spaces.builtin import builtin_file
from trainables import TRAINABLES
from tuner.commands.table import print_table
from tuner.errors import UserError
from tuner.experiment import builtin_experiments
from tuner.history import read_history
from tuner.storage import join, run_names


def list_all(storage: str) -> None:
    """Print what comes with tuner, by name, and the runs in the ``storage`` folder."""
    experiments = builtin_experiments()
    print_table(
        ["experiments", ""], [(name, _first_comment(path)) for name, path in experiments.items()]
    )
    print()
    print_table(
        ["search spaces", ""], [(name, _first_comment(builtin_file(name))) for name in SPACES]
    )
    print()
    print_table(["trainables", ""], TRAINABLES.items())
    print()
    _print_runs(storage)


def _print_runs(storage: str) -> None:
    names = run_names(storage)
    if not names:
        print(f"no runs in {storage}")
        return
    rows = [_row(storage, name) for name in names]
    print_table([f"runs in {storage}", "state", "trials", "epochs", "best"], rows)


def _row(storage: str, name: str) -> tuple[str, ...]:
    try:
        history = read_history(join(storage, name))
    except UserError as error:
        return name, "unreadable", "", "", str(error)
    search = history.search
    best = ""
    if search.best:
        best = f"{search.metric} {search.value(search.best.best_loss):.4f}"
    trials = f"{len(search.trials)}/{search.num_trials}"
    return name, str(history.state), trials, str(search.epochs_done), best


def _first_comment(file: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    comment: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).partition(". ")[0].rstrip(".")
