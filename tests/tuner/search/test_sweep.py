"""Over (max_epochs, reduction_factor, num_trials, slots): no search hangs, none miscounts."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search_spaces import load_space
from tuner.search import SearchSettings, build_rule, build_search
from tuner.search.journal import NoJournal
from tuner.search.samplers.blank import BlankSampler
from tuner.search.search import Search
from tuner.search.simulation import simulate
from tuner.search.trial import Status

MAX_EPOCHS = (1, 2, 3, 9, 10, 27, 81, 100, 729)
REDUCTION_FACTORS = (2, 3, 4)
NUM_TRIALS = (1, 2, 7, 30)
SLOTS = (1, 2, 5)
X = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}}}

Evaluate = Callable[[dict[str, Any], int], float]


def well(config: dict[str, Any], epoch: int) -> float:
    return float(config["trial"] * 7919 % 31) + 1 / epoch


def with_failures(config: dict[str, Any], epoch: int) -> float:
    if config["trial"] % 5 == 1:
        raise ValueError("it does not fit")
    if config["trial"] % 5 == 3 and epoch > 2:
        return math.nan
    return well(config, epoch)


def make(algorithm: str, epochs: int, eta: int, trials: int) -> Search:
    """The search's own rule, for it is what is swept; trials are known by their numbers."""
    settings = SearchSettings.model_validate(
        {"algorithm": algorithm, "max_epochs": epochs, "reduction_factor": eta}
    )
    return Search(
        BlankSampler(),
        build_rule(settings, trials),
        NoJournal(),
        num_trials=trials,
        max_epochs=epochs,
        metric="loss",
        mode="min",
        default=None if algorithm == "grid" else {"trial": 0},
    )


def advances(search: Search) -> int:
    """Rungs that the baseline has passed; in a grid there is none."""
    passed = [level for level in search.rule.levels if level <= search.trials[0].epoch]
    return len(passed) - 1 if search.trials[0].is_baseline else 0


def check(search: Search, evaluate: Evaluate, trials: int) -> None:
    """What holds at every end; each result was heard once, for an epoch is never run again."""
    assert len(search.trials) == trials
    assert search.reached == search.sampler.told
    assert not search.active
    assert not [trial for trial in search.trials if trial.resumable]
    assert search.epochs_done == sum(trial.epoch for trial in search.trials)
    for trial in search.trials:
        assert list(trial.results) == list(range(1, trial.epoch + 1))
        assert trial.epoch <= search.max_epochs
        if trial.status is Status.COMPLETED:
            assert trial.epoch == search.max_epochs
    if evaluate is well:
        full = [trial for trial in search.trials if trial.epoch == search.max_epochs]
        assert len(full) >= min(trials, 2) or search.rule.levels == [search.max_epochs]
        assert search.reached.total() == trials + search.promotions + advances(search)
    else:
        failed = [trial for trial in search.trials if trial.status is Status.FAILED]
        assert {trial.number % 5 for trial in failed} <= {1, 3}
        assert len([t for t in failed if t.number % 5 == 1]) == len(range(1, trials, 5))


@pytest.mark.parametrize("evaluate", [well, with_failures])
@pytest.mark.parametrize("eta", REDUCTION_FACTORS)
@pytest.mark.parametrize("algorithm", ["asha", "bohb"])
def test_no_search_hangs(algorithm: str, eta: int, evaluate: Evaluate) -> None:
    for epochs, trials, slots in itertools.product(MAX_EPOCHS, NUM_TRIALS, SLOTS):
        search = make(algorithm, epochs, eta, trials)
        simulate(search, evaluate, slots=slots)
        check(search, evaluate, trials)


@pytest.mark.parametrize("evaluate", [well, with_failures])
@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_nor_does_one_that_decides_nothing(algorithm: str, evaluate: Evaluate) -> None:
    for epochs, trials, slots in itertools.product((1, 2, 9, 100), NUM_TRIALS, SLOTS):
        search = make(algorithm, epochs, 3, trials)
        simulate(search, evaluate, slots=slots)
        check(search, evaluate, trials)


def hear(sampler: Any) -> list[tuple[float, int]]:
    """The configurations and budgets that ``sampler`` learns of, from now on."""
    told: list[tuple[float, int]] = []
    learn = sampler.learn

    def listen(config: dict[str, Any], budget: int, loss: float) -> None:
        told.append((config["x"], budget))
        learn(config, budget, loss)

    sampler.learn = listen
    return told


@pytest.mark.parametrize("sampler", ["random", "gp", "tpe", "kde"])
@pytest.mark.parametrize("algorithm", ["asha", "bohb"])
def test_with_a_model_every_result_is_told_at_its_budget(algorithm: str, sampler: str) -> None:
    def evaluate(config: dict[str, Any], epoch: int) -> float:
        if config["x"] > 0.9:
            raise ValueError("too much")
        return math.nan if config["x"] < 0.1 else float(abs(config["x"] - 0.7) / epoch)

    for epochs, eta, slots in itertools.product((1, 10, 81), (2, 4), (1, 5)):
        settings = SearchSettings.model_validate(
            {
                "algorithm": algorithm, "sampler": sampler, "metric": "loss", "mode": "min",
                "num_trials": 20, "max_epochs": epochs, "reduction_factor": eta,
            }
        )  # fmt: skip
        search = build_search(settings, load_space(X), NoJournal())
        told = hear(search.sampler)
        simulate(search, evaluate, slots=slots)
        assert len(search.trials) == 20
        assert search.reached == search.sampler.told
        assert len(told) == len(set(told)) == search.reached.total(), "each once"
        assert search.sampler.swallowed == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
def test_brackets_that_are_alike_end_apart(slots: int) -> None:
    """Where all trials of a bracket fail, it ends before an older one with the same sizes."""
    for seed, epochs, share in itertools.product(range(60), (1, 3, 9), (0.3, 0.6, 0.9)):
        failing = np.random.default_rng(seed).random(40) < share

        def evaluate(config: dict[str, Any], epoch: int, failing: Any = failing) -> float:
            if failing[config["trial"]]:
                raise ValueError("it does not fit")
            return well(config, epoch)

        search = make("bohb", epochs, 3, 40)
        simulate(search, evaluate, slots=slots)
        assert {t.status for t in search.trials} <= {
            Status.COMPLETED, Status.FAILED, Status.STOPPED
        }  # fmt: skip
        assert [t.number for t in search.trials if t.status is Status.FAILED] == [
            n for n in range(40) if failing[n]
        ]


def test_many_trials_on_many_slots() -> None:
    """The figures for 100,000 trials are the benchmark's; this is the same code at 3,000."""
    search = make("asha", 81, 3, 3000)
    simulate(search, well, slots=200)
    check(search, well, 3000)
    assert search.promotions > 1000
