from pathlib import Path

from search_spaces import SPACES
from search_spaces.builtin import builtin_file
from trainables import TRAINABLES
from tuner.commands.table import print_table
from tuner.errors import UserError
from tuner.experiment import builtin_experiments
from tuner.history import read_history
from tuner.search.journal import JOURNAL


def list_all(storage: Path) -> None:
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


def _print_runs(storage: Path) -> None:
    folders = sorted(path.parent for path in storage.glob(f"*/{JOURNAL}"))
    if not folders:
        print(f"no runs in {storage}")
        return
    rows = [_row(folder) for folder in folders]
    print_table([f"runs in {storage}", "state", "trials", "epochs", "best"], rows)


def _row(folder: Path) -> tuple[str, ...]:
    try:
        history = read_history(folder)
    except UserError as error:
        return folder.name, "unreadable", "", "", str(error)
    search = history.search
    best = ""
    if search.best:
        best = f"{search.metric} {search.value(search.best.best_loss):.4f}"
    trials = f"{len(search.trials)}/{search.num_trials}"
    return folder.name, str(history.state), trials, str(search.epochs_done), best


def _first_comment(file: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    comment: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).partition(". ")[0].rstrip(".")
