from collections.abc import Sequence

from tuner.commands.arguments import read_display, read_experiment
from tuner.commands.summary import errors_told, print_summary
from tuner.run import start_run


def run(
    file: str,
    data: str | None,
    overrides: Sequence[str],
    address: str | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run an experiment from the beginning, and print what it came to."""
    display = read_display(quiet=quiet, as_json=as_json)
    with errors_told(display):
        experiment, folder = read_experiment(file, data, overrides)
        summary = start_run(experiment, address=address, folder=folder, display=display)
        print_summary(summary, display)
