"""A peer in the turnover benchmark: Syne Tune's local backend, one trial at a time.

``python -m tests.benchmarks.turnover_syne TRIALS plain|pausing FOLDER`` tells of every result when
it came, of which trial and epoch. A trial is a process that runs ``turnover_syne_script.py``; it is
paused by ending that, and resumed from its checkpoint, as syne-tune.readthedocs.io has it. The
tuner looks for results once in 0.05 s; its default, 5 s, would be most of what is measured.
"""

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import tell
from tests.benchmarks.turnover_toy import EPOCHS, LOWER, PAUSING, UPPER

try:
    from syne_tune import Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import loguniform
    from syne_tune.optimizer.baselines import RandomSearch
    from syne_tune.optimizer.scheduler import SchedulerDecision, TrialSuggestion
except ImportError as missing:
    raise SystemExit(f"Syne Tune is missing: pip install 'tuner[bench]' ({missing})") from missing

LOOK_SECONDS = 0.05


class Listed(RandomSearch):  # type: ignore[misc]
    """So many trials, which it notes the results of; it may give each one epoch at a time."""

    def __init__(self, trials: int, *, pausing: bool) -> None:
        space = {"lr": loguniform(LOWER, UPPER), "pausing": int(pausing)}
        super().__init__(space, metrics=["loss"], random_seed=0)
        self.left, self.pausing = trials, pausing
        self.waiting: deque[int] = deque()
        self.found: list[tuple[float, int, int]] = []

    def suggest(self) -> Any:
        """A new trial, or the one that has waited the longest."""
        if self.left:
            self.left -= 1
            return super().suggest()
        return TrialSuggestion.resume_suggestion(self.waiting.popleft()) if self.waiting else None

    def on_trial_result(self, trial: Any, result: dict[str, Any]) -> str:
        """Note it, and pause the trial, where that is wanted."""
        self.found.append((time.time(), trial.trial_id, result["epoch"]))
        if not self.pausing or result["epoch"] == EPOCHS:
            return str(SchedulerDecision.CONTINUE)
        self.waiting.append(trial.trial_id)
        return str(SchedulerDecision.PAUSE)

    def on_trial_complete(self, trial: Any, result: dict[str, Any]) -> None:
        """Note the last result, which comes here alone."""
        if (trial.trial_id, result["epoch"]) not in [found[1:] for found in self.found]:
            self.found.append((time.time(), trial.trial_id, result["epoch"]))
        super().on_trial_complete(trial, result)


def main() -> None:
    """Run one search."""
    trials, pausing, folder = int(sys.argv[1]), sys.argv[2] == PAUSING, Path(sys.argv[3])
    os.environ["SYNETUNE_FOLDER"] = str(folder)  # it writes to the home and here otherwise
    os.chdir(folder)
    scheduler = Listed(trials, pausing=pausing)
    tuner = Tuner(
        trial_backend=LocalBackend(str(Path(__file__).with_name("turnover_syne_script.py"))),
        scheduler=scheduler,
        stop_criterion=lambda status: status.num_trials_completed >= trials,
        n_workers=1,
        sleep_time=LOOK_SECONDS,
        save_tuner=False,
        trial_backend_path=str(folder / "trials"),
        wait_trial_completion_when_stopping=True,
    )
    tuner.run()
    tell(folder, scheduler.found)


if __name__ == "__main__":
    main()
