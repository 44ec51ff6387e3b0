"""What a run leaves: the best model, the table of trials, and how to repeat it."""

import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.fields import read_metrics
from tuner.final import FinalFit
from tuner.search.search import Search
from tuner.search.trial import Trial
from tuner.storage import checkpoint_at, fetch_model
from tuner.trainable import SOURCE, Trainable, kept_source, resolve_trainable

PACKAGES = (
    *("tuner", "ray", "torch", "torchvision", "timm", "tokenizers", "ConfigSpace", "hpbandster"),
    "numpy",
)


@dataclass(frozen=True)
class Best:
    """Which model ``best/`` holds: a result of the search, or the final fit made after it."""

    trial: Trial
    """Of the search: what gave the configuration."""
    epoch: int
    """Of its best result."""
    final: FinalFit | None = None

    @property
    def checkpoint(self) -> Path | None:
        """Where the model lies in the run's storage, if it was saved."""
        fitted = self.final and self.final.result
        trial, epoch = (fitted, fitted.epoch) if fitted else (self.trial, self.epoch)
        return Path(trial.checkpoints[epoch]) if epoch in trial.checkpoints else None

    @property
    def origin(self) -> dict[str, Any]:
        """What tells it from every other model of the run."""
        origin: dict[str, Any] = {"trial": self.trial.number, "epoch": self.epoch}
        if self.final:
            origin |= {"final": True, "epochs": self.final.fit.epochs, "data": self.final.fit.data}
        return origin

    def is_told_by(self, facts: Mapping[str, Any]) -> bool:
        """Whether ``facts``, of a ``metrics.json``, are of this model."""
        known = {key: facts.get(key) for key in ("trial", "epoch", "final", "epochs", "data")}
        return {key: value for key, value in known.items() if value is not None} == self.origin

    @property
    def metrics(self) -> dict[str, Any]:
        """What is known of how good it is.

        The metrics of a fit that has trained on the validation data are named so: they are none to
        judge it by.
        """
        found = self.trial.results[self.epoch]
        fitted = self.final and self.final.result
        if not self.final or not fitted:
            return {"metrics": found}
        seen = self.final.fit.data != "train"
        own = "metrics_on_training_data" if seen else "metrics"
        return {"search_best": found, own: fitted.results[fitted.epoch]}


def choose_best(search: Search, final: FinalFit | None = None) -> Best | None:
    """The final fit, where it came to its end, else the best checkpoint of the search."""
    if final and final.result:
        return Best(final.of, final.of.best_epoch, final)
    found = best_checkpoint(search)
    return Best(*found) if found else None


def write_best(
    best: Best, experiment: Experiment, trainable: Trainable, test: Mapping[str, float]
) -> Path:
    """Write ``best/`` anew; ``test``: its score on test data, if there is one.

    The folder appears whole: it is written beside and renamed. Where the run's checkpoint of that
    model is lost, ``best/`` may have a whole one. A model in it is not given up for none.

    Raises:
        DamagedCheckpointError: neither has; ``best/`` is as it was.

    """
    from trainables.checkpoint import DamagedCheckpointError

    folder = experiment.folder / "best"
    if not best.checkpoint and (folder / "checkpoint").exists():
        return folder
    beside = folder.with_name(f".best.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    config = {**experiment.settings, **best.trial.config}
    try:
        _write_yaml(beside / "config.yaml", {"trainable": trainable.path, "config": config})
        write_metrics(best, beside, test)
        try:
            if best.checkpoint:
                with checkpoint_at(experiment.storage, best.checkpoint) as checkpoint:
                    _write_model(trainable, config, checkpoint, beside)
        except DamagedCheckpointError:
            if not _is_of(folder, best):
                raise
            _write_model(trainable, config, folder / "checkpoint", beside)
        write_source(trainable, beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # it may be what fills the disk
        raise
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def _is_of(folder: Path, best: Best) -> bool:
    """Whether ``best/`` has a checkpoint of that model, whole or not."""
    try:
        facts = read_metrics(folder)
    except UserError:
        return False
    return best.is_told_by(facts) and (folder / "checkpoint").is_dir()


def write_metrics(best: Best, folder: Path, test: Mapping[str, float]) -> None:
    """Write what is known of the model in ``folder``: where it comes from and how good it is."""
    facts = best.origin | best.metrics
    if test:
        facts["test"] = dict(test)
    write_json(folder / "metrics.json", facts)


def best_checkpoint(search: Search) -> tuple[Trial, int] | None:
    """The best (trial, epoch), among those whose checkpoint is kept where any is."""
    if search.best is None:
        return None
    if search.best.best_epoch in search.best.checkpoints:
        return search.best, search.best.best_epoch
    kept = [
        (search.sign * trial.results[epoch][search.metric], trial.number, trial, epoch)
        for trial in search.trials
        for epoch in trial.checkpoints
        if epoch in trial.results
    ]
    if not kept:
        return search.best, search.best.best_epoch
    _, _, trial, epoch = min(kept, key=lambda k: k[:2])
    return trial, epoch


def _write_model(
    trainable: Trainable, config: Mapping[str, Any], checkpoint: Path, folder: Path
) -> None:
    if not trainable.is_task:
        shutil.copytree(checkpoint, folder / "checkpoint")
        return
    from trainables.checkpoint import load_state
    from trainables.rank import build_config

    state = load_state(checkpoint)["task"]
    shutil.copytree(checkpoint, folder / "checkpoint")
    if export := getattr(trainable.cls, "export", None):
        export(build_config(trainable.cls, config), state, folder)


def load_model(path: str | Path) -> Any:
    """The model in a ``best/`` folder, or in a run's, on a disk or object storage, in eval mode.

    Of code, only the module that the folder's ``config.yaml`` names as trainable is imported: load
    no folder from someone you would not run code of.

    Raises:
        UserError: the folder holds no model, or the storage cannot be read.

    """
    folder = fetch_model(path)
    try:
        described = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        name = str(described["trainable"] or "")
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no model ({error}); give a run's folder or its best/"
        ) from error
    trainable = resolve_trainable(name, kept_source(name, folder))
    load = getattr(trainable.cls, "load", None)
    if not trainable.is_task or load is None:
        raise UserError(f"{folder}: {name} defines no load(), so there is no model to load")
    try:
        return load(folder)
    except (OSError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: the model cannot be loaded: {error}") from error


def write_trials(search: Search, path: Path) -> None:
    """One row a trial: number, state, epochs, origin, hyperparameters, the metrics at its best.

    A metric with the name of a hyperparameter is ``metric/NAME``.
    """
    hyperparameters = _names(trial.config for trial in search.trials)
    metrics = _names(trial.results.get(trial.best_epoch, {}) for trial in search.trials)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "trial",
                "state",
                "epochs",
                "best_epoch",
                "origin",
                *hyperparameters,
                *(f"metric/{name}" if name in hyperparameters else name for name in metrics),
                "error",
            ]
        )
        for trial in search.trials:
            best = trial.results.get(trial.best_epoch, {})
            writer.writerow(
                [
                    trial.number,
                    trial.status,
                    trial.epoch,
                    trial.best_epoch if trial.results else "",
                    trial.origin,
                    *(trial.config.get(name, "") for name in hyperparameters),
                    *(best.get(name, "") for name in metrics),
                    next(iter(trial.error["message"].splitlines()), "") if trial.error else "",
                ]
            )
    beside.replace(path)


def write_environment(folder: Path) -> None:
    """What is needed to repeat the run: versions, the machine, the git commit and what differs."""
    facts = {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
    }
    (folder / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")
    if diff := _git("diff", "HEAD"):
        (folder / "git.diff").write_text(diff + "\n")


def write_experiment(experiment: Experiment, space: Any) -> None:
    """The experiment as it runs: defaults and overrides filled in, the space written out."""
    from search_spaces import dump_space

    values = experiment.model_dump(mode="json") | {"search_space": dump_space(space)}
    _write_yaml(experiment.folder / "experiment.yaml", values)


def write_source(trainable: Trainable, folder: Path) -> None:
    """Copy a user's module of one file into ``folder``, so that this needs it from nowhere else.

    What belongs to a package, ours or the user's, must be there to be imported.
    """
    module = sys.modules[trainable.cls.__module__]
    if "." not in module.__name__ and module.__file__:
        (folder / SOURCE).mkdir(exist_ok=True)
        shutil.copy(module.__file__, folder / SOURCE)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the file appears whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _names(mappings: Any) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
    beside.replace(path)


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            ["git", *command],  # noqa: S607
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
