"""Which trials are said to hold more and more memory, and of what."""

from typing import Any

import pytest

from tuner.callbacks.growth import QUESTION, describe_growth, growth
from tuner.search.trial import Trial


def trial(number: int, **metrics: float) -> Trial:
    results: dict[int, Any] = {1: {"loss": 1.0}, 2: {"loss": 1.0, **metrics}, 3: {"loss": 1.0}}
    return Trial(number, {}, "random", target=3, results=results)


@pytest.mark.parametrize(
    ("metrics", "more"),
    [
        ({}, None),
        ({"tensor_growth": 0, "memory_growth_mb": 0}, None),
        ({"memory_growth_mb": 3.2}, "3 more MB of memory"),
        ({"tensor_growth": 12, "memory_growth_mb": 3.2}, "12 more tensors"),
    ],
)
def test_tensors_tell_more_than_megabytes(metrics: dict[str, float], more: str | None) -> None:
    assert growth(trial(0, **metrics).results.values()) == more


def test_of_many_trials_the_first_is_told() -> None:
    few, grown = trial(0), [trial(number, tensor_growth=10 + number) for number in (2, 4, 5)]

    assert describe_growth([few]) is None
    assert describe_growth([few, grown[0]]) == (
        f"trial 2 held 12 more tensors, more with each epoch: {QUESTION}"
    )
    assert describe_growth([few, *grown]) == (
        "3 trials held more memory with each epoch, the first (trial 2) 12 more tensors: "
        f"{QUESTION}"
    )
