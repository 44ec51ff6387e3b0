from collections.abc import Sequence

from tuner import trainable
from tuner.commands.arguments import read_experiment
from tuner.earlier import read_earlier


def validate(file: str, data: str | None, overrides: Sequence[str]) -> None:
    """Check an experiment without starting anything."""
    experiment, folder = read_experiment(file, data, overrides)
    _, space = trainable.validate(experiment, folder)
    read_earlier(experiment, space)
    print(f"{file or experiment.name}: valid")
    for line in trainable.overridden(experiment, space):
        print(f"note: {line}")
