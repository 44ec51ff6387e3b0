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
Run = Annotated[
    str, typer.Argument(help="a run folder, such as runs/quickstart or s3://bucket/quickstart")
]
Best = Annotated[str, typer.Argument(help="a run folder, or its best/ folder")]
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
Server = Annotated[
    str | None,
    typer.Option(
        help="of the cluster's dashboard, such as http://HOST:8265; "
        "RAY_API_SERVER_ADDRESS or RAY_ADDRESS without it"
    ),
]
Job = Annotated[str, typer.Argument(metavar="RUN", help="a run's name, or the id of its job")]

Quiet = Annotated[bool, typer.Option("--quiet", help="print what it came to, and warnings, alone")]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="one JSON object a line, for programs: run, cluster, what happens to trials, warning, "
        "and at last summary or error (tuner/callbacks/json_lines.py has their fields)",
    ),
]
Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders")]
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
def submit(
    file: Annotated[
        str,
        typer.Argument(help="an experiment file, the name of a built-in one, or a run to resume"),
    ] = "",
    *,
    data: Data = None,
    set_: Set = None,
    address: Server = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="print what the job prints until it has ended")
    ] = True,
) -> None:
    """Run an experiment, or resume a run, as a job of a Ray cluster."""
    from tuner.commands.submit import submit as command

    command(file, data, set_ or [], address, wait=wait)


@app.command()
def status(*, address: Server = None) -> None:
    """List the jobs of runs on a Ray cluster."""
    from tuner.commands.status import status as command

    command(address)


@app.command()
def logs(
    run: Job,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="until the job has ended")] = False,
    address: Server = None,
) -> None:
    """Print what a submitted run has printed."""
    from tuner.commands.logs import logs as command

    command(run, address, follow=follow)


@app.command()
def stop(run: Job, *, address: Server = None) -> None:
    """Stop a submitted run; its state is saved, to be resumed."""
    from tuner.commands.stop import stop as command

    command(run, address)


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
    storage: Annotated[str, typer.Argument(help="the folder of run folders")] = "runs",
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
        list[str],
        typer.Argument(metavar="INPUT...", help="what the model takes, or files or folders of it"),
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
