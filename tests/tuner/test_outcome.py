from types import SimpleNamespace

import pytest

from tuner.outcome import logging_share


def search(*results: dict[int, dict[str, float]]) -> SimpleNamespace:
    return SimpleNamespace(trials=[SimpleNamespace(results=of_trial) for of_trial in results])


def test_a_long_epoch_counts_for_more_than_a_short_one() -> None:
    short = {"loss": 1.0, "logging/epoch_seconds": 1.0, "logging/seconds": 0.5}
    long = {"loss": 1.0, "logging/epoch_seconds": 99.0, "logging/seconds": 0.5}
    assert logging_share(search({1: short, 2: long}, {})) == pytest.approx(0.01)


def test_of_trials_that_log_nothing_there_is_nothing_to_say() -> None:
    assert logging_share(search({1: {"loss": 1.0}}, {})) is None
    own = {"loss": 1.0, "logging_seconds": 3.0, "epoch_seconds": 9.0, "logging/seconds": 2.0}
    assert logging_share(search({1: own})) is None
