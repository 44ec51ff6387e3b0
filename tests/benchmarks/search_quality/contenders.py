"""Every search that is compared, run on a task for an equal number of epochs."""

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from tests.benchmarks.search_quality.peers import PEERS, Peer, Run
from tests.benchmarks.search_quality.tasks import Task
from tuner.search import SearchSettings, build_rule, build_sampler
from tuner.search.journal import NoJournal
from tuner.search.search import Search
from tuner.search.simulation import simulate

FULL_EVALUATIONS = 40
MANY = 10**6

OURS = (
    "asha", "asha+gp", "asha+tpe", "asha+kde",
    "bohb+random", "bohb+gp", "bohb+tpe", "bohb",
)  # fmt: skip
"""``algorithm+sampler``, as the settings name them."""
CONTENDERS = ("random", *OURS, *PEERS)


@dataclass
class Trace:
    """The incumbent's regret after each epoch trained.

    The incumbent is the configuration with the lowest loss among those seen at the highest epoch;
    its regret is what it would reach at max_epochs, whether it was trained so far or not.
    """

    task: Task
    regrets: list[float] = field(default_factory=list)
    _standing: tuple[float, float] = (0.0, math.inf)

    def add(self, config: dict[str, Any], epoch: int, loss: float) -> None:
        """One more epoch was trained."""
        if (-epoch, loss) < self._standing:
            self._standing = (-epoch, loss)
            self.regrets.append(self.task.regret(config))
        else:
            self.regrets.append(self.regrets[-1])


def run_contender(name: str, task: Task, seed: int, slots: int = 1) -> tuple[list[float], int]:
    """Regret after each epoch, (40 x max_epochs,), and configurations tried.

    No contender is given the default configuration, and none has a limit on its trials.
    """
    trace, epochs = Trace(task), FULL_EVALUATIONS * task.max_epochs
    if name in PEERS:
        trials = _drive(PEERS[name](task, seed), trace, slots, epochs)
    else:
        trials = _simulate(name, seed, trace, slots, epochs)
    return trace.regrets[:epochs], trials


def _simulate(name: str, seed: int, trace: Trace, slots: int, epochs: int) -> int:
    """One of ours: the very search that the product runs, without its baseline."""
    task = trace.task
    algorithm, _, sampler = name.partition("+")
    settings = SearchSettings.model_validate(
        {
            "algorithm": algorithm, "sampler": sampler or None, "metric": "loss", "mode": "min",
            "max_epochs": task.max_epochs, "reduction_factor": task.reduction_factor, "seed": seed,
        }
    )  # fmt: skip
    search = Search(
        build_sampler(settings, task.space),
        build_rule(settings, MANY),
        NoJournal(),
        num_trials=MANY,
        max_epochs=task.max_epochs,
        metric="loss",
        mode="min",
    )

    def listen(event: dict[str, Any], search: Search) -> None:
        if event["event"] == "result":
            config = search.trials[event["trial"]].config
            trace.add(config, event["epoch"], event["metrics"]["loss"])

    search.subscribe(listen)
    simulate(search, task.loss, slots=slots, time_budget=math.ceil(epochs / slots))
    return len(search.trials)


def _drive(peer: Peer, trace: Trace, slots: int, epochs: int) -> int:
    """Give a peer its slots until the epochs are spent; each takes the same simulated time."""
    running: list[tuple[int, int, Run]] = []
    now = order = trials = 0
    while len(trace.regrets) < epochs:
        while len(running) < slots and (run := peer.next_run()):
            order += 1
            trials += run.epoch == 0
            heappush(running, (now + 1, order, run))
        now, _, run = heappop(running)
        run.epoch += 1
        loss = trace.task.loss(run.config, run.epoch)
        trace.add(run.config, run.epoch, loss)
        if peer.report(run, loss):
            order += 1
            heappush(running, (now + 1, order, run))
    return trials
