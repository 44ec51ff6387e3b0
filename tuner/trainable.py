"""What a trial runs, by name: a Task or a Ray Tune trainable, and the checks before a run."""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables import TRAINABLES
from tuner.errors import UserError
from tuner.experiment import Experiment, Resources, explain
from tuner.search.given import given_configurations

SOURCE = "source"
SAMPLES = 20
"""Configurations that are drawn and checked before a run."""


@dataclass(frozen=True)
class Trainable:
    """The class that ``trainable`` names.

    ``is_task``: it is a Task, to be run on the trial's ranks; otherwise a ``ray.tune.Trainable``,
    used as it is.
    """

    path: str
    cls: type[Any]
    is_task: bool
    one_process: bool = False
    """One rank has all GPUs of a trial."""

    def check(self, values: Mapping[str, Any], resources: Resources) -> "Trainable":
        """Build the Task's configuration and have the Task look at it.

        Returns:
            The trainable as this configuration has it run.

        Raises:
            ValueError: it cannot run.

        """
        if not self.is_task:
            return self
        from trainables.rank import build_config

        try:
            config = build_config(self.cls, values)
        except ValidationError as error:
            raise ValueError(explain(error, getattr(self.cls, "Config", None))) from error
        gpus, is_one = int(resources.gpus_per_trial), getattr(self.cls, "one_process", None)
        found = replace(self, one_process=bool(is_one and is_one(config, gpus)))
        if check := getattr(self.cls, "check", None):
            check(config, len(found.bundles(resources)))
        return found

    def bundles(self, resources: Resources) -> list[dict[str, float]]:
        """One resource bundle a rank of a trial, as Ray takes them."""
        return resources.bundles(one_process=self.one_process)

    @property
    def modules(self) -> list[str]:
        """What its processes import; of a user's modules, which could fail, none."""
        if not self.is_task:
            return ["ray.tune"]
        own = [self.path.partition(":")[0]] if self.path in TRAINABLES.values() else []
        return ["trainables.distributed", "trainables.rank_group", *own]

    def settle(self, experiment: Experiment, hyperparameters: Mapping[str, Any]) -> Experiment:
        """The experiment with its settings as the Task's Config has them: paths absolute, say."""
        if not self.is_task or getattr(self.cls, "Config", None) is None:
            return experiment
        config = self.cls.Config(**{**experiment.settings, **hyperparameters})
        settings = {
            key: value if key in hyperparameters else getattr(config, key, value)
            for key, value in experiment.settings.items()
        }
        return experiment.model_copy(update={"settings": settings})


def resolve_trainable(name: str, folder: Path | None = None) -> Trainable:
    """Import the class that ``name`` stands for.

    Args:
        name: a name from ``TRAINABLES``, or ``package.module:Class``.
        folder: where the user's modules lie, beside the current folder.

    Raises:
        UserError: there is no such thing, or it is no trainable.

    """
    path = TRAINABLES.get(name, name)
    if ":" not in path:
        near = difflib.get_close_matches(name, TRAINABLES, n=1) or list(TRAINABLES)
        raise UserError(
            f"trainable is {name!r}: it must be a built-in name ({near[0]}?) or "
            "package.module:Class"
        )
    add_to_path(folder)
    from trainables.rank import import_task

    try:
        cls = import_task(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if any(base.__module__.startswith("ray.tune.trainable") for base in cls.__mro__):
        return Trainable(path, cls, is_task=False)
    if not callable(getattr(cls, "train_epoch", None)):
        raise UserError(
            f"trainable is {name!r}: {cls.__name__} is neither a Task (it has no train_epoch) "
            "nor a ray.tune.Trainable"
        )
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(
            f"trainable is {name!r}: {cls.__name__} is not a whole Task; define "
            f"{', '.join(lacking)}"
        )
    return Trainable(path, cls, is_task=True)


def kept_source(name: str, folder: Path) -> Path | None:
    """Where ``folder`` keeps the module of a user's trainable; None for the built-in ones.

    Those need no module from a folder, so none there can stand in for an installed one.
    """
    builtin = name in TRAINABLES or name in TRAINABLES.values()
    return None if builtin else folder / SOURCE


def add_to_path(folder: Path | None) -> None:
    """Let modules beside the experiment file, and in the current folder, be imported."""
    for path in (Path.cwd(), folder):  # the file's folder ends up first, as on the workers
        if path is not None and sys.path[0] != str(path.resolve()):
            sys.path.insert(0, str(path.resolve()))


def validate(experiment: Experiment, folder: Path | None = None) -> tuple[Trainable, Any]:
    """Everything that can be known wrong before Ray starts; returns the trainable and the space.

    Raises:
        UserError: the experiment cannot run as it is.

    """
    from search_spaces import SpaceError, default_configuration, load_space, sample
    from tuner.callbacks.wandb import check_installed

    check_installed(experiment.logging.wandb_project)
    add_to_path(folder)
    try:
        space = load_space(experiment.search_space, folder=folder, seed=experiment.search.seed)
    except SpaceError as error:
        raise UserError(f"search_space: {error}") from error
    trainable = resolve_trainable(experiment.trainable, folder)
    drawn = [sample(space, number) for number in range(SAMPLES)]
    settings, resources = experiment.settings, experiment.resources
    ways = []
    for hyperparameters in [default_configuration(space), *drawn]:
        try:
            ways.append(trainable.check({**settings, **hyperparameters}, resources))
        except ValueError as error:
            raise UserError(_blame(error, experiment, hyperparameters)) from error
    for number, config in enumerate(given_configurations(experiment.search, space)):
        try:
            ways.append(trainable.check({**settings, **config}, resources))
        except ValueError as error:
            raise UserError(f"search.initial, configuration {number}: {error}") from error
    trainable = _agreed(ways)
    _check_logging(experiment, trainable)
    _check_pausing(experiment, trainable)
    _check_final(experiment, trainable)
    return trainable, space


def overridden(experiment: Experiment, space: Any) -> list[str]:
    """What is set and has no effect, for the search space decides it; a line each."""
    return [
        f"settings.{name} is {value!r}, but {name} is a hyperparameter of the search space, which "
        "decides it: to fix it, use a space without it"
        for name, value in experiment.settings.items()
        if name in space
    ]


def _blame(error: ValueError, experiment: Experiment, drawn: Mapping[str, Any]) -> str:
    """Say whether the settings are wrong, or what the space puts in their place."""
    key = next((name for name in drawn if str(error).startswith((name, f"unknown key {name}"))), "")
    where = f"search_space {experiment.search_space!r}" if key else "settings"
    if isinstance(experiment.search_space, dict) and key:
        where = "search_space"
    return f"{where}: {error}"


def _agreed(ways: list[Trainable]) -> Trainable:
    """All trials run on the same ranks, so no hyperparameter may decide how many there are."""
    if len({way.one_process for way in ways}) > 1:
        raise UserError(
            "search_space: some configurations want one process for all GPUs of a trial, others "
            "one for each; what decides that must be the same for all trials: fix it in settings"
        )
    return ways[0]


def _check_logging(experiment: Experiment, trainable: Trainable) -> None:
    """What TensorBoard is not to get must be something that it could get."""
    names = ["scalars", "hparams", *getattr(trainable.cls, "logs", ())]
    for name in experiment.logging.skip:
        if name not in names:
            near = difflib.get_close_matches(name, names)
            raise UserError(
                f"logging.skip names {name!r}, which {trainable.path} does not log: "
                + (f"did you mean {', '.join(near)}?" if near else f"give of {', '.join(names)}")
            )


def _check_pausing(experiment: Experiment, trainable: Trainable) -> None:
    """Asha and bohb pause trials, so the trainable must be able to save."""
    if trainable.is_task or experiment.search.algorithm in ("grid", "random"):
        return
    if not saves(trainable):
        raise UserError(
            f"search.algorithm is {experiment.search.algorithm!r}, which pauses trials, but "
            f"{trainable.path} defines no save_checkpoint; define save_checkpoint and "
            "load_checkpoint, or use random or grid"
        )


def _check_final(experiment: Experiment, trainable: Trainable) -> None:
    """Only a Task can be told to train on the validation data."""
    if experiment.final and experiment.final.data == "train+val" and not trainable.is_task:
        raise UserError(
            f"final.data is 'train+val', but {trainable.path} is a ray.tune.Trainable, and only a "
            "Task can be told to train on the validation data: --set final.data=train"
        )


def saves(trainable: Trainable) -> bool:
    """Whether a Ray Tune trainable writes checkpoints of its own."""
    from ray.tune import Trainable as TuneTrainable

    return bool(trainable.cls.save_checkpoint is not TuneTrainable.save_checkpoint)
