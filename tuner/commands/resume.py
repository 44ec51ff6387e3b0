from collections.abc import Sequence
from pathlib import Path

from tuner.commands.arguments import read_overrides
from tuner.commands.summary import print_summary
from tuner.run import resume_run


def resume(run: Path, overrides: Sequence[str], address: str | None) -> None:
    """Go on with a run, and print what it came to."""
    print_summary(resume_run(run, address=address, overrides=read_overrides(overrides)))
