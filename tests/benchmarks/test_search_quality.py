"""What the benchmark of search quality counts, and what its tasks promise."""

from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import load_space, sample
from tests.benchmarks.search_quality.contenders import (
    FULL_EVALUATIONS,
    Trace,
    _drive,
    run_contender,
)
from tests.benchmarks.search_quality.curves import AXES, EPOCHS, WORST, load_table
from tests.benchmarks.search_quality.peers import RayBOHB, Run
from tests.benchmarks.search_quality.ratios import FLOOR, ratio
from tests.benchmarks.search_quality.tasks import CONDITIONAL_TASKS, Task, load_task

SPACE = load_space({"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0}}})
SURFACES = [name for names in CONDITIONAL_TASKS.values() for name in names]


def falling(config: dict[str, Any], epoch: int) -> float:
    """Ends at x after 9 epochs, from 9 - epoch above it."""
    return float(config["x"]) + 9 - epoch


TASK = Task("line", SPACE, max_epochs=9, reduction_factor=3, loss=falling, best=0.0)


class HalvingPair:
    """A peer that trains two configurations for an epoch, then takes up the better one for all."""

    def __init__(self) -> None:
        self.runs = [Run({"x": 0.5}), Run({"x": 0.25})]
        self.jobs = deque([(self.runs[0], 1), (self.runs[1], 1), (self.runs[1], 9)])
        self.heard: list[tuple[float, int]] = []

    def next_run(self) -> Run | None:
        if not self.jobs:
            return Run({"x": 0.75})
        run, run.until = self.jobs.popleft()
        return run

    def report(self, run: Run, loss: float) -> bool:
        assert loss == falling(run.config, run.epoch)
        self.heard.append((run.config["x"], run.epoch))
        return run.epoch < run.until


def test_a_resumed_configuration_costs_only_the_difference() -> None:
    peer, trace = HalvingPair(), Trace(TASK)
    _drive(peer, trace, slots=1, epochs=10)
    assert peer.heard == [(0.5, 1), (0.25, 1), *[(0.25, epoch) for epoch in range(2, 10)]]
    assert trace.regrets == [0.5] + 9 * [0.25]


@pytest.mark.parametrize("name", ["asha", "bohb+random"])
@pytest.mark.parametrize("slots", [1, 4])
def test_ours_train_no_epoch_twice(name: str, slots: int) -> None:
    epochs: Counter[tuple[float, int]] = Counter()

    def counted(config: dict[str, Any], epoch: int) -> float:
        epochs[config["x"], epoch] += 1
        return falling(config, epoch)

    regrets, trials = run_contender(name, replace(TASK, loss=counted), seed=0, slots=slots)
    assert len(regrets) == FULL_EVALUATIONS * TASK.max_epochs
    assert trials > FULL_EVALUATIONS
    earlier = {key: count for key, count in epochs.items() if key[1] < TASK.max_epochs}
    assert set(earlier.values()) == {1}  # at max_epochs the regret asks too


def test_random_search_trains_every_configuration_to_the_end() -> None:
    regrets, trials = run_contender("random", TASK, seed=0)
    assert trials == FULL_EVALUATIONS
    assert len(regrets) == FULL_EVALUATIONS * TASK.max_epochs


def test_the_incumbent_is_the_best_of_those_seen_furthest() -> None:
    trace = Trace(TASK)
    trace.add({"x": 0.5}, 1, 3.0)
    trace.add({"x": 0.125}, 1, 4.0)  # worse as far as was seen
    trace.add({"x": 0.75}, 2, 9.0)  # seen further
    trace.add({"x": 0.25}, 1, 0.0)  # not as far
    trace.add({"x": 0.375}, 2, 8.0)
    assert trace.regrets == [0.5, 0.5, 0.75, 0.75, 0.375]


def test_rays_brackets_hold_what_its_controller_would_give_them() -> None:
    """The brackets of max_t 9, three times over: none is entered again after its end."""
    peer, reached = RayBOHB(TASK, seed=0), Counter[int]()
    band = {1: 9 + 5 + 3, 3: 3 + 5 + 3, 9: 1 + 2 + 3}
    for _ in range(3 * (9 * 1 + 3 * 2 + 1 * 6 + 5 * 3 + 2 * 6 + 3 * 9)):
        if not any(trial.status == "RUNNING" for trial in peer.get_trials()):
            run = peer.next_run()
        assert run is not None
        run.epoch += 1
        reached[run.epoch] += 1
        peer.report(run, falling(run.config, run.epoch))
    assert {epoch: reached[epoch] for epoch in band} == {e: 3 * count for e, count in band.items()}


def test_a_search_is_as_good_as_itself() -> None:
    regrets = np.random.default_rng(0).lognormal(size=(3, 20))
    found = ratio(regrets, regrets, regrets)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_seeds_are_paired() -> None:
    regrets = np.random.default_rng(0).lognormal(size=(3, 20))
    found = ratio(regrets / 2, regrets, regrets)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_no_regret_at_all_counts_as_the_floor() -> None:
    regrets = np.ones((1, 20))
    assert ratio(0 * regrets, regrets, regrets).value == pytest.approx(FLOOR)
    assert ratio(0 * regrets, 0 * regrets, regrets).value == 1.0


@pytest.mark.parametrize("name", SURFACES)
def test_nothing_beats_the_best_of_a_surface(name: str) -> None:
    task, random = load_task(name), np.random.default_rng(0)
    configs = [sample(task.space, random) for _ in range(300)]
    assert min(task.regret(config) for config in configs) > 0
    assert {"momentum" in config for config in configs} == {True, False}
    assert all(("momentum" in c) == (c["optimizer"] == "sgd") for c in configs)
    assert all(("beta2" in c) == (c["optimizer"] == "adamw") for c in configs)


@pytest.mark.parametrize("name", SURFACES)
def test_the_best_of_a_surface_is_reached(name: str) -> None:
    random = np.random.default_rng(int(name[-1]))  # as the surface draws where its best is
    lr, decay, momentum, beta2, dropout, _ = random.uniform(0.25, 0.75, 6)
    optimizer, layers = str(random.choice(["adamw", "sgd"])), int(random.integers(2, 6))
    own = {"momentum": 0.99 * momentum} if optimizer == "sgd" else {"beta2": 0.9 + 0.099 * beta2}
    config = {
        "lr": 10 ** (5 * lr - 5), "weight_decay": 10 ** (6 * decay - 7), "optimizer": optimizer,
        "dropout": 0.8 * dropout, "layers": layers, "augment": "flip", **own,
    }  # fmt: skip
    assert load_task(name).regret(config) == pytest.approx(0.0, abs=1e-9)


def test_the_table_of_digits_has_the_axes_it_claims(tmp_path: Path) -> None:
    table = load_table("digits", tmp_path)
    assert table.shape == (8, 4, 4, 3, 5, 2, 2, 27) == (*map(len, AXES.values()), EPOCHS)
    assert table.dtype == np.float32
    assert table.min() > 0
    assert table.max() <= WORST
    task = load_task("digits")
    assert set(task.space) == set(AXES)
    first = {axis: values[0] for axis, values in AXES.items()}
    assert task.loss(first, 1) == table[0, 0, 0, 0, 0, 0, 0, 0]
    last = {axis: values[-1] for axis, values in AXES.items()}
    assert task.loss(last, 27) == table[-1, -1, -1, -1, -1, -1, -1, -1]
