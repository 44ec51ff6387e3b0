from collections.abc import Sequence

from tuner.commands.arguments import read_display, read_overrides
from tuner.commands.summary import errors_told, print_summary
from tuner.run import resume_run


def resume(
    run: str, overrides: Sequence[str], address: str | None, *, quiet: bool, as_json: bool
) -> None:
    """Go on with a run, and print what it came to."""
    display = read_display(quiet=quiet, as_json=as_json)
    with errors_told(display):
        values = read_overrides(overrides)
        summary = resume_run(run, address=address, overrides=values, display=display)
        print_summary(summary, display)
