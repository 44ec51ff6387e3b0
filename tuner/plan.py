"""What a search will cost, before it is run: simulated epochs times what one epoch takes here."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean
from time import perf_counter
from typing import Any

from tuner.cluster import cluster, count_slots, fitting_slots, joined
from tuner.errors import InterruptedRunError
from tuner.experiment import Experiment, Final, Stop
from tuner.output import captured
from tuner.run import Summary, start_run
from tuner.search.journal import JOURNAL, read_journal
from tuner.search.settings import SearchSettings
from tuner.search.simulation import blank_search, simulate
from tuner.trainable import Trainable

SIMULATIONS = 20
PROBE_EPOCHS = 2
"""The first one builds the model and the group; the last one is what an epoch takes."""


@dataclass(frozen=True)
class Costs:
    """What one epoch, one checkpoint and one model take here, and how many trials run at once.

    The parts that were not measured are zero.
    """

    slots: int
    epoch_seconds: float
    startup_seconds: float = 0.0
    checkpoint_bytes: int = 0
    best_bytes: int = 0


@dataclass(frozen=True)
class Amount:
    """Epochs, and the seconds that all slots together take for them."""

    epochs: float
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """The mean over simulated searches, and the most that the search can come to."""

    expected: Amount
    most: Amount


def forecast(
    settings: SearchSettings, num_trials: int, costs: Costs, final: Final | None = None
) -> Forecast:
    """Run the search's own rule on trials of random quality, and on the costliest order of them.

    That is each trial better than all before it: asha then promotes nearly every one. A ``final``
    fit follows on one slot; it is taken to be as long as a full trial where its epochs are open.
    """
    random = Random(settings.seed)
    runs = [
        _simulate(settings, num_trials, costs, {n: random.random() for n in range(num_trials)}.get)
        for _ in range(SIMULATIONS)
    ]
    ascending = _simulate(settings, num_trials, costs, float)
    expected = Amount(mean(run.epochs for run in runs), mean(run.seconds for run in runs))
    everything = [*runs, ascending]
    most = Amount(max(run.epochs for run in everything), max(run.seconds for run in everything))
    after = (final.epochs or settings.max_epochs) if final else 0
    return Forecast(*(_longer(amount, after, costs) for amount in (expected, most)))


def _longer(amount: Amount, epochs: int, costs: Costs) -> Amount:
    return Amount(amount.epochs + epochs, amount.seconds + epochs * costs.epoch_seconds)


def _simulate(
    settings: SearchSettings, num_trials: int, costs: Costs, quality: Callable[[int], Any]
) -> Amount:
    took = simulate(
        blank_search(settings, num_trials),
        lambda config, _: float(quality(config["trial"])),
        slots=costs.slots,
        epoch_seconds=costs.epoch_seconds,
    )
    return Amount(took.epochs, took.seconds + costs.startup_seconds)


def disk_bytes(settings: SearchSettings, num_trials: int, costs: Costs) -> tuple[int, int]:
    """What the run folder holds, expected and at most.

    A trial that is over keeps the checkpoint of its best epoch, one that may go on also its latest.
    """
    pauses = settings.algorithm in ("asha", "bohb")
    second = num_trials if pauses else min(costs.slots, num_trials)
    kept = num_trials * costs.checkpoint_bytes + costs.best_bytes
    return kept, kept + second * costs.checkpoint_bytes


def probe(experiment: Experiment, address: str | None, folder: Path | None) -> Costs:
    """Run two epochs of the default configuration, as the run would, in a temporary folder.

    Raises:
        UserError: they fail; the folder, which the message names, is kept.
        KeyboardInterrupt: Ctrl-C.

    """
    storage = Path(tempfile.mkdtemp(prefix="tuner-plan-"))
    once: dict[str, Any] = {
        "algorithm": "random",
        "sampler": None,
        "initial": [],
        "warm_start": [],
        "num_trials": 1,
        "max_epochs": PROBE_EPOCHS,
    }
    trial = experiment.model_copy(
        update={
            "name": "probe",
            "storage": str(storage),
            "search": experiment.search.model_copy(update=once),
            "stop": Stop(),
            "final": None,
        }
    )
    started = perf_counter()
    try:
        with captured(storage / "terminal.log"):
            summary = start_run(trial, address=address, folder=folder, test=False)
    except InterruptedRunError:
        shutil.rmtree(storage)
        raise KeyboardInterrupt from None
    costs = _measured(summary, perf_counter() - started)
    shutil.rmtree(storage)
    return costs


def _measured(summary: Summary, seconds: float) -> Costs:
    """What the probe tells: from result to result, so with the checkpoint that lies in between."""
    (trial,) = summary.search.trials
    events = read_journal(summary.folder / JOURNAL)
    times = [event["time"] for event in events if event["event"] == "result"]
    epoch_seconds = times[-1] - times[-2] if len(times) > 1 else trial.results[1]["seconds"]
    return Costs(
        slots=summary.slots,
        epoch_seconds=epoch_seconds,
        startup_seconds=max(0.0, seconds - len(times) * epoch_seconds),
        checkpoint_bytes=max((_size(Path(path)) for path in trial.checkpoints.values()), default=0),
        best_bytes=_size(summary.best) if summary.best else 0,
    )


def find_slots(experiment: Experiment, trainable: Trainable, address: str | None) -> int:
    """How many trials run at once, on the cluster at ``address`` or on this machine.

    Raises:
        UserError: not even one does, or no cluster answers.

    """
    resources = experiment.resources
    bundles, limit = trainable.bundles(resources), resources.max_concurrent_trials
    if joined(address):
        with cluster(address):
            return count_slots(bundles, limit)
    import torch

    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    if resources.accelerator_type:
        here[f"accelerator_type:{resources.accelerator_type}"] = 1.0  # Ray alone knows for sure
    return fitting_slots(bundles, [here], limit)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
