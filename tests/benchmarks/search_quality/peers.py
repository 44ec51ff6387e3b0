"""The peers, each run by its own objects, one epoch at a time under a simulated clock."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    FloatHyperparameter,
    OrdinalHyperparameter,
)

from search_spaces import plain
from search_spaces.convert import choices
from tests.benchmarks.search_quality.tasks import Task
from tuner.search.samplers.engine_space import EngineSpace


@dataclass
class Run:
    """One configuration on a slot: what the peer calls it, and how far it has come."""

    config: dict[str, Any]
    handle: Any = None
    epoch: int = 0
    until: int = 0
    """Where it leaves its slot by itself, if the peer plans so."""
    losses: dict[int, float] = field(default_factory=dict)


class Peer(Protocol):
    """A search that is asked for work and hears of results."""

    def next_run(self) -> Run | None:
        """What a free slot takes up; None where it has to wait."""

    def report(self, run: Run, loss: float) -> bool:
        """Hear the loss after ``run.epoch`` epochs; True: the run goes on."""


class Hpbandster:
    """hpbandster's BOHB: its model, its brackets and iterations, without its network."""

    def __init__(self, task: Task, seed: int) -> None:
        from hpbandster.optimizers.bohb import BOHB

        np.random.seed(seed)  # noqa: NPY002 - what hpbandster draws from
        self._encoding = EngineSpace(task.space)
        self._encoding.space.seed(seed)
        master = object.__new__(BOHB)  # without its dispatcher, which would open sockets
        master.config = {}
        self._patch(master, task)
        self._master, self._iterations = master, []
        self._known: dict[Any, Run] = {}

    def _patch(self, master: Any, task: Task) -> None:
        """What the constructor of BOHB sets, apart from the network's part."""
        from hpbandster.optimizers.config_generators.bohb import BOHB as Generator  # noqa: N811

        quiet = logging.Logger("hpbandster", logging.CRITICAL)  # noqa: LOG001
        eta, top = task.reduction_factor, task.max_epochs
        master.config_generator = Generator(self._encoding.space, logger=quiet)
        master.eta, master.min_budget, master.max_budget = eta, 1, top
        master.max_SH_iter = round(np.log(top) / np.log(eta)) + 1  # its own int() may lose one
        master.budgets = [top / eta**k for k in reversed(range(master.max_SH_iter))]
        self._quiet = quiet

    def next_run(self) -> Run | None:
        for iteration in self._iterations:
            if found := iteration.get_next_run():
                return self._run(iteration, *found)
        number = len(self._iterations)
        iteration = self._master.get_next_iteration(number, {"logger": self._quiet})
        self._iterations.append(iteration)
        return self._run(iteration, *iteration.get_next_run())

    def _run(self, iteration: Any, key: Any, values: Mapping[str, Any], budget: float) -> Run:
        if key not in self._known:
            self._known[key] = Run(plain(self._encoding.decode(values)))
        run = self._known[key]
        run.handle, run.until = (iteration, key, values, budget), round(budget)
        return run

    def report(self, run: Run, loss: float) -> bool:
        if run.epoch < run.until:
            return True
        iteration, key, values, budget = run.handle
        job = SimpleNamespace(
            id=key, kwargs={"budget": budget, "config": values}, timestamps={},
            result={"loss": loss}, exception=None,
        )  # fmt: skip
        iteration.register_result(job)
        self._master.config_generator.new_result(job)
        return False


class RayBOHB:
    """Ray's TuneBOHB and HyperBandForBOHB, called as Ray's controller calls them.

    That is: a result on which the scheduler says STOP reaches the searcher only through
    on_trial_complete, which drops it.
    """

    def __init__(self, task: Task, seed: int) -> None:
        from ray.tune.schedulers.hb_bohb import HyperBandForBOHB
        from ray.tune.search.bohb import TuneBOHB

        np.random.seed(seed)  # noqa: NPY002
        self._encoding = EngineSpace(task.space)
        self._searcher = TuneBOHB(self._encoding.space, metric="loss", mode="min", seed=seed)
        self._searcher.bohber.logger = logging.Logger("hpbandster", logging.CRITICAL)  # noqa: LOG001
        self._scheduler = HyperBandForBOHB(
            "training_iteration", "loss", "min", max_t=task.max_epochs,
            reduction_factor=task.reduction_factor,
        )  # fmt: skip
        self._trials: list[_Trial] = []
        self._runs: dict[_Trial, Run] = {}
        self.search_alg = SimpleNamespace(searcher=self._searcher)  # as the scheduler reaches it

    def get_trials(self) -> list["_Trial"]:
        return self._trials

    def stop_trial(self, trial: "_Trial") -> None:
        """Called by the scheduler of a paused trial."""
        trial.status = "TERMINATED"
        self._scheduler.on_trial_complete(self, trial, {})
        self._searcher.on_trial_complete(trial.trial_id, {})

    def next_run(self) -> Run | None:
        self._suggest_ahead()
        trial = self._scheduler.choose_trial_to_run(self)
        trial.status = "RUNNING"
        self._suggest_ahead()  # before its result, or a new trial could join a bracket at its end
        return self._runs[trial]

    def _suggest_ahead(self) -> None:
        """The controller keeps one trial pending."""
        if not any(trial.status == "PENDING" for trial in self._trials):
            self._suggest()

    def _suggest(self) -> None:
        trial = _Trial(f"{len(self._trials):05d}")
        values = self._searcher.suggest(trial.trial_id)
        config = plain(self._encoding.decode(values))
        self._trials.append(trial)
        self._runs[trial] = Run(config, trial)
        self._scheduler.on_trial_add(self, trial)

    def report(self, run: Run, loss: float) -> bool:
        trial, result = run.handle, {"training_iteration": run.epoch, "loss": loss}
        decision = self._scheduler.on_trial_result(self, trial, result)
        if decision == "STOP":
            trial.status = "TERMINATED"
            self._scheduler.on_trial_complete(self, trial, result)
            self._searcher.on_trial_complete(trial.trial_id, result)
            return False
        self._searcher.on_trial_result(trial.trial_id, result)
        if decision == "PAUSE":
            trial.status = "PAUSED"
        return bool(decision == "CONTINUE")


@dataclass(eq=False)
class _Trial:
    """What Ray's scheduler looks at of a trial."""

    trial_id: str
    status: str = "PENDING"
    is_saving: bool = False


class Optuna:
    """Optuna's TPE with one of its pruners, asked and told."""

    def __init__(self, task: Task, seed: int, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        pruners: dict[str, Callable[[], Any]] = {
            "sha": lambda: optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=task.reduction_factor
            ),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(
                1, task.max_epochs, task.reduction_factor
            ),
        }
        self._task, self._pruned = task, optuna.trial.TrialState.PRUNED
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=pruners[pruner](),
            study_name=f"seed {seed}",  # the hyperband pruner picks brackets by a hash of it
        )

    def next_run(self) -> Run | None:
        trial = self._study.ask()
        return Run(_suggest(self._task.space, trial), trial)

    def report(self, run: Run, loss: float) -> bool:
        run.handle.report(loss, run.epoch)
        if run.epoch == self._task.max_epochs:
            self._study.tell(run.handle, loss)
            return False
        if run.handle.should_prune():
            self._study.tell(run.handle, state=self._pruned)
            return False
        return True


def _suggest(space: Any, trial: Any) -> dict[str, Any]:
    """Optuna's values for what is active; levels of ordinals by their index."""
    config: dict[str, Any] = {}
    for name in space:
        hp = space[name]
        if not all(c.satisfied_by_value(config) for c in space.parent_conditions_of[name]):
            continue
        if isinstance(hp, CategoricalHyperparameter):
            config[name] = trial.suggest_categorical(name, list(hp.choices))
        elif isinstance(hp, OrdinalHyperparameter):
            levels = choices(hp)
            config[name] = levels[trial.suggest_int(name, 0, len(levels) - 1)]
        elif isinstance(hp, FloatHyperparameter):
            config[name] = trial.suggest_float(name, hp.lower, hp.upper, log=hp.log)
        else:
            config[name] = trial.suggest_int(name, hp.lower, hp.upper, log=hp.log)
    return config


PEERS: dict[str, Callable[[Task, int], Peer]] = {
    "hpbandster": Hpbandster,
    "ray": RayBOHB,
    "optuna+sha": lambda task, seed: Optuna(task, seed, "sha"),
    "optuna+hyperband": lambda task, seed: Optuna(task, seed, "hyperband"),
}
