"""A peer in the turnover benchmark: Optuna, each trial a torchrun of 2 gloo ranks.

``python -m tests.benchmarks.turnover_optuna TRIALS plain FOLDER`` tells of every result when it
came, of which trial and epoch. Optuna runs no processes by itself, so the objective does, with the
command that pytorch.org/docs/stable/elastic/run.html gives for one node.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna

from tests.benchmarks.harness import tell
from tests.benchmarks.turnover_toy import LOWER, RANKS, UPPER

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}")
SCRIPT = ("-m", "tests.benchmarks.turnover_optuna_script")


def main() -> None:
    """Run one study."""
    trials, folder = int(sys.argv[1]), Path(sys.argv[3])
    results: list[tuple[float, int, int]] = []

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", LOWER, UPPER, log=True)
        written = folder / f"{trial.number}.json"
        subprocess.run([sys.executable, *TORCHRUN, *SCRIPT, str(lr), str(written)], check=True)
        found: dict[str, Any] = json.loads(written.read_text())
        results.extend((at, trial.number, epoch) for epoch, at in enumerate(found["times"], 1))
        return float(found["loss"])

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=trials)
    tell(folder, results)


if __name__ == "__main__":
    main()
