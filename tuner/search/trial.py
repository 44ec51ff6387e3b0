"""The records a search is made of: a trial, its status, and what to do with it next."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    """Ran as far as the search wanted: to max_epochs, or to where it ended by itself."""
    STOPPED = "stopped"
    """Paused at a rung and not promoted, or cut off when the whole search was halted."""
    FAILED = "failed"


class Decision(StrEnum):
    """What a running trial does after a report."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


BASELINE = -1
"""The bracket of the default configuration: it runs to max_epochs, whatever the rule decides."""


@dataclass(eq=False)
class Trial:
    """One configuration on its way.

    ``target`` is the epoch at which the search decides about it next, ``loss`` the metric at the
    last reported epoch, turned so that less is better.
    """

    number: int
    config: dict[str, Any]
    origin: str
    """Who proposed it: default, given, earlier, grid, random or model."""
    target: int
    bracket: int = 0
    slot: int = 0
    status: Status = Status.RUNNING
    epoch: int = 0
    loss: float = math.inf
    best_epoch: int = 0
    best_loss: float = math.inf
    results: dict[int, dict[str, float]] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)
    """Epoch -> where its checkpoint lies; only those that are kept."""
    checkpoint_bytes: dict[int, int] = field(default_factory=dict)
    """Epoch -> what the checkpoint takes, of those that are kept."""
    attempts: int = 1
    """Times it was put on a slot. Each may be a new Tune trial, with a folder of its own."""
    faults: int = 0
    error: dict[str, Any] | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is there for the others to be compared with, outside the rule."""
        return self.bracket == BASELINE

    @property
    def checkpoint(self) -> tuple[int, str] | None:
        """Epoch and path of the latest to go on from; before the best epoch, if it is over."""
        fitting = [e for e in self.checkpoints if self.resumable or e < self.best_epoch]
        return (max(fitting), self.checkpoints[max(fitting)]) if fitting else None

    @property
    def resumable(self) -> bool:
        """Whether the trial could still go on."""
        return self.status in (Status.RUNNING, Status.PAUSED)


def trial_seed(seed: int, number: int) -> int:
    """Seeds that have nothing in common, the same in every session."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
