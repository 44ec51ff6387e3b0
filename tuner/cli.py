"""The command line: each command a function that hands plain arguments on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.errors import UserError

app = typer.Typer(
    name="tuner",
    help="Hyperparameter tuning on Ray Tune with warm, distributed trials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

File = Annotated[str, typer.Argument(help="an experiment file, or the name of a built-in one")]
Run = Annotated[Path, typer.Argument(help="a run folder, such as runs/quickstart")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as search.num_trials=8"),
]
Data = Annotated[
    Path | None, typer.Option(help="fine-tune on this folder of images, one sub-folder a class")
]
Address = Annotated[
    str | None, typer.Option(help="of a Ray cluster; without it, one starts for the run")
]


@app.command()
def run(
    file: File = "", *, data: Data = None, set_: Set = None, address: Address = None
) -> None:
    """Search, fine-tune, and leave the best model. With no FILE: the quickstart."""
    from tuner.run import start_run

    experiment, folder = _experiment(file, data, set_)
    _print_summary(start_run(experiment, address=address, folder=folder))


@app.command()
def resume(run: Run, *, set_: Set = None, address: Address = None) -> None:
    """Go on with an interrupted run from its journal."""
    from tuner.run import resume_run

    _print_summary(resume_run(run, address=address, overrides=_overrides(set_)))


@app.command()
def validate(file: File, *, data: Data = None, set_: Set = None) -> None:
    """Check an experiment without starting anything."""
    from tuner.trainable import validate as check

    experiment, folder = _experiment(file, data, set_)
    check(experiment, folder)
    print(f"{file}: valid")


def _experiment(file: str, data: Path | None, set_: list[str] | None) -> tuple[Any, Path | None]:
    from tuner.experiment import load_experiment

    overrides = _overrides(set_)
    if data is not None:
        if not data.is_dir():
            raise UserError(f"--data is {str(data)!r}: there is no such folder")
        overrides.setdefault("settings.data", str(data.resolve()))
        if not file:
            overrides.setdefault("name", data.resolve().name)
    source = file or ("folder" if data else "quickstart")
    path = Path(source)
    return load_experiment(source, overrides), path.resolve().parent if path.exists() else None


def _overrides(set_: list[str] | None) -> dict[str, Any]:
    from tuner.experiment import parse_override

    return dict(parse_override(text) for text in set_ or [])


def _print_summary(summary: Any) -> None:
    from tuner.callbacks.summary import print_summary

    print_summary(summary)
