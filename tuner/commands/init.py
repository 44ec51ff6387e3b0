import shlex
from importlib.resources import files
from pathlib import Path

from tuner.errors import UserError

FILES = ("experiment.yaml", "task.py")


def init(folder: Path) -> None:
    """Write an experiment and a Task to begin with, which run as they are.

    Raises:
        UserError: one of the files is there already, or the folder cannot be written.

    """
    for name in FILES:
        if (folder / name).exists():
            raise UserError(
                f"{folder / name} exists already and is not overwritten; give another folder: "
                "python -m tuner init FOLDER"
            )
    skeleton = files("tuner") / "commands" / "skeleton"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text((skeleton / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"DIR is {str(folder)!r}, which cannot be written ({error.strerror}); give another"
        ) from error
    print(f"wrote {' and '.join(str(folder / name) for name in FILES)}; try them:")
    change = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    print(f"  {change}python -m tuner run experiment.yaml")
