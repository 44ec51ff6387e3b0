"""What holds for every sampler that draws from a space, and what the models learn."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search_spaces import load_space, sample, to_configuration
from tests.conftest import EXAMPLES
from tuner.search import SearchSettings, build_sampler
from tuner.search.samplers.parzen import _Density
from tuner.search.samplers.sampler import SpaceSampler
from tuner.search.samplers.vectors import VectorSpace

EVERY_KIND = str(EXAMPLES / "every_kind.yaml")
SAMPLERS = ["random", "gp", "tpe", "kde"]
MODELS = ["gp", "tpe", "kde"]
OURS = ["gp", "tpe"]
SIX_POINTS = {
    "hyperparameters": {
        "a": {"type": "ordinal", "sequence": [1, 2, 3]},
        "b": {"type": "categorical", "choices": ["x", "y"]},
        "c": {"type": "constant", "value": 1},
        "d": {"type": "categorical", "choices": ["one"]},
    }
}


def make(name: str, space: Any = EVERY_KIND, seed: int = 0) -> SpaceSampler:
    settings = SearchSettings.model_validate({"algorithm": "asha", "sampler": name, "seed": seed})
    sampler = build_sampler(settings, load_space(space))
    assert isinstance(sampler, SpaceSampler)
    return sampler


def loss(config: dict[str, Any], budget: int = 1) -> float:
    return abs(math.log10(config["lr"]) + 2) / budget + 0.1 * (config["optimizer"] == "sgd")


def run(
    sampler: SpaceSampler,
    count: int,
    evaluate: Callable[[dict[str, Any]], float] = loss,
    budget: Callable[[int], int] = lambda number: (1, 3, 9)[number % 3],
) -> list[tuple[dict[str, Any], str]]:
    """Trials one after another, each told once."""
    trials = []
    for number in range(count):
        config, origin = sampler.propose(number)
        sampler.started(config)
        sampler.tell(config, budget(number), evaluate(config))
        trials.append((config, origin))
    return trials


@pytest.mark.parametrize("name", SAMPLERS)
class TestEverySampler:
    def test_nothing_is_proposed_twice_while_there_is_anything_else(self, name: str) -> None:
        trials = run(make(name, SIX_POINTS), 8, lambda config: float(config["a"]))
        assert len({json.dumps(config) for config, _ in trials[:6]}) == 6
        assert all(config["c"] == 1 and config["d"] == "one" for config, _ in trials)

    def test_what_the_user_tried_is_not_proposed_again(self, name: str) -> None:
        sampler = make(name, SIX_POINTS)
        given = sample(sampler.space, 1)
        sampler.started(given)
        assert given not in [config for config, _ in run(sampler, 5, lambda c: float(c["a"]))]

    def test_a_proposal_depends_on_what_was_heard_alone(self, name: str) -> None:
        asked, replayed = make(name), make(name)
        for number in range(40):
            config, _ = asked.propose(number)  # the other one is not asked: it hears a journal
            for sampler in (asked, replayed):
                sampler.started(config)
                sampler.tell(config, (1, 3, 9)[number % 3], loss(config))
        assert asked.propose(40) == replayed.propose(40)

    def test_a_space_of_one_point_has_that_point(self, name: str) -> None:
        one = {"hyperparameters": {"c": {"type": "constant", "value": 1}}}
        trials = run(make(name, one), 12, lambda _: 0.5)
        assert [config for config, _ in trials] == [{"c": 1}] * 12

    def test_failures_and_equal_losses_are_taken(self, name: str) -> None:
        run(make(name), 25, lambda config: math.inf if config["lr"] > 0.05 else 0.5)
        run(make(name), 25, lambda _: math.inf)


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_it_learns(self, name: str) -> None:
        learned, drawn = run(make(name), 60, budget=lambda _: 1), run(make("random"), 60)
        picks = [config for config, origin in learned if origin == "model"]
        assert len(picks) > 20
        middle = np.median([loss(config) for config in picks])
        assert middle < 0.7 * np.median([loss(config) for config, _ in drawn])

    def test_it_swallows_nothing(self, name: str) -> None:
        sampler = make(name)
        run(sampler, 60)
        assert getattr(sampler, "swallowed", 0) == 0


@pytest.mark.parametrize("name", OURS)
class TestOurModels:
    def test_low_rungs_teach_too(self, name: str) -> None:
        trials = run(make(name), 60, budget=lambda number: 9 if number == 0 else 1)
        picks = [loss(config) for config, origin in trials[30:] if origin == "model"]
        assert np.median(picks) < 0.4

    def test_what_failed_at_a_high_rung_is_no_example(self, name: str) -> None:
        def fragile(config: dict[str, Any]) -> float:
            return math.inf if config["lr"] > 0.03 else loss(config)

        high = iter(range(1000))
        trials = run(make(name), 60, fragile, lambda _: 9 if next(high) % 4 == 3 else 1)
        picks = [config["lr"] for config, origin in trials[30:] if origin == "model"]
        assert np.mean(np.array(picks) > 0.03) < 0.35  # 0.4 of the range fails

    def test_slots_that_wait_for_results_do_not_get_the_same(self, name: str) -> None:
        def spread(*, heard: bool) -> float:
            sampler = make(name)
            run(sampler, 12, budget=lambda _: 1)
            vectors, rows = VectorSpace(sampler.space), []
            for number in range(30, 50):
                config, _ = sampler.propose(number)
                rows.append(vectors.encode(config))
                if heard:
                    sampler.started(config)
            distances = vectors.squared_distances(np.array(rows), np.array(rows)).sum(axis=0)
            return float(np.mean(distances[np.triu_indices(20, 1)]))

        assert spread(heard=True) > 1.05 * spread(heard=False)

    def test_what_is_told_twice_is_one_configuration_at_two_rungs(self, name: str) -> None:
        sampler = make(name)
        for number in range(30):
            config, _ = sampler.propose(number)
            sampler.started(config)
            for budget in (1, 3):
                sampler.tell(config, budget, loss(config, budget))
        config, origin = sampler.propose(30)
        to_configuration(sampler.space, config)
        assert origin == "model"
        assert sampler.told == {1: 30, 3: 30}

    def test_its_cost_is_bounded(self, name: str) -> None:
        """The bound itself is for the benchmark; here only that 1,000 results do not blow it up."""
        sampler = make(name, "fine_tune")
        for seed in range(1000):
            config = sample(sampler.space, seed)
            sampler.started(config)
            sampler.tell(config, (1, 3, 9)[seed % 3], abs(math.log10(config["learning_rate"]) + 3))
        start = time.process_time()
        for number in range(1000, 1008):
            sampler.propose(number)
        assert time.process_time() - start < 8 * 0.5


def test_a_parzen_density_integrates_to_one() -> None:
    space = load_space(
        {
            "hyperparameters": {
                "x": {"type": "float", "lower": 0.0, "upper": 1.0},
                "level": {"type": "ordinal", "sequence": [1, 2, 3]},
                "kind": {"type": "categorical", "choices": ["a", "b"]},
            }
        }
    )
    vectors = VectorSpace(space)
    density = _Density(vectors, vectors.draw(7, np.random.default_rng(0)))
    uniform = vectors.draw(200_000, np.random.default_rng(1))
    assert np.mean(np.exp(density.log_density(uniform))) == pytest.approx(1.0, abs=0.02)
    drawn = density.draw(2000, np.random.default_rng(2))
    assert np.mean(density.log_density(drawn)) > np.mean(density.log_density(uniform[:2000])) + 0.2
