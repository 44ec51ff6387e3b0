"""What commands make of the arguments that several of them take."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.callbacks.console import Display
from tuner.errors import UserError
from tuner.experiment import Experiment, load_experiment, parse_override


def read_experiment(
    file: str, data: str | None, overrides: Sequence[str]
) -> tuple[Experiment, Path | None]:
    """The experiment that FILE, --data and --set describe, and the folder that FILE lies in.

    Raises:
        UserError: they describe none.

    """
    values = read_overrides(overrides)
    if data is not None:
        path = Path(data)
        # what is no path, the trainable knows what to do with
        values.setdefault("settings.data", str(path.resolve()) if path.exists() else data)
        if not file:
            values.setdefault("name", Path(path.name.rpartition(":")[2]).stem)
    source = file or (_ready_made(Path(data)) if data else "quickstart")
    path = Path(source)
    return load_experiment(source, values), path.resolve().parent if path.exists() else None


def _ready_made(data: Path) -> str:
    """The built-in experiment for data that come without a FILE: by their columns, if of a .csv."""
    try:
        tables = [data / "train.csv", data / "val.csv"] if data.is_dir() else [data]
        if all(table.suffix.lower() == ".csv" and table.is_file() for table in tables):
            with tables[0].open(encoding="utf-8-sig", errors="replace", newline="") as lines:
                if "text" in next(csv.reader(lines, skipinitialspace=True), []):
                    return "texts"
    except (OSError, csv.Error):  # what is wrong with it, its reader will say
        pass
    return "folder"


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Each ``key.path=value`` as dotted path and value.

    Raises:
        UserError: one has another form.

    """
    return dict(parse_override(text) for text in overrides)


def read_display(*, quiet: bool, as_json: bool) -> Display:
    """How --quiet and --json want a run shown.

    Raises:
        UserError: both are given.

    """
    if quiet and as_json:
        raise UserError("--quiet and --json cannot both hold: leave one out")
    return Display.QUIET if quiet else Display.JSON if as_json else Display.TABLE
