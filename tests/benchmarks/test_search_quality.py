"""The accounting of the benchmark; its figures are for a user to run."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from search_spaces import load_space, sample
from tests.benchmarks.search_quality.contenders import CONTENDERS, Trace, run_contender
from tests.benchmarks.search_quality.curves import AXES, load_table
from tests.benchmarks.search_quality.peers import RayBOHB
from tests.benchmarks.search_quality.ratios import ratio
from tests.benchmarks.search_quality.tasks import CACHE, FAMILIES, Task, load_task

X = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0}}}


def made_up() -> Task:
    def loss(config: dict[str, Any], epoch: int) -> float:
        return float(config["x"] + 1 / epoch)

    return Task("made_up", load_space(X), 9, 3, loss, 1 / 9)


def test_the_incumbent_is_the_best_of_those_that_came_furthest() -> None:
    trace = Trace(made_up())
    for x, epoch in ((0.5, 1), (0.3, 1), (0.5, 2), (0.1, 1), (0.3, 2)):
        trace.add({"x": x}, epoch, trace.task.loss({"x": x}, epoch))
    assert trace.regrets == pytest.approx([0.5, 0.3, 0.5, 0.5, 0.3])


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("contender", [c for c in CONTENDERS if c != "asha+kde"])
def test_every_contender_spends_the_same_epochs(contender: str, slots: int) -> None:
    pytest.importorskip("optuna" if contender.startswith("optuna") else "hpbandster")
    task, trained = made_up(), []

    def loss(config: dict[str, Any], epoch: int) -> float:
        trained.append((config["x"], epoch))
        return task.loss(config, epoch)

    counted = Task("counted", task.space, 9, 3, loss, task.best)
    regrets, trials = run_contender(contender, counted, seed=0, slots=slots)
    assert len(regrets) == 40 * 9
    assert trials >= 40 - slots
    epochs = [pair for pair in trained if pair[1] < 9]  # regrets ask for the last one besides
    assert len(epochs) == len(set(epochs)), "an epoch is never trained twice: resuming is free"
    first = min(regrets[:9])
    assert regrets[-1] <= first


def test_the_same_seed_gives_the_same() -> None:
    for contender in ("asha+gp", "hpbandster", "ray"):
        again = [run_contender(contender, made_up(), seed=3)[0] for _ in range(2)]
        assert again[0] == again[1]


def test_rays_brackets_hold_what_its_controller_would_give_them() -> None:
    """The brackets of max_t 9, three times over: none is entered again after its end."""
    peer, reached = RayBOHB(made_up(), seed=0), Counter[int]()
    trials_by_level = {1: 9 + 5 + 3, 3: 3 + 5 + 3, 9: 1 + 2 + 3}
    epochs = 9 * 1 + 3 * 2 + 1 * 6 + 5 * 3 + 2 * 6 + 3 * 9
    for _ in range(3 * epochs):
        if not any(trial.status == "RUNNING" for trial in peer.get_trials()):
            run = peer.next_run()
        assert run is not None
        run.epoch += 1
        reached[run.epoch] += 1
        peer.report(run, made_up().loss(run.config, run.epoch))
    assert {e: reached[e] for e in trials_by_level} == {
        e: 3 * n for e, n in trials_by_level.items()
    }


def test_a_search_is_level_with_itself_and_half_of_it_is_half() -> None:
    random = np.random.default_rng(0).random((3, 20)) + 0.1
    same = ratio(random, random, random)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
    assert ratio(random / 2, random, random).value == pytest.approx(0.5)
    assert ratio(0 * random, random, random).value == pytest.approx(0.01), "no infinite ratios"


def test_the_table_of_digits_has_the_axes_it_says() -> None:
    table = load_table("digits", CACHE)
    assert table.shape == (*map(len, AXES.values()), 27)
    assert 0 < table.min() < table.max() <= 5


@pytest.mark.parametrize("name", [n for half in FAMILIES["conditional"].values() for n in half])
def test_the_best_of_a_surface_is_never_beaten(name: str) -> None:
    task = load_task(name)
    regrets = [task.regret(sample(task.space, seed)) for seed in range(2000)]
    assert 0 < min(regrets) < 0.2 < np.median(regrets)
