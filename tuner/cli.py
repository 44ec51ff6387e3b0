"""The command line: each command hands plain arguments to its function in tuner/commands."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="tuner",
    help="Hyperparameter tuning on Ray Tune with warm, distributed trials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

File = Annotated[str, typer.Argument(help="an experiment file, or the name of a built-in one")]
Run = Annotated[Path, typer.Argument(help="a run folder, such as runs/quickstart")]
Best = Annotated[Path, typer.Argument(help="a run folder, or its best/ folder")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as search.num_trials=8"),
]
Data = Annotated[
    str | None,
    typer.Option(help="train on this: a path, or what else the trainable's data may be"),
]
Address = Annotated[
    str | None, typer.Option(help="of a Ray cluster; without it, one starts for the run")
]

Quiet = Annotated[bool, typer.Option("--quiet", help="print what it came to, and warnings, alone")]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="one JSON object a line, for programs: run, cluster, what happens to trials, warning, "
        "and at last summary or error (tuner/callbacks/json_lines.py has their fields)",
    ),
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")]


@app.command()
def run(
    file: File = "",
    *,
    data: Data = None,
    set_: Set = None,
    address: Address = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search, fine-tune, and leave the best model. With no FILE: the quickstart."""
    from tuner.commands.run import run as command

    command(file, data, set_ or [], address, quiet=quiet, as_json=as_json)


@app.command()
def resume(
    run: Run,
    *,
    set_: Set = None,
    address: Address = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted run from its journal."""
    from tuner.commands.resume import resume as command

    command(run, set_ or [], address, quiet=quiet, as_json=as_json)


@app.command()
def validate(file: File = "", *, data: Data = None, set_: Set = None) -> None:
    """Check an experiment without starting anything."""
    from tuner.commands.validate import validate as command

    command(file, data, set_ or [])


@app.command()
def plan(
    file: File = "",
    *,
    data: Data = None,
    set_: Set = None,
    seconds_per_epoch: Annotated[
        float | None, typer.Option(help="skip the timing of two epochs and take this")
    ] = None,
    address: Address = None,
) -> None:
    """Say what a run would take: epochs, time, devices, disk. Two epochs are run to know."""
    from tuner.commands.plan import plan as command

    command(file, data, set_ or [], seconds_per_epoch, address)


@app.command("list")
def list_(
    storage: Annotated[Path, typer.Argument(help="the folder of run folders")] = Path("runs"),
) -> None:
    """Name the built-in experiments, search spaces and trainables, and the runs in STORAGE."""
    from tuner.commands.list import list_all as command

    command(storage)


@app.command()
def show(
    run: Run,
    *,
    failures: Annotated[
        bool, typer.Option("--failures", help="failed trials and the first traceback instead")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
) -> None:
    """Show a run, over or under way: its summary and its trials, the best first."""
    from tuner.commands.show import show as command

    command(run, failures=failures, as_json=as_json)


@app.command()
def best(run: Run) -> None:
    """Show the best trial, its model and how to use that."""
    from tuner.commands.best import best as command

    command(run)


@app.command()
def report(
    runs: Runs,
    *,
    output: Annotated[
        Path | None, typer.Option(help="the file; report.html in the run's folder without it")
    ] = None,
) -> None:
    """Write one page, to be opened offline, of a run, or of several to compare."""
    from tuner.commands.report import report as command

    command(runs, output)


@app.command()
def tensorboard(runs: Runs, *, port: Port = 6006) -> None:
    """Open TensorBoard on runs, until Ctrl-C."""
    from tuner.commands.tensorboard import tensorboard as command

    command(runs, port)


@app.command()
def ui(runs: Runs, *, port: Port = 8080) -> None:
    """Open optuna-dashboard on runs, until Ctrl-C (extra: ui)."""
    from tuner.commands.ui import ui as command

    command(runs, port)


@app.command()
def predict(
    best: Best,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="what the model takes, or files of it")
    ],
) -> None:
    """Classify with the best model: input, label and probability, a line each."""
    from tuner.commands.predict import predict as command

    command(best, inputs)


@app.command()
def export(
    best: Best,
    *,
    format_: Annotated[str, typer.Option("--format", help="onnx or torchscript")] = "onnx",
    output: Annotated[
        Path | None, typer.Option(help="the file; model.onnx or model.pt in best/ without it")
    ] = None,
) -> None:
    """Write the best model for use without tuner, and compare its outputs."""
    from tuner.commands.export import export as command

    command(best, format_, output)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to write")] = Path(),
) -> None:
    """Write a commented experiment and a Task to begin with."""
    from tuner.commands.init import init as command

    command(folder)


@app.command()
def doctor(
    *, ray: Annotated[bool, typer.Option("--ray", help="start Ray, too, as a run does")] = False
) -> None:
    """Check that everything a run needs is here and works, with a remedy where not."""
    from tuner.commands.doctor import doctor as command

    command(start_ray=ray)
