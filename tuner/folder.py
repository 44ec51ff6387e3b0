"""The folder of a run: that it is one to write into, and how a run in it is gone on with."""

import os
import shlex
from pathlib import Path

from tuner.cluster import is_job
from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.jobs import is_passing
from tuner.search.journal import JOURNAL
from tuner.text import shown


def create_folder(experiment: Experiment) -> None:
    """The run's folder, new.

    Raises:
        UserError: there is one already, or it cannot be written.

    """
    folder = experiment.folder
    if (folder / JOURNAL).exists() and (folder / JOURNAL).stat().st_size:
        raise UserError(
            f"name is {experiment.name!r}: {shown(folder)} exists already; go on with "
            f"{command_to_go_on(folder)}, take another name: --set name=..., or remove it"
        )
    if is_passing(folder):
        raise UserError(
            f"storage is {experiment.storage!r}, which in this job is part of a copy that Ray "
            "throws away: give an absolute path that every node sees, or object storage: --set "
            "storage=..."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOURNAL).touch()
    except OSError as error:
        raise UserError(
            f"storage is {experiment.storage!r}: {folder} cannot be written ({error.strerror}); "
            "give a folder that can be: --set storage=..."
        ) from error


def refuse_links(folder: Path) -> None:
    """A run writes below its folder alone, wherever that comes from.

    Raises:
        UserError: a link in it leads elsewhere.

    """
    inside = Path(os.path.realpath(folder))
    for top, folders, names in os.walk(folder):
        for path in (Path(top, name) for name in [*folders, *names]):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                raise UserError(
                    f"{path} is a link to {path.readlink()}, outside of the run's folder, where a "
                    "resumed run would write; remove the link"
                )
        if "wandb" in folders:
            folders.remove("wandb")  # it links its logs, and makes those links anew


def passing_settings(experiment: Experiment) -> list[str]:
    """Settings that name a path which is gone when the run is to be resumed; a line each."""
    return [
        f"settings.{name} is {value!r}, part of a copy that Ray throws away with this job: a "
        "resumed run will not find it; give an absolute path that every node sees"
        for name, value in experiment.settings.items()
        if isinstance(value, str) and is_passing(Path(value))
    ]


def command_to_go_on(folder: Path) -> str:
    """The command that goes on with the run in ``folder``; in a job, as another job."""
    command = "submit" if is_job() else "resume"
    return shlex.join(["python", "-m", "tuner", command, shown(folder)])
