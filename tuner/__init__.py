"""Hyperparameter tuning on Ray Tune with warm, distributed trials."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables import Context, Task
    from tuner.errors import InterruptedRunError, UserError
    from tuner.experiment import Experiment, load_experiment
    from tuner.results import load_model
    from tuner.run import Summary, resume_run, start_run

__all__ = [
    "Context",
    "Experiment",
    "InterruptedRunError",
    "Summary",
    "Task",
    "UserError",
    "load_experiment",
    "load_model",
    "resume_run",
    "start_run",
]

_MODULES = {
    "Context": "trainables",
    "Experiment": "tuner.experiment",
    "InterruptedRunError": "tuner.errors",
    "Summary": "tuner.run",
    "Task": "trainables",
    "UserError": "tuner.errors",
    "load_experiment": "tuner.experiment",
    "load_model": "tuner.results",
    "resume_run": "tuner.run",
    "start_run": "tuner.run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: torch and Ray take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
