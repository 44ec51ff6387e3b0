from collections.abc import Sequence
from pathlib import Path

from tuner import trainable
from tuner.commands.arguments import read_experiment


def validate(file: str, data: Path | None, overrides: Sequence[str]) -> None:
    """Check an experiment without starting anything."""
    experiment, folder = read_experiment(file, data, overrides)
    trainable.validate(experiment, folder)
    print(f"{file}: valid")
